r"""When do ranks of simulated truths say that a posterior is wrong: a rule with known errors of both kinds.

A rule is made by simulation for the very number of fits, the quantities of a fit, and their dependence. Ranks
of one fit depend on each other, as they share its hyperparameters: where one quantity's truth is high among
its draws, others' are, and where one interval is missed, others are. Both are intraclass correlations,
estimated from the ranks that are judged, and simulated ranks are uniform with the same ones.

Judged are means over fits: the shares of ranks in the middle half, in the middle 90 % and in the outermost
2 %, the mean rank, and the mean square of the ranks' Normal scores, which sees intervals that are too narrow
or too wide soonest. All but the outermost share are divided by their standard errors over fits. That share,
and the mean square once more, are not: a few fits that went wrong altogether would hide in the standard error
that they make. Each is set against its simulated distribution, and the threshold is for the largest of all of
them, over all kinds of quantities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]
Ranks = Sequence[Sequence[float]]

#: Chance of any flag of a posterior that is right, which the threshold is set for: below 5 % with the error
#: of the simulation and of the correlations.
FALSE_ALARMS = 0.025
#: Simulated checks, each for the threshold, for the false alarms and for the power.
REPEATS = 1_000
#: What the power is against: standard deviations of so much of what they should be.
NARROW = 0.8
STATISTICS = (
    *("coverage of 50 %", "coverage of 90 %", "mean rank", "spread"),
    *("spread of some fits", "truths beyond the draws"),
)

_LEVELS = (0.5, 0.9)
_OUTERMOST = 0.02
_NUMBERS = 2_000_000
#: Normal scores beyond which a rank of some hundred draws says nothing more.
_FAR = 3.5


@dataclass(frozen=True)
class Quantities:
    """Quantities of one kind in a fit: how many there are, and how their ranks depend on each other.

    Attributes
    ----------
    n : int
    side, size : float
        Intraclass correlations, in [0, 0.9], behind the side of the middle that ranks are on, and behind how
        far from it they are.
    """

    n: int
    side: float
    size: float


@dataclass(frozen=True, eq=False)
class Rule:
    """A calibrated rule.

    Attributes
    ----------
    n_fits : int
    quantities : dict of Quantities
        By kind.
    low, high : dict of ndarray, shape (6,)
        2.5 and 97.5 % points of each statistic of a posterior that is right.
    largest : ndarray
        Simulated largest scores of posteriors that are right, ascending.
    threshold : float
        Score above which a kind is flagged.
    """

    n_fits: int
    quantities: dict[str, Quantities]
    low: dict[str, Floats]
    high: dict[str, Floats]
    largest: Floats
    threshold: float

    def scores(self, kind: str, found: Floats) -> Floats:
        """Return statistics (…, 6) in units of what chance allows: 1 at their 2.5 and 97.5 % points."""
        scale = np.where(found > 0, self.high[kind], self.low[kind])
        result: Floats = found / np.where(np.abs(scale) < 0.1, np.copysign(0.1, found), scale)
        return result

    def p_value(self, score: float) -> float:
        """Return how often the largest score of a posterior that is right is as large."""
        above = len(self.largest) - int(np.searchsorted(self.largest, score, side="left"))
        return (1 + above) / (1 + len(self.largest))


def quantities_of(ranks: Ranks) -> Quantities:
    """Return the number and dependence of the quantities whose ranks these are, one sequence a fit."""
    n = int(np.median([len(one) for one in ranks]))
    scores = [_scores(one) for one in ranks]
    side = _intraclass([np.where(one > 0, 1.0, -1.0) for one in scores])
    size = _intraclass([ndtri(np.clip(2.0 * ndtr(np.abs(one)) - 1.0, 1e-4, 1 - 1e-4)) for one in scores])
    # Signs of Normals with correlation r correlate by 2/pi asin(r).
    return Quantities(n, min(math.sin(0.5 * math.pi * side), 0.9), size)


def statistics_of(ranks: Ranks) -> Floats:
    """Return the statistics (6,) of ranks, one sequence a fit."""
    per_fit = np.stack([_per_fit(_scores(one)) for one in ranks])
    floor = np.mean([_independent(len(one)) for one in ranks], axis=0)
    return _standardised(per_fit, floor)


def make_rule(
    quantities: Mapping[str, Quantities], n_fits: int, *, repeats: int = REPEATS, seed: int = 0
) -> Rule:
    """Calibrate a rule on simulated ranks of a posterior that is right.

    Parameters
    ----------
    quantities : mapping of Quantities
        By kind.
    n_fits : int
    repeats, seed : int
        Of the simulation.
    """
    low, high, found = {}, {}, {}
    for place, (kind, one) in enumerate(quantities.items()):
        found[kind] = simulate_statistics(one, n_fits, repeats, [seed, 0, place])
        low[kind], high[kind] = np.quantile(found[kind], [0.025, 0.975], axis=0)
    rule = Rule(n_fits, dict(quantities), low, high, np.zeros(0), math.inf)
    largest = np.sort(_largest(rule, found).max(axis=1))
    return Rule(n_fits, dict(quantities), low, high, largest, float(np.quantile(largest, 1 - FALSE_ALARMS)))


def error_rates(
    rule: Rule, *, narrow: float = NARROW, repeats: int = REPEATS, seed: int = 0
) -> tuple[float, dict[str, float]]:
    """Return how often a rule flags anything of a right posterior, and each kind when it is too narrow.

    Parameters
    ----------
    rule : Rule
    narrow : float
        Standard deviations of the narrow posterior over those it should have.
    repeats, seed : int
        Of simulations that the rule was not made from.
    """
    right, wrong = {}, {}
    for place, (kind, one) in enumerate(rule.quantities.items()):
        right[kind] = simulate_statistics(one, rule.n_fits, repeats, [seed, 1, place])
        wrong[kind] = simulate_statistics(one, rule.n_fits, repeats, [seed, 2, place], narrow=narrow)
    alarms = float((_largest(rule, right) > rule.threshold).any(axis=1).mean())
    seen = (_largest(rule, wrong) > rule.threshold).mean(axis=0)
    return alarms, dict(zip(rule.quantities, seen.tolist(), strict=True))


def fits_needed(
    rule: Rule, power: Mapping[str, float], wanted: float = 0.8, *, narrow: float = NARROW
) -> dict[str, int | None]:
    """Return, for each kind whose power is below `wanted`, how many fits have it; None beyond 16 times."""
    lacking = {kind for kind, value in power.items() if value < wanted}
    result: dict[str, int | None] = dict.fromkeys(sorted(lacking), None)
    for times in (2, 4, 8, 16):
        if not lacking:
            break
        more = make_rule(rule.quantities, times * rule.n_fits, repeats=REPEATS // 4)
        _, found = error_rates(more, narrow=narrow, repeats=REPEATS // 4)
        for kind in sorted(lacking):
            if found[kind] >= wanted:
                result[kind] = more.n_fits
                lacking.discard(kind)
    return result


def narrow_coverage(narrow: float = NARROW, level: float = 0.9) -> float:
    """Return what a Normal posterior's central interval holds when its sds are `narrow` times too small."""
    return float(2.0 * ndtr(narrow * ndtri(0.5 + level / 2)) - 1.0)


def simulate_statistics(
    one: Quantities, n_fits: int, repeats: int, seed: Sequence[int], *, narrow: float = 1.0
) -> Floats:
    """Return statistics (repeats, 6) of simulated checks of one kind.

    A score is a sign and a size: the sign is that of a Normal that a fit's quantities share in part, the size
    a half-Normal whose quantile is such a Normal's. So a score is Normal whatever the dependence is.
    """
    floor, parts = _independent(one.n), []
    rng = np.random.default_rng(list(seed))
    for count in _counts(repeats, n_fits * one.n):
        side = _shared(rng, (count, n_fits, one.n), one.side)
        size = ndtri(0.5 + 0.5 * ndtr(_shared(rng, (count, n_fits, one.n), one.size)))
        scores = np.clip(np.copysign(size, side) / narrow, -_FAR, _FAR)
        parts.append(_standardised(_per_fit(scores), floor))
    return np.concatenate(parts)


def _counts(repeats: int, numbers: int) -> Iterator[int]:
    step = max(1, _NUMBERS // max(numbers, 1))
    for start in range(0, repeats, step):
        yield min(step, repeats - start)


def _shared(rng: np.random.Generator, shape: tuple[int, int, int], correlation: float) -> Floats:
    common = rng.standard_normal((*shape[:2], 1))
    result: Floats = math.sqrt(correlation) * common
    return result + math.sqrt(1.0 - correlation) * rng.standard_normal(shape)


def _scores(ranks: Sequence[float]) -> Floats:
    result: Floats = np.clip(ndtri(np.asarray(ranks, dtype=np.float64)), -_FAR, _FAR)
    return result


def _per_fit(scores: Floats) -> Floats:
    """Return means (…, 5) of scores (…, n), less what they are of a posterior that is right."""
    size = np.abs(scores)
    inside = [(size < ndtri(0.5 + level / 2)).mean(axis=-1) - level for level in _LEVELS]
    outermost = (size > ndtri(1.0 - _OUTERMOST / 2)).mean(axis=-1) - _OUTERMOST
    means = [*inside, ndtr(scores).mean(axis=-1) - 0.5, (size**2).mean(axis=-1) - 1.0, outermost]
    return np.stack(means, axis=-1)


def _independent(n: int) -> Floats:
    """Return the variances of the means of n independent ranks."""
    shares = [level * (1 - level) for level in (*_LEVELS, _OUTERMOST)]
    return np.array([*shares[:2], 1.0 / 12.0, 2.0, shares[2]]) / n


def _standardised(per_fit: Floats, floor: Floats) -> Floats:
    """Return the statistics (…, 6) of means (…, fits, 5) of fits.

    Four over their standard errors, those found and `floor` at least; two over those of independent ranks.
    """
    root = math.sqrt(per_fit.shape[-2])
    mean = per_fit.mean(axis=-2) * root
    variance = np.maximum(per_fit.var(axis=-2, ddof=1), floor)
    result: Floats = np.concatenate(
        [mean[..., :4] / np.sqrt(variance[..., :4]), mean[..., 3:] / np.sqrt(floor[3:])], axis=-1
    )
    return result


def _largest(rule: Rule, found: Mapping[str, Floats]) -> Floats:
    """Return the largest scores (repeats, kinds)."""
    return np.stack([rule.scores(kind, values).max(axis=1) for kind, values in found.items()], axis=1)


def _intraclass(groups: Sequence[Floats]) -> float:
    """Return the intraclass correlation of values in groups (analysis of variance), within [0, 0.9].

    Two standard errors (Fisher's) are added: correlations that are taken for too small raise false alarms,
    and those that are taken for too large cost some power.
    """
    sizes = np.array([len(one) for one in groups])
    n = float(sizes.mean())
    if n <= 1 or len(groups) < 2:
        return 0.0
    means = np.array([one.mean() for one in groups])
    within = sum(float(((one - one.mean()) ** 2).sum()) for one in groups) / max(sizes.sum() - len(groups), 1)
    between = n * float(means.var(ddof=1))
    total = between + (n - 1.0) * within
    if total <= 0:
        return 0.0
    found = (between - within) / total
    error = (1.0 - found) * (1.0 + (n - 1.0) * found) * math.sqrt(2.0 / (n * (n - 1.0) * (len(groups) - 1)))
    return float(np.clip(found + 2.0 * error, 0.0, 0.9))
