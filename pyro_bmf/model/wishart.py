r"""A Normal prior whose mean and full precision are unknown, as in Bayesian PMF.

.. math::

   \Lambda \sim W\left(\nu, \frac{I}{\nu s^2}\right), \qquad \mu \mid \Lambda \sim N(0, (\kappa
   \Lambda)^{-1}), \qquad u_i \sim N(\mu, \Lambda^{-1}),

with nu = K + 2 degrees of freedom, so that E[Lambda] = I / s^2; for a bias the precision is Gamma(1, s^2),
whose mean is 1 / s^2. Salakhutdinov and Mnih (2008), doi 10.1145/1390156.1390267.
"""

from __future__ import annotations

import math
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ..errors import SettingsError
from .priors import Prior

#: Degrees of freedom beyond K.
EXTRA_DEGREES = 2


class _Wishart(dist.Wishart):  # type: ignore[misc]
    """Wishart whose samples are Bartlett's as they are.

    Torch's own `rsample` takes samples *inside* the support for singular, warns, and draws them anew.
    """

    def rsample(self, sample_shape: Any = (), max_try_correction: int | None = None) -> Tensor:
        """Draw precisions."""
        del max_try_correction
        drawn: Tensor = self._bartlett_sampling(torch.Size(sample_shape))
        return drawn


class NormalWishartPrior(Prior):
    """Normal rows with a Normal-Wishart hyperprior; Normal-Gamma for a bias.

    Sites: ``{side}_precision`` (K, K), or () for a bias, and ``{side}_location`` (K,) or ().

    Parameters
    ----------
    scale : float
        s: the prior's guess at the standard deviation of one factor.
    kappa : float
        Weight of the prior mean, in rows.

    Raises
    ------
    SettingsError
        If either is not positive and finite.
    """

    def __init__(self, scale: float = 0.3, kappa: float = 2.0) -> None:
        super().__init__()
        if not all(math.isfinite(value) and value > 0.0 for value in (scale, kappa)):
            raise SettingsError(
                f"A Normal-Wishart prior with scale={scale}, kappa={kappa}: both must be positive."
            )
        self._scale, self.kappa = float(scale), float(kappa)

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Sample precision and location, and return the prior of one row given them."""
        if n_factors is None:
            precision = pyro.sample(f"{side}_precision", dist.Gamma(1.0, self._scale**2))
            spread = precision.rsqrt()
            location = pyro.sample(f"{side}_location", dist.Normal(0.0, spread / math.sqrt(self.kappa)))
            return dist.Normal(location, spread)
        # In float64: Bartlett's factors of a few degrees of freedom are near singular in single precision.
        degrees = float(n_factors + EXTRA_DEGREES)
        eye = torch.eye(n_factors, dtype=torch.float64)
        wishart = _Wishart(torch.tensor(degrees, dtype=torch.float64), eye / (degrees * self._scale**2))
        precision = pyro.sample(f"{side}_precision", wishart)
        location = pyro.sample(
            f"{side}_location",
            dist.MultivariateNormal(
                torch.zeros(n_factors, dtype=torch.float64), precision_matrix=self.kappa * precision
            ),
        )
        return cast(TorchDistribution, dist.MultivariateNormal(location, precision_matrix=precision))

    def guide(self, side: str, n_factors: int | None) -> None:
        """Refuse: the hyperparameters of this prior are drawn by Gibbs sweeps, never optimised."""
        del n_factors
        raise SettingsError(
            f"The Normal-Wishart prior of {side} has no variational guide: fit with Gibbs sweeps "
            "(sweeps of 1 or more), or choose a Normal prior."
        )

    @property
    def scale(self) -> float:
        """The prior's guess at the standard deviation of one factor."""
        return self._scale

    def settings(self) -> dict[str, Any]:
        """Return the kind and both parameters."""
        return {"kind": "normal-wishart", "scale": self._scale, "kappa": self.kappa}
