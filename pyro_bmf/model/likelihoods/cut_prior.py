"""The prior of an ordered probit's cut points: cells of a Normal whose shares are Dirichlet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.special import ndtri

from ...numerics.normal_cells import LOG_DENSITY
from ...numerics.ordered_cuts import CONCENTRATION, log_cut_prior


class CutPrior(TorchDistribution):
    """Ascending cut points about a centre (`pyro_bmf.numerics.ordered_cuts`).

    Parameters
    ----------
    n_cuts : int
    spread : float
        Standard deviation of the Normal whose cells between the cuts have Dirichlet shares.
    centre : Tensor, shape ()
        Its mean.
    """

    has_enumerate_support = False
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's own class attribute)

    def __init__(self, n_cuts: int, spread: float, centre: Tensor, batch_shape: Sequence[int] = ()) -> None:
        self.spread, self.centre = spread, centre
        super().__init__(torch.Size(batch_shape), torch.Size((n_cuts,)), validate_args=False)

    @property
    def support(self) -> Any:
        """Vectors of real numbers; their order is that of the samples."""
        return constraints.real_vector

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Draw cut points, (*sample_shape, *batch_shape, n_cuts), float64."""
        with torch.no_grad():
            shape = (*sample_shape, *self.batch_shape, self.event_shape[0] + 1)
            weights = torch._standard_gamma(self.centre.new_full(shape, CONCENTRATION))
            below = weights.cumsum(-1) / weights.sum(-1, keepdim=True)
            drawn: Tensor = self.centre + self.spread * ndtri(below[..., :-1])
            return drawn

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of cut points (..., n_cuts), normalised."""
        n = self.event_shape[0]
        constant = math.lgamma(CONCENTRATION * (n + 1)) - (n + 1) * math.lgamma(CONCENTRATION)
        constant += n * (LOG_DENSITY - math.log(self.spread))
        return log_cut_prior(value - self.centre, self.spread) + constant

    def expand(self, batch_shape: Any, _instance: Any = None) -> CutPrior:
        """Return the same distribution over a larger batch."""
        del _instance
        return CutPrior(self.event_shape[0], self.spread, self.centre, batch_shape)
