"""What a system says of the ratings of some pairs: moments, probabilities of levels, central intervals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.scale import RatingScale
from ..numerics.central_intervals import discrete_interval, normal_interval_width
from ..numerics.level_sets import set_words, smallest_sets
from .raw_ids import check_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairPredictions(ABC):
    """Predictive distributions of n pairs' ratings, in rating units.

    Attributes
    ----------
    mean, sd : ndarray, shape (n,)
        Unclipped.
    pmf : ndarray, shape (n, L), or None
        Probability of each level of a discrete scale; None on a continuous one.
    """

    mean: NDArray[Any]
    sd: NDArray[Any]
    pmf: NDArray[Any] | None

    @abstractmethod
    def interval(self, probability: float) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the (n,) lower and upper ends of the central intervals, unclipped."""


@dataclass(frozen=True, eq=False)
class NormalPredictions(PairPredictions):
    """Intervals are those of Normals with these means and standard deviations."""

    def interval(self, probability: float) -> tuple[Floats, Floats]:
        """Return mean -+ half the width of a Normal's central interval."""
        half = normal_interval_width(self.sd, probability) / 2
        return self.mean - half, self.mean + half


@dataclass(frozen=True, eq=False)
class LevelPredictions(PairPredictions):
    """Intervals are quantiles of the probabilities: their ends are levels, and they hold at least as much.

    Attributes
    ----------
    pmf : ndarray, shape (n, L)
    levels : ndarray, shape (L,)
    """

    pmf: NDArray[Any]
    levels: Floats

    def interval(self, probability: float) -> tuple[Floats, Floats]:
        """Return the levels at which the distribution functions reach both tails."""
        return discrete_interval(self.pmf, self.levels, probability)


@dataclass(frozen=True, eq=False)
class DrawnPredictions(PairPredictions):
    """Intervals come from draws of the system itself.

    Attributes
    ----------
    ends : callable
        Gives the (n,) lower and upper ends at a probability.
    """

    ends: Callable[[float], tuple[Floats, Floats]]

    def interval(self, probability: float) -> tuple[Floats, Floats]:
        """Return what the system draws."""
        return self.ends(probability)


def rating_columns(
    said: PairPredictions, scale: RatingScale, *, interval: float, clip: bool = False
) -> dict[str, NDArray[Any]]:
    """Return the columns of a table of predictions, but for the ids.

    They are ``mean``, ``sd``, ``lower``, ``upper``; on a discrete scale also ``smallest_set``, the smallest
    set of levels with probability `interval` as text, and ``set_probability``, what it holds.
    """
    lower, upper = said.interval(check_interval(interval))
    limit = scale.clip if clip else np.asarray
    columns = {"mean": limit(said.mean), "sd": said.sd, "lower": limit(lower), "upper": limit(upper)}
    if said.pmf is not None and scale.levels is not None:
        inside, held = smallest_sets(said.pmf, interval)
        columns |= {"smallest_set": set_words(inside, scale.levels), "set_probability": held}
    return columns
