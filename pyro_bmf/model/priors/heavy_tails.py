r"""Priors with heavy tails or a spike at zero: Student-t, Laplace and the horseshoe.

Most rows stay near zero and some may be far off. The horseshoe's local scales are integrated out exactly,

.. math::

   u \mid \lambda \sim N(0, \lambda^2 \tau^2), \; \lambda \sim C^+(0, 1) \quad \Rightarrow \quad
   p(u) = \frac{e^z E_1(z)}{\tau \sqrt{2 \pi^3}}, \qquad z = \frac{u^2}{2 \tau^2},

so that it needs no auxiliary variable a row. Carvalho, Polson and Scott (2010), doi 10.1093/biomet/asq017;
Student-t factors: Lakshminarayanan, Bouchard and Archambeau (2011), AISTATS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from ...errors import SettingsError
from .hierarchical import Hyperparameter, _event, _positive
from .normal import Prior

_LOG_NORMALISER = 0.5 * math.log(2.0 * math.pi**3)
_EULER = 0.5772156649015329
#: Terms of the series below 1, and of the continued fraction above: 1e-10 at the seam.
_TERMS, _LEVELS = 22, 60


class StudentTPrior(Prior):
    """Independent Student-t factors.

    Parameters
    ----------
    df : float
        Degrees of freedom, above 2.
    scale : float

    Raises
    ------
    SettingsError
        If either is out of its range.
    """

    density = "t_df(u_k; 0, scale)"

    def __init__(self, df: float = 4.0, scale: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(df) and df > 2.0):
            raise SettingsError(f"df is {df!r}: give a number above 2, so that factors have a variance.")
        self.df, self._scale = float(df), _positive("scale", scale)

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Return the prior of one row; it has no hyperparameters."""
        del side
        shape = () if n_factors is None else (n_factors,)
        df, scale = torch.full(shape, self.df), torch.full(shape, self._scale)
        return _event(dist.StudentT(df, torch.zeros(shape), scale))

    @property
    def scale(self) -> float:
        """Standard deviation of one factor."""
        return self._scale * math.sqrt(self.df / (self.df - 2.0))

    def settings(self) -> dict[str, Any]:
        """Return the kind, df and scale."""
        return {"kind": "student-t", "df": self.df, "scale": self._scale}


class LaplacePrior(Prior):
    """Independent Laplace factors: sparse at the mode.

    Parameters
    ----------
    scale : float
        Mean distance from zero.

    Raises
    ------
    SettingsError
        If `scale` is not positive.
    """

    density = "Laplace(u_k; 0, scale)"

    def __init__(self, scale: float = 0.7) -> None:
        super().__init__()
        self._scale = _positive("scale", scale)

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Return the prior of one row; it has no hyperparameters."""
        del side
        shape = () if n_factors is None else (n_factors,)
        return _event(dist.Laplace(torch.zeros(shape), torch.full(shape, self._scale)))

    @property
    def scale(self) -> float:
        """Standard deviation of one factor."""
        return self._scale * math.sqrt(2.0)

    def settings(self) -> dict[str, Any]:
        """Return the kind and the scale."""
        return {"kind": "laplace", "scale": self._scale}


class Horseshoe(TorchDistribution):
    """The horseshoe density with its local scale integrated out; see the module.

    Parameters
    ----------
    tau : Tensor
        Global scale, positive.
    """

    has_enumerate_support = False
    arg_constraints = {"tau": constraints.positive}  # noqa: RUF012 (torch's own class attribute)
    support = constraints.real

    def __init__(self, tau: Tensor) -> None:
        self.tau = tau
        super().__init__(tau.shape, torch.Size(), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density."""
        z = (value / self.tau) ** 2 / 2.0
        return log_scaled_exponential_integral(z) - self.tau.log() - _LOG_NORMALISER

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Draw values."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            local = dist.HalfCauchy(torch.ones_like(self.tau)).sample(torch.Size(sample_shape))
            noise = torch.randn(shape, dtype=self.tau.dtype, device=self.tau.device)
            drawn: Tensor = noise * local * self.tau
            return drawn

    @property
    def mean(self) -> Tensor:
        """Not a number: the tails are Cauchy's."""
        return torch.full_like(self.tau, math.nan)

    @property
    def variance(self) -> Tensor:
        """Infinite."""
        return torch.full_like(self.tau, math.inf)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Horseshoe:
        """Return the same distribution over a larger batch."""
        del _instance
        return Horseshoe(self.tau.expand(torch.Size(batch_shape)))


class HorseshoePrior(Prior):
    r"""Horseshoe factors with a learned global scale.

    Site: ``{side}_tau``, a scalar, :math:`\tau \sim C^+(0, s)`. One object a side, as it holds its side's q.

    Parameters
    ----------
    scale : float
        s.

    Raises
    ------
    SettingsError
        If `scale` is not positive.
    """

    density = "exp(z) E_1(z) / (tau sqrt(2 pi^3)), z = u_k^2 / (2 tau^2), tau ~ HalfCauchy(scale)"
    learned = True

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self._scale = _positive("scale", scale)
        self.tau: Hyperparameter | None = None

    def prepare(self, n_factors: int | None) -> None:
        """Make the q of the global scale, if there is none."""
        del n_factors
        if self.tau is None:
            self.tau = Hyperparameter(torch.tensor(self._scale), constraints.positive)

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Sample the global scale, and return the prior of one row given it."""
        tau = pyro.sample(f"{side}_tau", dist.HalfCauchy(torch.full((), self._scale)))
        return _event(Horseshoe(tau.expand(() if n_factors is None else (n_factors,))))

    def guide(self, side: str, n_factors: int | None) -> None:
        """Sample the global scale from its q."""
        self.prepare(n_factors)
        assert self.tau is not None
        pyro.sample(f"{side}_tau", self.tau.q())

    @property
    def scale(self) -> float:
        """The global scale that is expected: the density has no standard deviation."""
        return 2.0 * self._scale

    def settings(self) -> dict[str, Any]:
        """Return the kind and the scale."""
        return {"kind": "horseshoe", "scale": self._scale}


def log_scaled_exponential_integral(z: Tensor) -> Tensor:
    r"""Return :math:`\log(e^z E_1(z))` for z >= 0, elementwise, with a gradient.

    By the power series up to 1, by a continued fraction beyond (Abramowitz and Stegun 5.1.11 and 5.1.22).
    """
    tiny = 1e-30
    low = z.clamp(tiny, 1.0)
    term, total = torch.ones_like(low), -_EULER - low.log()
    for k in range(1, _TERMS):
        term = term * (-low / k)
        total = total - term / k
    series = low + total.log()
    high = z.clamp_min(1.0)
    fraction = torch.zeros_like(high)
    for k in range(_LEVELS, 0, -1):
        fraction = k * k / (high + 2.0 * k + 1.0 - fraction)
    continued = -(high + 1.0 - fraction).log()
    return torch.where(z <= 1.0, series, continued)
