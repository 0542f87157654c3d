"""Products of two tables' rows at observed entries alone, with a backward pass over stored rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_bmf.model.feedback import Feedback, bag_sum


def pair_dots(rows: Tensor, columns: Tensor, entries: Feedback) -> Tensor:
    """Return ``(rows @ columns.T)`` at the entries: a matrix's observed cells, never the matrix.

    The gradients are the sparse products ``G @ columns`` and ``G.T @ rows`` over the stored entries and their
    stored transpose: no scatter, the same bits at every run.

    Parameters
    ----------
    rows : Tensor, shape (n_rows, width)
    columns : Tensor, shape (n_columns, width)
    entries : Feedback
        Of `n_rows` rows over `n_columns` columns; values and mask are not read.

    Returns
    -------
    Tensor, shape (nnz,)
        Differentiable once in both tables.
    """
    result: Tensor = _PairDots.apply(  # type: ignore[no-untyped-call]
        rows,
        columns,
        entries.row_of_entry,
        entries.indices,
        entries.indptr,
        entries.t_indices,
        entries.t_indptr,
        entries.t_order,
    )
    return result


class _PairDots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, at: Tensor, *layout: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        ctx.layout = layout
        dots: Tensor = torch.linalg.vecdot(rows.index_select(0, at), columns.index_select(0, layout[0]))
        return dots

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns = ctx.saved_tensors
        indices, indptr, t_indices, t_indptr, t_order = ctx.layout
        grad = grads[0].contiguous()
        of_rows = bag_sum(columns.contiguous(), indices, indptr, grad)
        of_columns = bag_sum(rows.contiguous(), t_indices, t_indptr, grad[t_order.long()])
        return (of_rows, of_columns, *(None,) * 6)
