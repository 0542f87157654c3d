r"""A Student-t rating: like the Normal in the middle, and unsurprised by a rating that is far off.

.. math:: x_{ij} \sim t_\nu(\eta_{ij}, s), \qquad
   x_{ij} \mid w \sim N(\eta_{ij}, s^2 / w), \; w \sim \mathrm{Gamma}(\nu / 2, \nu / 2).

The second form, a scale mixture of Normals, gives the predictive distribution for an uncertain predictor: a
sum over nodes in w of Normals. Lange, Little and Taylor (1989), doi 10.1080/01621459.1989.10478852.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from scipy.special import gammaincinv, stdtr
from torch import Tensor, nn

from ...errors import SettingsError
from ...numerics.normal_cells import cell_probabilities, midway, symmetric_cells
from ..standard_units import InUnits, standardised
from .normal import Likelihood, in_ratings

_NODES = 48


class StudentTLikelihood(Likelihood):
    r"""A Student-t rating with learned scale.

    Parameters
    ----------
    df : float
        Degrees of freedom :math:`\nu`, above 2, so that a rating has a variance.
    scale : float or "learned"
        s, rating units.

    Raises
    ------
    SettingsError
        If either is out of its range.
    """

    support = constraints.real
    density = "t_df(x; eta, scale)"
    called = "Student-t"
    identity_mean = True
    standardises = True
    _log_scale: Tensor

    def __init__(self, df: float = 4.0, scale: float | str = "learned") -> None:
        super().__init__()
        if not (math.isfinite(df) and df > 2.0):
            raise SettingsError(f"df is {df!r}: give a number above 2, so that a rating has a variance.")
        self.df = float(df)
        self.learned = scale == "learned"
        if self.learned:
            self._log_scale = nn.Parameter(torch.zeros((), dtype=torch.float64))
            return
        self._fixed = _positive(scale)
        self.register_buffer("_log_scale", torch.tensor(math.log(self._fixed), dtype=torch.float64))

    @property
    def noise_sd(self) -> Tensor:
        """The scale s, rating units."""
        return self._log_scale.exp()

    def start(self, ratings: np.ndarray) -> None:
        """Start a learned scale where the variance is that of the ratings."""
        if self.learned:
            with torch.no_grad():
                spread = max(float(ratings.std()), 1e-3) * math.sqrt((self.df - 2.0) / self.df)
                self._log_scale.fill_(math.log(spread))

    def forward(self, eta: Tensor, relative: Tensor | None = None) -> TorchDistribution:
        """Return the distribution of ratings; `relative` multiplies s."""
        df = torch.tensor(self.df, dtype=eta.dtype, device=eta.device)
        standard = cast(TorchDistribution, dist.StudentT(df, eta, self._scale(eta, relative)))
        return standard if self.units.identity else InUnits(standard, self.units)

    def log_prob_rating(self, eta: Tensor, levels: Tensor, relative: Tensor | None = None) -> Tensor:
        """Return the log-probability of each level's cell, without a gradient."""
        cuts = midway(standardised(levels, self.units).double())
        scale = self._scale(eta, relative).double().expand_as(eta).unsqueeze(-1)
        z = ((cuts - eta.double().unsqueeze(-1)) / scale).detach().cpu().numpy()
        cells = symmetric_cells(lambda at: stdtr(self.df, at), z)
        return torch.from_numpy(np.log(np.maximum(cells, 1e-300))).to(eta.device)

    def predictive_moments(
        self, eta_mean: Tensor, eta_variance: Tensor, relative: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (m, v + s^2 df / (df - 2)): exact."""
        scale = self._scale(eta_mean, relative)
        variance = eta_variance + scale**2 * (self.df / (self.df - 2.0))
        return in_ratings(eta_mean, variance, self.units)

    def predictive_pmf(
        self, eta_mean: Tensor, eta_variance: Tensor, levels: Tensor, relative: Tensor | None = None
    ) -> Tensor:
        """Return the cells' probabilities for a Normal predictor, by quadrature over the mixture's w."""
        nodes, weights = _mixture(self.df)
        cuts = midway(standardised(levels, self.units).double())
        spread = self._scale(eta_mean, relative).double() ** 2
        total: Tensor | None = None
        for node, weight in zip(nodes, weights, strict=True):
            sd = (eta_variance.double() + spread / float(node)).sqrt()
            part = float(weight) * cell_probabilities(eta_mean, sd, cuts)
            total = part if total is None else total + part
        assert total is not None
        return total

    def settings(self) -> dict[str, Any]:
        """Return the kind, df and scale."""
        return {"kind": "student-t", "df": self.df, "scale": "learned" if self.learned else self._fixed}

    def _scale(self, eta: Tensor, relative: Tensor | None) -> Tensor:
        scale = self.noise_sd.to(eta.dtype)
        return scale if relative is None else scale * relative.to(eta.dtype)


def _mixture(df: float) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of w ~ Gamma(df / 2, df / 2): the trapezoidal rule in log w.

    Gauss's own rule for it is slow here, as shares of cells are no polynomials of w near zero.
    """
    half = df / 2.0
    low, high = np.log(gammaincinv(half, [1e-9, 1.0 - 1e-12]) / half)
    place = np.linspace(float(low), float(high), _NODES)
    log_weights = half * (place - np.exp(place))
    weights = np.exp(log_weights - log_weights.max())
    return np.exp(place), weights / weights.sum()


def _positive(value: float | str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0.0):
        raise SettingsError(f"scale is {value!r}: give a positive number, or 'learned'.")
    return number
