"""Products of two tables' rows at observed entries alone, with a backward pass over stored rows."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_bmf.model.feedback import Feedback
from pyro_bmf.numerics.segment_sums import bag_sum


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
        entries.indices,
        entries.indptr,
        entries.t_indices,
        entries.t_indptr,
        entries.t_order,
    )
    return result


class _PairDots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, *layout: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        ctx.layout = layout
        indices, indptr = layout[:2]
        if not len(indices):
            return rows.new_zeros(0)
        with warnings.catch_warnings():
            # It is called a beta once a process; what is used of it is held against dense products by tests.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            # Torch 2.11 says so even where the checks are declined below: the layout is the ratings' own.
            warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
            shape = (len(rows), len(columns))
            zeros = rows.new_zeros(len(indices))
            cells = torch.sparse_csr_tensor(indptr, indices, zeros, shape, check_invariants=False)
        # Rows gathered for each entry would be as long as all of them together: 20 times slower at 500 units.
        dots: Tensor = torch.sparse.sampled_addmm(cells, rows, columns.T, beta=0.0).values()
        return dots

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns = ctx.saved_tensors
        indices, indptr, t_indices, t_indptr, t_order = ctx.layout
        grad = grads[0].contiguous()
        of_rows = bag_sum(columns.contiguous(), indices, indptr, grad)
        of_columns = bag_sum(rows.contiguous(), t_indices, t_indptr, grad[t_order.long()])
        return (of_rows, of_columns, *(None,) * 5)
