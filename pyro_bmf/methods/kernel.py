r"""The exact conditional of one side's rows given the other side, for all rows at once.

With utilities :math:`z_{ij} = f_j \cdot u_i + o_j + \epsilon`, :math:`\epsilon \sim N(0, 1 / (\tau w_i
w'_j))`, where :math:`f_j = [v_j, 1]` (the one for the row's bias), :math:`o_j` the centre and the other
side's bias, and the prior :math:`u_i \sim N(m_i, \Lambda^{-1})`,

.. math::

   u_i \mid V \sim N\left(P_i^{-1} (\Lambda m_i + h_i), P_i^{-1}\right), \quad
   P_i = \Lambda + S_i, \quad
   S_i = \tau w_i \sum_j w'_j f_j f_j^T, \quad h_i = \tau w_i \sum_j w'_j f_j (z_{ij} - o_j).

The sums are embedding bags over the stored rows; nothing is users x items, and no row is looped over. Where
the other side is itself uncertain, the same holds with :math:`E[f_j f_j^T]` (coordinate ascent).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.feedback import Feedback
from ..numerics import factorise, room
from ..numerics.chunks import chunks
from ..numerics.segment_sums import Pieces, Segments, bag_sum, device_pieces, segment_sum
from .streamed import CHUNK, row_parts, streamed, with_host

#: How far a prior's precision may be rounded before what ratings say is made in float64 (`tight`).
_ROUNDED = 2.0**-6
#: Numbers in each table of one chunk of rows' matrices.
_CELLS = 1_000_000


@dataclass(frozen=True, eq=False)
class Entries:
    """Observed pairs from one side's view: compressed rows, and the same pairs from the other side's.

    Attributes
    ----------
    n_rows, n_columns : int
    indptr, indices : Tensor
        Row i owns entries ``indptr[i]:indptr[i + 1]``, whose columns are `indices`.
    rows : Tensor, shape (nnz,), int32
        Row of each entry.
    t_indptr, t_indices : Tensor
        The other side's view.
    root_counts : Tensor, shape (n_rows,)
        One over the root of each row's number of entries (of one, for a row without).
    edges, t_edges : ndarray, shape (n_rows + 1,) and (n_columns + 1,)
        `indptr` and `t_indptr` where the host reads them without waiting for the device.
    pieces, t_pieces : Pieces or None
        Of `indptr` and `t_indptr`, on devices that need them.
    host_chunk : int
        Where `indices`, `rows` and `t_indices` lie with the host: how many entries of them are on the device
        at a time (`pyro_bmf.methods.streamed`). 0 where they are on the device.
    """

    n_rows: int
    n_columns: int
    indptr: Tensor
    indices: Tensor
    rows: Tensor
    t_indptr: Tensor
    t_indices: Tensor
    root_counts: Tensor
    edges: NDArray[np.int32]
    t_edges: NDArray[np.int32]
    pieces: Pieces | None
    t_pieces: Pieces | None
    host_chunk: int = 0

    @classmethod
    def build(
        cls, indptr: Tensor, indices: Tensor, t_indptr: Tensor, t_indices: Tensor, dtype: torch.dtype
    ) -> Entries:
        """Make the view of the rows whose compressed form this is."""
        counts = indptr.diff()
        rows = torch.repeat_interleave(
            torch.arange(len(counts), dtype=torch.int32, device=indptr.device),
            counts.long(),
            output_size=indices.numel(),
        )
        return cls(
            n_rows=len(counts),
            n_columns=t_indptr.numel() - 1,
            indptr=indptr,
            indices=indices,
            rows=rows,
            t_indptr=t_indptr,
            t_indices=t_indices,
            root_counts=_root_counts(indptr, dtype),
            edges=indptr.cpu().numpy(),
            t_edges=t_indptr.cpu().numpy(),
            pieces=device_pieces(indptr),
            t_pieces=device_pieces(t_indptr),
        )

    @classmethod
    def of(cls, feedback: Feedback, dtype: torch.dtype) -> Entries:
        """Make the view of the rows of `feedback`."""
        return cls.build(feedback.indptr, feedback.indices, feedback.t_indptr, feedback.t_indices, dtype)

    @classmethod
    def of_transpose(cls, feedback: Feedback, dtype: torch.dtype) -> Entries:
        """Make the view of the columns of `feedback`: their entries are those at its `t_order`."""
        return cls.build(feedback.t_indptr, feedback.t_indices, feedback.indptr, feedback.indices, dtype)

    def streaming(self, device: torch.device, chunk: int = CHUNK) -> Entries:
        """Return the same pairs, of a CPU, for a device that holds only so many of them at a time."""
        indptr, t_indptr = self.indptr.to(device), self.t_indptr.to(device)
        return replace(
            self,
            indptr=indptr,
            indices=with_host(self.indices, device),
            rows=with_host(self.rows, device),
            t_indptr=t_indptr,
            t_indices=with_host(self.t_indices, device),
            # There, and not moved: a card rounds roots in a way of its own.
            root_counts=_root_counts(indptr, self.root_counts.dtype),
            pieces=device_pieces(indptr),
            t_pieces=device_pieces(t_indptr),
            host_chunk=chunk,
        )

    def sum(self, table: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sum the table's rows (n_columns, width) over each row's entries, weighted: (n_rows, width)."""
        if self.host_chunk:
            return self.part_sum(slice(0, self.n_rows), table.contiguous(), weights)
        return bag_sum(table.contiguous(), self.indices, self.indptr, weights, self.pieces)

    def part_sum(self, part: slice, table: Tensor, weights: Tensor | None = None) -> Tensor:
        """Do as `sum` for some rows, (n_part, width), of a table that is contiguous."""
        return self._part_sum(part, self.edges, self.indptr, self.indices, self.pieces, table, weights)

    def _part_sum(
        self,
        part: slice,
        edges: NDArray[np.int32],
        indptr: Tensor,
        indices: Tensor,
        pieces: Pieces | None,
        table: Tensor,
        weights: Tensor | None,
    ) -> Tensor:
        """Sum over some rows of this view or of the other side's."""

        def summed(rows: slice, at: Tensor) -> Tensor:
            first = int(edges[rows.start])
            own = None if weights is None else weights[first : int(edges[rows.stop])]
            cut = None if pieces is None else pieces.part(rows, first)
            return bag_sum(table, at, indptr[rows.start : rows.stop + 1] - first, own, cut)

        if not self.host_chunk:
            return summed(part, indices[int(edges[part.start]) : int(edges[part.stop])])
        parts = row_parts(edges, part, self.host_chunk)
        entries = [slice(int(edges[one.start]), int(edges[one.stop])) for one in parts]
        found = table.new_zeros(part.stop - part.start, table.shape[1])
        for rows, (at,) in zip(parts, streamed(entries, (indices,), table.device), strict=True):
            found[rows.start - part.start : rows.stop - part.start] = summed(rows, at)
        return found

    def pairs(self, size: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Give runs of at most so many entries with the row and the column of each, on the device."""
        if self.host_chunk:
            parts = list(chunks(len(self.rows), min(size, self.host_chunk)))
            found = streamed(parts, (self.rows, self.indices), self.indptr.device)
            for part, (rows, columns) in zip(parts, found, strict=True):
                yield part, rows.long(), columns.long()
            return
        for part in chunks(len(self.rows), size):
            yield part, self.rows[part].long(), self.indices[part].long()

    def at_rows(self, values: Tensor) -> Tensor:
        """Return each entry's row's number of (n_rows,): (nnz,)."""
        return self._at(values, self.rows)

    def at_columns(self, values: Tensor) -> Tensor:
        """Return each entry's column's number of (n_columns,): (nnz,)."""
        return self._at(values, self.indices)

    def _at(self, values: Tensor, index: Tensor) -> Tensor:
        if not self.host_chunk:
            return values.index_select(0, index)
        found, parts = values.new_empty(len(index)), list(chunks(len(index), self.host_chunk))
        for part, (at,) in zip(parts, streamed(parts, (index,), values.device), strict=True):
            found[part] = values[at.long()]
        return found

    def row_sums(self, values: Tensor) -> Tensor:
        """Return the sum of each row's own numbers (nnz,), in their dtype: (n_rows,)."""
        return segment_sum(values, self.segments)

    @property
    def segments(self) -> Segments:
        """The rows as segments of their entries."""
        return Segments(self.rows, self.indptr.int(), None, self.pieces)

    def sum_back(self, table: Tensor) -> Tensor:
        """Sum the table's rows (n_rows, width) over each column's entries: (n_columns, width)."""
        if self.host_chunk:
            every, table = slice(0, self.n_columns), table.contiguous()
            return self._part_sum(
                every, self.t_edges, self.t_indptr, self.t_indices, self.t_pieces, table, None
            )
        return bag_sum(table.contiguous(), self.t_indices, self.t_indptr, None, self.t_pieces)

    def means(self, weights: Tensor) -> Tensor:
        """Return the implicit-feedback means: sums of weights by the root of the count, (n_rows, width)."""
        return self.sum(weights) * self.root_counts.unsqueeze(-1)

    def means_back(self, table: Tensor) -> Tensor:
        """Return the transpose of `means`."""
        return self.sum_back(table * self.root_counts.unsqueeze(-1))


def _root_counts(indptr: Tensor, dtype: torch.dtype) -> Tensor:
    """Return one over the root of the number of entries of each row, of one for a row without: (n_rows,)."""
    return indptr.diff().to(dtype).clamp_min(1.0).rsqrt()


def outer_products(features: Tensor) -> Tensor:
    """Return f f^T of each row of (n, D), flattened: (n, D * D)."""
    return (features.unsqueeze(2) * features.unsqueeze(1)).flatten(1)


class RowConditional(Protocol):
    """Normal conditionals of all rows of one side, in whatever form: `Conditional`, `FewConditional`."""

    @property
    def linear(self) -> Tensor:
        """h_i: what the ratings say, (n, D)."""

    def solve(self, vectors: Tensor) -> Tensor:
        """Return P_i^{-1} x_i for (n, D)."""

    def mean(self, prior_mean: Tensor) -> Tensor:
        """Return the conditional means for prior means (n, D) or (D,)."""

    def spread(self, standard: Tensor) -> Tensor:
        """Turn standard Normal draws (n, D) into draws with covariance P_i^{-1}."""

    def covariance(self) -> Tensor:
        """Return P_i^{-1}, shape (n, D, D)."""


@dataclass(frozen=True, eq=False)
class Conditional:
    """Normal conditionals of all rows of one side.

    Attributes
    ----------
    prior_precision : Tensor, shape (D, D), or (n, D, D)
    precision_tril : Tensor, shape (n, D, D)
        Lower Cholesky factors of P_i.
    linear : Tensor, shape (n, D)
        h_i: what the ratings say.
    inverse : Tensor or None, shape (n, D, D)
        P_i^{-1}, where products with it are faster than triangles, and can be recorded: on a card.
    """

    prior_precision: Tensor
    precision_tril: Tensor
    linear: Tensor
    inverse: Tensor | None = None

    @classmethod
    def of_root(cls, prior_precision: Tensor, precision_tril: Tensor, linear: Tensor) -> Conditional:
        """Make them of the Cholesky factors of P_i."""
        inverse = factorise.inverse_of_root(precision_tril) if room.waits(linear.device) else None
        return cls(prior_precision, precision_tril, linear, inverse)

    @classmethod
    def of(
        cls, prior_precision: Tensor, information: Tensor, linear: Tensor, *, checked: bool = True
    ) -> Conditional:
        """Join a prior and the ratings' information S (n, D, D) and h (n, D).

        Unless it is `checked`, a precision that is not positive definite has NaN for a factor; a card's host
        does not wait then.
        """
        factor = torch.linalg.cholesky if checked else factorise.cholesky
        return cls.of_root(prior_precision, factor(information + prior_precision), linear)

    def solve(self, vectors: Tensor) -> Tensor:
        """Return P_i^{-1} x_i for (n, D)."""
        if self.inverse is not None:
            return (self.inverse @ vectors.unsqueeze(-1)).squeeze(-1)
        return torch.cholesky_solve(vectors.unsqueeze(-1), self.precision_tril).squeeze(-1)

    def mean(self, prior_mean: Tensor) -> Tensor:
        """Return the conditional means for prior means (n, D) or (D,)."""
        if self.prior_precision.dim() == 3:  # rows with priors of their own
            return self.solve(self.linear + (self.prior_precision @ prior_mean.unsqueeze(-1)).squeeze(-1))
        return self.solve(self.linear + prior_mean @ self.prior_precision)

    def spread(self, standard: Tensor) -> Tensor:
        """Turn standard Normal draws (n, D) into draws with covariance P_i^{-1}."""
        return _solve_triangular(self.precision_tril.mT, standard.unsqueeze(-1), upper=True).squeeze(-1)

    def covariance(self) -> Tensor:
        """Return P_i^{-1}, shape (n, D, D)."""
        return factorise.inverse_of_root(self.precision_tril) if self.inverse is None else self.inverse

    def mean_precision(self, information: Tensor, out: Tensor | None = None) -> Tensor:
        r"""Return :math:`G_i = \Lambda - \Lambda P_i^{-1} \Lambda`, (n, D, D).

        With u_i integrated out, what row i's ratings say of its prior mean m_i is Normal with this precision.
        The difference would be off by what rounds :math:`\Lambda`, and where a prior is narrow that is more
        than all that ratings say. As :math:`X_i = P_i^{-1} \Lambda` and :math:`I - X_i = P_i^{-1} S_i`,

        .. math:: G_i = X_i^T S_i X_i + (I - X_i)^T \Lambda (I - X_i),

        a sum of two that are never negative, whose derivative by :math:`X_i` is zero: what rounds that comes
        in squared (Bucy and Joseph 1968, Filtering for Stochastic Processes, of Kalman's gain). Under the
        narrowest priors all of it is float64.

        Parameters
        ----------
        information : Tensor, shape (n, D, D)
            S_i.
        out : Tensor, shape (n, D, D), optional
            Where the result goes; `information` itself will do.
        """
        narrow = tight(self.prior_precision)
        prior = self.prior_precision.double() if narrow else self.prior_precision
        root = factorise.cholesky(prior)
        eye = torch.eye(prior.shape[-1], dtype=prior.dtype, device=prior.device)
        found = torch.empty_like(information) if out is None else out
        for part in chunks(len(information), room.cells_on(prior.device, _CELLS) // prior.shape[-1] ** 2):
            said = information[part].to(prior.dtype)
            if self.inverse is not None:
                gain = self.inverse[part] @ prior
            else:
                tril = factorise.cholesky(said + prior) if narrow else self.precision_tril[part]
                gain = torch.cholesky_solve(prior.expand_as(tril), tril)
            half = root.mT @ (eye - gain)
            found[part] = gain.mT @ (said @ gain) + half.mT @ half
        return found


def tight(prior_precision: Tensor) -> bool:
    """Whether a prior is so narrow that its rounding, squared, may count; a card is not asked."""
    if room.waits(prior_precision.device):
        return False
    eps = torch.finfo(prior_precision.dtype).eps
    return bool(prior_precision.diagonal().amax() * eps > _ROUNDED)


def _solve_triangular(tril: Tensor, right: Tensor, *, upper: bool) -> Tensor:
    solved: Tensor = torch.linalg.solve_triangular(tril, right, upper=upper)
    return solved
