"""The rule that flags ranks: false alarms and power, on ranks simulated in other ways than its own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pyro_bmf.checking.rank_rule import (
    Quantities,
    Rule,
    error_rates,
    make_rule,
    narrow_coverage,
    quantities_of,
    simulate_statistics,
    statistics_of,
)
from pyro_bmf.checking.simulated_ranks import check_ranks

KINDS = {"uv": 20, "user bias": 6, "item bias": 6, "noise": 1}


def ranks_of(rng, n_fits, n, *, narrow=1.0, shared=0.2, draws=100):
    """Ranks of truths among draws: a fit's errors share a Normal part, which is not how rules simulate."""
    found = []
    for _ in range(n_fits):
        z = np.sqrt(shared) * rng.normal() + np.sqrt(1 - shared) * rng.normal(size=n)
        below = (narrow * rng.normal(size=(draws, n)) < z).sum(0)
        found.append(((below + rng.random(n)) / (draws + 1)).tolist())
    return found


def scaled_ranks(rng, n_fits, n, *, draws=100):
    """Right ranks whose fits are too narrow and too wide by turns: Student-t truths of a fit's own scale."""
    found = []
    for _ in range(n_fits):
        scale = np.sqrt(5.0 / rng.chisquare(5.0))  # shared by the truths of a fit
        truth = scale * rng.normal(size=n)
        below = (stats.t(5).rvs((draws, n), random_state=rng) < truth).sum(0)
        found.append(((below + rng.random(n)) / (draws + 1)).tolist())
    return found


def flagged(rule: Rule, ranks) -> bool:
    return any(
        rule.scores(kind, statistics_of(found)).max() > rule.threshold for kind, found in ranks.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [ranks_of, scaled_ranks])
def test_false_alarms_stay_below_five_percent(make) -> None:
    """200 checks, each with correlations of its own and a rule of its own, as the command makes them."""
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(200):
        ranks = {kind: make(rng, 20, n) for kind, n in KINDS.items()}
        rule = make_rule({kind: quantities_of(found) for kind, found in ranks.items()}, 20, repeats=300)
        alarms.append(flagged(rule, ranks))
    assert np.mean(alarms) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_stated_rates_are_those_of_a_thousand_fresh_checks() -> None:
    quantities = {kind: Quantities(n, 0.2 * (n > 1), 0.03 * (n > 1)) for kind, n in KINDS.items()}
    rule = make_rule(quantities, 20)
    alarms, power = error_rates(rule)
    assert alarms <= 0.05
    rng = np.random.default_rng(3)
    for narrow in (1.0, 0.8):
        found = [
            [
                rule.scores(kind, statistics_of(ranks_of(rng, 20, n, narrow=narrow))).max() > rule.threshold
                for kind, n in KINDS.items()
            ]
            for _ in range(120)
        ]
        rates = dict(zip(KINDS, np.mean(found, axis=0), strict=True))
        if narrow == 1.0:
            assert np.any(found, axis=1).mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 120)
        else:
            assert power["uv"] > 0.8 > power["noise"]
            assert all(rates[kind] == pytest.approx(power[kind], abs=0.18) for kind in KINDS)


def test_power_grows_with_fits_and_with_the_fault() -> None:
    quantities = {"uv": Quantities(6, 0.1, 0.05)}
    powers = [
        error_rates(make_rule(quantities, n_fits, repeats=400), narrow=narrow, repeats=400)[1]["uv"]
        for n_fits, narrow in ((10, 0.9), (10, 0.7), (40, 0.7))
    ]
    assert powers[0] < powers[1] < powers[2]
    assert powers[2] > 0.98


def test_simulated_ranks_are_uniform_and_correlate_as_asked() -> None:
    one = Quantities(8, 0.4, 0.3)
    found = simulate_statistics(one, 30, 2_000, [0])
    # Sums of fits' means over standard errors are near to standard Normal, and centred, under no fault.
    assert np.abs(found[:, :3].mean(axis=0)).max() < 0.12
    assert found[:, 2].std() == pytest.approx(1.0, abs=0.1)
    rng = np.random.default_rng(1)
    ranks = ranks_of(rng, 4_000, 8, shared=0.4)
    back = quantities_of(ranks)
    assert back.n == 8
    assert back.side == pytest.approx(0.4, abs=0.04)  # signs of Normals that correlate by 0.4
    assert quantities_of(ranks_of(rng, 2_000, 8, shared=0.0)).side == pytest.approx(0.0, abs=0.02)
    assert quantities_of(ranks_of(rng, 50, 1)) == Quantities(1, 0.0, 0.0)


@pytest.mark.parametrize("narrow", [1.0, 0.7])
def test_simulated_checks_are_those_of_correlated_ranks(narrow: float) -> None:
    """Rank by rank from the definition: signs and sizes of Normals with the covariance that is asked for."""
    one, n_fits, checks = Quantities(12, 0.8, 0.6), 3, 800
    rng = np.random.default_rng(8)

    def correlated(correlation: float) -> np.ndarray:
        covariance = correlation + (1.0 - correlation) * np.eye(one.n)
        return rng.multivariate_normal(np.zeros(one.n), covariance, (checks, n_fits))

    side, half = np.sign(correlated(one.side)), stats.halfnorm.ppf(stats.norm.cdf(correlated(one.size)))
    ranks = stats.norm.cdf(side * half / narrow)
    expected = np.array([statistics_of(check.tolist()) for check in ranks])
    found = simulate_statistics(one, n_fits, 4_000, [0], narrow=narrow)
    apart = simulate_statistics(Quantities(12, 0.0, 0.0), n_fits, 4_000, [0], narrow=narrow)
    for share in (0.1, 0.5, 0.9):
        spread = expected.std(0)
        here, there = np.quantile(found, share, axis=0), np.quantile(expected, share, axis=0)
        np.testing.assert_allclose((here / spread)[2:5], (there / spread)[2:5], atol=0.2)  # not of few steps
    np.testing.assert_allclose(found.mean(0) / spread, expected.mean(0) / spread, atol=0.2)
    # What correlations do: shares of the middle are set by half-Normals, mean ranks by sides.
    for place in (0, 2, 4):
        assert found[:, place].std() > 1.2 * apart[:, place].std()


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_correlations_are_analyses_of_variance_and_two_errors(shared: float) -> None:
    n_fits, n = 14, 5
    ranks = np.clip(ranks_of(np.random.default_rng(4), n_fits, n, shared=shared), 0.002, 0.998)

    def intraclass(groups: np.ndarray) -> float:
        f = stats.f_oneway(*groups).statistic
        found = (f - 1) / (f + n - 1)
        error = (1 - found) * (1 + (n - 1) * found) * np.sqrt(2 / (n * (n - 1) * (n_fits - 1)))
        return float(np.clip(found + 2 * error, 0.0, 0.9))

    side = intraclass(np.sign(ranks - 0.5))
    # |rank - 1/2| is uniform, and so how far a rank is from the middle has a Normal score of its own.
    size = intraclass(stats.norm.ppf(2 * np.abs(ranks - 0.5)))
    found = quantities_of(ranks.tolist())
    assert found.n == n
    assert found.side == pytest.approx(min(np.sin(np.pi / 2 * side), 0.9))
    assert found.size == pytest.approx(size)
    assert (found.side > 0.1) == (shared > 0)


def test_thresholds_are_those_of_their_false_alarms() -> None:
    """A fortieth of the simulated largest scores is above it: the largest over statistics and kinds."""
    quantities = {"uv": Quantities(6, 0.2, 0.1), "noise": Quantities(1, 0.0, 0.0)}
    rule = make_rule(quantities, 10, repeats=800, seed=3)
    largest = []
    for place, (kind, one) in enumerate(quantities.items()):
        found = simulate_statistics(one, 10, 800, [3, 0, place])
        low, high = np.percentile(found, 2.5, axis=0), np.percentile(found, 97.5, axis=0)
        np.testing.assert_allclose(rule.low[kind], low)
        np.testing.assert_allclose(rule.high[kind], high)
        low, high = np.minimum(low, -0.1), np.maximum(high, 0.1)
        largest.append(np.where(found > 0, found / high, found / low).max(1))
    together = np.max(largest, axis=0)
    np.testing.assert_allclose(rule.largest, np.sort(together))
    assert np.mean(together > rule.threshold) == pytest.approx(0.025, abs=0.002)
    fresh = [
        rule.scores(kind, simulate_statistics(one, 10, 800, [3, 1, place])).max(1) > rule.threshold
        for place, (kind, one) in enumerate(quantities.items())
    ]
    alarms, _ = error_rates(rule, repeats=800, seed=3)
    assert alarms == np.logical_or(*fresh).mean() > max(np.mean(fresh, axis=1))  # of either kind
    assert rule.p_value(0.0) == 1.0
    assert rule.p_value(np.inf) == pytest.approx(1 / 801)
    assert rule.p_value(np.sort(together)[-3]) == pytest.approx(4 / 801)  # it and two more, and itself once


def test_statistics_by_hand() -> None:
    ranks = [[0.5, 0.3, 0.97], [0.02, 0.6, 0.8]]
    z = stats.norm.ppf(ranks)
    inside = (np.abs(np.array(ranks) - 0.5) < 0.45).mean(axis=1) - 0.9
    floor = 0.09 / 3
    expected = inside.mean() / np.sqrt(max(inside.var(ddof=1), floor) / 2)
    found = statistics_of(ranks)
    assert found[1] == pytest.approx(expected)
    assert found[4] == pytest.approx(((z**2).mean() - 1) / np.sqrt(2 / 3 / 2))
    assert found[5] == pytest.approx((0 - 0.02) / np.sqrt(0.02 * 0.98 / 3 / 2))


def test_a_few_fits_that_went_wrong_altogether_are_seen() -> None:
    """Four of twenty fits miss all their truths: the standard error over fits grows with them."""
    rng = np.random.default_rng(5)
    ranks = ranks_of(rng, 20, 6)
    for fit in range(4):
        ranks[fit] = np.where(np.array(ranks[fit]) < 0.5, 0.004, 0.996).tolist()
    errors = [[0.0] * 6] * 20
    check = check_ranks({"user bias": ranks}, {"user bias": errors}, repeats=500)
    assert check.summaries[0].flagged
    assert check.summaries[0].worst == "truths beyond the draws"
    assert (
        not check_ranks({"user bias": ranks[4:]}, {"user bias": errors[4:]}, repeats=500).summaries[0].flagged
    )


def test_a_check_says_what_it_could_have_seen() -> None:
    rng = np.random.default_rng(6)
    ranks = {kind: ranks_of(rng, 20, n) for kind, n in KINDS.items()}
    errors = {kind: [[0.0] * n] * 20 for kind, n in KINDS.items()}
    check = check_ranks(ranks, errors, repeats=400)
    assert check == check_ranks(ranks, errors, repeats=400)
    assert narrow_coverage() == pytest.approx(0.812, abs=1e-3)
    by_kind = {one.kind: one for one in check.summaries}
    assert by_kind["uv"].power > 0.8
    assert by_kind["uv"].fits_needed is None
    assert by_kind["noise"].power < 0.5
    assert by_kind["noise"].fits_needed is None or by_kind["noise"].fits_needed >= 80
    words = check.words()
    assert f"uv {by_kind['uv'].power:.2f}" in words
    assert "false alarms" in words
    assert "more fits (--refits)" in words
