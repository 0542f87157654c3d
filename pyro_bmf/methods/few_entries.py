r"""The exact conditional of the rows of a side most of whose rows have few entries.

A row with r entries, r < D, has a conditional whose precision differs from the prior's by a matrix of rank
r. With its scaled features :math:`F_i` (r x D; the root of each entry's precision times its feature), the
prior :math:`\Lambda = L L^T` and

.. math::

   C_i C_i^T = I + F_i \Lambda^{-1} F_i^T, \qquad H_i = C_i^{-1} F_i,

everything that a sweep asks of :math:`P_i = \Lambda + F_i^T F_i` comes of r x r and r x D matrices:

.. math::

   P_i^{-1} &= \Lambda^{-1} - \Lambda^{-1} H_i^T H_i \Lambda^{-1}, \\
   \Lambda - \Lambda P_i^{-1} \Lambda &= H_i^T H_i, \\
   P_i^{-1} &= B_i B_i^T, \quad
   B_i = \left(I - \Lambda^{-1} H_i^T (C_i + I)^{-1} C_i H_i\right) L^{-T}.

The last is Andrews' square root (1968, doi 10.2514/3.4679). A row without entries is its prior. Rows with D
entries or more have their matrices, which are then no larger than their entries' features. So memory grows
with the entries, not with the rows times D squared. What is exact in `Conditional` is exact here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..numerics import factorise
from ..numerics.chunks import chunks
from ..numerics.room import cells_on
from ..numerics.segment_sums import bag_sum
from .kernel import Conditional, Entries

#: Numbers in the tables of one chunk; a function of shapes alone, so that a resumed chain repeats its bits.
_CELLS = 8_000_000


@dataclass(frozen=True, eq=False)
class RowPlan:
    """Rows of one side by their number of entries: those with D or more, then each smaller number, then none.

    Attributes
    ----------
    entries : Entries
    width : int
        D.
    order, place : Tensor, shape (n_rows,)
        Rows in the order of the plan, and where in it each row is.
    n_many : int
        Rows with D entries or more: the first of the order.
    many_indptr, many_indices : Tensor
        Their compressed rows: columns.
    few : tuple of (int, int, Tensor)
        Number of entries r, where in the order its rows begin, and their entries (n, r): places in
        `entries.indices`.
    """

    entries: Entries
    width: int
    order: Tensor
    place: Tensor
    n_many: int
    many_indptr: Tensor
    many_indices: Tensor
    few: tuple[tuple[int, int, Tensor], ...]

    @classmethod
    def build(cls, entries: Entries, width: int) -> RowPlan:
        """Sort rows by their number of entries."""
        counts = entries.indptr.diff().long()
        kinds = counts.clamp_max(width)
        order = torch.argsort(kinds, descending=True, stable=True)
        sizes = torch.bincount(kinds, minlength=width + 1).tolist()
        starts = entries.indptr[:-1].long()
        n_many = sizes[width]
        many = order[:n_many]
        lengths = counts[many]
        ends = lengths.cumsum(0)
        at = torch.arange(int(lengths.sum()), device=counts.device)
        at += torch.repeat_interleave(starts[many] - ends + lengths, lengths)
        few, begin = [], n_many
        for r in range(width - 1, 0, -1):
            rows = order[begin : begin + sizes[r]]
            if sizes[r]:
                few.append((r, begin, starts[rows].unsqueeze(1) + torch.arange(r, device=counts.device)))
            begin += sizes[r]
        return cls(
            entries=entries,
            width=width,
            order=order,
            place=torch.argsort(order),
            n_many=n_many,
            many_indptr=torch.cat([ends.new_zeros(1), ends]).int(),
            many_indices=entries.indices[at],
            few=tuple(few),
        )

    def conditional(
        self,
        prior_precision: Tensor,
        features: Tensor,
        column_precision: Tensor,
        row_precision: Tensor,
        linear: Tensor,
    ) -> FewConditional:
        """Return the conditionals of all rows.

        Parameters
        ----------
        prior_precision : Tensor, shape (D, D)
        features : Tensor, shape (n_columns, D)
            f of each column.
        column_precision : Tensor, shape (n_columns,)
            Precision of a column's entries, relative.
        row_precision : Tensor, shape (n_rows, 1)
            Precision of a row's entries.
        linear : Tensor, shape (n_rows, D)
            h_i: what the entries say.
        """
        many, many_said = None, prior_precision.new_empty(0, self.width, self.width)
        if self.n_many:
            many_said = self._many_said(features, column_precision, row_precision)
            many = self._many(prior_precision, many_said, linear)
        columns = self.entries.indices
        scaled = features * column_precision.sqrt().unsqueeze(-1)
        root_precision = row_precision[self.order].sqrt()
        whiten = factorise.inverse_of_triangle(factorise.cholesky(prior_precision.double())).mT
        halves, roots = [], []
        for r, begin, at in self.few:
            half = torch.empty(*at.shape, self.width, dtype=torch.float64, device=features.device)
            small = torch.empty(len(at), r, r, dtype=torch.float64, device=features.device)
            eye = torch.eye(r, dtype=torch.float64, device=features.device)
            for part in chunks(len(at), _CELLS // (4 * r * self.width)):
                own = root_precision[begin + part.start : begin + part.stop].unsqueeze(-1)
                f = (scaled[columns[at[part]].long()] * own).double()
                white = f @ whiten
                small[part] = factorise.cholesky(white @ white.mT + eye)
                half[part] = _solve_lower(small[part], f)
            halves.append(half)
            roots.append(small)
        return FewConditional(self, prior_precision, linear, many, many_said, tuple(halves), tuple(roots))

    def _many_said(self, features: Tensor, column_precision: Tensor, row_precision: Tensor) -> Tensor:
        """Return S of the rows with D entries or more, from sums a few columns wide."""
        width, rows = self.width, self.order[: self.n_many]
        information = torch.empty(self.n_many, width, width, dtype=features.dtype, device=features.device)
        weighted = features * column_precision.unsqueeze(-1)
        for part in chunks(width, cells_on(features.device, _CELLS) // max(len(features) * width, 1)):
            products = (features[:, part].unsqueeze(2) * weighted.unsqueeze(1)).flatten(1)
            information[:, part] = bag_sum(products, self.many_indices, self.many_indptr, None).view(
                self.n_many, -1, width
            )
        return information.mul_(row_precision[rows].unsqueeze(-1))

    def _many(self, prior_precision: Tensor, said: Tensor, linear: Tensor) -> Conditional:
        """Return the conditionals of the rows with D entries or more."""
        tril = torch.empty_like(said)
        for part in chunks(self.n_many, cells_on(said.device, _CELLS) // self.width**2):
            tril[part] = factorise.cholesky(said[part] + prior_precision)
        return Conditional.of_root(prior_precision, tril, linear[self.order[: self.n_many]])


@dataclass(frozen=True, eq=False)
class FewConditional:
    """Normal conditionals of all rows of one side, most of them of low rank about the prior.

    Attributes
    ----------
    plan : RowPlan
    prior_precision : Tensor, shape (D, D)
    linear : Tensor, shape (n, D)
    many : Conditional or None
        Of the rows with D entries or more, in the plan's order.
    many_said : Tensor, shape (n_many, D, D)
        Their S_i, until `many_information` takes the place.
    halves, roots : tuple of Tensor, shapes (n_r, r, D) and (n_r, r, r), float64
        H_i and C_i of the rows with r entries, for each r of the plan. In float64: where ratings say much
        more than the prior, the inverse is a difference of two large numbers.
    """

    plan: RowPlan
    prior_precision: Tensor
    linear: Tensor
    many: Conditional | None
    many_said: Tensor
    halves: tuple[Tensor, ...]
    roots: tuple[Tensor, ...]

    @cached_property
    def _prior_inverse(self) -> Tensor:
        return factorise.inverse_of_root(factorise.cholesky(self.prior_precision.double()))

    @cached_property
    def many_information(self) -> Tensor:
        """G_i of the rows with D entries or more, (n_many, D, D): in the place of S_i, which is read once."""
        if self.many is None:
            return self.many_said
        return self.many.mean_precision(self.many_said, out=self.many_said)

    def _parts(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Give chunks of rows of equal numbers of entries: where they are in the order, H and C."""
        for (r, begin, at), half, root in zip(self.plan.few, self.halves, self.roots, strict=True):
            for part in chunks(len(at), _CELLS // (4 * r * self.plan.width)):
                yield slice(begin + part.start, begin + part.stop), half[part], root[part]

    def solve(self, vectors: Tensor) -> Tensor:
        """Return P_i^{-1} x_i for (n, D)."""
        inverse = self._prior_inverse
        ordered = vectors[self.plan.order]
        found = ordered @ inverse.to(vectors.dtype)
        if self.many is not None:
            found[: self.plan.n_many] = self.many.solve(ordered[: self.plan.n_many])
        for rows, half, _ in self._parts():
            moved = ordered[rows].double() @ inverse
            pulled = (half.mT @ (half @ moved.unsqueeze(-1))).squeeze(-1)
            found[rows] = (moved - pulled @ inverse).to(found.dtype)
        return found[self.plan.place]

    def mean(self, prior_mean: Tensor) -> Tensor:
        """Return the conditional means for prior means (n, D) or (D,)."""
        return self.solve(self.linear + prior_mean @ self.prior_precision)

    def spread(self, standard: Tensor) -> Tensor:
        """Turn standard Normal draws (n, D) into draws with covariance P_i^{-1}."""
        whiten = factorise.inverse_of_triangle(factorise.cholesky(self.prior_precision.double()))
        ordered = standard[self.plan.order]
        found = ordered @ whiten.to(standard.dtype)
        if self.many is not None:
            found[: self.plan.n_many] = self.many.spread(ordered[: self.plan.n_many])
        for rows, half, small in self._parts():
            moved = ordered[rows].double() @ whiten
            seen = small @ (half @ moved.unsqueeze(-1))
            eye = torch.eye(small.shape[-1], dtype=small.dtype, device=small.device)
            seen = _solve_lower(small + eye, seen)
            pulled = (half.mT @ seen).squeeze(-1)
            found[rows] = (moved - pulled @ self._prior_inverse).to(found.dtype)
        spread: Tensor = found[self.plan.place]
        return spread

    def covariance(self) -> Tensor:
        """Return P_i^{-1}, shape (n, D, D): for few rows."""
        n, width = self.linear.shape
        columns = [
            self.solve(unit.expand(n, width))
            for unit in torch.eye(width, dtype=self.linear.dtype, device=self.linear.device)
        ]
        return torch.stack(columns, 2)


def _solve_lower(tril: Tensor, right: Tensor) -> Tensor:
    if tril.shape[-1] == 1:  # most rows of a long tail: a division, not a call a row
        divided: Tensor = right / tril
        return divided
    solved: Tensor = torch.linalg.solve_triangular(tril, right, upper=False)
    return solved
