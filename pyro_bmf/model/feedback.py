"""What one side's encoder reads: sparse rows, compressed, with the transpose's order stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..numerics.segment_sums import Pieces, Segments, device_pieces


@dataclass(frozen=True, eq=False)
class Feedback:
    """Observed entries of `n_rows` rows over `n_columns` columns: compressed rows with the transpose's order.

    Attributes
    ----------
    indptr : Tensor, shape (n_rows + 1,)
        Row i owns entries ``indptr[i]:indptr[i + 1]``.
    indices : Tensor, shape (nnz,)
        Column of each entry.
    values : Tensor, shape (nnz,)
        Rating of each entry, in the units that the encoder reads (centred or raw).
    t_indptr, t_indices, t_order : Tensor
        The transpose: column j owns ``t_indptr[j]:t_indptr[j + 1]`` of `t_indices` (rows), and
        ``values[t_order]`` are its values.
    mask : Tensor or None, shape (nnz,)
        Weight of each entry in the 0/1 mask; None means ones. Zero hides an entry from both inputs.
    pieces, t_pieces : Pieces or None
        Of `indptr` and `t_indptr`, on devices that need them.
    """

    n_rows: int
    n_columns: int
    indptr: Tensor
    indices: Tensor
    values: Tensor
    t_indptr: Tensor
    t_indices: Tensor
    t_order: Tensor
    mask: Tensor | None = None
    pieces: Pieces | None = None
    t_pieces: Pieces | None = None

    @classmethod
    def from_coo(cls, rows: Tensor, columns: Tensor, values: Tensor, n_rows: int, n_columns: int) -> Feedback:
        """Compress entries given as coordinates, in any order.

        Parameters
        ----------
        rows, columns : Tensor, shape (nnz,), integer
        values : Tensor, shape (nnz,), floating point; its dtype and device are kept
        """
        order = torch.argsort(rows.long() * n_columns + columns.long())
        rows, columns, values = rows[order].long(), columns[order].long(), values[order]
        t_order = torch.argsort(columns, stable=True)
        indptr, t_indptr = _indptr(rows, n_rows), _indptr(columns[t_order], n_columns)
        return cls(
            n_rows=n_rows,
            n_columns=n_columns,
            indptr=indptr,
            indices=columns.int(),
            values=values,
            t_indptr=t_indptr,
            t_indices=rows[t_order].int(),
            t_order=t_order.int(),
            pieces=device_pieces(indptr),
            t_pieces=device_pieces(t_indptr),
        )

    @property
    def nnz(self) -> int:
        """Number of stored entries, hidden ones included."""
        return self.indices.numel()

    @property
    def row_of_entry(self) -> Tensor:
        """Row of each entry, shape (nnz,), int64."""
        lengths = self.indptr.diff().long()
        return torch.repeat_interleave(
            torch.arange(self.n_rows, device=self.indptr.device), lengths, output_size=self.nnz
        )

    @property
    def row_segments(self) -> Segments:
        """The rows as segments of the entries."""
        return Segments(self.row_of_entry, self.indptr, None, self.pieces)

    @property
    def column_segments(self) -> Segments:
        """The columns as segments of the entries, which stand in the order of the rows."""
        return Segments(self.indices, self.t_indptr, self.t_order, self.t_pieces)

    @property
    def counts(self) -> Tensor:
        """Number of entries that each row reads, shape (n_rows,), in the dtype of `values`."""
        if self.mask is None:
            return self.indptr.diff().to(self.values.dtype)
        return torch.segment_reduce(self.mask, "sum", offsets=self.indptr.long(), unsafe=True, initial=0.0)

    def select(self, rows: Tensor) -> Feedback:
        """Return the given rows, in the given order, over the same columns."""
        starts = self.indptr[rows].long()
        lengths = self.indptr[rows + 1].long() - starts
        new_rows = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), lengths)
        first = torch.cumsum(lengths, 0) - lengths
        entries = torch.arange(len(new_rows), device=rows.device) - first[new_rows] + starts[new_rows]
        part = Feedback.from_coo(
            new_rows, self.indices[entries], self.values[entries], len(rows), self.n_columns
        )
        # from_coo sorts by (row, column), which is the order the entries of each row are in already.
        return part if self.mask is None else replace(part, mask=self.mask[entries])

    def hide(self, keep: Tensor) -> Feedback:
        """Return the same rows with the entries where `keep` (nnz,) is zero hidden from the encoder."""
        return replace(self, mask=keep if self.mask is None else self.mask * keep)

    def hide_columns(self, hidden: Tensor) -> Feedback:
        """Return the same rows with every entry in a column where `hidden` (n_columns,) is true hidden."""
        return self.hide((~hidden)[self.indices.long()].to(self.values.dtype))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Feedback:
        """Return the same entries on another device, with values of another dtype."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

        names = ("indptr", "indices", "values", "t_indptr", "t_indices", "t_order", "mask")
        parts: dict[str, Any] = {name: moved(getattr(self, name)) for name in names}
        return replace(
            self,
            **parts,
            pieces=device_pieces(parts["indptr"]),
            t_pieces=device_pieces(parts["t_indptr"]),
        )

    def weights(self, *, by_rating: bool) -> tuple[Tensor | None, Tensor | None]:
        """Return the entries' weights, and the same in the transpose's order; None means ones."""
        if by_rating:
            weights = self.values if self.mask is None else self.values * self.mask
        elif self.mask is None:
            return None, None
        else:
            weights = self.mask
        return weights, weights[self.t_order.long()]


def _indptr(sorted_ids: Tensor, size: int) -> Tensor:
    edges = torch.arange(size + 1, device=sorted_ids.device)
    return torch.searchsorted(sorted_ids.contiguous(), edges).int()
