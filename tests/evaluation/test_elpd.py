"""Differences of ELPD: standard errors against simulation, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation.elpd import clustered_se, compare_elpd, independent_se


def test_standard_errors_are_those_of_repeated_samples() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 5)
    own = rng.normal(size=(400, 1000))
    shared = own + 2.0 * rng.normal(size=(400, 200))[:, groups]
    for values, sees_groups in ((own, False), (shared, True)):
        spread = values.sum(1).std()
        by_user = np.mean([clustered_se(one, groups) for one in values])
        alone = np.mean([independent_se(one) for one in values])
        assert by_user == pytest.approx(spread, rel=0.1)
        # Independence is believed wrongly where a user's values go together: sqrt(21 / 5) too small.
        assert (alone < 0.6 * spread) == sees_groups


def test_models_are_ranked_by_paired_differences() -> None:
    rng = np.random.default_rng(1)
    users = rng.integers(50, size=600)
    hard = rng.normal(-1.4, 1.0, 600)
    values = [hard - 0.2, hard, hard + rng.normal(-0.001, 0.3, 600)]
    rows = compare_elpd(["worse", "good", "near"], values, users, ["probability"] * 3)
    assert [row.name for row in rows] == ["good", "near", "worse"]
    best, near, worse = rows
    assert best.difference == best.difference_se == 0.0
    assert not best.clear
    assert worse.difference == pytest.approx(-120.0)
    assert worse.difference_se == pytest.approx(0.0, abs=1e-9)
    assert worse.clear
    assert not near.clear
    # Paired: far less than what the figures' own standard errors would say.
    assert near.difference_se < 0.5 * near.se
    assert best.n_users == len(np.unique(users))


@pytest.mark.parametrize("users", [[0, 0, 2, 2, 2, 5, 7], [3] * 7, list(range(7)), [0, 0, 0, 1, 1, 1, 1]])
def test_every_figure_from_its_definition(users: list[int]) -> None:
    rng = np.random.default_rng(6)
    values = [rng.normal(-1.3, 0.4, 7) for _ in range(3)]
    rows = compare_elpd(["a", "b", "c"], values, np.array(users), ["density"] * 3)
    sums = [one.sum() for one in values]
    best = values[int(np.argmax(sums))]
    assert [row.name for row in rows] == [
        name for _, name in sorted(zip(sums, "abc", strict=True), reverse=True)
    ]

    def alone(x: np.ndarray) -> float:
        return float(np.std(x, ddof=1) * 7**0.5)

    def by_user(x: np.ndarray) -> float:
        """Sums of deviations by user, squared, as of so many users drawn anew."""
        n = len(set(users))
        total = sum(sum(x[k] - x.mean() for k in range(7) if users[k] == user) ** 2 for user in set(users))
        return float((total * n / (n - 1 if n > 1 else 1)) ** 0.5)

    for row in rows:
        own = values["abc".index(row.name)]
        gap = own - best
        assert (row.n_ratings, row.n_users) == (7, len(set(users)))
        assert (row.elpd, row.elpd_per_rating) == pytest.approx((own.sum(), own.mean()))
        assert (row.se, row.se_by_user) == pytest.approx((alone(own), by_user(own)))
        assert row.difference == pytest.approx(gap.sum())
        assert (row.difference_se, row.difference_se_by_user) == pytest.approx((alone(gap), by_user(gap)))
        assert row.clear == (row.name != rows[0].name and -gap.sum() > 2 * by_user(gap))
        assert row.to_dict()["difference_se_by_user"] == row.difference_se_by_user


@pytest.mark.parametrize(("gap", "clear"), [(1.9, False), (2.1, True)])
def test_a_difference_is_clear_beyond_two_of_its_errors(gap: float, clear: bool) -> None:
    noise = np.random.default_rng(2).normal(size=40)
    noise -= noise.mean()
    error = (40 / 39 * (noise**2).sum()) ** 0.5
    values = [np.full(40, -1.0), np.full(40, -1.0) + noise - gap * error / 40]
    rows = compare_elpd(["a", "b"], values, np.arange(40), ["density"] * 2)
    assert [row.clear for row in rows] == [False, clear]


def test_two_ratings_are_the_fewest() -> None:
    rows = compare_elpd(["a", "b"], [np.array([0.0, 1.0]), np.zeros(2)], np.arange(2), ["density"] * 2)
    assert rows[0].name == "a"
    with pytest.raises(SettingsError, match="two or more ratings"):
        compare_elpd(["a"], [np.zeros(1)], np.arange(1), ["density"])


def test_densities_never_meet_probabilities() -> None:
    values = [np.zeros(4), np.ones(4)]
    with pytest.raises(SettingsError, match="a: probability, b: density"):
        compare_elpd(["a", "b"], values, np.arange(4), ["probability", "density"])
    with pytest.raises(SettingsError, match="the same for all"):
        compare_elpd(["a", "b"], [np.zeros(4), np.ones(3)], np.arange(4), ["density"] * 2)
