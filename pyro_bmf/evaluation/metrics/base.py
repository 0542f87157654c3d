"""What a figure of merit is: a small class with a name, words, a definition and a formula.

A new one is one file here, a subclass of one of the kinds below, and an entry in `METRICS`; tables, JSON, CSV
and the reference of figures follow.

================= =============================================================== ==========================
kind              formula                                                         is given
================= =============================================================== ==========================
RatingMetric      a loss of each rating; the figure is their mean, or its root    what a system says of them
CalibrationMetric one number                                                      coverage, widths, PIT
RankingMetric     a value of each evaluated user; the figure is their mean        hits of the user's list
CatalogueMetric   one number                                                      in how many lists items are
================= =============================================================== ==========================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.data import RatingScale
from pyro_bmf.evaluation.calibration import Calibration

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Better = Literal["lower", "higher", "nominal", "neither"]
Screen = Literal["main", "more", "none"]


@dataclass(frozen=True, eq=False)
class Said:
    """What a system says of n ratings, beside these.

    Attributes
    ----------
    ratings, mean, sd : ndarray, shape (n,)
        Rating units; predictions unclipped.
    pmf : ndarray, shape (n, L), or None
        Probabilities of the levels; None on a continuous scale.
    positions : ndarray of int, shape (n,), or None
        Which level each rating is.
    scale : RatingScale
    """

    ratings: Floats
    mean: Floats
    sd: Floats
    pmf: Floats | None
    positions: Ints | None
    scale: RatingScale

    @property
    def errors(self) -> Floats:
        """Prediction less rating."""
        return self.mean - self.ratings

    @property
    def clipped_errors(self) -> Floats:
        """The same with predictions clipped to the scale."""
        return self.scale.clip(self.mean) - self.ratings

    @property
    def spread(self) -> Floats:
        """The standard deviation where a density is asked for, no less than `SMALLEST_SD` of the range.

        A sure prediction has no density: it gets that of the narrowest Normal that is told apart here.
        """
        return np.maximum(self.sd, SMALLEST_SD * (self.scale.high - self.scale.low))


#: Smallest standard deviation that a log density is taken at, as a share of the scale's range.
SMALLEST_SD = 1e-9


@dataclass(frozen=True, eq=False)
class Resampling:
    """What a bootstrap over users needs.

    Attributes
    ----------
    users : ndarray of int, shape (n,)
        The user of each rating.
    draws, seed : int
    """

    users: Ints
    draws: int
    seed: int


class Metric(ABC):
    """A figure of merit.

    Attributes
    ----------
    name : str
        Its key in JSON.
    label : str
        Its words on the screen and in documents.
    better : {"lower", "higher", "nominal", "neither"}
        ``nominal``: the nearer to its nominal value, the better.
    unit : str
    needs : str
        What a system has to say for it.
    definition, source : str
        In words; where it is from, "" for what needs none.
    screen : {"main", "more", "none"}
        In which table people see it.
    in_systems : bool
        Whether the table with one row a system has it.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    better: ClassVar[Better]
    unit: ClassVar[str] = ""
    needs: ClassVar[str]
    definition: ClassVar[str]
    source: ClassVar[str] = ""
    screen: ClassVar[Screen] = "more"
    in_systems: ClassVar[bool] = True


class RatingMetric(Metric):
    """A mean of losses of single ratings.

    Attributes
    ----------
    root : bool
        Whether the figure is the root of the mean.
    pairable : bool
        Whether two systems can be compared by it, rating by rating.
    compared : bool
        Whether comparisons show that difference, by a paired bootstrap over users.
    """

    root: ClassVar[bool] = False
    pairable: ClassVar[bool] = True
    compared: ClassVar[bool] = False

    @abstractmethod
    def losses(self, said: Said) -> Floats | None:
        """Return the (n,) losses; None where there are none on this rating scale."""

    def figure(self, losses: Floats, resampling: Resampling) -> float | int:
        """Return the mean of all losses, or its root."""
        del resampling
        mean = losses.mean()
        return float(np.sqrt(mean) if self.root else mean)


class CalibrationMetric(Metric):
    """A number of a `Calibration`.

    Attributes
    ----------
    in_calibration : bool
        Whether JSON has it under ``calibration``, where it is not repeated beside the others.
    """

    in_calibration: ClassVar[bool] = False

    @abstractmethod
    def figure(self, calibration: Calibration) -> float | None:
        """Return the number; None where it was not measured."""


class RankingMetric(Metric):
    """A mean over users of what their lists are worth."""

    @abstractmethod
    def values(self, hits: NDArray[np.bool_], totals: NDArray[Any], n: int) -> Floats:
        """Return the (n_users,) values of lists of length `n`; see `recall_at` for what is given."""

    def column(self, n: int) -> str:
        """Return the figure's name in tables, after the protocol's."""
        return f"{self.name}@{n}"

    def words(self, n: int) -> str:
        """Return the figure's name on the screen."""
        return f"{self.label}@{n}"


class CatalogueMetric(Metric):
    """What the lists of all evaluated users together are worth, of the protocol ``full`` alone."""

    @abstractmethod
    def figure(self, listed: Ints, n: int) -> float:
        """Return the number; `listed`, (n_items,), is in how many lists of length `n` each item stands."""

    @abstractmethod
    def column(self, n: int) -> str:
        """Return the figure's name in tables, after the protocol's."""

    @abstractmethod
    def words(self, n: int) -> str:
        """Return the figure's name on the screen."""


def rating_metrics(metrics: Sequence[Metric]) -> list[RatingMetric]:
    """Return those of one kind, in their order."""
    return [metric for metric in metrics if isinstance(metric, RatingMetric)]


def calibration_metrics(metrics: Sequence[Metric]) -> list[CalibrationMetric]:
    """Return those of one kind, in their order."""
    return [metric for metric in metrics if isinstance(metric, CalibrationMetric)]


def ranking_metrics(metrics: Sequence[Metric]) -> list[RankingMetric]:
    """Return those of one kind, in their order."""
    return [metric for metric in metrics if isinstance(metric, RankingMetric)]


def catalogue_metrics(metrics: Sequence[Metric]) -> list[CatalogueMetric]:
    """Return those of one kind, in their order."""
    return [metric for metric in metrics if isinstance(metric, CatalogueMetric)]
