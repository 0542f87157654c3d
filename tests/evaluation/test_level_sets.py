"""Smallest sets of levels, against a search of all subsets; their words; what of them holds."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from pyro_bmf.data import random_split, synthetic_ratings
from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation import evaluate
from pyro_bmf.evaluation.calibration import COVERAGE_LEVELS, discrete_interval
from pyro_bmf.numerics.level_sets import set_words, smallest_sets
from pyro_bmf.systems.contract import BasePredictor
from pyro_bmf.systems.predictions import NormalPredictions


def by_search(pmf, probability):
    """The best of all subsets: fewest levels, then most probability, then the lower levels."""
    levels = range(len(pmf))
    for size in range(1, len(pmf) + 1):
        held = {subset: round(sum(pmf[k] for k in subset), 12) for subset in combinations(levels, size)}
        good = {subset: share for subset, share in held.items() if share >= probability - 1e-12}
        if good:
            return min(good, key=lambda subset: (-good[subset], subset))
    raise AssertionError


@pytest.mark.parametrize("probability", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("n_levels", [1, 2, 5, 10])
def test_no_subset_is_smaller_or_likelier(n_levels, probability):
    rng = np.random.default_rng(n_levels)
    pmf = rng.dirichlet(np.full(n_levels, 0.7), 60)
    inside, held = smallest_sets(pmf, probability)
    for row, chosen, share in zip(pmf, inside, held, strict=True):
        assert tuple(np.flatnonzero(chosen)) == by_search(row, probability)
        assert share == pytest.approx(row[chosen].sum())
        assert share >= probability - 1e-12


def test_equal_levels_are_taken_from_below():
    pmf = np.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.1, 0.4], [0.3, 0.1 + 0.2, 0.2, 0.2]])
    inside, held = smallest_sets(pmf, 0.5)
    assert inside.tolist() == [[1, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 0]]
    assert held == pytest.approx([0.5, 0.8, 0.6])
    # 0.1 + 0.2 is more than 0.3 by rounding alone, and is no reason to pass 0.3 over.
    assert smallest_sets([[0.3, 0.1 + 0.2, 0.4]], 0.7)[0].tolist() == [[1, 0, 1]]
    # A probability that is met exactly is met: 0.1 nine times over is 0.9.
    assert smallest_sets(np.full((1, 10), 0.1), 0.9)[0].sum() == 9
    # On many levels too, where sorting algorithms that keep no order begin.
    many = np.where(np.arange(100) % 2, 0.015, 0.005)
    assert np.flatnonzero(smallest_sets([many], 0.6)[0][0]).tolist() == list(range(1, 80, 2))
    assert smallest_sets([[0.6, 0.4 + 2e-16]], 0.999)[1].tolist() == [1.0]  # never more than one, by rounding


def test_sets_are_no_larger_than_central_intervals():
    pmf = np.random.default_rng(1).dirichlet(np.ones(9), 500)
    grid = np.arange(9.0)
    low, high = discrete_interval(pmf, grid, 0.9)
    assert (smallest_sets(pmf, 0.9)[0].sum(1) <= high - low + 1).all()


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1])
def test_a_probability_is_between_0_and_1(probability):
    with pytest.raises(SettingsError, match="between 0 and 1"):
        smallest_sets([[0.5, 0.5]], probability)


def test_words():
    grid = [0.5, 1.0, 1.5, 2.0, 2.5]
    inside = np.array(
        [[0, 0, 0, 1, 1], [0, 1, 1, 1, 0], [1, 0, 1, 1, 1], [0, 0, 1, 0, 0], [1, 1, 1, 1, 1]], bool
    )
    assert set_words(inside, grid).tolist() == ["2, 2.5", "1 to 2", "0.5, 1.5 to 2.5", "1.5", "0.5 to 2.5"]
    gaps = np.array([[1, 0, 1, 0, 0], [1, 1, 0, 1, 1], [1, 1, 1, 0, 1]], bool)
    assert set_words(gaps, grid).tolist() == ["0.5, 1.5", "0.5, 1, 2, 2.5", "0.5 to 1.5, 2.5"]
    assert set_words(np.zeros((0, 5), bool), grid).tolist() == []
    many = np.zeros((3, 300), bool)
    many[:, 290:] = True
    many[1, 3] = True
    assert set_words(many, np.arange(300))[1] == "3, 290 to 299"


class Table(BasePredictor):
    """A system with a table of probabilities of each pair."""

    def __init__(self, split):
        rng = np.random.default_rng(0)
        self.levels = split.ratings.scale.levels
        shape = split.ratings.n_users, split.ratings.n_items, len(self.levels)
        self.pmf = rng.dirichlet(np.ones(shape[2]), shape[:2])

    def predict_pmf(self, users, items, levels):
        return self.pmf[users, items]

    def predict_mean(self, users, items):
        return self.pmf[users, items] @ self.levels

    def predict_sd(self, users, items):
        return np.sqrt(self.pmf[users, items] @ self.levels**2 - self.predict_mean(users, items) ** 2)

    def score_items(self, users):
        return self.pmf[users] @ self.levels


class NormalTable(Table):
    """One that prints the intervals of a Normal all the same."""

    def predict_pairs(self, users, items, levels):
        said = super().predict_pairs(users, items, levels)
        return NormalPredictions(said.mean, said.sd, said.pmf)


def test_evaluation_tells_pit_interval_and_set_apart():
    split = random_split(synthetic_ratings(30, 20, 400, scale="1:5:1", seed=3).ratings, seed=0)
    table = Table(split)
    found = evaluate(table, split, protocols=(), draws=10)
    test = split.test
    pmf, x = table.pmf[test.users, test.items], test.ratings
    overall = found.calibration.overall
    for at, level in enumerate(COVERAGE_LEVELS):
        tail = (1 - level) / 2
        inside_interval = []
        inside_set, sizes = [], []
        for row, rating in zip(pmf, x, strict=True):  # quantiles and sets, one rating at a time
            cdf = np.cumsum(row)
            low = table.levels[np.argmax(cdf >= tail)]
            high = table.levels[np.argmax(cdf >= 1 - tail)]
            inside_interval.append(low <= rating <= high)
            chosen = by_search(row, level)
            inside_set.append(rating in table.levels[list(chosen)])
            sizes.append(len(chosen))
        assert overall.interval_coverage[at] == pytest.approx(np.mean(inside_interval))
        assert overall.set_coverage[at] == pytest.approx(np.mean(inside_set))
        assert overall.set_size[at] == pytest.approx(np.mean(sizes))
    assert overall.interval_coverage != overall.pit_coverage
    columns = found.tables()["coverage"]
    assert {"pit_coverage", "interval_coverage", "set_coverage", "set_size"} <= set(columns)
    # A system whose printed intervals are Normal is held to those.
    normal = evaluate(NormalTable(split), split, protocols=(), draws=10).calibration.overall
    mean, sd = table.predict_mean(test.users, test.items), table.predict_sd(test.users, test.items)
    assert normal.interval_coverage[2] == pytest.approx(np.mean(np.abs(x - mean) <= 1.6448536 * sd))
    assert normal.width[2] == pytest.approx(np.mean(2 * 1.6448536 * sd))
    assert normal.pit_coverage == overall.pit_coverage
    assert normal.set_coverage == overall.set_coverage


def test_a_continuous_scale_has_no_sets():
    split = random_split(synthetic_ratings(30, 20, 400, scale="-20:20", seed=3).ratings, seed=0)

    class Normal(Table):
        def __init__(self):
            pass

        def predict_mean(self, users, items):
            return np.zeros(len(users))

        def predict_sd(self, users, items):
            return np.full(len(users), 2.0)

    overall = evaluate(Normal(), split, protocols=(), draws=10).calibration.overall
    assert overall.set_coverage is None
    assert overall.set_size is None
    assert overall.interval_coverage == pytest.approx(overall.pit_coverage)
