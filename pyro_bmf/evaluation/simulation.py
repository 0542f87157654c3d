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

from pyro_bmf.errors import DataError

#: Nominal chance of a flag, over all kinds and tests, of a posterior that is right: t-tests of few refits
#: with skewed shares flag more often, about 5 % at 20 refits (measured in the tests).
FALSE_ALARM = 0.03
LEVELS = (0.5, 0.9)


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
        Of the smallest of three tests over refits (both coverages and the mean rank), times three.
    flagged : bool
        Whether that is below the chance of a false alarm divided by the number of kinds.
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
    flagged: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain values."""
        return asdict(self)


def summarise_ranks(
    ranks: Mapping[str, Sequence[Sequence[float]]], errors: Mapping[str, Sequence[Sequence[float]]]
) -> tuple[RankSummary, ...]:
    """Summarise the ranks of every kind of quantity.

    Parameters
    ----------
    ranks, errors : mapping
        By kind, one sequence a refit: ranks in (0, 1), and standardised errors.

    Returns
    -------
    tuple of RankSummary
        In the order of `ranks`.

    Raises
    ------
    DataError
        If there are fewer than two refits.
    """
    result = []
    for kind, found in ranks.items():
        if len(found) < 2:
            raise DataError(f"Only {len(found)} refits of {kind}: two at least are needed to judge anything.")
        everything = np.concatenate([np.asarray(one) for one in found])
        shares = {level: np.array([_inside(one, level) for one in found]) for level in LEVELS}
        means = np.array([float(np.mean(one)) for one in found])
        tests = [_p_value(shares[level], level) for level in LEVELS] + [_p_value(means, 0.5)]
        p_value = min(1.0, len(tests) * min(tests))
        z = np.concatenate([np.asarray(one) for one in errors[kind]])
        result.append(
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
                p_value=p_value,
                flagged=p_value < FALSE_ALARM / len(ranks),
            )
        )
    return tuple(result)


def _inside(ranks: Sequence[float], level: float) -> float:
    return float(np.mean(np.abs(np.asarray(ranks) - 0.5) < 0.5 * level))


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _p_value(values: NDArray[np.float64], expected: float) -> float:
    """Return the p-value of the mean over refits; of one truth a refit, of the binomial count."""
    if set(np.unique(values)) <= {0.0, 1.0}:
        return float(stats.binomtest(int(values.sum()), len(values), expected).pvalue)
    if values.std() == 0:
        return 1.0 if math.isclose(values[0], expected) else 0.0
    return float(stats.ttest_1samp(values, expected).pvalue)
