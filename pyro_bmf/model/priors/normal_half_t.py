r"""A Normal prior whose mean and full precision are unknown, and whose standard deviations may be zero.

.. math::

   \sqrt{(\Lambda^{-1})_{kk}} \sim t_2^+(s), \qquad \mu \mid \Lambda \sim N(0, (\kappa \Lambda)^{-1}), \qquad
   u_i \sim N(\mu, \Lambda^{-1}), \qquad p(\Lambda) \propto \prod_k (1 + 2 s^2 \Lambda_{kk})^{-(K + 2)/2}.

The standard deviation of every factor is a half-t of two degrees of freedom and the correlation of any two is
uniform, so that s means the same whatever K is. Under a Wishart (`normal_wishart`) a standard deviation much
below s is next to impossible, and where there is nothing to find factors are found; here one below
s / 1000 is. Huang and Wand (2013), doi 10.1214/13-BA815; given the rates of `half_t` it is conjugate.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from .conjugate import ScaleTerms
from .conjugate_normal import ConjugateNormalPrior
from .half_t import HalfTPrecisionMatrix, draw_rate, expected_precision_matrix, least_rate


class NormalHalfTPrior(ConjugateNormalPrior):
    """Normal rows whose every standard deviation is half-t, with full precision; or a bias's.

    Parameters
    ----------
    scale : float
        s of the half-t, of every factor.
    kappa : float
        Weight of the prior mean, in rows.

    Raises
    ------
    SettingsError
        If either is not positive and finite.
    """

    density = "N(u; m, inv(P)), root of inv(P)_kk ~ half-t_2(scale), m ~ N(0, inv(kappa P))"
    title = "Normal half-t"

    def __init__(self, scale: float = 0.3, kappa: float = 2.0) -> None:
        super().__init__(scale, kappa)

    def degrees(self, n_factors: int) -> float:
        """Return K + 1."""
        return n_factors + 1.0

    def inverse_scale(self, precision: Tensor) -> Tensor:
        """Draw the rates given the precision."""
        drawn = 2.0 * draw_rate(precision.diagonal(), self._scale, len(precision))
        return drawn + 2.0 * least_rate(self._scale)

    def factors_precision(self, n_factors: int) -> TorchDistribution:
        """Return the density with the rates integrated out."""
        return HalfTPrecisionMatrix(torch.tensor(self._scale, dtype=torch.float64), n_factors)

    def factors_expect(self, squares: Tensor, n: int) -> Tensor:
        """Return the mean of the best q of the precision, where the rates have a q of their own."""
        return expected_precision_matrix(self.degrees(len(squares)) + n + 1, squares, self._scale)

    def factor_scale_terms(self, precision: Tensor) -> ScaleTerms:
        """Return a tail of each factor."""
        k, diagonal = len(precision), precision.diagonal().double()
        tails, rates = 2.0 * self._scale**2 * diagonal, least_rate(self._scale) * diagonal
        # K + 1 entries of the precision are divided by g, one of them twice.
        return ScaleTerms(-(k + 1.0), rates, tails, 0.5 * (k + 2.0))

    def settings(self) -> dict[str, Any]:
        """Return the kind, scale and kappa."""
        return {"kind": "normal-half-t", "scale": self._scale, "kappa": self.kappa}
