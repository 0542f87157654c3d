"""The calibration of items that were never rated: finite, and of no weight where they came true often."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from pyro_bmf.selection import rate_map
from pyro_bmf.selection.horizon import Horizon
from pyro_bmf.selection.rate_map import Cells, RateMap

SEEN, SHARE = 0.7, 0.15


def some_cells(n_never_true: int, *, n_users: int = 120, n_items: int = 40, alike: bool = False) -> Cells:
    """Return pairs of which those of the last eight items were never rated, `n_never_true` of them held out.

    `alike`: whether the rated items have one number of ratings, so that counts tell the others as well.
    """
    rng = np.random.default_rng(0)
    quality = np.full(n_items, 2.0) if alike else rng.gamma(2.0, 1.5, n_items)
    quality[-8:] = 0.0
    scores = np.maximum(0.05 * quality * rng.gamma(2.0, 0.5, (n_users, n_items)), 0.0)
    scores[:, -8:] = 0.0
    true = rng.random((n_users, n_items)) < 0.15 * np.minimum(2.0 * scores, 0.9)
    true[:, -8:] = False
    own = rng.permutation(n_users * 8)[:n_never_true]
    true[own // 8, n_items - 8 + own % 8] = True
    scores = np.where(rng.random(scores.shape) < 0.1, np.nan, scores)
    scores[true & np.isnan(scores)] = 0.1
    counts = np.rint(20.0 * quality)
    user_counts = rng.poisson(9.0, n_users) + 1.0
    return Cells(scores.astype(np.float32), sparse.csr_matrix(true.astype(float)), user_counts, counts)


def chosen(found: RateMap, cells: Cells) -> np.ndarray:
    """Return the probability of every candidate to be held out, 0 where a pair is none."""
    return Horizon(SEEN, SHARE, "").chosen(found.candidate_rates(cells))


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("n_true", [0, 1, 30])
def test_half_an_event_more_is_expected_of_items_that_were_never_rated(n_true: int, alike: bool) -> None:
    cells = some_cells(n_true, alike=alike)
    p = chosen(RateMap.fit(cells, seen=SEEN, share=SHARE), cells)
    assert p[:, -8:].sum() == pytest.approx(n_true + 0.5, abs=0.06 + 0.08 * n_true)
    # One held-out rating of such an item costs no more than the number of such pairs lets expect.
    inside = np.isfinite(cells.scores[:, -8:])
    assert -np.log(p[:, -8:][inside]).mean() < np.log(2.0 * inside.sum()) + 1.0


def test_the_fit_is_the_maximum_of_a_posterior_with_pseudo_events() -> None:
    """Against the objective written out pair by pair, at the fit and about it."""
    cells = some_cells(0, n_users=40)
    found = RateMap.fit(cells, seen=SEEN, share=SHARE)
    true, never = cells.true.toarray() > 0, cells.item_counts == 0
    inside = np.isfinite(cells.scores)
    n_never = inside[:, never].sum()

    def objective(coefficients: np.ndarray) -> float:
        p = chosen(RateMap(coefficients, found.knots, found.bend, found.users, found.centre), cells)
        total = -0.005 * float((coefficients[1:] ** 2).sum())
        for user, item in np.argwhere(inside):
            one = p[user, item]
            total += np.log(one) if true[user, item] else np.log1p(-one)
            if never[item]:
                total += 0.5 / n_never * (np.log(one) + np.log1p(-one))
        return total

    best, c = objective(found.coefficients), found.coefficients
    for place in range(len(c)):
        # Slopes that are held at zero may only grow.
        for step in (-0.15, 0.15) if c[place] > 0.15 or not 1 <= place <= 12 else (0.15,):
            moved = c.copy()
            moved[place] += step
            assert objective(moved) < best + 1e-3, place


def test_where_many_came_true_half_an_event_more_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = some_cells(60)
    usual = chosen(RateMap.fit(cells, seen=SEEN, share=SHARE), cells)
    monkeypatch.setattr(rate_map, "_ADDED", 0.0)
    without = chosen(RateMap.fit(cells, seen=SEEN, share=SHARE), cells)
    np.testing.assert_allclose(usual[:, -8:], without[:, -8:], rtol=0.02)
    np.testing.assert_allclose(usual[:, :-8], without[:, :-8], rtol=0.02, atol=1e-5)
