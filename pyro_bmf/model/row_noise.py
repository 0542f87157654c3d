r"""Noise of their own for users and items: some are steadier than others.

.. math::

   w_i \sim \mathrm{Gamma}(a, a), \qquad a^{-1/2} \sim \mathrm{Exponential}(6), \qquad
   \mathrm{sd}(x_{ij}) = \sigma \, (w_i w'_j)^{-1/2}.

The prior of w has mean one whatever a is, so sigma stays the typical noise, and a row with three ratings
stays near it. The standard deviation of w, by which rows differ, is :math:`a^{-1/2}`: beyond a half with a
chance of one in twenty, which is what users of MovieLens have, and most likely next to nothing. Simpson et
al. (2017), doi 10.1214/16-STS576, on such priors of distances from a simpler model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.transforms import PowerTransform

from ..errors import SettingsError
from ..numerics.segment_sums import Segments, segment_gather
from .priors.hierarchical import Hyperparameter
from .sides import SIDES, Side, Sides

#: Of the Exponential prior of a^(-1/2).
SPREAD_RATE = 6.0
#: The shape that a q starts from.
_START = 10.0


class RowNoise(nn.Module):
    """Noise multipliers of rows.

    Sites: ``user_noise``, ``item_noise`` (one precision multiplier w a row) and their shapes a,
    ``user_noise_shape`` and ``item_noise_shape``.

    Parameters
    ----------
    by : {"user", "item", "both"}
        Which rows have noise of their own.
    guided : bool
        Whether the shapes have a variational q here, as a guide needs; Gibbs sweeps draw them.

    Raises
    ------
    SettingsError
        If `by` is something else.
    """

    def __init__(self, by: str = "both", guided: bool = False) -> None:
        super().__init__()
        if by not in ("user", "item", "both"):
            raise SettingsError(f"row noise by {by!r}: it may be user, item or both.")
        self.by, self.guided = by, guided
        if guided:
            self.shape_q = nn.ModuleDict(
                {side: Hyperparameter(torch.tensor(_START), constraints.positive) for side in self.sides}
            )

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides whose rows have noise of their own."""
        return tuple(side for side in SIDES if self.by in (side, "both"))

    def priors(self) -> dict[str, TorchDistribution]:
        """Sample the shapes, and return the priors of the rows' multipliers given them, by site."""
        found: dict[str, TorchDistribution] = {}
        for side in self.sides:
            spread = dist.Exponential(SPREAD_RATE)
            prior = dist.TransformedDistribution(spread, [PowerTransform(torch.tensor(-2.0))])
            shape = pyro.sample(f"{side}_noise_shape", prior)
            found[f"{side}_noise"] = dist.Gamma(shape, shape)
        return found

    def guide(self) -> None:
        """Sample the shapes from their q."""
        if not self.guided:
            raise SettingsError(
                "This model's row noise is for Gibbs sweeps: make it RowNoise(by, guided=True) for a guide."
            )
        for side in self.sides:
            pyro.sample(f"{side}_noise_shape", cast(Hyperparameter, self.shape_q[side]).q())

    def factors(self, values: Mapping[str, Tensor], ratings: Sides[Segments]) -> Tensor:
        """Return what multiplies the noise's standard deviation of each pair, given values by site."""
        parts = [
            segment_gather(values[f"{side}_noise"], segments).rsqrt()
            for side, segments in ratings.by_side()
            if side in self.sides
        ]
        return torch.stack(parts).prod(0)

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this, as plain values."""
        return {"by": self.by, **({"guided": True} if self.guided else {})}
