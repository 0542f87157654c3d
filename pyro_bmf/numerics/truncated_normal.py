"""Normals truncated to the cells of an ordered scale: their means, and draws of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import log_ndtr, ndtri

from . import room
from .normal_cells import LOG_DENSITY, Cells, cell_ends, mirrored, normal_cdf

#: Probability of a cell below which a difference of distribution functions has too few digits left.
SMALL_CELL = 1e-10
#: Standard deviations beyond which the tail is exponential to single precision.
_EXPONENTIAL = 1e5


def truncated_mean(eta: Tensor, scale: Tensor, cuts: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return E[z | z in its cell] and the log-probability of the cell, for z ~ N(eta, scale^2).

    Parameters
    ----------
    eta : Tensor, shape (n,), float64
    scale : Tensor, shape () or (n,)
    cuts : Tensor, shape (n_levels - 1,), float64
    place : Tensor, shape (n,), int32 or int64
        Which cell each z is in.

    Returns
    -------
    mean, log_probability : Tensor, shape (n,)
    """
    a, b, flip = mirrored(*cell_ends(eta, scale, cuts, place))
    share = (normal_cdf(b) - normal_cdf(a)).clamp_min(1e-300)
    density = 1.0 / math.sqrt(2.0 * math.pi)
    shift = density * ((-0.5 * a * a).exp() - (-0.5 * b * b).exp()) / share
    # Far out the ratio loses its digits; the mean is then next to the nearer edge.
    inside = torch.minimum(torch.maximum(shift, a), b)
    mean = eta + scale * torch.where(flip, -inside, inside)
    return mean, share.log()


def truncated_moments(
    eta: Tensor, scale: Tensor, cuts: Tensor, place: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return mean and variance of z given its cell, and the cell's log-probability, for z ~ N(eta, scale^2).

    Far from its cell z is nearly an exponential variable behind the nearer edge, whose variance is known
    without a difference of large numbers.

    Parameters
    ----------
    eta, scale, cuts, place
        As of `truncated_mean`, `scale` of shape (n,).

    Returns
    -------
    mean, variance, log_probability : Tensor, shape (n,)
    """
    mean, log_share = truncated_mean(eta, scale, cuts, place)
    a, b, _ = mirrored(*cell_ends(eta, scale, cuts, place))
    share = (normal_cdf(b) - normal_cdf(a)).clamp_min(1e-300)
    at_a, at_b = (LOG_DENSITY - 0.5 * a * a).exp(), (LOG_DENSITY - 0.5 * b * b).exp()
    # An end at infinity has no density there.
    low = torch.where(a.isinf(), torch.zeros_like(a), a) * at_a
    high = torch.where(b.isinf(), torch.zeros_like(b), b) * at_b
    near = 1.0 + (low - high) / share - ((at_a - at_b) / share) ** 2
    # The tail beyond t has the variance 1 / t^2 - 6 / t^4 + ...
    rate, width = (torch.minimum(a.abs(), b.abs()) ** 2 + 6.0).sqrt(), b - a
    # w^2 e^{rw} / (e^{rw} - 1)^2 = (w / (2 sinh(rw / 2)))^2
    half = (0.5 * rate * width).clamp_max(300.0)
    # Of a very narrow cell both terms are large: it is uniform.
    tail = torch.where(
        half < 1e-2,
        width.clamp_max(1e3) ** 2 / 12.0,
        rate**-2 - (0.5 * width.clamp_max(1e6) / torch.sinh(half)) ** 2,
    )
    relative = torch.where(share < SMALL_CELL, tail, near).clamp(0.0, 1.0)
    return mean, relative * scale**2, log_share


def draw_in_cells(eta: Tensor, scale: Tensor, cells: Cells) -> Tensor:
    """Draw z ~ N(eta, scale^2) given its cell, those whose cell is far out by its tail.

    Parameters
    ----------
    eta, scale : Tensor, shape (n,), float64
    cells : Cells
        Of these Normals.

    Returns
    -------
    Tensor, shape (n,)
    """
    drawn = draw_truncated(eta, scale, cells)
    far = cells.share < SMALL_CELL
    at = room.exceptions(far)
    if at is None:
        return drawn
    tail = eta[at] + scale[at] * draw_tail(cells.low[at], cells.high[at])
    return room.with_exceptions(drawn, far, tail)


def draw_truncated(eta: Tensor, scale: Tensor, cells: Cells) -> Tensor:
    """Draw N(eta, scale^2) given its cell by inversion of the distribution function."""
    share = cells.below + cells.share * torch.rand_like(cells.below)
    drawn: Tensor = eta + scale * ndtri(share.clamp(1e-15, 1.0 - 1e-15))
    return drawn


def draw_tail(a: Tensor, b: Tensor) -> Tensor:
    """Draw N(0, 1) between a and b by inversion of the logarithm of its distribution function.

    To full precision where the cell is far out or narrow, which `draw_truncated` is not.
    """
    flip = a + b > 0
    low, high = torch.where(flip, -b, a), torch.where(flip, -a, b)
    at_low, at_high = log_ndtr(low), log_ndtr(high)
    uniform = torch.rand_like(a).clamp_min(1e-300)
    # log((1 - u) Phi(low) + u Phi(high)), relative to the larger one.
    target = at_high + torch.log(uniform + (1.0 - uniform) * (at_low - at_high).exp())
    # The tail's own inverse to start from, log Phi(x) being nearly -x^2 / 2 there, then Newton's steps.
    x = torch.minimum(torch.maximum(-(high**2 - 2.0 * (target - at_high)).clamp_min(0.0).sqrt(), low), high)
    for _ in range(6):
        slope = (-0.5 * x * x + LOG_DENSITY - log_ndtr(x)).exp()
        x = torch.minimum(torch.maximum(x - (log_ndtr(x) - target) / slope, low), high)
    # A cell narrower than rounding is uniform.
    x = torch.where(at_high - at_low < 1e-6, low + uniform * (high - low), x)
    # So far out that logarithms differ by their rounding alone the tail is exponential.
    steepness = -high
    drop = torch.log1p(uniform * torch.expm1(-steepness * (high - low))) / steepness
    x = torch.where(steepness > _EXPONENTIAL, torch.maximum(high + drop, low), x)
    return torch.where(flip, -x, x)
