"""Predictive checks: exact under exchangeability, red for a planted misfit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from posteriors import planted, train_posterior

from pyro_bmf.checking.discrepancy import Discrepancies, ScaleParts, check_statistics
from pyro_bmf.checking.predictive_check import check_predictive
from pyro_bmf.data import random_split
from pyro_bmf.errors import DataError
from pyro_bmf.evaluation.selective import risk_coverage
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.priors.normal import NormalPrior


def checks(n: int, rng: np.random.Generator) -> Discrepancies:
    users, items = rng.integers(0, 30, n), rng.integers(0, 20, n)
    return Discrepancies(
        users,
        items,
        np.bincount(users, minlength=30)[users],
        np.bincount(items, minlength=20)[items],
        scale=ScaleParts(-2.0, 2.0),
        moments=(np.zeros(n), np.ones(n)),
    )


def joint_p(heavy: bool, seed: int) -> float:
    """Check data drawn like their replicates, or with the heavy tails of a Student t."""
    rng = np.random.default_rng(seed)
    n, s = 400, 100
    tests = checks(n, rng)
    data = rng.standard_t(3, n) / np.sqrt(3.0) if heavy else rng.normal(size=n)
    pit = rng.random((s + 1, n))
    own, _ = tests.of(data[None], pit[:1])
    replicated, _ = tests.of(rng.normal(size=(s, n)), pit[1:])
    return check_statistics(tests.names, tests.groups, own[0], replicated)[1]


def test_false_alarms_are_as_many_as_said() -> None:
    flagged = [joint_p(False, seed) <= 0.05 for seed in range(100)]
    assert sum(flagged) <= 12  # 5 expected; above 12 with probability 0.001


def test_heavy_tails_are_seen() -> None:
    assert all(joint_p(True, seed) <= 0.05 for seed in range(10))


def of_levels(
    levels: np.ndarray, ratings: np.ndarray, replicated: np.ndarray, shares: np.ndarray
) -> dict[str, float]:
    """Return the kept statistics of ratings of some levels, by name."""
    n, rng = len(ratings), np.random.default_rng(0)
    users, items = rng.integers(0, 30, n), rng.integers(0, 20, n)
    tests = Discrepancies(
        users, items, users, items, scale=ScaleParts(levels[0], levels[-1], levels, shares),
        moments=(rng.normal(levels.mean(), 0.1, n), np.ones(n)),
    )  # fmt: skip
    pit = rng.random((len(replicated) + 1, n))
    own, values = tests.of(ratings[None], pit[:1])[0][0], tests.of(replicated, pit[1:])[0]
    kept = tests.kept(own, values)
    return {name: float(own[at]) for at, name in enumerate(tests.names) if kept[at]}


def test_which_ratings_are_extreme_is_not_the_models_to_say() -> None:
    rng = np.random.default_rng(3)
    levels, n = np.arange(1.0, 6.0), 300
    ratings = rng.choice(levels, n, p=[0.02, 0.08, 0.3, 0.5, 0.1])
    replicated = rng.choice(levels, (20, n))
    found = [
        of_levels(levels, ratings, replicated, np.array(shares))["share of extreme ratings"]
        for shares in ([0.2] * 5, [0.0, 0.0, 0.4, 0.6, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0])
    ]
    assert found == [pytest.approx(((ratings == 1) | (ratings == 5)).mean())] * 3


@pytest.mark.parametrize(
    ("levels", "observed", "replicated", "kept"),
    [
        ([0.0, 1.0], [0.5, 0.5], [0.5, 0.5], False),  # every rating is extreme
        ([1.0, 2.0, 3.0], [0, 1, 0], [0, 1, 0], False),  # and here none
        ([1.0, 2.0, 3.0], [0, 1, 0], [0.3, 0.4, 0.3], True),
        ([1.0, 2.0, 3.0], [0.3, 0.4, 0.3], [0, 1, 0], True),
    ],
)
def test_extreme_ratings_are_a_statistic_where_some_are_and_others_are_not(
    levels: list[float], observed: list[float], replicated: list[float], kept: bool
) -> None:
    rng = np.random.default_rng(4)
    found = of_levels(
        np.array(levels),
        rng.choice(levels, 200, p=observed),
        rng.choice(levels, (20, 200), p=replicated),
        np.full(len(levels), 1.0 / len(levels)),
    )
    assert ("share of extreme ratings" in found) == kept


def test_too_few_ratings_are_refused() -> None:
    with pytest.raises(DataError, match="twenty"):
        checks(10, np.random.default_rng(0))


def test_risk_falls_with_an_informative_sd_only() -> None:
    rng = np.random.default_rng(1)
    sd = rng.uniform(0.2, 2.0, 4000)
    errors = rng.normal(0.0, sd)
    good, blind = risk_coverage(errors, sd), risk_coverage(errors, np.ones(4000))
    assert good.rmse[-1] < 0.5 * good.rmse[0]
    assert blind.rmse == pytest.approx([blind.random_area] * 10)
    assert good.best_area < good.area < good.random_area


def test_a_prior_without_bounds_is_counted_and_left_out() -> None:
    split = random_split(planted(), seed=0)
    posterior = train_posterior(split.train, iterations=1)
    usual = check_predictive(posterior, split, num_samples=30, prior_samples=20)
    assert usual.prior_overflows == 0
    assert len(usual.prior) == len(usual.statistics)
    wide = FactorizationModel(
        3,
        user_prior=NormalPrior(scale=1e30),
        item_prior=NormalPrior(scale=1e30),
        likelihood=posterior.model.likelihood,
    )
    found = check_predictive(
        dataclasses.replace(posterior, model=wide), split, num_samples=30, prior_samples=20
    )
    assert found.prior_overflows == 20
    assert found.prior == ()
    assert found.to_dict()["prior_overflows"] == 20
