"""Heavy tails fitted with Normal noise are seen by ppc and compare, which are quiet on Normal noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from posteriors import load_benchmark

from pyro_bmf.checking.discrepancy import Discrepancies, ScaleParts, _pooled
from pyro_bmf.errors import DataError

BENCHMARK = load_benchmark("false_alarms")


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    """Fit one set of each truth by everything that a check needs."""
    return {truth: BENCHMARK.alarms(BENCHMARK.drawn(1, df)) for truth, df in BENCHMARK.TRUTHS.items()}


def test_heavy_tails_are_flagged_by_the_predictive_check(found: dict[str, dict[str, Any]]) -> None:
    assert found["student-t"]["joint_p"] <= 0.05
    assert "residual kurtosis" in found["student-t"]["flagged"]
    assert found["normal"]["joint_p"] > 0.05
    assert found["normal"]["flagged"] == []


def test_heavy_tails_are_seen_by_the_comparison(found: dict[str, dict[str, Any]]) -> None:
    for truth, result in found.items():
        assert result["better"] == truth
    heavy = found["student-t"]
    assert heavy["clear"]
    assert heavy["difference"] < -2 * heavy["difference_se"]


def test_the_diagnosis_of_rows_is_quiet_for_both(found: dict[str, dict[str, Any]]) -> None:
    """Exact rows of a wrong model are still exact: the likelihood is not what `diagnose` is about."""
    for result in found.values():
        assert result["rows"] == 200
        assert result["rows_flagged"] <= 3


def test_a_table_counts_the_alarms(found: dict[str, dict[str, Any]]) -> None:
    table = BENCHMARK.summary({truth: [result] for truth, result in found.items()})
    assert "| `ppc` | joint p at most 0.05 | 0 of 1 (0.0 %) | 1 of 1 (100.0 %) |" in table


def test_rare_levels_are_put_together() -> None:
    assert _pooled(np.array([1.0, 2, 3, 9, 20, 4, 0.5])).tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert _pooled(np.full(5, 100.0)).tolist() == [0, 1, 2, 3, 4]
    assert _pooled(np.array([0.1, 0.1])).tolist() == [0, 0]


def test_the_pools_are_what_is_counted() -> None:
    rng = np.random.default_rng(0)
    n, levels = 200, np.arange(1.0, 7.0)
    shares = np.array([0.001, 0.001, 0.398, 0.4, 0.199, 0.001])
    index = np.zeros(n, dtype=np.int64)
    checks = Discrepancies(
        index,
        index,
        index,
        index,
        scale=ScaleParts(1.0, 6.0, levels, shares),
        moments=(np.full(n, 3.5), np.ones(n)),
    )
    assert checks.names[:3] == ["share of 1 to 3", "share of 4", "share of 5 to 6"]
    ratings = rng.integers(1, 7, n).astype(float)
    own = checks.of(ratings[None], rng.random((1, n)))[0][0]
    assert own[0] == (ratings <= 3).mean()
    assert own[2] == (ratings >= 5).mean()
    # Extreme are the ends of the scale, whatever is put together with them.
    extreme = own[checks.names.index("share of extreme ratings")]
    assert extreme == pytest.approx(((ratings == 1) | (ratings == 6)).mean())


def test_noise_without_a_standard_deviation_is_refused() -> None:
    with pytest.raises(DataError, match="noise_df is 2"):
        BENCHMARK.drawn(0, 2.0)


def test_planted_noise_has_its_standard_deviation() -> None:
    from pyro_bmf.data.synthetic import synthetic_ratings

    made = synthetic_ratings(300, 200, 40_000, noise=0.7, noise_df=8.0, seed=3)
    residuals = made.ratings.ratings - made.truth.eta
    assert residuals.std() == pytest.approx(0.7, rel=0.03)
    kurtosis = (residuals**4).mean() / (residuals**2).mean() ** 2
    assert 3.6 < kurtosis < 7.0  # 4.5 for eight degrees of freedom, 3 for a Normal
