r"""Priors of positive factors: Gamma and log-normal, for predictors that only add up.

Every factor is a part of the rating, as in Poisson factorization (Gopalan, Hofman and Blei 2015,
arXiv 1311.1704). Their guide is log-normal.
"""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from scipy.special import polygamma

from ...errors import SettingsError
from .hierarchical import _event, _positive
from .normal import Prior


class GammaPrior(Prior):
    """Independent Gamma factors.

    Parameters
    ----------
    shape, rate : float
        The mean is shape / rate; a shape below one is sparse.

    Raises
    ------
    SettingsError
        If either is not positive.
    """

    density = "Gamma(u_k; shape, rate)"
    positive = True

    def __init__(self, shape: float = 1.0, rate: float = 1.0) -> None:
        super().__init__()
        self.shape, self.rate = _positive("shape", shape), _positive("rate", rate)

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Return the prior of one row; it has no hyperparameters."""
        del side
        size = () if n_factors is None else (n_factors,)
        return _event(dist.Gamma(torch.full(size, self.shape), torch.full(size, self.rate)))

    @property
    def scale(self) -> float:
        """Standard deviation of the logarithm of a factor, at most 1: what bounds a log-normal q's own.

        Of a sparse Gamma it is that of a long tail towards zero, which no log-normal has.
        """
        return min(1.0, math.sqrt(float(polygamma(1, self.shape))))

    def settings(self) -> dict[str, Any]:
        """Return the kind, shape and rate."""
        return {"kind": "gamma", "shape": self.shape, "rate": self.rate}


class LogNormalPrior(Prior):
    """Independent log-normal factors.

    Parameters
    ----------
    loc, scale : float
        Mean and standard deviation of the logarithm of a factor.

    Raises
    ------
    SettingsError
        If `loc` is not finite or `scale` not positive.
    """

    density = "LogNormal(u_k; loc, scale)"
    positive = True

    def __init__(self, loc: float = -0.5, scale: float = 0.7) -> None:
        super().__init__()
        if not math.isfinite(loc):
            raise SettingsError(f"loc is {loc!r}: give a finite number.")
        self.loc, self._scale = float(loc), _positive("scale", scale)

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Return the prior of one row; it has no hyperparameters."""
        del side
        size = () if n_factors is None else (n_factors,)
        return _event(dist.LogNormal(torch.full(size, self.loc), torch.full(size, self._scale)))  # type: ignore[no-untyped-call]

    @property
    def scale(self) -> float:
        """Standard deviation of the logarithm of a factor."""
        return self._scale

    def settings(self) -> dict[str, Any]:
        """Return the kind, loc and scale."""
        return {"kind": "log-normal", "loc": self.loc, "scale": self._scale}
