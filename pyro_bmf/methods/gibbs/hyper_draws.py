r"""Draws of a chain's hyperparameters from their conditionals: conjugate, or by slices.

Gamma precisions of implicit weights (`pyro_bmf.model.implicit_feedback`), and Gamma multipliers of rows'
precisions whose shape is log-Normal (`pyro_bmf.model.row_noise`): the shape with the multipliers integrated
out, and the level that they share with the noise's precision by the priors alone. A prior's location and
precision are drawn by the prior itself (`pyro_bmf.model.priors.conjugate`). Everything here is in float64:
these are sums over all rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...model.row_noise import SHAPE_PRIOR
from ...numerics import room
from ...numerics.conjugate_draws import draw_gamma
from ...numerics.slice_draw import slice_draw
from .chain_state import ChainState, SideState

#: Standard deviations of its prior beyond which the logarithm of a shape is out of reach: numbers overflow.
_MOST_SDS = 40.0
#: First interval of the slice of a factor, in its standard deviations.
_WIDTH = 3.0


def draw_weights_precision(weights: Tensor, scale: float) -> Tensor:
    """Draw the precision (D,) of implicit weights (m, D) of N(0, 1 / precision)."""
    shape = weights.new_full((weights.shape[1],), 1.0 + 0.5 * len(weights))
    return draw_gamma(shape, scale**2 + 0.5 * (weights**2).sum(0))


def draw_row_noise(counts: Tensor, squares: Tensor, shape: Tensor) -> Tensor:
    """Draw the multipliers (n,) given each row's number of entries and weighted squared residuals."""
    return draw_gamma(shape + 0.5 * counts, shape + 0.5 * squares)


def draw_noise_shape(counts: Tensor, squares: Tensor, shape: Tensor) -> Tensor:
    r"""Draw the shape a of the multipliers w ~ Gamma(a, a) with the multipliers integrated out.

    .. math::

       p(a) \propto p_0(a) \prod_i \frac{a^a}{\Gamma(a)}
       \frac{\Gamma(a + n_i / 2)}{(a + s_i / 2)^{a + n_i / 2}},

    by a slice of log a. Given the multipliers, which say what a is to within a few per cent where rows have
    few ratings, it would creep; they must be drawn right after it (`draw_row_noise`).

    Parameters
    ----------
    counts, squares : Tensor, shape (n,)
        Number of entries n_i and weighted squared residuals s_i of each row.
    shape : Tensor, shape ()
        The current one.
    """
    n, half, halves = len(counts), 0.5 * counts, 0.5 * squares
    if room.waits(shape.device):
        return _draw_shape_ahead(n, half, halves, shape)

    def log_density(log_a: float) -> float:
        if abs(log_a - SHAPE_PRIOR[0]) > _MOST_SDS * SHAPE_PRIOR[1]:
            return -math.inf
        a = math.exp(log_a)
        rows = (torch.lgamma(a + half) - (a + half) * (a + halves).log()).sum()
        prior = -0.5 * ((log_a - SHAPE_PRIOR[0]) / SHAPE_PRIOR[1]) ** 2
        return n * (a * log_a - math.lgamma(a)) + float(rows) + prior

    drawn = slice_draw(log_density, SHAPE_PRIOR[1], math.log(float(shape)))
    return torch.full_like(shape, math.exp(drawn))


def _draw_shape_ahead(n: int, half: Tensor, halves: Tensor, shape: Tensor) -> Tensor:
    """Draw as `draw_noise_shape` does, with the density at several shapes at once: one wait for the device.

    What is drawn is the logarithm's change, so that the shape itself is not asked for.
    """
    at = shape.log()

    def densities(steps: list[float]) -> list[float]:
        log_a = at + room.to_device(steps, shape.device)
        a, column = log_a.exp(), log_a.exp().unsqueeze(1)
        rows = (torch.lgamma(column + half) - (column + half) * (column + halves).log()).sum(1)
        about = log_a - SHAPE_PRIOR[0]
        found = n * (a * log_a - torch.lgamma(a)) + rows - 0.5 * (about / SHAPE_PRIOR[1]) ** 2
        out = about.abs() > _MOST_SDS * SHAPE_PRIOR[1]
        listed: list[float] = found.masked_fill(out, -math.inf).tolist()
        return listed

    step = slice_draw(lambda one: densities([one])[0], SHAPE_PRIOR[1], many=densities)
    return shape * math.exp(step)


def draw_multipliers(own: SideState, counts: Tensor, squares: Tensor) -> None:
    """Draw the shape of a side's multipliers without them, then the multipliers, in place.

    Parameters
    ----------
    own : SideState
    counts, squares : Tensor, shape (n,), float64
        Number of entries and weighted squared residuals of each row.
    """
    own.row_precision_shape = draw_noise_shape(counts, squares, own.row_precision_shape)
    drawn = draw_row_noise(counts, squares, own.row_precision_shape)
    own.row_precision = drawn.to(own.row_precision.dtype)


@dataclass(frozen=True)
class NoiseLevel:
    """The log-density of t = log g in `shift_noise`: slope t - up exp(t) - down exp(-t)."""

    slope: float
    up: float
    down: float

    @classmethod
    def of(cls, state: ChainState, own: SideState, prior: tuple[float, float]) -> NoiseLevel:
        """Return the density at a state, for one of its sides."""
        total = own.row_precision.double().sum()
        read: list[float] = torch.stack([own.row_precision_shape, total, state.noise_precision]).tolist()
        slope = prior[0] - read[0] * len(own.row_precision)
        return cls(slope, prior[1] * read[2], read[0] * read[1])

    def __call__(self, t: float) -> float:
        """Return the log-density at t."""
        if abs(t) > 300.0:
            return -math.inf
        return self.slope * t - self.up * math.exp(t) - self.down * math.exp(-t)


def shift_noise(state: ChainState, own: SideState, prior: tuple[float, float]) -> None:
    r"""Draw a factor g for the noise's precision, by which a side's multipliers are divided, in place.

    No rating's probability changes when tau becomes g tau and every w_i becomes w_i / g, and of what the
    priors say, by Haar's measure (`scale_moves`), the logarithm is
    :math:`(\alpha - n a) t - \beta \tau e^t - a e^{-t} \sum_i w_i` at t = log g.

    Parameters
    ----------
    state : ChainState
    own : SideState
        One of the state's sides, whose rows have noise of their own.
    prior : tuple of float
        Shape alpha and rate beta of the Gamma prior of the noise's precision.
    """
    density = NoiseLevel.of(state, own, prior)
    factor = math.exp(slice_draw(density, _WIDTH * (1.0 + abs(density.slope)) ** -0.5))
    state.noise_precision = state.noise_precision * factor
    own.row_precision = own.row_precision / factor
