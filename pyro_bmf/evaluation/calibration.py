"""Does a predictive distribution mean what it says: PIT, coverage and widths, by train counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from pyro_bmf.errors import SettingsError
from pyro_bmf.numerics.cell_arrays import normal_pmf
from pyro_bmf.numerics.central_intervals import discrete_interval, normal_interval_width

__all__ = [
    "COVERAGE_LEVELS",
    "Calibration",
    "CalibrationGroup",
    "Outcomes",
    "calibrate",
    "count_deciles",
    "discrete_interval",
    "normal_interval_width",
    "normal_pit",
    "normal_pmf",
    "pit_uniforms",
    "randomized_pit",
]

COVERAGE_LEVELS = (0.5, 0.8, 0.9, 0.95)
PIT_BINS = 20
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationGroup:
    """Calibration on one group of test ratings; tuples are aligned with the coverage levels.

    Attributes
    ----------
    by, decile
        ``"all"`` and None, or ``"user"``/``"item"`` and 1 (least train ratings) to 10 (most).
    n_ratings
        Test ratings in the group.
    count_low, count_high
        Smallest and largest train count of the rating's user or item in the group; None for all.
    rmse, mean_sd
        Root mean squared error, and mean predictive standard deviation, rating units.
    pit_coverage
        Share of ratings whose randomised PIT lies in the middle part of each level: the level itself when
        the predictive is right.
    coverage_se
        Binomial standard error at the nominal level, √(c(1 − c)/n).
    within
        Whether |pit_coverage − nominal| is at most 2 standard errors.
    width
        Mean width of the central interval as it is printed, rating units.
    interval_coverage
        Share of ratings inside that interval. On a discrete scale its ends are levels, which are in it whole:
        it holds more than its level when the predictive is right. None where it was not measured.
    set_coverage, set_size
        Share of ratings in the smallest set of levels with that probability, and its mean number of levels;
        None on a continuous scale.
    """

    by: str
    decile: int | None
    n_ratings: int
    count_low: int | None
    count_high: int | None
    rmse: float
    mean_sd: float
    pit_coverage: tuple[float, ...]
    coverage_se: tuple[float, ...]
    within: tuple[bool, ...]
    width: tuple[float, ...]
    interval_coverage: tuple[float, ...] | None = None
    set_coverage: tuple[float, ...] | None = None
    set_size: tuple[float, ...] | None = None

    @property
    def measured(self) -> dict[str, tuple[float, ...]]:
        """What was measured beside PIT and widths, by name."""
        more = {
            "interval_coverage": self.interval_coverage,
            "set_coverage": self.set_coverage,
            "set_size": self.set_size,
        }
        return {name: values for name, values in more.items() if values is not None}


@dataclass(frozen=True)
class Calibration:
    """Calibration over all test ratings and by decile of train counts.

    Attributes
    ----------
    levels
        Nominal levels of the central intervals.
    overall
        All test ratings.
    deciles
        By the user's, then by the item's train count; ten groups of equal numbers of test ratings each (an
        empty one is left out).
    sd_error_correlation
        Pearson correlation of the predictive standard deviation and |rating − mean|; NaN when one is
        constant.
    pit_histogram
        Ratings in each of 20 equal bins of the PIT; flat when calibrated.
    """

    levels: tuple[float, ...]
    overall: CalibrationGroup
    deciles: tuple[CalibrationGroup, ...]
    sd_error_correlation: float
    pit_histogram: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain containers."""
        return asdict(self)


def pit_uniforms(n: int, seed: int) -> Floats:
    """Return the (n,) uniforms that randomise the PIT, the same for every system evaluated with `seed`."""
    return np.random.default_rng([seed, 0]).random(n)


def randomized_pit(pmf: ArrayLike, positions: ArrayLike, uniforms: ArrayLike) -> Floats:
    """Return the randomised probability integral transform P(X < y) + v P(X = y), v uniform.

    It is uniform exactly when the predictive is right, which the plain P(X <= y) of a discrete one is not:
    a central 90 % interval of a perfect discrete predictive covers about 98 % (Smith 1985, J. Forecasting
    4, 283-291; Czado, Gneiting and Held 2009, doi 10.1111/j.1541-0420.2009.01191.x).

    Parameters
    ----------
    pmf
        (n, L) probability of each level.
    positions
        (n,) position of the observed level.
    uniforms
        (n,) draws in [0, 1), see `pit_uniforms`.
    """
    probabilities = np.asarray(pmf, dtype=np.float64)
    observed = np.asarray(positions, dtype=np.int64)[:, None]
    up_to = np.take_along_axis(np.cumsum(probabilities, axis=1), observed, axis=1)[:, 0]
    own = np.take_along_axis(probabilities, observed, axis=1)[:, 0]
    return np.clip(up_to - own + np.asarray(uniforms, dtype=np.float64) * own, 0.0, 1.0)


def normal_pit(ratings: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Floats:
    """Return the PIT of ratings on a continuous scale under Normal predictives."""
    values = np.asarray(ratings, dtype=np.float64)
    result: Floats = ndtr((values - np.asarray(mean, dtype=np.float64)) / np.asarray(sd, dtype=np.float64))
    return result


def count_deciles(counts: ArrayLike, seed: int) -> NDArray[np.int64]:
    """Cut ratings into ten groups of equal size by a count attached to each.

    Parameters
    ----------
    counts
        (n,) e.g. the train count of each rating's user.
    seed
        Equal counts are ordered by a permutation drawn from it, not by position: the rows of a user or item
        that straddles a border are dealt to both sides at random.

    Returns
    -------
    numpy.ndarray
        (n,) groups 0 (smallest counts) to 9; sizes differ by at most one.
    """
    values = np.asarray(counts)
    n = values.size
    order = np.lexsort((np.random.default_rng([seed, 1]).permutation(n), values))
    groups = np.empty(n, dtype=np.int64)
    groups[order] = np.arange(n) * 10 // max(n, 1)
    return groups


@dataclass(frozen=True, eq=False)
class Outcomes:
    """How n ratings came out against their predictive distributions, at L nominal levels.

    Attributes
    ----------
    pit : ndarray, shape (n,)
        Randomised PIT of each rating.
    errors, sd : ndarray, shape (n,)
        Prediction minus rating, and predictive standard deviation.
    widths : ndarray, shape (n, L)
        Of each central interval.
    interval_holds : ndarray of bool, shape (n, L), optional
        Whether the rating is inside each printed interval.
    set_holds, set_sizes : ndarray, shape (n, L), optional
        Whether it is in each smallest set of levels, and how many levels that has.
    """

    pit: Floats
    errors: Floats
    sd: Floats
    widths: Floats
    interval_holds: NDArray[np.bool_] | None = None
    set_holds: NDArray[np.bool_] | None = None
    set_sizes: NDArray[np.int64] | None = None

    @property
    def measured(self) -> dict[str, NDArray[Any]]:
        """What was measured beside PIT and widths, under the names of `CalibrationGroup`."""
        more = {
            "interval_coverage": self.interval_holds,
            "set_coverage": self.set_holds,
            "set_size": self.set_sizes,
        }
        return {name: values for name, values in more.items() if values is not None}


def calibrate(
    outcomes: Outcomes,
    user_counts: NDArray[np.int64],
    item_counts: NDArray[np.int64],
    *,
    levels: Sequence[float] = COVERAGE_LEVELS,
    seed: int = 0,
) -> Calibration:
    """Summarise calibration.

    Parameters
    ----------
    outcomes
        Of at least one rating.
    user_counts, item_counts
        (n,) train ratings of each rating's user and item.
    levels
        Nominal levels, in the order of the columns of `outcomes`.
    seed
        Orders ratings with equal counts at the borders of the deciles.

    Raises
    ------
    SettingsError
        If there is no rating, or shapes do not fit.
    """
    pit, errors, sd, widths = outcomes.pit, outcomes.errors, outcomes.sd, outcomes.widths
    n = pit.size
    if n == 0 or widths.shape != (n, len(levels)) or errors.shape != (n,) or sd.shape != (n,):
        raise SettingsError(
            f"calibration needs one error, sd and row of widths for each of {n} ratings (> 0)."
        )
    nominal = np.asarray(levels, dtype=np.float64)
    covered = np.abs(pit - 0.5)[:, None] <= nominal / 2
    measured = outcomes.measured
    if any(values.shape != widths.shape for values in measured.values()):
        raise SettingsError(f"{', '.join(measured)} need one column for each of {len(levels)} levels.")
    columns: Floats = np.column_stack([errors**2, sd, covered, widths, *measured.values()])
    names = ("pit_coverage", "width", *measured)
    everything = np.zeros(n, dtype=np.int64)
    overall = _groups("all", everything, None, columns, nominal, names)[0]
    deciles: list[CalibrationGroup] = []
    for by, counts in (("user", user_counts), ("item", item_counts)):
        deciles += _groups(by, count_deciles(counts, seed), counts, columns, nominal, names)
    histogram = np.bincount(np.minimum((pit * PIT_BINS).astype(np.int64), PIT_BINS - 1), minlength=PIT_BINS)
    return Calibration(
        levels=tuple(float(level) for level in levels),
        overall=overall,
        deciles=tuple(deciles),
        sd_error_correlation=_correlation(sd, np.abs(errors)),
        pit_histogram=tuple(histogram.tolist()),
    )


def _groups(
    by: str,
    labels: NDArray[np.int64],
    counts: NDArray[np.int64] | None,
    columns: Floats,
    nominal: Floats,
    names: tuple[str, ...],
) -> list[CalibrationGroup]:
    """Average `columns` (squared error, sd, and each of `names` per level) within each label."""
    sizes = np.bincount(labels)
    present = np.flatnonzero(sizes)
    sums = np.column_stack([np.bincount(labels, column) for column in columns.T])[present]
    means = sums / sizes[present, None]
    n_levels = nominal.size
    result = []
    for label, mean in zip(present.tolist(), means, strict=True):  # at most ten groups
        size = int(sizes[label])
        by_level = dict(zip(names, mean[2:].reshape(len(names), n_levels), strict=True))
        coverage = by_level["pit_coverage"]
        se = np.sqrt(nominal * (1 - nominal) / size)
        own = None if counts is None else counts[labels == label]
        result.append(
            CalibrationGroup(
                by=by,
                decile=None if own is None else label + 1,
                n_ratings=size,
                count_low=None if own is None else int(own.min()),
                count_high=None if own is None else int(own.max()),
                rmse=float(np.sqrt(mean[0])),
                mean_sd=float(mean[1]),
                coverage_se=tuple(se.tolist()),
                within=tuple((np.abs(coverage - nominal) <= 2 * se + 1e-12).tolist()),  # rounding aside
                **{name: tuple(values.tolist()) for name, values in by_level.items()},
            )
        )
    return result


def _correlation(x: Floats, y: Floats) -> float:
    a, b = x - x.mean(), y - y.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    # a constant minus its mean is rounding, not spread
    if np.ptp(x) <= 1e-9 * np.abs(x).max() or np.ptp(y) <= 1e-9 * np.abs(y).max() or size == 0:
        return float("nan")
    return float(a @ b) / size
