"""The sparse kernels: values, first and second derivatives, hidden entries, empty rows, the guard."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from literal import Dense, literal_attention
from torch.autograd import gradcheck, gradgradcheck

from pyro_bmf.methods.cross_feedback.attention import GUARD, attend
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.feedback_sums import feedback_sum, row_tables

FORMS = [(n, s) for n in ("sum", "softmax") for s in ("local", "global")]


def seen(kind: str) -> tuple[Feedback, torch.Tensor, torch.Tensor]:
    """Feedback of one kind, with the dense mask and the dense ratings that it stands for."""
    data = Dense.draw(5, 4, 0.6, 3)
    feedback, observed, ratings = data.feedback(), data.observed, data.ratings
    if "masked" in kind:
        feedback = feedback.hide_columns(torch.tensor([False, True, False, False]))
        observed, ratings = observed.clone(), ratings.clone()
        observed[:, 1] = ratings[:, 1] = 0.0
    if "selected" in kind:
        rows = torch.tensor([4, 0, 4, 2])
        feedback, observed, ratings = feedback.select(rows), observed[rows], ratings[rows]
    return feedback, observed, ratings


@pytest.mark.parametrize("kind", ["plain", "masked", "selected", "masked selected"])
@pytest.mark.parametrize("by_rating", [False, True])
def test_feedback_sum(kind: str, by_rating: bool) -> None:
    feedback, observed, ratings = seen(kind)
    table = torch.randn(4, 3, requires_grad=True)
    matrix = ratings if by_rating else observed
    torch.testing.assert_close(feedback_sum(feedback, table, by_rating=by_rating), matrix @ table)
    assert gradcheck(lambda t: feedback_sum(feedback, t, by_rating=by_rating), (table,))
    assert gradgradcheck(lambda t: feedback_sum(feedback, t, by_rating=by_rating) ** 2, (table,))


def test_feedback_sum_of_a_table_that_is_not_contiguous() -> None:
    feedback, observed, _ = seen("plain")
    table = torch.randn(3, 4).T
    torch.testing.assert_close(feedback_sum(feedback, table), observed @ table)
    assert gradcheck(lambda t: feedback_sum(feedback, t.T), (torch.randn(3, 4, requires_grad=True),))


def test_row_tables() -> None:
    weight, v = torch.randn(4, 3, 5, requires_grad=True), torch.randn(4, 3)
    expected = torch.stack([v[j] @ weight[j] for j in range(4)])
    torch.testing.assert_close(row_tables(weight, v), expected)
    assert gradcheck(lambda w: row_tables(w, v), (weight,))
    assert gradgradcheck(lambda w: row_tables(w, v) ** 2, (weight,))


def test_fed_back_embeddings_are_constants() -> None:
    """Algorithm 1: U and V of the previous iteration carry no gradient."""
    feedback, _, _ = seen("plain")
    weight = torch.randn(4, 3, 5, requires_grad=True)
    query = torch.randn(5, 3, requires_grad=True)
    v = torch.randn(4, 3, requires_grad=True)
    total = row_tables(weight, v).sum()
    for normalization, scope in FORMS:
        total = total + attend(query, v, feedback, normalization=normalization, scope=scope).square().sum()
    total.backward()
    assert v.grad is None
    assert weight.grad is not None
    assert query.grad is not None


@pytest.mark.parametrize("kind", ["plain", "masked", "selected", "masked selected"])
@pytest.mark.parametrize(("normalization", "scope"), FORMS)
def test_attend(normalization: str, scope: str, kind: str) -> None:
    torch.manual_seed(0)
    feedback, observed, _ = seen(kind)
    v = 1.0 + 0.3 * torch.randn(4, 3)
    query = (0.5 + torch.rand(len(observed), 3)).requires_grad_()
    ours = attend(query, v, feedback, normalization=normalization, scope=scope)
    literal = literal_attention(query, v, observed, normalization=normalization, scope=scope)
    torch.testing.assert_close(ours, literal, rtol=0, atol=1e-12)
    assert gradcheck(lambda q: attend(q, v, feedback, normalization=normalization, scope=scope), (query,))


@pytest.mark.parametrize("normalization", ["sum", "softmax"])
def test_weights_of_the_mask_cancel_in_attention(normalization: str) -> None:
    """Kept entries may weigh more than one, all alike: the weights of Eq. 9 are shares, and do not move."""
    feedback, observed, _ = seen("masked")
    v, query = torch.randn(4, 3), torch.randn(len(observed), 3)
    ours, heavier = (
        attend(query, v, part, normalization=normalization, scope="local")
        for part in (feedback, feedback.hide(torch.full((feedback.nnz,), 1.6)))
    )
    torch.testing.assert_close(heavier, ours, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_the_guarded_quotient_is_differentiated_too(scope: str) -> None:
    feedback = Feedback.from_coo(
        torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 1]), torch.ones(4), n_rows=3, n_columns=3
    )
    v = torch.tensor([[1.0, 0.2], [-1.0, 0.1], [0.1, -0.2]])
    query = torch.tensor([[2.0, 1.0], [1.0, 1.0], [1.5, 0.5]], requires_grad=True)
    scores = query @ v.T
    assert scores[0].sum().abs() < GUARD * math.sqrt(3.0) * scores[0].norm(), "the guard is not active"
    assert gradcheck(lambda q: attend(q, v, feedback, normalization="sum", scope=scope), (query,))


@pytest.mark.parametrize(("normalization", "scope"), FORMS)
def test_a_batch_whose_rows_are_all_empty(normalization: str, scope: str) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    feedback = Feedback.from_coo(nothing, nothing, torch.zeros(0), n_rows=3, n_columns=4)
    table = torch.randn(4, 2, requires_grad=True)
    total = feedback_sum(feedback, table)
    assert total.tolist() == [[0.0, 0.0]] * 3
    (grad,) = torch.autograd.grad(total.sum(), table)
    assert not grad.any()
    query = torch.randn(3, 3, requires_grad=True)
    attended = attend(query, torch.randn(4, 3), feedback, normalization=normalization, scope=scope)
    (grad,) = torch.autograd.grad(attended.sum(), query)
    assert torch.isfinite(attended).all()
    assert torch.isfinite(grad).all()
    if scope == "local":
        assert not attended.any()


def test_softmax_scores_of_any_size_are_finite_and_hidden_ones_play_no_part() -> None:
    v = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2000.0, 0.0]])
    query = torch.tensor([[3.0, 5.0]], requires_grad=True)
    feedback = Feedback.from_coo(
        torch.zeros(3, dtype=torch.int64), torch.arange(3), torch.ones(3), n_rows=1, n_columns=3
    )
    all_of_them = attend(query, v, feedback, normalization="softmax", scope="local")
    torch.testing.assert_close(all_of_them, torch.tensor([[2000.0, 0.0]]))
    # The huge score is hidden: what is left is as if it had never been there.
    hidden = feedback.hide_columns(torch.tensor([False, False, True]))
    ours = attend(query, v, hidden, normalization="softmax", scope="local")
    share = 1.0 / (1.0 + math.exp(2.0))
    torch.testing.assert_close(ours, torch.tensor([[share, 1.0 - share]]))
    nothing_left = feedback.hide(torch.zeros(3))
    assert not attend(query, v, nothing_left, normalization="softmax", scope="local").any()


FLOATS = st.floats(-4.0, 4.0, width=32).map(lambda x: 0.0 if abs(x) < 1e-6 else x)


@st.composite
def adversarial(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings and queries whose scores sum to nearly nothing, or are themselves nearly nothing."""
    k, n = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    v = draw(hnp.arrays(np.float64, (n, k), elements=FLOATS))
    query = draw(hnp.arrays(np.float64, (3, k), elements=FLOATS))
    trick = draw(st.sampled_from(["none", "cancel", "orthogonal", "tiny", "huge"]))
    if trick == "cancel":
        v[-1] = -v[:-1].sum(0) + draw(st.sampled_from([0.0, 1e-16, 1e-9, 1e-3]))
    elif trick == "orthogonal" and k > 1:
        # All embeddings on one line, all queries nearly across it: scores of rounding size.
        v[:] = np.outer(v[:, 0], query[0])
        query[:, 0] = -(query[:, 1:] @ query[0, 1:]) / (query[0, 0] if query[0, 0] else 1.0)
    elif trick == "tiny":
        query *= 1e-30
    elif trick == "huge":
        query *= 1e12
    mask = draw(hnp.arrays(np.bool_, (3, n)))
    return v, query, mask


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scope", ["local", "global"])
@settings(deadline=None, max_examples=150, derandomize=True)
@given(case=adversarial())
@example(case=(np.array([[0.3, 0.1]]), np.array([[0.1, -0.3]] * 3), np.ones((3, 1), dtype=bool)))
@example(case=(np.array([[1.0], [-1.0]]), np.array([[1.0], [0.0], [-2.0]]), np.ones((3, 2), dtype=bool)))
def test_the_guard_bounds_what_is_attended_to(
    scope: str, dtype: torch.dtype, case: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    """No component of c exceeds 1/GUARD times the largest embedding, whatever the scores sum to."""
    v, query, mask = case
    rows, columns = (torch.as_tensor(part) for part in np.nonzero(mask))
    feedback = Feedback.from_coo(rows, columns, torch.ones(len(rows), dtype=dtype), *mask.shape)
    v, query = torch.as_tensor(v, dtype=dtype), torch.as_tensor(query, dtype=dtype).requires_grad_()
    attended = attend(query, v, feedback, normalization="sum", scope=scope)
    assert torch.isfinite(attended).all()
    assert float(attended.detach().abs().max()) <= float(v.abs().max()) / GUARD * 1.001
    (grad,) = torch.autograd.grad(attended.sum(), query)
    assert not torch.isnan(grad).any()
