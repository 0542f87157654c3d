r"""Draws of a chain's hyperparameters from their full conditionals: conjugate, or Metropolis-Hastings.

Gamma precisions of implicit weights (`pyro_bmf.model.implicit_feedback`), and Gamma multipliers of rows'
precisions whose shape is log-Normal (`pyro_bmf.model.row_noise`); a prior's location and precision are drawn
by the prior itself (`pyro_bmf.model.priors.conjugate`). Everything here is in float64: these are sums over
all rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...model.row_noise import SHAPE_PRIOR
from ...numerics.conjugate_draws import draw_gamma


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
