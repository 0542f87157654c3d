r"""A Normal prior whose mean and full precision are unknown, as in Bayesian PMF.

.. math::

   \Lambda \sim W\left(\nu, \frac{I}{\nu s^2}\right), \qquad \mu \mid \Lambda \sim N(0, (\kappa
   \Lambda)^{-1}), \qquad u_i \sim N(\mu, \Lambda^{-1}),

with nu = K + e degrees of freedom, e = 2 unless said otherwise, so that E[Lambda] = I / s^2. The variance of
one factor is then an inverse Gamma((e + 1)/2, nu s^2 / 2), whose inverse has the mean (e + 1) / (nu s^2):
with many factors and few rows, the guess at a standard deviation is s by the root of (K + e) / (e + 1).
Salakhutdinov and Mnih (2008), doi 10.1145/1390156.1390267, have e = 0 and nu s^2 = 1: a guess of one. The
standard deviation of a bias may be zero: `pyro_bmf.model.priors.half_t`. That of factors under this prior may
not: `pyro_bmf.model.priors.normal_half_t` is what sweeps take unless told otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ...errors import SettingsError
from ...numerics import factorise
from .conjugate import ScaleTerms
from .conjugate_normal import ConjugateNormalPrior, Wishart

#: Degrees of freedom beyond K, where nothing else is said.
EXTRA_DEGREES = 2


class NormalWishartPrior(ConjugateNormalPrior):
    """Normal rows with a Normal-Wishart hyperprior; for a bias, a half-t of the standard deviation.

    Sites: ``{side}_precision`` (K, K), or () for a bias, and ``{side}_location`` (K,) or ().

    Parameters
    ----------
    scale : float
        s, whose guess at the standard deviation of one factor `guess` returns.
    kappa : float
        Weight of the prior mean, in rows.
    extra_degrees : float
        e: degrees of freedom beyond K, 0 or more. A bias reads none.

    Raises
    ------
    SettingsError
        If `scale` or `kappa` is not positive and finite, or `extra_degrees` negative or not finite.
    """

    density = "N(u; m, inv(P)), P ~ Wishart(K + extra_degrees, mean inv(scale^2)), m ~ N(0, inv(kappa P))"
    title = "Normal-Wishart"

    def __init__(self, scale: float = 0.3, kappa: float = 2.0, extra_degrees: float = EXTRA_DEGREES) -> None:
        super().__init__(scale, kappa)
        if not (math.isfinite(extra_degrees) and extra_degrees >= 0.0):
            raise SettingsError(
                f"A Normal-Wishart prior with extra_degrees={extra_degrees}: give 0 or more degrees of "
                "freedom beyond the number of factors."
            )
        self.extra_degrees = float(extra_degrees)

    def degrees(self, n_factors: int) -> float:
        """Return K + e."""
        return n_factors + self.extra_degrees

    def inverse_scale(self, precision: Tensor) -> Tensor:
        """Return nu s^2 for every factor."""
        k = len(precision)
        return precision.new_full((k,), self.degrees(k) * self._scale**2)

    def factors_precision(self, n_factors: int) -> TorchDistribution:
        """Return the Wishart."""
        degrees = self.degrees(n_factors)
        eye = torch.eye(n_factors, dtype=torch.float64)
        return Wishart(torch.full((), degrees, dtype=torch.float64), eye / (degrees * self._scale**2))

    def guess(self, n_factors: int | None) -> float:
        """Return s for a bias, and for one of K factors s by the root of (K + e) / (e + 1)."""
        if n_factors is None:
            return self._scale
        return self._scale * math.sqrt((n_factors + self.extra_degrees) / (self.extra_degrees + 1.0))

    @classmethod
    def guessing(
        cls, guess: float, n_factors: int, kappa: float = 2.0, extra_degrees: float = EXTRA_DEGREES
    ) -> NormalWishartPrior:
        """Make the prior whose guess at the standard deviation of one of K factors is this.

        So said, it means the same whatever K is: the variance of one factor is an inverse
        Gamma((e + 1)/2, (e + 1) guess^2 / 2), and the covariance of K factors holds that of fewer.
        """
        scale = guess * math.sqrt((extra_degrees + 1.0) / (n_factors + extra_degrees))
        return cls(scale, kappa, extra_degrees)

    def factors_expect(self, squares: Tensor, n: int) -> Tensor:
        """Return the mean of the best q of the precision."""
        k = len(squares)
        degrees = self.degrees(k)
        eye = torch.eye(k, dtype=squares.dtype, device=squares.device)
        inverse = factorise.inverse(eye * (degrees * self._scale**2) + squares)
        return (degrees + n + 1) * inverse

    def factor_scale_terms(self, precision: Tensor) -> ScaleTerms:
        """Return the rate of each factor, and no tails."""
        k = len(precision)
        # Degrees - K - 1 logarithms of one factor's share of the root of the determinant; and the Jacobian:
        # K + 1 entries of the precision are divided by g, one of them twice.
        slope = -(self.extra_degrees - 1.0 + k + 1.0)
        rates = 0.5 * self.degrees(k) * self._scale**2 * precision.diagonal().double()
        return ScaleTerms(slope, rates, torch.zeros_like(rates), 0.0)

    def settings(self) -> dict[str, Any]:
        """Return the kind, scale and kappa, and the degrees of freedom where they are not the usual ones."""
        more = {} if self.extra_degrees == EXTRA_DEGREES else {"extra_degrees": self.extra_degrees}
        return {"kind": "normal-wishart", "scale": self._scale, "kappa": self.kappa, **more}
