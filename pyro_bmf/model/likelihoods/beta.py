r"""A Beta rating: continuous between two ends.

.. math:: y = q / 2 + (1 - q) \frac{x - a}{b - a}, \qquad
   y \sim \mathrm{Beta}(\mu \phi, (1 - \mu) \phi), \qquad \mu = \sigma(\eta),

with a small q that keeps ratings at the ends inside, as Smithson and Verkuilen (2006),
doi 10.1037/1082-989X.11.1.54, squeeze theirs, and a learned concentration :math:`\phi`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from scipy.special import betainc
from torch import Tensor, nn

from ...errors import SettingsError
from ...numerics.normal_cells import midway
from .normal import Likelihood, refuse_noise

#: Keeps a Beta's mean off its ends.
_EDGE = 1e-4


class BoundedRating(TorchDistribution):
    """A Beta in rating units; see the module."""

    has_enumerate_support = False
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's own class attribute)

    def __init__(self, mean: Tensor, concentration: Tensor, low: float, high: float, squeeze: float) -> None:
        self.share, self.concentration = mean, concentration
        self.low, self.high, self.squeeze = low, high, squeeze
        super().__init__(mean.shape, torch.Size(), validate_args=False)

    @property
    def support(self) -> Any:
        """Ratings from one end to the other."""
        return constraints.interval(self.low, self.high)  # type: ignore[no-untyped-call]

    def base(self) -> TorchDistribution:
        """Return the distribution of y."""
        return dist.Beta(self.share * self.concentration, (1 - self.share) * self.concentration)

    def unit(self, value: Tensor) -> Tensor:
        """Return y of ratings."""
        return self.squeeze / 2 + (1 - self.squeeze) * (value - self.low) / (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of ratings, per rating unit."""
        slope = math.log((1 - self.squeeze) / (self.high - self.low))
        result: Tensor = self.base().log_prob(self.unit(value.to(self.share.dtype))) + slope
        return result

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Draw ratings: what falls beyond an end lies at it."""
        with torch.no_grad():
            y = self.base().sample(torch.Size(sample_shape))
            return self._back(y).clamp(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        """Mean rating."""
        return self._back(self.share)

    @property
    def variance(self) -> Tensor:
        """Variance of a rating."""
        slope = (self.high - self.low) / (1 - self.squeeze)
        return slope**2 * self.share * (1 - self.share) / (1 + self.concentration)

    def _back(self, y: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * (y - self.squeeze / 2) / (1 - self.squeeze)

    def expand(self, batch_shape: Any, _instance: Any = None) -> BoundedRating:
        """Return the same distribution over a larger batch."""
        del _instance
        shape = torch.Size(batch_shape)
        return BoundedRating(self.share.expand(shape), self.concentration, self.low, self.high, self.squeeze)


class BetaLikelihood(Likelihood):
    """A Beta rating with learned concentration.

    Parameters
    ----------
    low, high : float
        The scale's ends.
    squeeze : float
        q: how far, as a share of the scale, the ends are drawn in.

    Raises
    ------
    SettingsError
        If the ends do not ascend, or `squeeze` is not between 0 and 0.5.
    """

    density = "Beta(y; sigmoid(eta) phi, (1 - sigmoid(eta)) phi), y the rating's place between the ends"
    called = "Beta"

    def __init__(self, low: float, high: float, squeeze: float = 0.02) -> None:
        super().__init__()
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise SettingsError(f"low is {low} and high {high}: give two numbers, the lower first.")
        if not 0.0 < squeeze < 0.5:
            raise SettingsError(f"squeeze is {squeeze}: give a share above 0 and below 0.5.")
        self.low, self.high, self.squeeze = float(low), float(high), float(squeeze)
        self.support = constraints.interval(self.low, self.high)  # type: ignore[no-untyped-call]
        self.takes = f"numbers from {self.low:g} to {self.high:g}"
        self.log_concentration = nn.Parameter(torch.tensor(math.log(4.0), dtype=torch.float64))

    def start(self, ratings: np.ndarray) -> None:
        """Start the concentration where the variance is that of the ratings."""
        y = self.squeeze / 2 + (1 - self.squeeze) * (ratings - self.low) / (self.high - self.low)
        mean, variance = float(y.mean()), max(float(y.var()), 1e-6)
        with torch.no_grad():
            self.log_concentration.fill_(math.log(max(mean * (1 - mean) / variance - 1.0, 0.1)))

    def predictor_centre(self, centre: Tensor) -> Tensor:
        """Return the log-odds of the mean rating's place between the ends."""
        share = (centre - self.low) / (self.high - self.low)
        y = self.squeeze / 2 + (1 - self.squeeze) * share
        return torch.logit(y.clamp(_EDGE, 1 - _EDGE))

    def forward(self, eta: Tensor, relative: Tensor | None = None) -> BoundedRating:
        """Return the distribution of ratings."""
        refuse_noise(relative, self)
        share = torch.sigmoid(eta).clamp(_EDGE, 1 - _EDGE)
        concentration = self.log_concentration.exp().clamp_max(1e4).to(eta.dtype)
        return BoundedRating(share, concentration, self.low, self.high, self.squeeze)

    def log_prob_rating(self, eta: Tensor, levels: Tensor, relative: Tensor | None = None) -> Tensor:
        """Return the log-probability of each level's cell, without a gradient."""
        found = self.forward(eta.double(), relative)
        cuts = found.unit(midway(levels.double())).cpu().numpy()
        share = found.share.detach().cpu().numpy()[..., None]
        phi = float(found.concentration.detach())
        inner = betainc(share * phi, (1 - share) * phi, cuts)
        ends = np.zeros_like(inner[..., :1])
        cells = np.diff(np.concatenate([ends, inner, ends + 1.0], axis=-1), axis=-1)
        return torch.from_numpy(np.log(np.maximum(cells, 1e-300))).to(eta.device)

    def settings(self) -> dict[str, Any]:
        """Return the kind, the ends and q."""
        return {"kind": "beta", "low": self.low, "high": self.high, "squeeze": self.squeeze}
