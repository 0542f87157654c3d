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


def test_densities_never_meet_probabilities() -> None:
    values = [np.zeros(4), np.ones(4)]
    with pytest.raises(SettingsError, match="a: probability, b: density"):
        compare_elpd(["a", "b"], values, np.arange(4), ["probability", "density"])
    with pytest.raises(SettingsError, match="the same for all"):
        compare_elpd(["a", "b"], [np.zeros(4), np.ones(3)], np.arange(4), ["density"] * 2)
