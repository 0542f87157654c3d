"""The heads against textbook statements of what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plants import sets
from scipy import sparse

from pyro_bmf.errors import FitError, SettingsError
from pyro_bmf.selection.both_heads import BothHeads
from pyro_bmf.selection.contract import SelectionHead
from pyro_bmf.selection.factors import FactorSettings, SelectionFactors
from pyro_bmf.selection.fitting import MOST_ITEMS, RIDGES, USUAL_RIDGE, Plan
from pyro_bmf.selection.item_regression import ItemRegression, _narrowed
from pyro_bmf.selection.rated_sets import RatedSets

RIDGE = 20.0
SMALL = FactorSettings(n_factors=3, ridge=2.0, sweeps=6)


def regression_of(x: np.ndarray, item: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance (in units of the residual's) of one ridge regression, solved alone."""
    others = np.delete(np.arange(x.shape[1]), item)
    design = x[:, others]
    covariance = np.linalg.inv(design.T @ design + RIDGE * np.eye(len(others)))
    return covariance @ design.T @ x[:, item], covariance


def test_ease_is_the_published_algorithm() -> None:
    rated = sets()
    x = rated.matrix.toarray().astype(np.float64)
    # Steck 2019, algorithm 1.
    gram = x.T @ x
    gram[np.diag_indices(len(gram))] += RIDGE
    inverse = np.linalg.inv(gram)
    b = inverse / (-np.diag(inverse))
    b[np.diag_indices(len(b))] = 0.0
    head = ItemRegression.fit(rated, RIDGE)
    weights = np.column_stack([head.weights(item) for item in range(head.n_items)])
    np.testing.assert_allclose(weights, b, atol=1e-6)
    np.testing.assert_allclose(head.scores(rated), x @ b, atol=2e-6)


@pytest.mark.parametrize("item", [0, 7, 24])
def test_the_posterior_is_that_of_a_ridge_regression(item: int) -> None:
    rated = sets()
    x = rated.matrix.toarray().astype(np.float64)
    head = ItemRegression.fit(rated, RIDGE)
    mean, covariance = regression_of(x, item)
    others = np.delete(np.arange(x.shape[1]), item)
    np.testing.assert_allclose(head.weights(item)[others], mean, atol=1e-6)
    about = np.einsum("nk,kl,nl->n", x[:, others], covariance, x[:, others])
    density = x.mean()
    square = ((x[:, item] - x[:, others] @ mean) ** 2).sum() + RIDGE * (mean**2).sum()
    noise = (square + density * (1.0 - density)) / (len(x) + 1)
    assert head.noise[item] == pytest.approx(noise, rel=1e-5)
    np.testing.assert_allclose(head.score_variances(rated)[:, item], noise * about, rtol=2e-4)
    np.testing.assert_allclose(head.predictive_variances(rated)[:, item], noise * (1.0 + about), rtol=1e-4)


def test_a_user_is_left_out_in_closed_form() -> None:
    rated = sets()
    head = ItemRegression.fit(rated, RIDGE)
    users = np.array([3, 17])
    found = head.left_out(rated, users)(rated.take(users))
    # And with a part of what they rated, of which the regression has seen all.
    part = rated.take(users).thinned(np.full(2, 0.5), np.random.default_rng(0))
    assert (part.counts > 0).all()
    assert (part.counts < rated.counts[users]).all()
    fewer = head.left_out(rated, users)(part)
    for place, user in enumerate(users):
        others = np.delete(np.arange(len(rated)), user)
        without = ItemRegression.fit(rated.take(others), RIDGE)
        for own, scores in ((rated.take(users), found), (part, fewer)):
            unrated = own.matrix[place].toarray()[0] == 0
            expected = without.scores(own)[place][unrated]
            np.testing.assert_allclose(scores[place][unrated], expected, atol=1e-5)


def test_single_precision_gives_about_the_same() -> None:
    rated = sets()
    double, single = (ItemRegression.fit(rated, RIDGE, double=how).scores(rated) for how in (True, False))
    np.testing.assert_allclose(single, double, atol=1e-4)


def test_a_ridge_that_is_none_is_refused() -> None:
    twice = sparse.csr_matrix(np.ones((4, 3), dtype=np.float32))
    with pytest.raises(FitError, match="could not be solved"):
        ItemRegression.fit(RatedSets(twice, np.arange(4)), 0.0)


def test_factors_are_where_both_sides_are_at_their_conditional_means() -> None:
    rated = sets()
    how = replace(SMALL, sweeps=400)
    head = SelectionFactors.fit(rated, how)
    x = rated.matrix.toarray().astype(np.float64)
    v = head.items.numpy().astype(np.float64)
    weights = np.where(x > 0, how.one_precision, how.zero_precision)

    def rows(x: np.ndarray, weights: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Weighted ridge regressions over *all* cells, zeros too, one row at a time."""
        prior = how.ridge * np.eye(other.shape[1])
        return np.stack(
            [
                np.linalg.solve(prior + (other * w[:, None]).T @ other, other.T @ (w * own))
                for own, w in zip(x, weights, strict=True)
            ]
        )

    u = rows(x, weights, v)
    np.testing.assert_allclose(head.scores(rated), u @ v.T, atol=1e-4)
    np.testing.assert_allclose(rows(x.T, weights.T, u), v, atol=2e-3)


def heads(rated: RatedSets) -> list[SelectionHead]:
    regression, factors = ItemRegression.fit(rated, RIDGE), SelectionFactors.fit(rated, SMALL)
    return [regression, factors, BothHeads(regression, factors)]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_every_head_keeps_to(which: int) -> None:
    rated = sets()
    head = heads(rated)[which]
    scores = head.scores(rated)
    assert scores.shape == (len(rated), head.n_items)
    assert scores.dtype == np.float32
    # A user is asked as a set: alone as among others.
    some = np.array([5, 2])
    np.testing.assert_allclose(head.scores(rated.take(some)), scores[some], atol=1e-5)
    # What speaks for an item adds up to its score.
    items = rated.items(5)
    for item in np.setdiff1d(np.arange(head.n_items), items)[:3]:
        assert head.influence(items, int(item)).sum() == pytest.approx(scores[5, item], abs=1e-5)
    # Saved and rebuilt, it says the same bits.
    kinds = {one.word: type(one) for one in heads(rated)}
    again = kinds[head.word].from_saved(head.settings(), head.tensors())
    np.testing.assert_array_equal(again.scores(rated), scores)
    np.testing.assert_allclose(head.refitted(rated).scores(rated), scores, atol=1e-6)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_draws_have_the_posterior_mean_and_their_own_numbers(which: int) -> None:
    rated = sets()
    head = heads(rated)[which]
    # Factors of an item that nobody rated are zero, and have no spread.
    columns = np.argsort(-rated.matrix.sum(axis=0).A1)[:6].reshape(2, 3)
    assert rated.matrix[:, columns.ravel()].sum(axis=0).min() > 0
    some = rated.take(np.array([5, 2]))
    drawn = head.draw_scores(some, columns, np.arange(4000), 7)
    expected = np.take_along_axis(head.scores(some), columns, axis=1)
    spread = drawn.std(axis=0)
    assert (spread > 0).all()
    assert (np.abs(drawn.mean(axis=0) - expected) < 5 * spread / np.sqrt(4000)).all()
    if isinstance(head, ItemRegression):
        variances = np.take_along_axis(head.score_variances(some), columns, axis=1)
        np.testing.assert_allclose(spread**2, variances, rtol=0.12)
    # The same user, item and draw in another request.
    alone = head.draw_scores(rated.take(np.array([2])), columns[1:, ::-1].copy(), np.array([3]), 7)
    np.testing.assert_allclose(alone[0, 0], drawn[3, 1, ::-1], atol=1e-6)


def test_factors_draws_have_the_rows_covariance() -> None:
    rated = sets()
    head = SelectionFactors.fit(rated, SMALL)
    x = rated.matrix[[5]].toarray()[0]
    v = head.items.numpy().astype(np.float64)
    weights = np.where(x > 0, SMALL.one_precision, SMALL.zero_precision)
    covariance = np.linalg.inv(SMALL.ridge * np.eye(3) + (v * weights[:, None]).T @ v)
    columns = np.array([[1, 4]])
    drawn = head.draw_scores(rated.take(np.array([5])), columns, np.arange(6000), 0)[:, 0]
    np.testing.assert_allclose(np.cov(drawn.T), v[[1, 4]] @ covariance @ v[[1, 4]].T, rtol=0.1, atol=1e-5)


def test_memory_and_items_decide_which_heads_are_tried() -> None:
    free = 8 * 2**30
    usual = Plan.of(2_000, "auto", free, 0)
    assert usual.ridges == RIDGES
    assert usual.factors
    assert usual.double
    assert usual.note is None
    assert Plan.of(20_000, "auto", free, 0).ridges == (USUAL_RIDGE,)
    assert not Plan.of(29_000, "auto", free, 0).double
    for n_items, memory in ((MOST_ITEMS + 1, 2**50), (25_000, 2**31)):
        plan = Plan.of(n_items, "auto", memory, 0)
        assert plan.ridges == ()
        assert plan.factors
        assert plan.note is not None
        assert f"{n_items:,} items" in plan.note
        with pytest.raises(SettingsError, match="take the head factors"):
            Plan.of(n_items, "item-regression", memory, 0)
    assert Plan.of(2_000, "factors", free, 0).ridges == ()
    with pytest.raises(SettingsError, match="'ease'"):
        Plan.of(2_000, "ease", free, 0)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 2_000_001])
def test_double_numbers_are_narrowed_in_their_own_memory(n: int) -> None:
    wide = np.random.default_rng(0).normal(size=n)
    expected = wide.astype(np.float32)
    found = _narrowed(wide)
    np.testing.assert_array_equal(found, expected)
    assert found.base is wide
    assert wide.nbytes <= expected.nbytes + 4


def test_the_inverse_is_one_array_that_products_need_not_copy() -> None:
    for double in (True, False):
        head = ItemRegression.fit(sets(), 30.0, double=double)
        assert head.inverse.flags.c_contiguous
        np.testing.assert_array_equal(head.inverse, head.inverse.T)
