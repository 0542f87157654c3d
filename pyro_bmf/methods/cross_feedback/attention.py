r"""Eq. 9-10: attention of a row's posterior parameters to the embeddings of the other side.

With :math:`q_i = \mu_i \Theta`, scores are :math:`s_{ij} = q_i v_j^T`, over :math:`j \in N(i)` (`local`) or
over all j (`global`), and :math:`c_i = \sum_j a_{ij} v_j`.

``sum`` is the paper's :math:`a_{ij} = s_{ij} / \sum_j s_{ij}`. It is linear: with
:math:`S_i = \sum_j v_j v_j^T` the numerator is :math:`q_i S_i`. Its denominator :math:`d_i` can vanish or
turn negative, so it is guarded: its sign is kept and its size is at least
:math:`\epsilon \sqrt{n_i \sum_j s_{ij}^2}`, which is at least :math:`\epsilon \sum_j |s_{ij}|`; hence no
component of :math:`c_i` exceeds :math:`1/\epsilon` times the largest embedding. Where the denominator is
larger than that, the form is the paper's to the letter.

``softmax`` replaces the weights by :math:`a_{ij} = e^{s_{ij}} / \sum_j e^{s_{ij}}`: a segment softmax when
local, streamed in blocks when global, as its weights are users x items.

A row that attends to nothing has :math:`c_i = 0`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...model.feedback import Feedback
from ...model.feedback_sums import feedback_sum
from ...numerics.segment_sums import bag_sum

#: Smallest ratio of the `sum` denominator to the size of the scores that it sums.
GUARD = 0.1


def attend(
    query: Tensor, other_factors: Tensor, feedback: Feedback, *, normalization: str, scope: str
) -> Tensor:
    """Return the attention vectors of the rows.

    Parameters
    ----------
    query : Tensor, shape (n_rows, n_factors)
        The rows' parameters times Theta (means) or Lambda (variances).
    other_factors : Tensor, shape (n_other, n_factors)
        Fed-back embeddings, constants.
    feedback : Feedback
        Which embeddings a row attends to, when local.
    normalization : {"sum", "softmax"}
    scope : {"local", "global"}

    Returns
    -------
    Tensor, shape (n_rows, n_factors)
    """
    other_factors = other_factors.detach()
    if normalization == "softmax":
        if scope == "global":
            return F.scaled_dot_product_attention(
                query[None, None], other_factors[None, None], other_factors[None, None], scale=1.0
            )[0, 0]
        result: Tensor = _LocalSoftmax.apply(query, other_factors, feedback)  # type: ignore[no-untyped-call]
        return result
    if scope == "global":
        numerator = query @ (other_factors.T @ other_factors)
        first_moment = other_factors.sum(0).expand_as(query)
        counts = query.new_full((len(query),), float(len(other_factors)))
    else:
        numerator = _LocalSecondMoment.apply(query, other_factors, feedback)  # type: ignore[no-untyped-call]
        first_moment = feedback_sum(feedback, other_factors)
        counts = feedback.counts
    largest = other_factors.abs().amax()
    return numerator / guarded_denominator(query, numerator, first_moment, counts, largest)


def guarded_denominator(
    query: Tensor, numerator: Tensor, first_moment: Tensor, counts: Tensor, largest: Tensor
) -> Tensor:
    """Return the `sum` form's denominator, kept away from zero, shape (n_rows, 1)."""
    denominator = (query * first_moment).sum(-1)
    tiny = torch.finfo(query.dtype).tiny
    # sum_j s_ij^2 = q S q^T; clamped away from zero, where the root has no derivative.
    size = torch.sqrt((counts * (query * numerator).sum(-1)).clamp_min(tiny))
    # Where q S q^T is lost to rounding, the bound itself says how large the denominator has to be; exact
    # arithmetic never gets there, as no component of the numerator exceeds max |v| sum_j |s_ij|.
    floor = GUARD * torch.maximum(size, numerator.abs().amax(-1) / largest.clamp_min(tiny))
    sign = torch.where(denominator < 0, -1.0, 1.0).to(query.dtype)
    # A row whose scores are all zero has a numerator of zero and the smallest floor: it attends to nothing.
    return torch.where(denominator.abs() >= floor, denominator, sign * floor).unsqueeze(-1)


def _scores(query: Tensor, other_factors: Tensor, feedback: Feedback) -> tuple[Tensor, Tensor]:
    rows = feedback.row_of_entry
    columns = feedback.indices.long()
    return (query.index_select(0, rows) * other_factors.index_select(0, columns)).sum(-1), rows


class _LocalSecondMoment(torch.autograd.Function):
    """``q_i S_i`` with ``S_i = sum_j v_j v_j^T`` over a row's entries; S is symmetric, so self-adjoint."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, other_factors: Tensor, feedback: Feedback) -> Tensor:
        ctx.other_factors, ctx.feedback = other_factors, feedback
        scores, _ = _scores(query, other_factors, feedback)
        if feedback.mask is not None:
            scores = scores * feedback.mask
        return bag_sum(other_factors, feedback.indices, feedback.indptr, scores, feedback.pieces)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _LocalSecondMoment.apply(grads[0], ctx.other_factors, ctx.feedback), None, None  # type: ignore[no-untyped-call]


class _LocalSoftmax(torch.autograd.Function):
    """Softmax attention over each row's own entries, with its derivative in closed form."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, other_factors: Tensor, feedback: Feedback) -> Tensor:
        scores, rows = _scores(query, other_factors, feedback)
        lengths = feedback.indptr.diff().long()
        if feedback.mask is not None:
            # Below any score that is seen, however far that is: what is hidden must not set the scale.
            scores = scores.masked_fill(feedback.mask == 0, torch.finfo(scores.dtype).min)
        highest = torch.segment_reduce(scores, "max", lengths=lengths, unsafe=True, initial=-torch.inf)
        weights = torch.exp(scores - highest.index_select(0, rows))
        if feedback.mask is not None:
            weights = weights * feedback.mask
        layout = feedback.indices, feedback.indptr
        ones = other_factors.new_ones(len(other_factors), 1)
        total = bag_sum(ones, *layout, weights, feedback.pieces)
        # A row that attends to nothing has weights summing to zero and an attention vector of zero.
        weights = weights / total.clamp_min(torch.finfo(total.dtype).tiny)[:, 0].index_select(0, rows)
        attended = bag_sum(other_factors, *layout, weights, feedback.pieces)
        ctx.save_for_backward(weights, attended, other_factors, rows)
        ctx.feedback = feedback
        return attended

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        weights, attended, other_factors, rows = ctx.saved_tensors
        toward, _ = _scores(grads[0], other_factors, ctx.feedback)
        centre = (grads[0] * attended).sum(-1).index_select(0, rows)
        feedback: Feedback = ctx.feedback
        weights = weights * (toward - centre)
        grad = bag_sum(other_factors, feedback.indices, feedback.indptr, weights, feedback.pieces)
        return grad, None, None
