r"""The exact sparse first layer: what one side's encoder reads, and the products over it.

A row of one side (a user, say) reads its ratings :math:`X_i` and the fed-back embeddings of the items it
rated, :math:`Z_i` (Eq. 8). Neither is ever built densely. With the 0/1 mask :math:`A` of the observed
entries,

.. math:: Z_i \Phi_0 = \sum_{j \in N(i)} v_j \Phi_{0j} = (A P)_i, \qquad P_j = v_j \Phi_{0j},

and :math:`X W_0` is the same product with the ratings as weights. Both are one *embedding bag* a row. The
gradient with respect to the dense operand is the product with the transpose, which is stored, so that the
backward pass is an embedding bag too: no scatter, no atomics, the same result at every run on CPU and CUDA.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..numerics.segment_sums import Pieces, bag_sum
from .feedback import Feedback

#: Indices, their compressed layout, weights, pieces: what `bag_sum` takes after its table.
Layout: TypeAlias = tuple[Tensor, Tensor, Tensor | None, Pieces | None]


def feedback_sum(feedback: Feedback, table: Tensor, *, by_rating: bool = False) -> Tensor:
    """Sum the table's rows over each row's entries: ``A @ table``, or ``X @ table`` when `by_rating`.

    Parameters
    ----------
    feedback : Feedback
    table : Tensor, shape (n_columns, width)

    Returns
    -------
    Tensor, shape (n_rows, width)
        Zero for a row without entries. Differentiable in `table`, twice.
    """
    weights, t_weights = feedback.weights(by_rating=by_rating)
    return sparse_product(
        table,
        (feedback.indices, feedback.indptr, weights, feedback.pieces),
        (feedback.t_indices, feedback.t_indptr, t_weights, feedback.t_pieces),
    )


def sparse_product(table: Tensor, rows: Layout, columns: Layout) -> Tensor:
    """Return the product of a constant sparse matrix, whose transpose is stored, and a table.

    Parameters
    ----------
    table : Tensor, shape (n_columns, width)
        Differentiable, twice.
    rows, columns : tuple
        The matrix and its transpose: indices, their compressed layout, weights (None for ones) and pieces.

    Returns
    -------
    Tensor, shape (n_rows, width)
    """
    result: Tensor = _BagSum.apply(table, rows, columns)  # type: ignore[no-untyped-call]
    return result


def squared(feedback: Feedback) -> Feedback:
    """Return the same entries with every weight squared: sums over them are variances of sums."""
    mask = None if feedback.mask is None else feedback.mask**2
    return replace(feedback, values=feedback.values**2, mask=mask)


class _BagSum(torch.autograd.Function):
    """``A @ table`` for a constant sparse A whose transpose is stored; its derivative has its own form."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Layout, columns: Layout) -> Tensor:
        ctx.layouts = rows, columns
        return bag_sum(table.contiguous(), *rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.layouts
        return _BagSum.apply(grads[0], columns, rows), None, None  # type: ignore[no-untyped-call]


class _RowTables(torch.autograd.Function):
    """``P_j = v_j Phi_j`` for constant v: an outer product backward, written once."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, other_factors: Tensor) -> Tensor:
        ctx.save_for_backward(other_factors)
        return torch.bmm(other_factors.unsqueeze(1), weight).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (other_factors,) = ctx.saved_tensors
        return other_factors.unsqueeze(2) * grads[0].unsqueeze(1), None


def row_tables(weight: Tensor, other_factors: Tensor) -> Tensor:
    r"""Return :math:`P_j = v_j \Phi_{0j}` for every row j of the other side.

    Parameters
    ----------
    weight : Tensor, shape (n_other, n_factors, width)
        :math:`\Phi_0`, one matrix an embedding.
    other_factors : Tensor, shape (n_other, n_factors)
        The fed-back embeddings: constants (Algorithm 1), so no gradient flows to them.

    Returns
    -------
    Tensor, shape (n_other, width)
    """
    result: Tensor = _RowTables.apply(weight, other_factors.detach())  # type: ignore[no-untyped-call]
    return result
