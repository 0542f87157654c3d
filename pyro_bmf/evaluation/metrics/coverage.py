"""Calibration in single numbers, at 90 % and over all ratings; `Calibration` has all levels and deciles."""

from __future__ import annotations

from abc import abstractmethod

from pyro_bmf.evaluation.calibration import Calibration, CalibrationGroup
from pyro_bmf.evaluation.metrics.base import CalibrationMetric

LEVEL = 0.9


class _AtNinety(CalibrationMetric):
    """What `Calibration` has by level, at 90 % and over all ratings."""

    in_calibration = True

    @abstractmethod
    def by_level(self, group: CalibrationGroup) -> tuple[float, ...] | None:
        """Return the numbers of a group of ratings, one a level; None where they were not measured."""

    def figure(self, calibration: Calibration) -> float | None:
        """Return the one at 90 %, over all ratings."""
        values = self.by_level(calibration.overall)
        return None if values is None else values[calibration.levels.index(LEVEL)]


class PITCoverage(_AtNinety):
    """Coverage by the randomised PIT."""

    name = "pit_coverage_90"
    label = "90 % by PIT"
    better = "nominal"
    needs = "probabilities, or mean and standard deviation"
    definition = "share of ratings whose randomised probability integral transform lies in the middle 90 %"
    source = "Czado, Gneiting and Held 2009, doi 10.1111/j.1541-0420.2009.01191.x"
    screen = "main"

    def by_level(self, group: CalibrationGroup) -> tuple[float, ...] | None:
        """Return them."""
        return group.pit_coverage


class Width(_AtNinety):
    """Width of intervals."""

    name = "width_90"
    label = "mean width of 90 % intervals"
    better = "lower"
    unit = "rating"
    needs = "probabilities, or mean and standard deviation"
    definition = "mean width of the central 90 % interval as it is printed"

    def by_level(self, group: CalibrationGroup) -> tuple[float, ...] | None:
        """Return them."""
        return group.width


class SdErrorCorrelation(CalibrationMetric):
    """Whether errors are larger where the system says so."""

    name = "sd_error_correlation"
    label = "correlation of sd and |error|"
    better = "higher"
    needs = "mean and standard deviation"
    definition = "Pearson correlation of the predictive standard deviation and |prediction − rating|"
    in_calibration = True

    def figure(self, calibration: Calibration) -> float | None:
        """Return it over all ratings."""
        return calibration.sd_error_correlation


class IntervalCoverage(_AtNinety):
    """Coverage of the printed intervals."""

    name = "interval_coverage_90"
    label = "interval holds"
    better = "neither"
    needs = "probabilities, or mean and standard deviation"
    definition = (
        "share of ratings inside the central 90 % interval as it is printed; where its ends are whole "
        "levels, 0.90 or more is right"
    )
    screen = "main"

    def by_level(self, group: CalibrationGroup) -> tuple[float, ...] | None:
        """Return them."""
        return group.interval_coverage


class SetCoverage(_AtNinety):
    """Coverage of the smallest sets of levels."""

    name = "set_coverage_90"
    label = "smallest 90 % set of levels holds"
    better = "neither"
    needs = "the probability of each level of a discrete scale"
    definition = "share of ratings in the smallest set of levels with a probability of at least 90 %"

    def by_level(self, group: CalibrationGroup) -> tuple[float, ...] | None:
        """Return them."""
        return group.set_coverage


class SetSize(_AtNinety):
    """Size of the smallest sets of levels."""

    name = "set_size_90"
    label = "levels in that set, mean"
    better = "lower"
    unit = "levels"
    needs = "the probability of each level of a discrete scale"
    definition = "mean number of levels in that set"

    def by_level(self, group: CalibrationGroup) -> tuple[float, ...] | None:
        """Return them."""
        return group.set_size
