r"""Predictive checks: what a posterior says data should look like, beside what they do look like.

Statistics of the ratings of one part of a split are set beside those of data sets replicated at the same
pairs (`pyro_bmf.checking.discrepancy`), with PIT, coverage, and risk against coverage. Held-out ratings
come first: on training ratings, which the posterior has seen, p-values crowd around a half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..data.ratings import Ratings
from ..data.splits import Split
from ..errors import DataError
from ..evaluation.calibration import (
    COVERAGE_LEVELS,
    Calibration,
    Outcomes,
    calibrate,
    discrete_interval,
    normal_interval_width,
    normal_pit,
    pit_uniforms,
)
from ..evaluation.provenance import check_provenance
from ..evaluation.selective import RiskCoverage, risk_coverage
from ..numerics.normal_cells import midway
from ..posterior.posterior import Posterior
from .discrepancy import CheckedStatistic, Discrepancies, ScaleParts, check_statistics
from .replicates import replicate_ratings

Floats = NDArray[np.float64]
Part = Literal["train", "valid", "test"]
#: Replicates drawn from the prior when nothing is said: it is wide, and only looked at.
PRIOR_SAMPLES = 50


@dataclass(frozen=True, eq=False)
class PredictiveCheck:
    """A posterior beside the ratings of one part of its split.

    Attributes
    ----------
    data, part : str
    n_ratings, n_draws : int
    tempered : bool
    statistics : tuple of CheckedStatistic
        Posterior predictive.
    joint_p : float
        Of the statistic that lies farthest out, allowing for how many there are: uniform under a right
        model where ratings were held out.
    prior : tuple of CheckedStatistic
        The same statistics under the prior predictive, empty if it was not asked for.
    prior_overflows : int
        Data sets of the prior predictive that were left out, as their statistics left every number.
    pit_histogram, pit_low, pit_high : ndarray, shape (20,)
        Ratings in each bin of the PIT, and the central 90 % interval of replicates.
    calibration : Calibration
    risk : RiskCoverage
    """

    data: str
    part: str
    n_ratings: int
    n_draws: int
    tempered: bool
    statistics: tuple[CheckedStatistic, ...]
    joint_p: float
    prior: tuple[CheckedStatistic, ...]
    prior_overflows: int
    pit_histogram: Floats
    pit_low: Floats
    pit_high: Floats
    calibration: Calibration
    risk: RiskCoverage

    @property
    def flagged(self) -> tuple[CheckedStatistic, ...]:
        """Statistics that a right model would hardly give, farthest out first."""
        return tuple(sorted((one for one in self.statistics if one.flagged), key=lambda one: -abs(one.z)))

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain containers."""
        return {
            "data": self.data,
            "part": self.part,
            "n_ratings": self.n_ratings,
            "n_draws": self.n_draws,
            "tempered": self.tempered,
            "joint_p": self.joint_p,
            "statistics": [one.to_dict() for one in self.statistics],
            "prior": [one.to_dict() for one in self.prior],
            "prior_overflows": self.prior_overflows,
            "pit": {
                "histogram": self.pit_histogram.tolist(),
                "low": self.pit_low.tolist(),
                "high": self.pit_high.tolist(),
            },
            "calibration": self.calibration.to_dict(),
            "risk": self.risk.to_dict(),
        }


def check_predictive(
    posterior: Posterior,
    split: Split,
    *,
    part: Part = "test",
    num_samples: int | None = None,
    prior_samples: int = PRIOR_SAMPLES,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> PredictiveCheck:
    """Replicate one part of a split from the posterior (and the prior), and compare.

    Parameters
    ----------
    posterior : Posterior
    split : Split
        What it was fitted to.
    part : {"test", "valid", "train"}
    num_samples : int, optional
        Replicates: 400, or those that a chain kept.
    prior_samples : int
        Replicates of the prior; 0 for none.
    seed : int
    advance : callable, optional
        Called with the number of replicates done.

    Raises
    ------
    DataError
        If the part holds fewer than twenty ratings.
    SettingsError
        If more draws are asked of a chain than it kept, or the part was fitted to and called held out.
    """
    observed = {"train": split.train, "valid": split.valid, "test": split.test}[part]
    check_provenance(posterior, split, part=part, name="the posterior")
    if len(observed) < 20:
        raise DataError(f"the {part} part has only {len(observed)} ratings: a check needs twenty at least.")
    n_draws = posterior.number_of_draws(num_samples)
    predicted = _Predicted.of(posterior, observed, seed)
    train = posterior.train
    low, high = observed.scale.low, observed.scale.high
    if predicted.levels is None:
        low, high = np.quantile(observed.ratings, [0.025, 0.975])
    shares = None if predicted.below is None else np.diff(predicted.below, axis=1).mean(0)
    checks = Discrepancies(
        observed.users,
        observed.items,
        train.user_counts[observed.users],
        train.item_counts[observed.items],
        scale=ScaleParts(float(low), float(high), predicted.levels, shares),
        moments=(predicted.mean, predicted.sd),
        seed=seed,
    )
    ratings = observed.ratings[None].astype(np.float64)
    own, own_bins = checks.of(ratings, predicted.pit(ratings))

    def replicated(n: int, *, prior: bool) -> tuple[Floats, Floats]:
        values, bins = [], []
        for rows, drawn in replicate_ratings(
            posterior, observed.users, observed.items, observed.scale, n, seed, prior=prior
        ):
            found = checks.of(drawn, predicted.pit(drawn))
            values.append(found[0])
            bins.append(found[1])
            if advance is not None:
                advance(rows.stop - rows.start)
        return np.concatenate(values), np.concatenate(bins)

    values, bins = replicated(n_draws, prior=False)
    kept = checks.kept(own[0], values)
    names, groups = (list(compress(every, kept)) for every in (checks.names, checks.groups))
    statistics, joint_p = check_statistics(names, groups, own[0, kept], values[:, kept])
    prior: tuple[CheckedStatistic, ...] = ()
    overflows = 0
    if prior_samples:
        with np.errstate(over="ignore", invalid="ignore"):
            drawn = replicated(prior_samples, prior=True)[0]
        finite = np.isfinite(drawn).all(1)
        overflows = int((~finite).sum())
        if finite.any():
            prior, _ = check_statistics(names, groups, own[0, kept], drawn[finite][:, kept])
    pit_low, pit_high = np.quantile(bins, [0.05, 0.95], axis=0)
    errors = predicted.mean - observed.ratings
    return PredictiveCheck(
        split.ratings.name,
        part,
        len(observed),
        n_draws,
        posterior.tempered,
        statistics,
        joint_p,
        prior,
        overflows,
        own_bins[0],
        pit_low,
        pit_high,
        calibrate(
            Outcomes(predicted.pit(ratings)[0], errors, predicted.sd, predicted.widths()),
            train.user_counts[observed.users],
            train.item_counts[observed.items],
            seed=seed,
        ),
        risk_coverage(errors, predicted.sd),
    )


@dataclass(frozen=True, eq=False)
class _Predicted:
    """The marginal predictive of every pair."""

    levels: Floats | None
    mean: Floats
    sd: Floats
    below: Floats | None  # (n, L + 1): distribution function, 0 first
    uniforms: Floats

    @classmethod
    def of(cls, posterior: Posterior, ratings: Ratings, seed: int) -> _Predicted:
        mean, sd = posterior.pairs.rating_moments(ratings.users, ratings.items)
        levels, below = ratings.scale.levels, None
        if levels is not None:
            pmf = posterior.pairs.pmf(ratings.users, ratings.items, levels)
            pmf = pmf / pmf.sum(1, keepdims=True)
            below = np.concatenate([np.zeros((len(pmf), 1)), np.cumsum(pmf, 1)], 1)
        return cls(levels, mean, sd, below, pit_uniforms(len(ratings), seed))

    def pit(self, ratings: Floats) -> Floats:
        """Return the randomised PIT of (S, n) ratings."""
        if self.levels is None or self.below is None:
            return normal_pit(ratings, self.mean, self.sd)
        middle = midway(self.levels)
        places = np.searchsorted(middle, ratings)
        flat = self.below.ravel()
        starts = np.arange(ratings.shape[1]) * self.below.shape[1] + places
        low, high = flat[starts], flat[starts + 1]
        pit: Floats = np.clip(low + self.uniforms * (high - low), 0.0, 1.0)
        return pit

    def widths(self) -> Floats:
        """Return the width of each central interval, (n, levels of coverage)."""
        if self.levels is None or self.below is None:
            return np.stack([normal_interval_width(self.sd, one) for one in COVERAGE_LEVELS], 1)
        pmf = np.diff(self.below, axis=1)
        ends = [discrete_interval(pmf, self.levels, one) for one in COVERAGE_LEVELS]
        return np.stack([high - low for low, high in ends], 1)
