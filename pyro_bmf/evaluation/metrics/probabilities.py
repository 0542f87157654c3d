"""Scores of predicted distributions of ratings."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation.metrics.base import RatingMetric, Resampling, Said, Screen

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SMALLEST_PROBABILITY = float(np.finfo(np.float64).tiny)
_NEEDS = "the probability of each level of a discrete scale"


def nll(pmf: ArrayLike, positions: ArrayLike) -> Floats:
    """Negative log probability of each observed rating, in nats.

    Parameters
    ----------
    pmf
        (n, L) probability of each level.
    positions
        (n,) position of the observed level.

    Returns
    -------
    numpy.ndarray
        (n,) values >= 0. A probability below 2.2e-308 counts as that, i.e. 708 nats, so that one rating
        that a system calls impossible does not make every average infinite.
    """
    probabilities, observed = _pmf(pmf, positions)
    chosen = np.take_along_axis(probabilities, observed[:, None], axis=1)[:, 0]
    # a row may sum to 1 + rounding: no negative values from that
    return -np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1.0))


def rps(pmf: ArrayLike, positions: ArrayLike) -> Floats:
    r"""Ranked probability score of each rating: smaller is better, 0 is certain and right.

    .. math:: \mathrm{RPS} = \sum_{l=1}^{L-1} \left(F_l - 1[y \le l]\right)^2,
              \qquad F_l = \sum_{m \le l} p_m

    (Epstein 1969), the plain sum over the L − 1 thresholds, **not** divided by L − 1. With levels one apart
    it is the continuous ranked probability score in rating units, hence comparable with the MAE: a point
    prediction scores its absolute error. Half stars have twice as many thresholds.

    Parameters
    ----------
    pmf
        (n, L) probability of each level.
    positions
        (n,) position of the observed level.

    Returns
    -------
    numpy.ndarray
        (n,) values in [0, L − 1].
    """
    probabilities, observed = _pmf(pmf, positions)
    cumulative = np.cumsum(probabilities, axis=1)[:, :-1]
    reached = observed[:, None] <= np.arange(cumulative.shape[1])
    scores: Floats = np.sum((cumulative - reached) ** 2, axis=1)
    return scores


def _pmf(pmf: ArrayLike, positions: ArrayLike) -> tuple[Floats, Ints]:
    probabilities = np.asarray(pmf, dtype=np.float64)
    observed = np.asarray(positions, dtype=np.int64)
    if probabilities.ndim != 2 or observed.shape != probabilities.shape[:1]:
        raise SettingsError(
            f"probabilities of shape {probabilities.shape} do not fit {observed.size} ratings: one row each."
        )
    return probabilities, observed


class _LevelMetric(RatingMetric):
    """A mean score of the probabilities of levels; none on a continuous scale."""

    needs = _NEEDS
    screen: ClassVar[Screen] = "main"
    compared = True

    @abstractmethod
    def scores(self, pmf: Floats, positions: Ints) -> Floats:
        """Return the (n,) scores of (n, L) probabilities, where these levels were rated."""

    def losses(self, said: Said) -> Floats | None:
        """Return the scores; None on a continuous scale."""
        if said.pmf is None or said.positions is None:
            return None
        return self.scores(said.pmf, said.positions)


class NLL(_LevelMetric):
    """Negative log likelihood of discrete ratings."""

    name = "nll"
    label = "NLL"
    better = "lower"
    unit = "nats a rating"
    definition = "mean of −log probability of the level that was rated, at most 708 a rating"
    source = "Good 1952"

    def scores(self, pmf: Floats, positions: Ints) -> Floats:
        """Return `nll`."""
        return nll(pmf, positions)


class RPS(_LevelMetric):
    """Ranked probability score."""

    name = "rps"
    label = "RPS"
    better = "lower"
    unit = "rating, where levels are one apart"
    definition = "mean of Σ (P(rating ≤ level) − 1[rated ≤ level])² over the levels but the last"
    source = "Epstein 1969"

    def scores(self, pmf: Floats, positions: Ints) -> Floats:
        """Return `rps`."""
        return rps(pmf, positions)


class Impossible(NLL):
    """Ratings that the system calls impossible."""

    name = "n_impossible"
    label = "ratings called impossible"
    unit = "ratings"
    definition = "number of ratings given a probability below 2.2e-308"
    source = ""
    screen = "none"
    in_systems = False
    pairable = False
    compared = False

    def figure(self, losses: Floats, resampling: Resampling) -> int:
        """Return how many there are."""
        del resampling
        return int((losses >= -np.log(SMALLEST_PROBABILITY)).sum())


class DensityNLL(RatingMetric):
    """Negative log density of continuous ratings."""

    name = "density_nll"
    label = "density NLL"
    better = "lower"
    unit = "nats a rating; depends on the ratings' unit"
    needs = "mean and standard deviation, on a continuous scale"
    definition = "mean of −log density of a Normal with the predictive mean and standard deviation"
    screen: ClassVar[Screen] = "main"
    compared = True

    def losses(self, said: Said) -> Floats | None:
        """Return −log densities; a standard deviation counts for a 10^9th of the range or more."""
        if said.pmf is not None:
            return None
        z = (said.ratings - said.mean) / said.spread
        losses: Floats = 0.5 * z**2 + np.log(said.spread) + 0.5 * np.log(2 * np.pi)
        return losses
