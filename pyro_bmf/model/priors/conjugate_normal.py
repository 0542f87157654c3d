"""Normal rows whose location and precision have full conditionals: what such priors have in common."""

from __future__ import annotations

import math
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn

from ...errors import SettingsError
from ...numerics.conjugate_draws import draw_normal_gamma, draw_normal_wishart
from .conjugate import ConjugatePrior, ScaleTerms
from .half_t import HalfTPrecision, draw_rate, expected_precision, least_rate
from .hierarchical import Hyperparameter
from .normal import Prior


class Wishart(dist.Wishart):  # type: ignore[misc]
    """Wishart whose samples are Bartlett's as they are.

    Torch's own `rsample` takes samples *inside* the support for singular, warns, and draws them anew.
    """

    def rsample(self, sample_shape: Any = (), max_try_correction: int | None = None) -> Tensor:
        """Draw precisions."""
        del max_try_correction
        drawn: Tensor = self._bartlett_sampling(torch.Size(sample_shape))
        return drawn


class ConjugateNormalPrior(Prior):
    r"""Normal rows with a Normal location given the precision; of a bias, with a half-t standard deviation.

    Sites: ``{side}_precision`` (K, K), or () for a bias, and ``{side}_location`` (K,) or ().

    A subclass gives the prior of the precision of factors, a Wishart whose inverse scale is diagonal and may
    be random: the first five methods.

    Parameters
    ----------
    scale : float
        s of the half-t of a bias; what it is of factors, the subclass says.
    kappa : float
        Weight of the prior mean of the location, in rows.

    Raises
    ------
    SettingsError
        If either is not positive and finite.
    """

    learned = True
    #: What the prior is called in messages.
    title = "conjugate Normal"

    def __init__(self, scale: float, kappa: float) -> None:
        super().__init__()
        if not all(math.isfinite(value) and value > 0.0 for value in (scale, kappa)):
            raise SettingsError(
                f"A {self.title} prior with scale={scale}, kappa={kappa}: both must be positive."
            )
        self._scale, self.kappa = float(scale), float(kappa)
        self._width: int | str | None = "unprepared"

    def degrees(self, n_factors: int) -> float:
        """Return the degrees of freedom of the Wishart that is the prior of K factors' precision."""
        raise NotImplementedError

    def inverse_scale(self, precision: Tensor) -> Tensor:
        """Return the diagonal (K,) of its inverse scale: drawn given the precision where it is random."""
        raise NotImplementedError

    def factors_precision(self, n_factors: int) -> TorchDistribution:
        """Return the prior of the precision of K factors, in float64."""
        raise NotImplementedError

    def factors_expect(self, squares: Tensor, n: int) -> Tensor:
        """Return the mean of the best q of the precision of factors: see `ConjugatePrior.expect`."""
        raise NotImplementedError

    def factor_scale_terms(self, precision: Tensor) -> ScaleTerms:
        """Return how the precision's density changes when one factor is multiplied, for each of them."""
        raise NotImplementedError

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Sample precision and location, and return the prior of one row given them."""
        if n_factors is None:
            precision = pyro.sample(f"{side}_precision", HalfTPrecision(torch.tensor(self._scale)))
            spread = precision.rsqrt()
            location = pyro.sample(f"{side}_location", dist.Normal(0.0, spread / math.sqrt(self.kappa)))
            return dist.Normal(location, spread)
        # In float64: Bartlett's factors of a few degrees of freedom are near singular in single precision.
        precision = pyro.sample(f"{side}_precision", self.factors_precision(n_factors))
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
        """Return s: the guess at the standard deviation of a bias, and of one of K factors."""
        del n_factors
        return self._scale

    @property
    def conjugate(self) -> ConjugatePrior:
        """The prior itself."""
        return self

    def draw(self, rows: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Draw location and precision given rows (n, K), or biases (n,), and what the precision was."""
        if rows.dim() == 1:
            rate = draw_rate(precision.double(), self._scale) + least_rate(self._scale)
            return draw_normal_gamma(rows, rate, self.kappa)
        inverse, degrees = self.inverse_scale(precision.to(rows.dtype)), self.degrees(len(precision))
        return draw_normal_wishart(rows, inverse, self.kappa, degrees=degrees)

    def expect(self, squares: Tensor, n: int) -> Tensor:
        """Return the mean of the best q of the precision; see `ConjugatePrior.expect`."""
        if squares.dim() == 0:
            return expected_precision(1.0 + 0.5 * (n + 1), squares, self._scale)
        return self.factors_expect(squares, n)

    def posterior(self, mean: Tensor, n: int) -> TorchDistribution:
        """Return a Wishart, or for a bias a Gamma, with this mean after n rows and their location."""
        if mean.dim() == 0:
            shape = torch.full_like(mean, 1.0 + 0.5 * (n + 1))
            return cast(TorchDistribution, dist.Gamma(shape, shape / mean))
        degrees = self.degrees(len(mean)) + n + 1
        return Wishart(mean.new_full((), degrees), covariance_matrix=mean / degrees)

    def scale_terms(self, precision: Tensor) -> ScaleTerms:
        """Return how the precision's density changes when rows are multiplied by a factor."""
        if precision.dim() > 0:
            one = self.factor_scale_terms(precision)
            return ScaleTerms(len(precision) * one.slope, one.rate.sum(), one.tails, one.power)
        tails = 2.0 * self._scale**2 * precision.double().reshape(1)
        return ScaleTerms(-2.0, least_rate(self._scale) * precision.double(), tails, 1.5)
