"""Metrics against hand-computed values, independent libraries and properties."""

from __future__ import annotations

import numpy as np
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import mean_absolute_error, ndcg_score, root_mean_squared_error

from pyro_bmf.data import RatingScale
from pyro_bmf.errors import DataError, SettingsError
from pyro_bmf.evaluation import level_positions, mae, ndcg_at, nll, recall_at, rmse, rps

STARS = RatingScale(1.0, 5.0, 1.0, "declared")
LOG2_3 = np.log2(3)


def test_rmse_and_mae_by_hand():
    # errors 1, -2, 0.5: squares 1 + 4 + 0.25 = 5.25 over 3 = 1.75; absolutes 3.5 / 3
    assert rmse([3, 4, 5], [4, 2, 5.5]) == pytest.approx(np.sqrt(1.75))
    assert mae([3, 4, 5], [4, 2, 5.5]) == pytest.approx(3.5 / 3)
    # 5.5 becomes 5: squares 1 + 4 + 0
    assert rmse([3, 4, 5], [4, 2, 5.5], clip=STARS) == pytest.approx(np.sqrt(5 / 3))
    assert mae([3, 4, 5], [4, 2, 5.5], clip=STARS) == pytest.approx(1.0)


@settings(deadline=None)  # a busy machine is no failure
@given(hnp.arrays(float, (2, 20), elements=st.floats(-10, 10)))
def test_rmse_and_mae_equal_scikit_learn(pair):
    assert rmse(*pair) == pytest.approx(root_mean_squared_error(*pair), abs=1e-12)
    assert mae(*pair) == pytest.approx(mean_absolute_error(*pair), abs=1e-12)
    assert mae(*pair) <= rmse(*pair) + 1e-12


def test_errors_need_one_prediction_for_each_rating():
    with pytest.raises(SettingsError, match="2 ratings and 1 predictions"):
        rmse([1, 2], [1])
    with pytest.raises(SettingsError):
        mae([], [])


def test_level_positions_by_hand():
    half = np.arange(0.5, 5.01, 0.5)
    assert level_positions([0.5, 3.0, 5.0], half).tolist() == [0, 5, 9]
    assert level_positions([1, 5, 2], [1, 2, 5]).tolist() == [0, 2, 1]
    # To a millionth of the distance of levels.
    assert level_positions([300.00005], [100, 200, 300]).tolist() == [2]
    with pytest.raises(DataError, match="not on the scale"):
        level_positions([0.10000001], [0.1, 0.101, 0.102])


@pytest.mark.parametrize("wrong", [3.5, 0.0, 6.0, np.nan])
def test_a_rating_off_the_scale_is_named(wrong):
    with pytest.raises(DataError, match=f"rating {wrong:g} is not on the scale 1 to 5"):
        level_positions([3.0, wrong], STARS.levels)


def test_nll_by_hand():
    # -ln 0.5 = 0.6931, -ln 0.25 = 1.3863
    assert nll([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]], [0, 2]) == pytest.approx(
        [0.693147, 1.386294], abs=1e-6
    )


def test_an_impossible_rating_costs_708_nats_not_infinity():
    assert nll([[1.0, 0.0]], [1]) == pytest.approx([708.396], abs=1e-3)


def test_rounding_above_one_gives_no_negative_nll():
    assert nll([[1.0 + 1e-15, 0.0]], [0])[0] == 0.0


def test_rps_by_hand():
    # F = 0.1, 0.3, 0.6 at the thresholds; y is the third level: 0, 0, 1: 0.01 + 0.09 + 0.16 = 0.26
    assert rps([[0.1, 0.2, 0.3, 0.4]], [2]) == pytest.approx([0.26])
    # certain and right; certain and wrong by 3 levels: the absolute error
    assert rps([[0, 0, 0, 1.0], [0, 0, 0, 1.0]], [3, 0]) == pytest.approx([0.0, 3.0])


pmfs = hnp.arrays(float, (7, 5), elements=st.floats(0.01, 1)).map(lambda a: a / a.sum(axis=1, keepdims=True))
levels_observed = hnp.arrays(np.int64, 7, elements=st.integers(0, 4))


@settings(deadline=None)  # a busy machine is no failure
@given(pmfs, levels_observed)
def test_rps_equals_scoringrules_and_the_crps_of_a_discrete_law(pmf, positions):
    ours = rps(pmf, positions)
    assert ours == pytest.approx(scoringrules.rps_score(positions + 1, pmf), abs=1e-12)
    # E|X - y| - E|X - X'| / 2, level by level
    distance = np.abs(np.arange(5)[:, None] - np.arange(5))
    crps = [p @ distance[y] - p @ distance @ p / 2 for p, y in zip(pmf, positions, strict=True)]
    assert ours == pytest.approx(crps, abs=1e-12)
    assert ((ours >= 0) & (ours <= 4)).all()


@settings(deadline=None)  # a busy machine is no failure
@given(pmfs)
def test_nll_and_rps_are_proper(pmf):
    # expected under p, a forecast p does no worse than another forecast q
    for score in (nll, rps):
        own = sum(pmf[:, y] * score(pmf, np.full(7, y)) for y in range(5))
        other = np.roll(pmf, 1, axis=0)
        theirs = sum(pmf[:, y] * score(other, np.full(7, y)) for y in range(5))
        assert (own <= theirs + 1e-12).all()


def test_distributions_must_fit_the_ratings():
    with pytest.raises(SettingsError, match="do not fit 2 ratings"):
        nll([[0.5, 0.5]], [0, 1])


def test_recall_by_hand():
    hits = [[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    # user 0: 5 relevant, 1 of 2 places, then 2 of min(4, 5); user 1: one relevant, found at place 4
    assert recall_at(hits, [5, 1, 2], 2) == pytest.approx([0.5, 0, 0])
    assert recall_at(hits, [5, 1, 2], 4) == pytest.approx([0.5, 1, 0])
    # a list of 10 that ends after 4 places: 2 of min(10, 5)
    assert recall_at(hits, [5, 1, 2], 10) == pytest.approx([0.4, 1, 0])


def test_ndcg_by_hand():
    hits = [[1, 0, 1, 0], [0, 0, 0, 1]]
    # discounts 1, 1/log2 3, 1/2, 1/log2 5
    best_two, best_four = 1 + 1 / LOG2_3, 1 + 1 / LOG2_3 + 0.5 + 1 / np.log2(5)
    assert ndcg_at(hits, [5, 1], 2) == pytest.approx([1 / best_two, 0])
    assert ndcg_at(hits, [5, 1], 4) == pytest.approx([1.5 / best_four, 1 / np.log2(5)])
    assert ndcg_at(hits, [2, 1], 4) == pytest.approx([1.5 / best_two, 1 / np.log2(5)])


def test_users_without_anything_to_find_are_undefined():
    assert np.isnan(recall_at([[0, 0]], [0], 2)).all()
    assert np.isnan(ndcg_at([[0, 0]], [0], 2)).all()


def test_a_list_has_at_least_one_place():
    with pytest.raises(SettingsError, match="at least 1"):
        recall_at([[1]], [1], 0)


relevance = hnp.arrays(bool, (6, 12)).filter(lambda a: a.any(axis=1).all())


@settings(deadline=None)  # a busy machine is no failure
@given(relevance, st.integers(1, 15))
def test_ndcg_equals_scikit_learn(relevant, n):
    # a complete ranking of 12 items, best first: scores fall
    scores = np.tile(np.arange(12, 0, -1.0), (6, 1))
    ours = ndcg_at(relevant, relevant.sum(axis=1), n)
    theirs = [
        ndcg_score(row[None].astype(int), score[None], k=n, ignore_ties=True)
        for row, score in zip(relevant, scores, strict=True)
    ]
    assert ours == pytest.approx(theirs, abs=1e-12)


@settings(deadline=None)  # a busy machine is no failure
@given(relevance, st.integers(1, 15))
def test_ranking_metrics_are_bounded_perfect_and_monotone(relevant, n):
    totals = relevant.sum(axis=1)
    perfect = -np.sort(-relevant.astype(int), axis=1)
    for metric in (recall_at, ndcg_at):
        values = metric(relevant, totals, n)
        assert ((values >= 0) & (values <= 1)).all()
        assert (metric(perfect, totals, n) == 1).all()
        # beyond the relevant items' number the denominator stays, so a longer list is no worse
        longer = metric(relevant, totals, n + 1)
        fixed = totals <= n
        assert (longer[fixed] >= values[fixed] - 1e-12).all()
        assert (metric(relevant[::-1], totals[::-1], n)[::-1] == values).all()


@settings(max_examples=30, deadline=None)
@given(relevance, st.integers(1, 11))
def test_ndcg_rewards_moving_a_hit_forward(relevant, place):
    swapped = relevant.copy()
    swapped[:, [place - 1, place]] = relevant[:, [place, place - 1]]
    forward = relevant[:, place] & ~relevant[:, place - 1]
    totals = relevant.sum(axis=1)
    before, after = ndcg_at(relevant, totals, 12), ndcg_at(swapped, totals, 12)
    assert (after[forward] > before[forward]).all()


def test_lists_without_places_have_no_gain():
    np.testing.assert_array_equal(ndcg_at(np.zeros((2, 0), bool), [3, 0], 5), [0.0, np.nan])
    np.testing.assert_array_equal(recall_at(np.zeros((2, 0), bool), [3, 0], 5), [0.0, np.nan])
