"""The prior of an ordered probit's cut points: cells of a Normal with Dirichlet shares, evenly spaced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.special import ndtri

from ...numerics.conjugate_draws import draw_gamma
from ...numerics.cuts.density import CONCENTRATION, CutDensity

#: Steps from where bent scales are drawn: chains begin close to where they end.
_STEPS = 100


class CutPrior(TorchDistribution):
    """Ascending cut points about a centre (`pyro_bmf.numerics.cuts.density`).

    Parameters
    ----------
    density : CutDensity
        About the centre.
    centre : Tensor, shape ()
    """

    has_enumerate_support = False
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's own class attribute)

    def __init__(self, density: CutDensity, centre: Tensor, batch_shape: Sequence[int] = ()) -> None:
        self.density, self.centre = density, centre
        super().__init__(torch.Size(batch_shape), torch.Size((len(density.even),)), validate_args=False)

    @property
    def support(self) -> Any:
        """Vectors of real numbers; their order is that of the samples."""
        return constraints.real_vector

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Draw cut points, (*sample_shape, *batch_shape, n_cuts), float64.

        Of three and more by chains of a hundred steps: what is left of their starts is not to be measured.
        """
        shape = torch.Size((*sample_shape, *self.batch_shape))
        with torch.no_grad():
            drawn = self._bent(shape.numel()) if self.density.bent else self._shares(shape.numel())
            found: Tensor = self.centre + drawn
            return found.reshape(*shape, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of cut points (..., n_cuts), up to a constant."""
        found: Tensor = self.density.log_density(value - self.centre)
        return found

    def expand(self, batch_shape: Any, _instance: Any = None) -> CutPrior:
        """Return the same distribution over a larger batch."""
        del _instance
        return CutPrior(self.density, self.centre, batch_shape)

    def _shares(self, n: int) -> Tensor:
        """Draw cuts (n, n_cuts) whose cells have Dirichlet shares."""
        weights = torch._standard_gamma(self.centre.new_full((n, self.event_shape[0] + 1), CONCENTRATION))
        below = weights.cumsum(-1) / weights.sum(-1, keepdim=True)
        cuts: Tensor = self.density.spread * ndtri(below[:, :-1])
        return cuts

    def _bent(self, n: int) -> Tensor:
        """Draw cuts (n, n_cuts) by as many chains, whose steps are the pull's draw and an elliptical slice.

        Given the pulls the density is a Normal's times the probabilities of the cells: Murray, Adams and
        MacKay (2010), arXiv 1001.0175. Chains begin at even spacings and at the pulls' own Gamma.
        """
        density = self.density
        even = density.even.to(self.centre.device)
        cuts = (self._shares(n) @ even) @ even.mT
        pull = 2.0 / density.bend**2 * torch._standard_gamma(cuts.new_full((n, 1), 0.5))
        for _ in range(_STEPS):
            noise = torch.randn_like(cuts)
            flat = (noise @ even) @ even.mT
            other = density.spread * flat + (noise - flat) * (pull + density.spread**-2).rsqrt()
            cuts = _on_ellipse(cuts, other, density)
            rate = 0.5 * (density.bend**2 + density.uneven(cuts).square().sum(-1, keepdim=True))
            pull = draw_gamma(torch.full_like(rate, 0.5 * (density.bent + 1)), rate)
        return cuts


def _on_ellipse(cuts: Tensor, other: Tensor, density: CutDensity) -> Tensor:
    """Draw points of the ellipses through cuts and other draws of their Normal, each (n, n_cuts)."""
    level = density.log_cells(cuts) + torch.rand_like(cuts[:, 0]).log()
    angle = 2.0 * math.pi * torch.rand_like(level)
    low, high = angle - 2.0 * math.pi, angle
    while True:
        at = angle.unsqueeze(-1)
        turned = cuts * at.cos() + other * at.sin()
        below = ~(density.log_cells(turned) > level)
        if not bool(below.any()):
            return turned
        # Intervals shrink towards where the chain stands, which is on its level.
        low = torch.where(below & (angle < 0.0), angle, low)
        high = torch.where(below & (angle >= 0.0), angle, high)
        angle = torch.where(below, low + (high - low) * torch.rand_like(angle), angle)
