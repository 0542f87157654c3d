r"""Normal priors with learned location and scale: hyperparameters with a prior and a posterior of theirs.

The hyperparameters' q are Normals of unconstrained numbers, pushed to where the parameters live. A factor
that the ratings do not need has its scale drawn to zero, and with it every row's value: it is switched off.
"""

from __future__ import annotations

import math
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn
from torch.distributions import biject_to

from ...errors import SettingsError
from .normal import Prior

#: Standard deviation of the unconstrained q that hyperparameters start from.
_START = 0.1


class Hyperparameter(nn.Module):
    """A mean-field q of one hyperparameter: a Normal in unconstrained space, pushed to its support.

    Parameters
    ----------
    start : Tensor
        Where the median starts, inside the support.
    support : constraint
    """

    def __init__(self, start: Tensor, support: Any) -> None:
        super().__init__()
        self.transform = biject_to(support)
        free = self.transform.inv(start)
        self.loc = nn.Parameter(free.clone())
        self.log_scale = nn.Parameter(torch.full_like(free, math.log(_START)))

    def q(self) -> TorchDistribution:
        """Return the distribution of the hyperparameter."""
        width = self.loc.dim()
        base = dist.Normal(self.loc, self.log_scale.exp()).to_event(width)  # type: ignore[no-untyped-call]
        if getattr(self.transform, "parts", None) == []:  # the identity
            return cast(TorchDistribution, base)
        return cast(TorchDistribution, dist.TransformedDistribution(base, [self.transform]))


class HierarchicalNormalPrior(Prior):
    r"""Independent Normals with learned location and scale of each factor.

    .. math:: u_{ik} \sim N(m_k, t_k^2), \qquad m_k \sim N(0, s^2), \qquad t_k \sim N^+(0, s^2).

    Sites: ``{side}_location`` and ``{side}_spread``, shape (K,), or () for a bias. One object a side, as it
    holds its side's q.

    Parameters
    ----------
    scale : float
        s: the size that locations and scales are expected to have.

    Raises
    ------
    SettingsError
        If `scale` is not positive.
    """

    density = "N(u_k; m_k, t_k^2), m_k ~ N(0, scale^2), t_k ~ HalfNormal(scale)"
    learned = True

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self._scale = _positive("scale", scale)
        self._width: int | str | None = "unprepared"

    def prepare(self, n_factors: int | None) -> None:
        """Make the q of the hyperparameters of rows of this width, if they are of another."""
        if self._width == n_factors:
            return
        shape = () if n_factors is None else (n_factors,)
        self.location = Hyperparameter(torch.zeros(shape), constraints.real)
        self.spread = Hyperparameter(torch.full(shape, self._scale), constraints.positive)
        self._width = n_factors

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Sample location and spread, and return the prior of one row given them."""
        shape = () if n_factors is None else (n_factors,)
        zero = torch.zeros(shape)
        scale = torch.full(shape, self._scale)
        location = pyro.sample(f"{side}_location", _event(dist.Normal(zero, scale)))
        spread = pyro.sample(f"{side}_spread", _event(dist.HalfNormal(scale)))
        return _event(dist.Normal(location, spread))

    def guide(self, side: str, n_factors: int | None) -> None:
        """Sample location and spread from their q."""
        self.prepare(n_factors)
        pyro.sample(f"{side}_location", self.location.q())
        pyro.sample(f"{side}_spread", self.spread.q())

    @property
    def scale(self) -> float:
        """The size that factors are expected to have."""
        return self._scale

    def settings(self) -> dict[str, Any]:
        """Return the kind and the scale."""
        return {"kind": "hierarchical-normal", "scale": self._scale}


class LKJPrior(Prior):
    r"""A full-covariance Normal with learned location, scales and correlations.

    .. math:: u_i \sim N(m, \mathrm{diag}(t) C \, \mathrm{diag}(t)), \qquad m_k \sim N(0, s^2), \quad
              t_k \sim N^+(0, s^2), \quad C \sim \mathrm{LKJ}(c).

    Sites: ``{side}_location`` and ``{side}_spread`` (K,), ``{side}_correlation`` (K, K), the Cholesky factor
    of C. Lewandowski, Kurowicka and Joe (2009), doi 10.1016/j.jmva.2009.04.008; as in Bayesian PMF
    (Salakhutdinov and Mnih 2008, doi 10.1145/1390156.1390267), whose hyperprior is `NormalWishartPrior`.

    Parameters
    ----------
    scale : float
        s: the size that locations and scales are expected to have.
    concentration : float
        c: 1 is uniform over correlations, more draws them to zero.

    Raises
    ------
    SettingsError
        If either is not positive.
    """

    density = "N(u; m, diag(t) C diag(t)), m, t as hierarchical-normal, C ~ LKJ(concentration)"
    learned = True

    def __init__(self, scale: float = 1.0, concentration: float = 2.0) -> None:
        super().__init__()
        self._scale = _positive("scale", scale)
        self.concentration = _positive("concentration", concentration)
        self._width: int | str | None = "unprepared"

    def prepare(self, n_factors: int | None) -> None:
        """Make the q of the hyperparameters of rows of this width, if they are of another."""
        if self._width == n_factors:
            return
        shape = () if n_factors is None else (n_factors,)
        self.location = Hyperparameter(torch.zeros(shape), constraints.real)
        self.spread = Hyperparameter(torch.full(shape, self._scale), constraints.positive)
        self.correlation: Hyperparameter | None = None
        if n_factors is not None and n_factors > 1:
            # Off the identity by a little, where the transform's inverse is at ease.
            self.correlation = Hyperparameter(torch.eye(n_factors), constraints.corr_cholesky)
        self._width = n_factors

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Sample the hyperparameters, and return the prior of one row given them."""
        shape = () if n_factors is None else (n_factors,)
        zero, scale = torch.zeros(shape), torch.full(shape, self._scale)
        location = pyro.sample(f"{side}_location", _event(dist.Normal(zero, scale)))
        spread = pyro.sample(f"{side}_spread", _event(dist.HalfNormal(scale)))
        if n_factors is None:
            return dist.Normal(location, spread)
        if n_factors == 1:
            return _event(dist.Normal(location, spread))
        concentration = torch.full((), self.concentration, dtype=zero.dtype)
        root = pyro.sample(f"{side}_correlation", dist.LKJCholesky(n_factors, concentration))
        tril = spread.unsqueeze(-1) * root
        return cast(TorchDistribution, dist.MultivariateNormal(location, scale_tril=tril))

    def guide(self, side: str, n_factors: int | None) -> None:
        """Sample the hyperparameters from their q."""
        self.prepare(n_factors)
        pyro.sample(f"{side}_location", self.location.q())
        pyro.sample(f"{side}_spread", self.spread.q())
        if self.correlation is not None:
            pyro.sample(f"{side}_correlation", self.correlation.q())

    @property
    def scale(self) -> float:
        """The size that factors are expected to have."""
        return self._scale

    def settings(self) -> dict[str, Any]:
        """Return the kind, the scale and the concentration."""
        return {"kind": "lkj", "scale": self._scale, "concentration": self.concentration}


def _event(rows: Any) -> TorchDistribution:
    """Return the distribution with all of its dimensions in one event."""
    return cast(TorchDistribution, rows.to_event(len(rows.batch_shape)))


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0.0):
        raise SettingsError(f"{name} is {value!r}: give a positive number.")
    return float(value)
