"""Cells of a Normal: the probability that it falls between two cut points, in every form that is needed.

The cells of a rating scale lie around its levels: cut points midway between neighbours (`midway`), the two
tails to the two ends. Everything that asks for the probability of a cell asks here. A cell above the mean is
mirrored below it, where a difference of two small tails keeps its digits, and the ends of the outer cells are
infinite; nothing stands in for infinity.

`normal_pmf` and `symmetric_cells`, of `cell_arrays`, are for arrays, all else is for tensors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.special import log_ndtr

from . import room
from .cell_arrays import midway as midway
from .cell_arrays import normal_pmf as normal_pmf
from .cell_arrays import symmetric_cells as symmetric_cells

_ROOT_HALF = math.sqrt(0.5)
#: Logarithm of the standard Normal's density at zero.
LOG_DENSITY = -0.5 * math.log(2.0 * math.pi)


def normal_cdf(z: Tensor) -> Tensor:
    """Return the standard Normal's distribution function, exact in the lower tail.

    ``torch.special.ndtr`` is (1 + erf) / 2: nothing is left of it a few standard deviations below zero.
    """
    result: Tensor = 0.5 * torch.special.erfc(z * -_ROOT_HALF)
    return result


def cell_ends(mean: Tensor, sd: Tensor | float, cuts: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the standardised ends of one cell each: infinite at the ends of the scale.

    Parameters
    ----------
    mean, sd : Tensor, shape (*pairs,) or broadcast against it
        Of the Normal.
    cuts : Tensor, shape (n_cuts,) or (*pairs, n_cuts)
        Ascending, in the unit of `mean`.
    places : Tensor, shape (*pairs,), int32 or int64
        Which cell.

    Returns
    -------
    low, high : Tensor, shape (*pairs,)
        Differentiable; infinite ends have a derivative of zero.
    """
    n = cuts.shape[-1]
    before, after = (places - 1).clamp_min(0), places.clamp_max(n - 1)
    if cuts.dim() == 1:
        below, above = cuts[before], cuts[after]
    else:
        shape = torch.broadcast_shapes(cuts.shape[:-1], places.shape)  # type: ignore[no-untyped-call]
        table = cuts.expand(*shape, n)
        below = table.gather(-1, before.long().expand(shape).unsqueeze(-1)).squeeze(-1)
        above = table.gather(-1, after.long().expand(shape).unsqueeze(-1)).squeeze(-1)
    low, high = (below - mean) / sd, (above - mean) / sd
    return low.masked_fill(places == 0, -torch.inf), high.masked_fill(places == n, torch.inf)


class Cells(NamedTuple):
    """One cell of a Normal each, for whoever needs both its ends and the distribution function at them.

    Attributes
    ----------
    low, high : Tensor
        Standardised ends.
    below, above : Tensor
        Distribution function at the ends.
    """

    low: Tensor
    high: Tensor
    below: Tensor
    above: Tensor

    @classmethod
    def of(cls, mean: Tensor, sd: Tensor, cuts: Tensor, places: Tensor) -> Cells:
        """Return the cells that `cell_ends` has."""
        low, high = cell_ends(mean, sd, cuts, places)
        return cls(low, high, normal_cdf(low), normal_cdf(high))

    @classmethod
    def either(cls, condition: Tensor, yes: Cells, no: Cells) -> Cells:
        """Return one or the other by a condition (), without a wait for the device."""
        if room.waits(condition.device):
            return cls(*(torch.where(condition, one, other) for one, other in zip(yes, no, strict=True)))
        return yes if bool(condition) else no

    @property
    def share(self) -> Tensor:
        """Probability of each cell: without the digits that `cell_probability` keeps of far cells."""
        return self.above - self.below


def mirrored(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a standardised cell's ends with a cell above zero mirrored below it, and which were."""
    above = low > 0
    return torch.where(above, -high, low), torch.where(above, -low, high), above


def cell_probability(low: Tensor, high: Tensor) -> Tensor:
    """Return the probability between standardised ends, of their shape."""
    low, high, _ = mirrored(low, high)
    return normal_cdf(high) - normal_cdf(low)


def log_cell_probability(low: Tensor, high: Tensor) -> Tensor:
    """Return log(Phi(high) - Phi(low)) for low < high, however far out or narrow the cell is.

    By logarithms of tails: to full precision where `cell_probability` is zero, at several times its cost.
    """
    flip = low + high > 0
    near, far = torch.where(flip, -high, low), torch.where(flip, -low, high)
    at_near, at_far = log_ndtr(near), log_ndtr(far)
    step = at_near - at_far
    wide = at_far + torch.log(-torch.expm1(step.clamp_max(-1e-300)))
    middle = 0.5 * (near + far)
    narrow = (far - near).clamp_min(1e-300).log() - 0.5 * middle**2 + LOG_DENSITY
    result: Tensor = torch.where(step > -1e-6, narrow, wide)
    return result


def cell_probabilities(mean: Tensor, sd: Tensor, cuts: Tensor) -> Tensor:
    """Return the probability of every cell, shape (*mean.shape, n_cuts + 1), float64.

    Parameters
    ----------
    mean, sd : Tensor, of one shape
    cuts : Tensor, shape (n_cuts,) or (*mean.shape, n_cuts)
    """
    mean, sd = mean.double().unsqueeze(-1), sd.double().unsqueeze(-1)
    z = (cuts.double() - mean) / sd
    end = torch.full_like(mean, torch.inf)
    return cell_probability(torch.cat([-end, z], dim=-1), torch.cat([z, end], dim=-1))
