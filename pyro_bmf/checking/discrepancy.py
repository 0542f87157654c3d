r"""Test statistics of ratings at fixed pairs, of one data set or of many replicated ones at once.

A replicated data set is drawn from a posterior's joint predictive at the very pairs that were rated. Where
those ratings were held out, they and their replicates are exchangeable if the posterior is right: the rank
of the observed statistic among the replicated ones is then uniform, which it is not on training ratings,
used twice (Gelman, Meng and Stern 1996, Statistica Sinica 6, 733-760; Marshall and Spiegelhalter 2003,
doi 10.1002/sim.1403).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pyro_bmf.errors import DataError
from pyro_bmf.evaluation.calibration import PIT_BINS, count_deciles

from ..numerics.normal_cells import midway

Floats = NDArray[np.float64]
#: Ratings that a row needs to count among those whose means and sds are compared.
_ROW_MINIMUM = 3
#: Probability that the intervals of replicated statistics hold.
_INTERVAL = 0.9
#: Ratings that are expected of a level at least, if it is to be a statistic.
_LEVEL_MINIMUM = 5.0
#: Of levels at the ends of a scale, or beyond two quantiles of a continuous one.
EXTREME = "share of extreme ratings"
#: Chance that a right model has any of its statistics flagged.
FALSE_ALARM = 0.05


@dataclass(frozen=True, eq=False)
class ScaleParts:
    """The parts of a scale whose shares are statistics.

    Attributes
    ----------
    low, high : float
        At and beyond them lie the extreme ratings on a continuous scale; on a discrete one the lowest and the
        highest level are extreme, whatever is predicted of them.
    levels : ndarray or None, shape (L,)
        Of a discrete scale.
    shares : ndarray or None, shape (L,)
        Predicted share of each level. Levels with fewer than five ratings expected are put together: a level
        that one replicate in a hundred has would hide every other statistic in the joint p-value.
    """

    low: float
    high: float
    levels: Floats | None = None
    shares: Floats | None = None


class Discrepancies:
    """Test statistics of ratings at n fixed pairs.

    Parameters
    ----------
    users, items : ndarray, shape (n,)
    user_counts, item_counts : ndarray, shape (n,)
        Training ratings of each pair's user and item, which make the deciles.
    scale : ScaleParts
    moments : tuple of ndarray, shape (n,)
        Predictive means and standard deviations, which standardise residuals.
    seed : int
        Orders equal counts at the borders of deciles.
    """

    def __init__(
        self,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        user_counts: NDArray[np.int64],
        item_counts: NDArray[np.int64],
        *,
        scale: ScaleParts,
        moments: tuple[Floats, Floats],
        seed: int = 0,
    ) -> None:
        if len(users) < 20:
            raise DataError(f"Only {len(users)} ratings: a predictive check needs twenty at least.")
        levels, shares = scale.levels, scale.shares
        self.levels, self.low, self.high = levels, scale.low, scale.high
        self.mean, self.sd = moments
        if levels is not None:
            expected = np.full(len(levels), np.inf) if shares is None else shares * len(users)
            self._pools = _pooled(expected)
            self.low, self.high = levels[0], levels[-1]
        self._deciles = {
            by: _indicator(count_deciles(counts, seed), 10)
            for by, counts in (("user", user_counts), ("item", item_counts))
        }
        self._rows = {by: _indicator(rows, None) for by, rows in (("user", users), ("item", items))}
        self.names, self.groups = self._named()

    def _named(self) -> tuple[list[str], list[str]]:
        found: list[tuple[str, str]] = []
        if self.levels is not None:
            for pool in range(self._pools[-1] + 1):
                own = self.levels[self._pools == pool]
                name = f"{own[0]:g}" if len(own) == 1 else f"{own[0]:g} to {own[-1]:g}"
                found.append(("histogram", f"share of {name}"))
        found += [("whole", "mean"), ("whole", "sd"), ("whole", EXTREME)]
        for by in ("user", "item"):
            for what in ("mean", "sd"):
                found += [(f"{by} {what}", f"{what}, {by} decile {one}") for one in range(1, 11)]
        for by in ("user", "item"):
            found += [("heterogeneity", f"sd of {by} means"), ("heterogeneity", f"sd of {by} sds")]
        found += [
            ("residuals", "residual kurtosis"),
            ("residuals", "residuals beyond 3 sd"),
            ("residuals", "mean squared residual"),
        ]
        found += [("pit", "50 % by PIT"), ("pit", "90 % by PIT"), ("pit", "PIT unevenness")]
        return [name for _, name in found], [group for group, _ in found]

    def kept(self, observed: Floats, replicated: Floats) -> NDArray[np.bool_]:
        """Return which statistics say something, (n_statistics,): all but, at times, extreme ratings.

        Their share is left out where every level is extreme, and where no data set has as many as five of
        them: it would be a rare event, as a rare level is. All data sets, the observed one among them, are
        asked in the same way, so that they stay exchangeable.

        Parameters
        ----------
        observed : ndarray, shape (n_statistics,)
        replicated : ndarray, shape (S, n_statistics)
        """
        kept = np.ones(len(self.names), dtype=np.bool_)
        at, n = self.names.index(EXTREME), len(self.mean)
        most = max(float(observed[at]), float(replicated[:, at].max(initial=0.0))) * n
        trivial = self.levels is not None and len(self.levels) <= 2
        kept[at] = not trivial and most >= _LEVEL_MINIMUM - 0.5
        return kept

    def of(self, ratings: Floats, pit: Floats) -> tuple[Floats, Floats]:
        """Return the statistics of S data sets, (S, n_statistics), and their PIT histograms, (S, 20).

        Parameters
        ----------
        ratings : ndarray, shape (S, n)
            On a discrete scale, values of its levels.
        pit : ndarray, shape (S, n)
            Randomised PIT of each rating under the predictive.
        """
        s, n = ratings.shape
        parts: list[Floats] = []
        if self.levels is not None:
            middle = midway(self.levels)
            pools = self._pools[np.searchsorted(middle, ratings)]
            parts.append(_histograms(pools, int(self._pools[-1]) + 1) / n)
        extreme = ((ratings <= self.low) | (ratings >= self.high)).mean(1)
        parts += [ratings.mean(1)[:, None], ratings.std(1)[:, None], extreme[:, None]]
        squares = ratings**2
        for by in ("user", "item"):
            mean, sd, _ = _moments(self._deciles[by], ratings, squares)
            parts += [mean, sd]
        for by in ("user", "item"):
            mean, sd, sizes = _moments(self._rows[by], ratings, squares)
            kept = sizes >= _ROW_MINIMUM
            for one in (mean, sd):
                spread = one[:, kept].std(1) if kept.any() else np.zeros(s)
                parts.append(spread[:, None])
        residuals = (ratings - self.mean) / self.sd
        centred = residuals - residuals.mean(1, keepdims=True)
        second = (centred**2).mean(1)
        kurtosis = (centred**4).mean(1) / np.maximum(second, 1e-300) ** 2
        far = (np.abs(residuals) > 3.0).mean(1)
        parts += [kurtosis[:, None], far[:, None], (residuals**2).mean(1)[:, None]]
        bins = _histograms(np.minimum((pit * PIT_BINS).astype(np.int64), PIT_BINS - 1), PIT_BINS)
        for level in (0.5, 0.9):
            parts.append((np.abs(pit - 0.5) <= level / 2).mean(1)[:, None])
        parts.append((((bins * PIT_BINS / n) - 1.0) ** 2).mean(1)[:, None])
        return np.concatenate(parts, axis=1), bins


@dataclass(frozen=True)
class CheckedStatistic:
    """One statistic beside its replicates.

    Attributes
    ----------
    name, group : str
    observed : float
    mean, low, high : float
        Of the replicates: mean and central 90 % interval.
    z : float
        Observed less mean, in standard deviations of the replicates.
    p_value : float
        Bayesian p-value, two-sided: twice the smaller share of replicates at or beyond the observed.
    adjusted_p : float
        Share of replicates whose *largest* |z| over all statistics reaches this one's: allows for their
        number and their dependence.
    flagged : bool
        Whether `adjusted_p` is at most 0.05.
    """

    name: str
    group: str
    observed: float
    mean: float
    low: float
    high: float
    z: float
    p_value: float
    adjusted_p: float
    flagged: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain values."""
        return asdict(self)


def check_statistics(
    names: Sequence[str], groups: Sequence[str], observed: Floats, replicated: Floats
) -> tuple[tuple[CheckedStatistic, ...], float]:
    """Set observed statistics beside replicated ones.

    Parameters
    ----------
    names, groups : sequence of str
    observed : ndarray, shape (n_statistics,)
    replicated : ndarray, shape (S, n_statistics)

    Returns
    -------
    tuple
        The statistics, and the joint p-value: that of the largest |z|, exact for exchangeable data sets.
    """
    every = np.vstack([observed, replicated])
    mean, sd = every.mean(0), every.std(0)
    # A statistic that never moves says nothing: rounding must not make it say something.
    still = sd <= 1e-12 * np.maximum(np.abs(mean), 1e-12)
    z = np.where(still, 0.0, (every - mean) / np.where(still, 1.0, sd))
    largest = np.abs(z).max(1)
    n = len(every)
    tail = (1.0 - _INTERVAL) / 2.0
    low, high = np.quantile(replicated, [tail, 1.0 - tail], axis=0)
    spread = replicated.std(0)
    result = []
    for at, (name, group) in enumerate(zip(names, groups, strict=True)):
        above = int((every[:, at] >= observed[at]).sum())
        below = int((every[:, at] <= observed[at]).sum())
        own = float((largest >= np.abs(z[0, at]) - 1e-12).sum() / n)
        gap = observed[at] - replicated[:, at].mean()
        apart = (
            0.0 if still[at] else float(gap / spread[at]) if spread[at] > 0 else float(np.sign(gap) * np.inf)
        )
        result.append(
            CheckedStatistic(
                name,
                group,
                float(observed[at]),
                float(replicated[:, at].mean()),
                float(low[at]),
                float(high[at]),
                apart,
                min(1.0, 2.0 * min(above, below) / n),
                own,
                own <= FALSE_ALARM,
            )
        )
    return tuple(result), float((largest >= largest[0] - 1e-12).sum() / n)


def _pooled(expected: Floats) -> NDArray[np.int64]:
    """Return the pool of each level: neighbours are joined until five ratings are expected in every one."""
    pools = np.zeros(len(expected), dtype=np.int64)
    held = 0.0
    for at, more in enumerate(expected):
        if at and held >= _LEVEL_MINIMUM:
            pools[at:] += 1
            held = 0.0
        held += more
    if held < _LEVEL_MINIMUM and pools[-1] > 0:
        pools[pools == pools[-1]] -= 1
    return pools


def _indicator(labels: NDArray[np.int64], n: int | None) -> Any:
    """Return the sparse (n_groups, n_ratings) matrix that sums over groups."""
    if n is None:
        _, labels = np.unique(labels, return_inverse=True)
        n = int(labels.max()) + 1
    size = len(labels)
    return sparse.csr_matrix((np.ones(size), (labels, np.arange(size))), shape=(n, size))


def _moments(indicator: Any, ratings: Floats, squares: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the mean and sd (S, n_groups) of every group, and the groups' sizes; zeros for empty ones."""
    sizes = np.asarray(indicator.sum(1)).ravel()
    safe = np.maximum(sizes, 1.0)
    mean = (indicator @ ratings.T).T / safe
    variance = (indicator @ squares.T).T / safe - mean**2
    return mean, np.sqrt(np.maximum(variance, 0.0)), sizes


def _histograms(places: NDArray[np.int64], n: int) -> Floats:
    """Count places 0..n-1 along each row: (S, n)."""
    s = len(places)
    flat = (places + n * np.arange(s)[:, None]).ravel()
    counts: Floats = np.bincount(flat, minlength=s * n).reshape(s, n).astype(np.float64)
    return counts
