r"""Draws of a chain's hyperparameters from their full conditionals: conjugate, or Metropolis-Hastings.

Priors are those of `pyro_bmf.model`: Normal-Wishart and Normal-Gamma (`wishart`), Gamma precisions of
implicit weights (`implicit`), Gamma noise multipliers whose shape is log-Normal (`row_noise`). Everything
here is in float64: these are sums over all rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...model.priors.normal_wishart import EXTRA_DEGREES
from ...model.row_noise import SHAPE_PRIOR


def draw_gamma(shape: Tensor, rate: Tensor) -> Tensor:
    """Draw from Gamma(shape, rate), elementwise."""
    drawn: Tensor = torch._standard_gamma(shape) / rate
    return drawn


def draw_wishart(degrees: float, inverse_scale: Tensor) -> Tensor:
    """Draw a precision from W(degrees, inverse_scale^{-1}) by Bartlett's decomposition: (d, d)."""
    d = len(inverse_scale)
    root = torch.linalg.cholesky(torch.linalg.inv(inverse_scale))
    lower = torch.tril(torch.randn(d, d, dtype=root.dtype, device=root.device), -1)
    half = (degrees - torch.arange(d, dtype=root.dtype, device=root.device)) / 2
    lower.diagonal().copy_((2.0 * torch._standard_gamma(half)).sqrt())
    factor = root @ lower
    precision: Tensor = factor @ factor.mT
    return precision


def draw_normal_wishart(rows: Tensor, scale: float, kappa: float) -> tuple[Tensor, Tensor]:
    """Draw location (K,) and precision (K, K) given rows (n, K) of N(location, precision^{-1})."""
    n, k = rows.shape
    mean = rows.mean(0)
    about = rows - mean
    prior_degrees = k + EXTRA_DEGREES
    degrees = prior_degrees + n
    inverse = (
        torch.eye(k, dtype=rows.dtype, device=rows.device) * (prior_degrees * scale**2)
        + about.mT @ about
        + (kappa * n / (kappa + n)) * torch.outer(mean, mean)
    )
    precision = draw_wishart(float(degrees), inverse)
    noise = torch.randn(k, 1, dtype=rows.dtype, device=rows.device)
    root = torch.linalg.cholesky((kappa + n) * precision)
    spread = torch.linalg.solve_triangular(root.mT, noise, upper=True).squeeze(-1)
    return n * mean / (kappa + n) + spread, precision


def draw_normal_gamma(values: Tensor, scale: float, kappa: float) -> tuple[Tensor, Tensor]:
    """Draw location and precision, both (), given values (n,) of N(location, 1 / precision)."""
    n = len(values)
    mean = values.mean()
    square = ((values - mean) ** 2).sum() + (kappa * n / (kappa + n)) * mean**2
    shape = torch.tensor(1.0 + 0.5 * n, dtype=values.dtype, device=values.device)
    precision = draw_gamma(shape, scale**2 + 0.5 * square)
    noise = torch.randn((), dtype=values.dtype, device=values.device)
    return n * mean / (kappa + n) + noise / ((kappa + n) * precision).sqrt(), precision


def draw_weights_precision(weights: Tensor, scale: float) -> Tensor:
    """Draw the precision (D,) of implicit weights (m, D) of N(0, 1 / precision)."""
    shape = weights.new_full((weights.shape[1],), 1.0 + 0.5 * len(weights))
    return draw_gamma(shape, scale**2 + 0.5 * (weights**2).sum(0))


def draw_row_noise(counts: Tensor, squares: Tensor, shape: Tensor) -> Tensor:
    """Draw the multipliers (n,) given each row's number of entries and weighted squared residuals."""
    return draw_gamma(shape + 0.5 * counts, shape + 0.5 * squares)


def draw_noise_shape(multipliers: Tensor, shape: Tensor, *, steps: int = 5, step: float = 0.15) -> Tensor:
    """Move the shape a of w ~ Gamma(a, a) by a random walk on its logarithm (Metropolis-Hastings)."""
    n = len(multipliers)
    total = float((multipliers.log() - multipliers).sum())

    def log_density(log_a: float) -> float:
        a = math.exp(log_a)
        prior = -0.5 * ((log_a - SHAPE_PRIOR[0]) / SHAPE_PRIOR[1]) ** 2
        return n * (a * log_a - math.lgamma(a)) + a * total + prior

    now = math.log(float(shape))
    height = log_density(now)
    for move, chance in torch.stack([torch.randn(steps), torch.rand(steps)], 1).tolist():
        there = now + step * move
        new = log_density(there)
        if math.log(max(chance, 1e-300)) < new - height:
            now, height = there, new
    return torch.full_like(shape, math.exp(now))
