"""What ranks of simulated truths say of a posterior: coverage, effect size, and whether it is chance.

Ranks of one refit are not independent, as they share its hyperparameters and its fit: the refit is the unit
of every standard error and of every test here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pyro_bmf.checking.rank_rule import (
    NARROW,
    REPEATS,
    STATISTICS,
    error_rates,
    fits_needed,
    make_rule,
    narrow_coverage,
    quantities_of,
    statistics_of,
)
from pyro_bmf.errors import DataError

LEVELS = (0.5, 0.9)
#: Spread of standardised errors above which flagged intervals are called too narrow.
_NARROW_SPREAD = 1.1


@dataclass(frozen=True)
class RankSummary:
    """One kind of quantity over all refits.

    Attributes
    ----------
    kind : str
    n_refits : int
    coverage_50, coverage_90 : float
        Share of truths inside the central half, and the central 90 %, of the draws.
    coverage_50_se, coverage_90_se : float
        Standard errors over refits.
    mean_rank : float
        0.5 of a posterior that is not biased; near 0 or 1 of one whose draws are too high or too low.
    spread : float
        Effect size: root mean square of (truth - mean) / sd. 1 of a right posterior; 2 means that intervals
        are half as wide as they should be.
    ks_distance : float
        Largest difference of the ranks' distribution from the uniform one.
    p_value : float
        How often a posterior that is right looks as bad in any kind, by the rule's simulation.
    worst : str
        The statistic that is farthest out: a coverage, the mean rank or the spread.
    flagged : bool
        Whether that is farther out than the rule's threshold.
    power : float
        Chance of a flag if this kind's standard deviations were `RankCheck.narrow` of what they should be.
    fits_needed : int or None
        Where that is below 0.8: fits that would have it, None where these are more than 16 times as many.
    """

    kind: str
    n_refits: int
    coverage_50: float
    coverage_50_se: float
    coverage_90: float
    coverage_90_se: float
    mean_rank: float
    spread: float
    ks_distance: float
    p_value: float
    worst: str
    flagged: bool
    power: float
    fits_needed: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class RankCheck:
    """What ranks say of every kind of quantity, and how often such a check is wrong.

    Attributes
    ----------
    summaries : tuple of RankSummary
    n_fits : int
    false_alarms : float
        Share of simulated checks of a right posterior that flagged anything.
    narrow, narrow_coverage : float
        The alternative that powers are against: standard deviations over what they should be, and the share
        that a 90 % interval then holds.
    repeats : int
        Simulated checks behind each of these figures.
    """

    summaries: tuple[RankSummary, ...]
    n_fits: int
    false_alarms: float
    narrow: float
    narrow_coverage: float
    repeats: int

    def to_dict(self) -> dict[str, Any]:
        """Return the content but for the summaries as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "summaries"}

    def advice(self) -> str | None:
        """Return in a sentence what is not right, and why that may be; None where nothing is flagged."""
        flagged = [summary for summary in self.summaries if summary.flagged]
        if not flagged:
            return None
        narrow = any(summary.spread > _NARROW_SPREAD for summary in flagged)
        reason = (
            "Intervals are too narrow: a KL weight below one (--beta) tempers the posterior, a diagonal "
            "guide leaves out correlations, a short chain has not gone everywhere."
            if narrow
            else "Intervals are too wide or off their place: see the figure for which."
        )
        return f"Not right, beyond chance: {', '.join(summary.kind for summary in flagged)}. {reason}"

    def words(self) -> str:
        """Say in sentences what the check can see, and how often it is wrong."""
        powers = ", ".join(f"{one.kind} {one.power:.2f}" for one in self.summaries)
        text = (
            f"With {self.n_fits} fits, sds of {self.narrow:g} of what they should be (a 90 % interval then "
            f"holds {self.narrow_coverage:.2f}) would be seen with probability: {powers}; false alarms "
            f"{100 * self.false_alarms:.1f} % ({self.repeats:,} simulated checks each)."
        )
        lacking = [one for one in self.summaries if one.power < 0.8]
        if not lacking:
            return text
        needed = [
            f"{one.kind}: "
            + (f"more than {16 * self.n_fits}" if one.fits_needed is None else f"{one.fits_needed}")
            for one in lacking
        ]
        return f"{text} A probability of 0.8 takes more fits (--refits): {', '.join(needed)}."


def check_ranks(
    ranks: Mapping[str, Sequence[Sequence[float]]],
    errors: Mapping[str, Sequence[Sequence[float]]],
    *,
    repeats: int = REPEATS,
    seed: int = 0,
) -> RankCheck:
    """Summarise the ranks of every kind of quantity, and flag those that are not right beyond chance.

    Parameters
    ----------
    ranks, errors : mapping
        By kind, one sequence a refit: ranks in (0, 1), and standardised errors.
    repeats, seed : int
        Of the simulations that set the threshold and measure false alarms and power (see `rank_rule`).

    Returns
    -------
    RankCheck
        Summaries in the order of `ranks`.

    Raises
    ------
    DataError
        If there are fewer than two refits, or none of a quantity.
    """
    for kind, found in ranks.items():
        if len(found) < 2:
            raise DataError(f"Only {len(found)} refits of {kind}: two at least are needed to judge anything.")
    if not ranks:
        raise DataError("No kind of quantity has ranks in all refits: there is nothing to judge.")
    n_fits = min(len(found) for found in ranks.values())
    rule = make_rule(
        {kind: quantities_of(found) for kind, found in ranks.items()}, n_fits, repeats=repeats, seed=seed
    )
    false_alarms, power = error_rates(rule, repeats=repeats, seed=seed)
    needed = fits_needed(rule, power)
    summaries = []
    for kind, found in ranks.items():
        everything = np.concatenate([np.asarray(one) for one in found])
        shares = {level: np.array([_inside(one, level) for one in found]) for level in LEVELS}
        z = np.concatenate([np.asarray(one) for one in errors[kind]])
        scores = rule.scores(kind, statistics_of(found))
        worst = int(np.argmax(scores))
        summaries.append(
            RankSummary(
                kind=kind,
                n_refits=len(found),
                coverage_50=float(np.mean(shares[0.5])),
                coverage_50_se=_standard_error(shares[0.5]),
                coverage_90=float(np.mean(shares[0.9])),
                coverage_90_se=_standard_error(shares[0.9]),
                mean_rank=float(everything.mean()),
                spread=float(np.sqrt(np.mean(z**2))),
                ks_distance=float(stats.kstest(everything, "uniform").statistic),
                p_value=rule.p_value(float(scores[worst])),
                worst=STATISTICS[worst],
                flagged=bool(scores[worst] > rule.threshold),
                power=power[kind],
                fits_needed=needed.get(kind),
            )
        )
    return RankCheck(tuple(summaries), n_fits, false_alarms, NARROW, narrow_coverage(), repeats)


def _inside(ranks: Sequence[float], level: float) -> float:
    return float(np.mean(np.abs(np.asarray(ranks) - 0.5) < 0.5 * level))


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))
