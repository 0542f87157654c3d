"""Calibration: by hand, against scipy and pandas, quiet on a right model and loud on a wrong one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation.calibration import (
    COVERAGE_LEVELS,
    Outcomes,
    calibrate,
    count_deciles,
    discrete_interval,
    normal_interval_width,
    normal_pit,
    normal_pmf,
    pit_uniforms,
    randomized_pit,
)

LEVELS = np.arange(1.0, 6.0)


def test_normal_pmf_by_hand():
    # mean 3, sd 1, cuts 1.5, 2.5, 3.5, 4.5: phi(-1.5) = 0.0668, phi(-0.5) = 0.3085
    assert normal_pmf([3.0], [1.0], LEVELS)[0] == pytest.approx(
        [0.066807, 0.241730, 0.382925, 0.241730, 0.066807], abs=1e-6
    )


@settings(deadline=None)  # a busy machine is no failure
@given(hnp.arrays(float, 6, elements=st.floats(-5, 12)), hnp.arrays(float, 6, elements=st.floats(0.05, 20)))
def test_normal_pmf_is_a_distribution_and_equals_scipy(mean, sd):
    pmf = normal_pmf(mean, sd, LEVELS)
    assert pmf.sum(axis=1) == pytest.approx(np.ones(6), abs=1e-12)
    assert (pmf >= 0).all()
    edges = np.array([-np.inf, 1.5, 2.5, 3.5, 4.5, np.inf])
    assert pmf == pytest.approx(np.diff(stats.norm.cdf(edges, mean[:, None], sd[:, None]), axis=1), abs=1e-12)


def test_normal_pmf_keeps_far_cells():
    pmf = normal_pmf([1.0, 5.0], [0.2, 0.2], LEVELS)
    # P(5) at mean 1: the upper tail beyond 17.5 sd; by symmetry P(1) at mean 5
    assert pmf[0, 4] == pytest.approx(stats.norm.sf(17.5), rel=1e-9, abs=0)
    assert pmf[1, 0] == pytest.approx(pmf[0, 4], rel=1e-9, abs=0)


def test_normal_pmf_of_uneven_levels():
    # levels 0, 1, 4: cuts 0.5 and 2.5
    assert normal_pmf([1.0], [1.0], [0, 1, 4])[0] == pytest.approx([0.308538, 0.624655, 0.066807], abs=1e-6)


@pytest.mark.parametrize(("sd", "levels"), [(0.0, LEVELS), (np.nan, LEVELS), (1.0, [1.0]), (1.0, [2.0, 1.0])])
def test_normal_pmf_refuses_nonsense(sd, levels):
    with pytest.raises(SettingsError):
        normal_pmf([3.0], [sd], levels)


def test_randomized_pit_by_hand():
    pmf = [[0.1, 0.2, 0.3, 0.4]] * 3
    # below the third level 0.3, half of its own 0.3 = 0.45; the first level from 0; the last up to 1
    assert randomized_pit(pmf, [2, 0, 3], [0.5, 0.0, 1.0]) == pytest.approx([0.45, 0.0, 1.0])


def test_normal_pit_by_hand():
    assert normal_pit([3.0, 4.96], [3.0, 3.0], [1.0, 1.0]) == pytest.approx([0.5, 0.975002], abs=1e-6)


def test_discrete_interval_by_hand():
    pmf = [[0.03, 0.27, 0.4, 0.26, 0.04]]
    # distribution function 0.03, 0.3, 0.7, 0.96: it reaches 0.05 at 2 and 0.95 at 4; 0.25 at 2, 0.75 at 4
    for level, expected in ((0.9, (2, 4)), (0.5, (2, 4)), (0.95, (1, 5)), (0.3, (3, 3))):
        low, high = discrete_interval(pmf, LEVELS, level)
        assert (low[0], high[0]) == expected


def test_a_quantile_that_is_met_exactly_belongs_to_its_level():
    # 0.1 is reached at the first level and 0.9 at the second last, though sums of tenths round
    low, high = discrete_interval([[0.1] * 10], np.arange(10.0), 0.8)
    assert (low[0], high[0]) == (0, 8)


def test_normal_interval_width_by_hand():
    assert normal_interval_width([1.0, 2.0], 0.95) == pytest.approx([3.919928, 7.839856], abs=1e-6)
    with pytest.raises(SettingsError, match="between 0 and 1"):
        normal_interval_width([1.0], 90)


def test_deciles_are_equal_ordered_and_repeatable():
    counts = np.repeat([5, 1, 3, 2], [40, 11, 30, 22])
    deciles = count_deciles(counts, 0)
    assert sorted(np.bincount(deciles)) == [10] * 7 + [11] * 3
    frame = pd.DataFrame({"decile": deciles, "count": counts}).groupby("decile")["count"]
    assert (frame.max().to_numpy()[:-1] <= frame.min().to_numpy()[1:]).all()
    assert (count_deciles(counts, 0) == deciles).all()


def test_equal_counts_are_dealt_at_random_not_by_position():
    deciles = count_deciles(np.zeros(10_000), 0)
    assert abs(np.corrcoef(deciles, np.arange(10_000))[0, 1]) < 0.05
    assert (count_deciles(np.zeros(10_000), 1) != deciles).any()


def test_fewer_ratings_than_deciles():
    assert count_deciles([3, 1, 2], 0).tolist() == [6, 0, 3]
    assert count_deciles([], 0).size == 0


def simulated(sd_factor, n=20_000, seed=1):
    """Ratings drawn from their discrete predictive, and the calibration of one with another width."""
    rng = np.random.default_rng(seed)
    mean, sd = rng.normal(3.4, 0.7, n), rng.uniform(0.6, 1.2, n)
    truth = normal_pmf(mean, sd, LEVELS)
    positions = (np.cumsum(truth, axis=1) < rng.random(n)[:, None]).sum(axis=1)
    pmf = normal_pmf(mean, sd * sd_factor, LEVELS)
    pit = randomized_pit(pmf, positions, pit_uniforms(n, seed))
    ends = [discrete_interval(pmf, LEVELS, level) for level in COVERAGE_LEVELS]
    widths = np.column_stack([high - low for low, high in ends])
    counts = rng.integers(1, 300, size=(2, n))
    result = calibrate(
        Outcomes(pit, mean - LEVELS[positions], sd * sd_factor, widths), counts[0], counts[1], seed=seed
    )
    return result, pit, positions, ends


def test_a_right_model_has_uniform_pit_and_nominal_coverage():
    result, pit, positions, ends = simulated(1.0)
    assert stats.kstest(pit, "uniform").pvalue > 0.01
    assert stats.chisquare(result.pit_histogram).pvalue > 0.01
    for nominal, coverage, se in zip(
        result.levels, result.overall.pit_coverage, result.overall.coverage_se, strict=True
    ):
        assert abs(coverage - nominal) < 3.5 * se
    cells = [flag for group in result.deciles for flag in group.within]
    assert len(cells) == 80
    assert np.mean(cells) > 0.85  # 95 % are expected
    # what the randomised PIT is for: the plain central 90 % interval covers more
    low, high = ends[2]
    plain = np.mean((LEVELS[positions] >= low) & (LEVELS[positions] <= high))
    assert plain > 0.94


@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_a_wrong_width_is_flagged(factor):
    result, pit, *_ = simulated(factor)
    assert stats.kstest(pit, "uniform").pvalue < 1e-6
    assert result.overall.within == (False,) * 4
    assert np.mean([flag for group in result.deciles for flag in group.within]) < 0.1
    sign = np.sign(np.array(result.overall.pit_coverage) - np.array(result.levels))
    assert (sign == (1 if factor > 1 else -1)).all()


def test_groups_equal_pandas_and_hand_computed_errors():
    rng = np.random.default_rng(4)
    n = 1003
    pit, errors, sd = rng.random(n), rng.normal(size=n), rng.uniform(0.5, 1, n)
    widths = rng.random((n, 4))
    users, items = rng.integers(0, 9, n), rng.integers(0, 500, n)
    result = calibrate(Outcomes(pit, errors, sd, widths), users, items, seed=7)
    frame = pd.DataFrame({"pit": pit, "square": errors**2, "sd": sd, "width": widths[:, 2], "count": items})
    grouped = frame.groupby(count_deciles(items, 7))
    ours = [group for group in result.deciles if group.by == "item"]
    assert [group.decile for group in ours] == list(range(1, 11))
    assert [group.n_ratings for group in ours] == grouped.size().tolist()
    assert [group.rmse**2 for group in ours] == pytest.approx(grouped["square"].mean().tolist())
    assert [group.mean_sd for group in ours] == pytest.approx(grouped["sd"].mean().tolist())
    assert [group.width[2] for group in ours] == pytest.approx(grouped["width"].mean().tolist())
    assert [group.count_low for group in ours] == grouped["count"].min().tolist()
    assert [group.count_high for group in ours] == grouped["count"].max().tolist()
    inside = frame["pit"].between(0.05, 0.95).groupby(count_deciles(items, 7)).mean()
    assert [group.pit_coverage[2] for group in ours] == pytest.approx(inside.tolist())
    # sqrt(0.9 * 0.1 / 1003)
    assert result.overall.coverage_se[2] == pytest.approx(0.00947271, abs=1e-7)
    assert result.sd_error_correlation == pytest.approx(stats.pearsonr(sd, np.abs(errors)).statistic)
    assert sum(result.pit_histogram) == n


def test_the_flag_is_two_standard_errors():
    # 100 ratings: se(0.9) = 0.03, so 0.84 to 0.96 pass
    for covered, expected in ((84, True), (83, False), (96, True), (97, False)):
        pit = np.where(np.arange(100) < covered, 0.5, 0.999)
        result = calibrate(
            Outcomes(pit, np.ones(100), np.ones(100), np.ones((100, 4))), np.ones(100, int), np.ones(100, int)
        )
        assert result.overall.pit_coverage[2] == pytest.approx(covered / 100)
        assert result.overall.within[2] is expected


def test_a_constant_sd_has_no_correlation():
    n = 50
    errors = np.random.default_rng(0).normal(size=n)
    result = calibrate(
        Outcomes(np.full(n, 0.5), errors, np.full(n, 0.9), np.ones((n, 4))), np.ones(n, int), np.ones(n, int)
    )
    assert np.isnan(result.sd_error_correlation)


def test_shapes_are_checked():
    with pytest.raises(SettingsError, match="calibration needs"):
        calibrate(
            Outcomes(np.ones(3), np.ones(3), np.ones(3), np.ones((3, 2))), np.ones(3, int), np.ones(3, int)
        )
