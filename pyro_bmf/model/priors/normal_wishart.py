r"""A Normal prior whose mean and full precision are unknown, as in Bayesian PMF.

.. math::

   \Lambda \sim W\left(\nu, \frac{I}{\nu s^2}\right), \qquad \mu \mid \Lambda \sim N(0, (\kappa
   \Lambda)^{-1}), \qquad u_i \sim N(\mu, \Lambda^{-1}),

with nu = K + e degrees of freedom, e = 2 unless said otherwise, so that E[Lambda] = I / s^2. The variance of
one factor is then an inverse Gamma((e + 1)/2, nu s^2 / 2), whose inverse has the mean (e + 1) / (nu s^2):
with many factors and few rows, the guess at a standard deviation is s by the root of (K + e) / (e + 1).
Salakhutdinov and Mnih (2008), doi 10.1145/1390156.1390267, have e = 0 and nu s^2 = 1: a guess of one. The
standard deviation of a bias may be zero: `pyro_bmf.model.priors.half_t`.
"""

from __future__ import annotations

import math
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn

from ...errors import SettingsError
from ...numerics import factorise
from ...numerics.conjugate_draws import draw_normal_gamma, draw_normal_wishart
from .conjugate import ConjugatePrior
from .half_t import HalfTPrecision, draw_rate, expected_precision
from .hierarchical import Hyperparameter
from .normal import Prior

#: Degrees of freedom beyond K, where nothing else is said.
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
    learned = True

    def __init__(self, scale: float = 0.3, kappa: float = 2.0, extra_degrees: float = EXTRA_DEGREES) -> None:
        super().__init__()
        if not all(math.isfinite(value) and value > 0.0 for value in (scale, kappa)):
            raise SettingsError(
                f"A Normal-Wishart prior with scale={scale}, kappa={kappa}: both must be positive."
            )
        if not (math.isfinite(extra_degrees) and extra_degrees >= 0.0):
            raise SettingsError(
                f"A Normal-Wishart prior with extra_degrees={extra_degrees}: give 0 or more degrees of "
                "freedom beyond the number of factors."
            )
        self._scale, self.kappa, self.extra_degrees = float(scale), float(kappa), float(extra_degrees)
        self._width: int | str | None = "unprepared"

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Sample precision and location, and return the prior of one row given them."""
        if n_factors is None:
            precision = pyro.sample(f"{side}_precision", HalfTPrecision(torch.tensor(self._scale)))
            spread = precision.rsqrt()
            location = pyro.sample(f"{side}_location", dist.Normal(0.0, spread / math.sqrt(self.kappa)))
            return dist.Normal(location, spread)
        # In float64: Bartlett's factors of a few degrees of freedom are near singular in single precision.
        degrees = n_factors + self.extra_degrees
        eye = torch.eye(n_factors, dtype=torch.float64)
        wishart = _Wishart(torch.full((), degrees, dtype=torch.float64), eye / (degrees * self._scale**2))
        precision = pyro.sample(f"{side}_precision", wishart)
        location = pyro.sample(
            f"{side}_location",
            dist.MultivariateNormal(
                torch.zeros(n_factors, dtype=torch.float64), precision_matrix=self.kappa * precision
            ),
        )
        return cast(TorchDistribution, dist.MultivariateNormal(location, precision_matrix=precision))

    def prepare(self, n_factors: int | None) -> None:
        """Make the q of precision and location of rows of this width, if they are of another."""
        if self._width == n_factors:
            return
        width = 1 if n_factors is None else n_factors
        # In float64, as the prior is; the precision is L L^T, its diagonal exp of the free one.
        self.free = nn.Parameter(torch.zeros(width, width, dtype=torch.float64))
        with torch.no_grad():
            self.free.diagonal().fill_(-math.log(self._scale))
        shape = () if n_factors is None else (n_factors,)
        self.location = Hyperparameter(torch.zeros(shape, dtype=torch.float64), constraints.real)
        self._width = n_factors

    def guide(self, side: str, n_factors: int | None) -> None:
        """Sample the hyperparameters: the precision from a point (it has thousands of rows to learn from).

        Gibbs sweeps draw both from their full conditionals instead.
        """
        self.prepare(n_factors)
        root = self.free.tril(-1) + torch.diag(self.free.diagonal().exp())
        precision = root @ root.mT
        if n_factors is None:
            precision = precision.reshape(()).to(torch.get_default_dtype())
        point = dist.Delta(precision, event_dim=precision.dim())  # type: ignore[no-untyped-call]
        pyro.sample(f"{side}_precision", point)
        pyro.sample(f"{side}_location", self.location.q())

    @property
    def scale(self) -> float:
        """The prior's s."""
        return self._scale

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

    @property
    def conjugate(self) -> ConjugatePrior:
        """The prior itself."""
        return self

    def draw(self, rows: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Draw location and precision given rows (n, K), or biases (n,), and what the precision was."""
        if rows.dim() == 1:
            return draw_normal_gamma(rows, draw_rate(precision.double(), self._scale), self.kappa)
        return draw_normal_wishart(rows, self._scale, self.kappa, extra_degrees=self.extra_degrees)

    def expect(self, squares: Tensor, n: int) -> Tensor:
        """Return the mean of the best q of the precision; see `ConjugatePrior.expect`."""
        if squares.dim() == 0:
            return expected_precision(1.0 + 0.5 * (n + 1), squares, self._scale)
        k = len(squares)
        degrees = k + self.extra_degrees
        eye = torch.eye(k, dtype=squares.dtype, device=squares.device)
        inverse = factorise.inverse(eye * (degrees * self._scale**2) + squares)
        return (degrees + n + 1) * inverse

    def posterior(self, mean: Tensor, n: int) -> TorchDistribution:
        """Return a Wishart, or for a bias a Gamma, with this mean after n rows and their location."""
        if mean.dim() == 0:
            shape = torch.full_like(mean, 1.0 + 0.5 * (n + 1))
            return cast(TorchDistribution, dist.Gamma(shape, shape / mean))
        degrees = len(mean) + self.extra_degrees + n + 1
        return _Wishart(mean.new_full((), degrees), covariance_matrix=mean / degrees)

    def scale_terms(self, precision: Tensor) -> tuple[float, Tensor, Tensor]:
        """Return how the precision's density changes when rows are multiplied by a factor."""
        if precision.dim() == 0:
            return -2.0, torch.zeros_like(precision.double()), 2.0 * self._scale**2 * precision.double()
        k = len(precision)
        # (degrees - K - 1) log-determinants over two, and the Jacobian of K (K + 1) / 2 entries.
        slope = -(k * (self.extra_degrees - 1.0) + k * (k + 1.0))
        rate = 0.5 * (k + self.extra_degrees) * self._scale**2 * precision.diagonal().double().sum()
        return slope, rate, torch.zeros_like(rate)

    def factor_scale_terms(self, precision: Tensor) -> tuple[float, Tensor]:
        """Return how the precision's density changes when one factor is multiplied, for each of them."""
        k = len(precision)
        # As above of one factor: K + 1 entries of the precision are divided by g, one of them twice.
        slope = -(self.extra_degrees - 1.0 + k + 1.0)
        return slope, 0.5 * (k + self.extra_degrees) * self._scale**2 * precision.diagonal().double()

    def settings(self) -> dict[str, Any]:
        """Return the kind, scale and kappa, and the degrees of freedom where they are not the usual ones."""
        more = {} if self.extra_degrees == EXTRA_DEGREES else {"extra_degrees": self.extra_degrees}
        return {"kind": "normal-wishart", "scale": self._scale, "kappa": self.kappa, **more}
