r"""The ordered probit: ratings as the cells of a Normal utility.

A rating is level k when a latent utility :math:`z \sim N(\eta, s^2)` falls between the cut points
:math:`c_{k-1}` and :math:`c_k`,

.. math:: P(x = l_k \mid \eta) = \Phi\left(\frac{c_k - \eta}{s}\right) - \Phi\left(\frac{c_{k-1} -
\eta}{s}\right),
          \qquad c_0 = -\infty, \; c_L = \infty.

Utility, predictor and cuts are in rating units: with s fixed, all L - 1 cuts are identified. Albert and Chib
(1993), doi 10.1080/01621459.1993.10476321.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn

from ..errors import DataError, SettingsError
from .likelihoods import Likelihood, normal_cells_between

_TINY = 1e-300


class OrderedProbit(TorchDistribution):
    """Distribution of a rating over `levels`, given its predictor, the cuts and the utility's spread.

    Parameters
    ----------
    eta : Tensor
        Predictors; their shape is the batch shape.
    cuts : Tensor, shape (n_levels - 1,)
        Ascending.
    scale : Tensor
        Standard deviation of the utility, broadcast over `eta`.
    levels : Tensor, shape (n_levels,)
        Ascending values of a rating.
    """

    has_enumerate_support = False
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's own class attribute)

    def __init__(self, eta: Tensor, cuts: Tensor, scale: Tensor, levels: Tensor) -> None:
        self.eta, self.cuts, self.utility_scale, self.levels = eta, cuts, scale, levels
        super().__init__(eta.shape, torch.Size(), validate_args=False)

    @property
    def support(self) -> Any:
        """Real numbers: a rating off the levels is refused when the model is started."""
        return constraints.real

    def probabilities(self) -> Tensor:
        """Return P(level), shape (*batch, n_levels), float64."""
        return normal_cells_between(self.eta, self.utility_scale.expand_as(self.eta), self.cuts)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of ratings, of the batch's shape (or broadcast against it)."""
        middle = (self.levels[1:] + self.levels[:-1]) / 2
        place = torch.searchsorted(middle.contiguous(), value.to(middle).contiguous())
        edges = torch.cat([self.cuts.new_full((1,), -1e9), self.cuts, self.cuts.new_full((1,), 1e9)])
        scale = self.utility_scale.double()
        low = (edges.double()[place] - self.eta.double()) / scale
        high = (edges.double()[place + 1] - self.eta.double()) / scale
        low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)
        gap = 0.5 * (torch.special.erfc(-high * math.sqrt(0.5)) - torch.special.erfc(-low * math.sqrt(0.5)))
        result: Tensor = gap.clamp_min(_TINY).log().to(self.eta.dtype)
        return result

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Draw ratings."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            noise = torch.randn(shape, dtype=self.eta.dtype, device=self.eta.device)
            utility = self.eta + self.utility_scale.to(self.eta) * noise
            place = torch.searchsorted(self.cuts.to(utility).contiguous(), utility.contiguous())
            return self.levels.to(utility)[place]

    @property
    def mean(self) -> Tensor:
        """Mean rating."""
        return (self.probabilities() * self.levels.double()).sum(-1).to(self.eta.dtype)

    @property
    def variance(self) -> Tensor:
        """Variance of a rating."""
        share, levels = self.probabilities(), self.levels.double()
        mean = (share * levels).sum(-1)
        return ((share * levels**2).sum(-1) - mean**2).to(self.eta.dtype)

    def expand(self, batch_shape: Any, _instance: Any = None) -> OrderedProbit:
        """Return the same distribution over a larger batch."""
        del _instance
        shape = torch.Size(batch_shape)
        return OrderedProbit(self.eta.expand(shape), self.cuts, self.utility_scale, self.levels)


class OrderedProbitLikelihood(Likelihood):
    """Ratings on a discrete scale by an ordered probit with learned cut points.

    Parameters
    ----------
    levels : sequence of float
        The scale's levels, ascending; at least two.
    noise : float
        Standard deviation of the utility, in rating units: a convention that fixes the unit.

    Raises
    ------
    SettingsError
        If there are fewer than two levels, they do not ascend, or `noise` is not positive.
    """

    density = "Phi((c_k - eta) / noise) - Phi((c_(k-1) - eta) / noise) for the k-th level"
    levels: Tensor
    utility_noise: Tensor

    def __init__(self, levels: Sequence[float], noise: float = 0.8) -> None:
        super().__init__()
        given = [float(level) for level in levels]
        if len(given) < 2 or any(b <= a for a, b in pairwise(given)):
            raise SettingsError(f"levels are {given}: an ordered probit needs two or more, ascending.")
        if not (math.isfinite(noise) and noise > 0.0):
            raise SettingsError(f"noise is {noise!r}: give a positive number.")
        self._given = given
        self.register_buffer("levels", torch.tensor(given, dtype=torch.float64))
        self.register_buffer("utility_noise", torch.tensor(float(noise), dtype=torch.float64))
        middle = (self.levels[1:] + self.levels[:-1]) / 2
        self.first_cut = nn.Parameter(middle[0].clone())
        self.log_gaps = nn.Parameter(middle.diff().log())

    @property
    def noise(self) -> Tensor:
        """Standard deviation of the utility, in rating units."""
        return self.utility_noise

    @property
    def cuts(self) -> Tensor:
        """The cut points, shape (n_levels - 1,), ascending."""
        return torch.cat([self.first_cut.reshape(1), self.first_cut + self.log_gaps.exp().cumsum(0)])

    @torch.no_grad()
    def set_cuts(self, cuts: Tensor, noise: float | Tensor | None = None) -> None:
        """Put learned cuts, and the utility's spread, in place."""
        self.first_cut.copy_(cuts[0])
        self.log_gaps.copy_(cuts.diff().log())
        if noise is not None:
            self.utility_noise.copy_(torch.as_tensor(noise))

    def check(self, ratings: np.ndarray) -> None:
        """Raise DataError for the first rating that is no level."""
        levels = np.array(self._given)
        near = np.abs(ratings[:, None] - levels).min(axis=1) if len(ratings) else np.zeros(0)
        if (near > 1e-6).any():
            bad = ratings[near > 1e-6][0]
            shown = ", ".join(f"{level:g}" for level in levels)
            raise DataError(
                f"A rating of {bad:g} is no level of the ordered probit ({shown}): declare the scale that "
                "the "
                "ratings have, or choose the Normal likelihood."
            )

    def forward(self, eta: Tensor, relative: Tensor | None = None) -> TorchDistribution:
        """Return the distribution of ratings."""
        return OrderedProbit(eta, self.cuts, self._scale(eta, relative), self.levels)

    def log_prob_rating(self, eta: Tensor, levels: Tensor, relative: Tensor | None = None) -> Tensor:
        """Return the log-probability of each level; the levels must be the likelihood's own."""
        self._same(levels)
        cells = normal_cells_between(eta, self._scale(eta, relative), self.cuts)
        return cells.clamp_min(_TINY).log()

    def predictive_pmf(
        self, eta_mean: Tensor, eta_variance: Tensor, levels: Tensor, relative: Tensor | None = None
    ) -> Tensor:
        """Return the probability of each level: exact for a Normal predictor."""
        self._same(levels)
        spread = (self._scale(eta_mean, relative).double() ** 2 + eta_variance.double()).sqrt()
        return normal_cells_between(eta_mean, spread, self.cuts)

    def predictive_moments(
        self, eta_mean: Tensor, eta_variance: Tensor, relative: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance of a rating: exact for a Normal predictor."""
        share = self.predictive_pmf(eta_mean, eta_variance, self.levels, relative)
        mean = (share * self.levels).sum(-1)
        return mean, ((share * self.levels**2).sum(-1) - mean**2).clamp_min(0.0)

    def settings(self) -> dict[str, Any]:
        """Return the kind, the levels and the utility's spread."""
        return {"kind": "ordered-probit", "levels": self._given, "noise": float(self.utility_noise)}

    def _scale(self, eta: Tensor, relative: Tensor | None) -> Tensor:
        scale = self.utility_noise.to(eta.dtype)
        return scale.expand_as(eta) if relative is None else scale * relative.to(eta.dtype)

    def _same(self, levels: Tensor) -> None:
        if len(levels) != len(self.levels) or not torch.allclose(
            levels.double(), self.levels.to(levels.device)
        ):
            raise SettingsError(
                f"Probabilities of the levels {levels.tolist()} were asked for, but the ordered probit "
                "was made "
                f"for {self._given}: use the scale that it was fitted on."
            )
