"""Distributions of ratings whose predictors are in standard units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from ..data.units import Units


class InUnits(TorchDistribution):
    """A rating, in its own unit, that has a given distribution in standard units.

    Parameters
    ----------
    standard : TorchDistribution
        Of the rating in standard units.
    units : Units
    """

    has_enumerate_support = False
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's own class attribute)

    def __init__(self, standard: TorchDistribution, units: Units) -> None:
        self.standard, self.units = standard, units
        super().__init__(standard.batch_shape, torch.Size(), validate_args=False)

    @property
    def support(self) -> Any:
        """Real numbers."""
        return constraints.real

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density by the rating's own unit."""
        inside = standardised(value, self.units)
        result: Tensor = self.standard.log_prob(inside) - math.log(self.units.scale)
        return result

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Draw ratings."""
        drawn: Tensor = self.standard.sample(torch.Size(sample_shape))
        return drawn * self.units.scale + self.units.shift

    @property
    def mean(self) -> Tensor:
        """Mean rating."""
        mean: Tensor = self.standard.mean
        return mean * self.units.scale + self.units.shift

    @property
    def variance(self) -> Tensor:
        """Variance of a rating."""
        variance: Tensor = self.standard.variance
        return variance * self.units.scale**2

    def expand(self, batch_shape: Any, _instance: Any = None) -> InUnits:
        """Return the same distribution over a larger batch."""
        del _instance
        return InUnits(self.standard.expand(batch_shape), self.units)


def standardised(ratings: Tensor, units: Units) -> Tensor:
    """Return ratings, of any value, in standard units: as they are where those are their own."""
    return ratings if units.identity else (ratings.double() - units.shift) / units.scale
