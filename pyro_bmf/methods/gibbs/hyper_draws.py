r"""Draws of a chain's hyperparameters from their conditionals: conjugate, or by slices and moves.

Gamma precisions of implicit weights (`pyro_bmf.model.implicit_feedback`), and Gamma multipliers of rows'
precisions whose shape has a prior of its own (`pyro_bmf.model.row_noise`): the shape with the multipliers
integrated out, and before that, where utilities are latent, together with these and with the utilities
integrated out; and the level that they share with the noise's precision by the priors alone. A prior's
location and precision are drawn by the prior itself (`pyro_bmf.model.priors.conjugate`). Everything here is
in float64: these are sums over all rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...model.row_noise import SPREAD_RATE
from ...model.sides import Side, Sides
from ...numerics import room
from ...numerics.conjugate_draws import draw_gamma
from ...numerics.cuts.noise_spread import NoisyRows
from ...numerics.slice_draw import slice_draw
from .chain_state import ChainState, SideState

#: The least and the largest logarithm of a shape: the prior has less than 1e-12 beyond.
_REACH = (-20.0, 60.0)
#: The least multiplier: of a spread beyond ten some would be nothing in single precision, and a row's noise
#: infinite.
_LEAST = 1e-30
#: First interval of the slice of that logarithm.
_SHAPE_WIDTH = 3.0
#: Shapes from which on logarithms of Gamma functions are differences by Stirling's series.
_LARGE = 1e4
#: First interval of the slice of a factor, in its standard deviations.
_WIDTH = 3.0


def draw_weights_precision(weights: Tensor, scale: float) -> Tensor:
    """Draw the precision (D,) of implicit weights (m, D) of N(0, 1 / precision)."""
    shape = weights.new_full((weights.shape[1],), 1.0 + 0.5 * len(weights))
    return draw_gamma(shape, scale**2 + 0.5 * (weights**2).sum(0))


def draw_row_noise(counts: Tensor, squares: Tensor, shape: Tensor) -> Tensor:
    """Draw the multipliers (n,) given each row's number of entries and weighted squared residuals."""
    return draw_gamma(shape + 0.5 * counts, shape + 0.5 * squares).clamp_min(_LEAST)


@dataclass(frozen=True, eq=False)
class Shapes:
    """Where the density of a shape is asked for.

    Attributes
    ----------
    steps : Tensor, shape (m,), float64
        Changes of the shape's logarithm.
    shape : Tensor, shape ()
    half, halves : Tensor, shape (n,)
        As of `shape_density`.
    """

    steps: Tensor
    shape: Tensor
    half: Tensor
    halves: Tensor


def look_at_shapes(given: Shapes) -> Tensor:
    """Return the log-density of shapes (m,), nothing beyond what the prior has."""
    log_a = given.shape.log() + given.steps
    found = shape_density(log_a, given.half, given.halves)
    return found.masked_fill((log_a < _REACH[0]) | (log_a > _REACH[1]), -math.inf)


def draw_noise_shape(
    counts: Tensor, squares: Tensor, shape: Tensor, look: Callable[[Shapes], Tensor] = look_at_shapes
) -> Tensor:
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
    look : callable
        Computes densities as `look_at_shapes` does.
    """
    half, halves, device = 0.5 * counts, 0.5 * squares, shape.device

    def densities(steps: list[float]) -> list[float]:
        listed: list[float] = look(Shapes(room.to_device(steps, device), shape, half, halves)).tolist()
        return listed

    # On a card the density is computed at several shapes at once; what is drawn is the logarithm's change, so
    # that the shape itself is not asked for.
    many = densities if room.waits(device) else None
    step = slice_draw(lambda one: densities([one])[0], _SHAPE_WIDTH, many=many)
    return shape * math.exp(step)


def shape_density(log_shape: Tensor, half: Tensor, halves: Tensor) -> Tensor:
    """Return the log-density of the logarithm of shapes (m,), up to a constant, multipliers integrated out.

    Parameters
    ----------
    log_shape : Tensor, shape (m,), float64
    half, halves : Tensor, shape (n,)
        Halves of each row's number of entries and of its weighted squared residuals.
    """
    a = log_shape.exp().unsqueeze(1)
    # Differences of Gamma functions, and of what goes with them, are lost to rounding where a is large.
    near = a.clamp_max(_LARGE)
    direct = torch.lgamma(near + half) - torch.lgamma(near) - half * near.log()
    far = a.clamp_min(_LARGE)
    series = (far + half - 0.5) * (half / far).log1p() - half + (1.0 / (far + half) - 1.0 / far) / 12.0
    rows = torch.where(a < _LARGE, direct, series) - (a + half) * (halves / a).log1p()
    prior = -SPREAD_RATE * (-0.5 * log_shape).exp() - 0.5 * log_shape
    return rows.sum(1) + prior


def draw_multipliers(
    own: SideState, counts: Tensor, squares: Tensor, look: Callable[[Shapes], Tensor]
) -> None:
    """Draw the shape of a side's multipliers without them, then the multipliers, in place.

    Parameters
    ----------
    own : SideState
    counts, squares : Tensor, shape (n,), float64
        Number of entries and weighted squared residuals of each row.
    look : callable
        Computes densities as `look_at_shapes` does.
    """
    own.row_precision_shape = draw_noise_shape(counts, squares, own.row_precision_shape, look)
    drawn = draw_row_noise(counts, squares, own.row_precision_shape)
    own.row_precision = drawn.to(own.row_precision.dtype)


def draw_noise_spreads(
    state: ChainState,
    sides: tuple[Side, ...],
    pairs: Sides[Tensor],
    draw: Callable[..., Tensor],
    *given: Tensor,
) -> None:
    """Draw by how much multipliers of some sides differ, their order kept, in place (`cuts.noise_spread`).

    Parameters
    ----------
    state : ChainState
    sides : tuple of {"user", "item"}
        Whose rows have noise of their own.
    pairs : Sides of Tensor, shape (nnz,)
        Row of either side of every rating.
    draw : callable
        Gives the power of each side's multipliers, (m,), with the utilities integrated out, as
        `Utilities.draw_spreads` does.
    given : Tensor
        What it is given beside the rows.
    """
    if not sides:
        return
    both = [(state.of(side), pairs.of(side)) for side in sides]
    rows = [
        NoisyRows(own.row_precision.double().log(), own.row_precision_shape, of, SPREAD_RATE)
        for own, of in both
    ]
    for (own, _), one, power in zip(both, rows, draw(rows, *given), strict=True):
        there = one.moved(power)
        own.row_precision = there.logs.exp().clamp_min(_LEAST).to(own.row_precision.dtype)
        own.row_precision_shape = there.shape


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
