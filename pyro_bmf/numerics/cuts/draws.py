r"""What an ordered probit's chain draws: cut points with the utilities integrated out, then the utilities.

Cuts are moved by Metropolis-Hastings with the proposal of one Newton step, :math:`N(c + H^{-1} g, H^{-1})`
for gradient g and negative Hessian H of the log-posterior at c, given a pull that is drawn before; with
thousands of ratings the target is nearly that Normal and nearly every proposal is taken. Cuts about a level
of few ratings are moved by slices too (`slice_draw`), one by one and in pairs. Given the cuts a utility is a
truncated Normal, drawn by inversion. Cowles (1996), doi 10.1007/BF00162520, on why cuts and utilities must
not be drawn one given the other.

Of many ratings cuts and the scale of the predictors are nearly one and the same, and drawn one given the
other they creep. With a `Stretch`, which is what the prior says of a common factor of all predictors, that
factor is one more coordinate of the proposal. Metropolis-Hastings along the orbit of a group leaves the
posterior as it is (Liu and Sabatti 2000, doi 10.1093/biomet/87.2.353): a Newton step in g is the same from
wherever on the orbit g is counted, as it does not depend on the unit of a coordinate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..normal_cells import Cells, cell_ends, log_cell_probability
from ..slice_draw import slice_draw
from ..truncated_normal import draw_in_cells
from .density import CutDensity
from .newton import Point, parts, point_at
from .stretch import Stretch

#: Ratings of a level below which the cuts about it are also moved by slices: their density is skew.
_RARE = 10


class Drawn(NamedTuple):
    """Cut points (n_levels - 1,), utilities (nnz,), and the factor () by which predictors were multiplied."""

    cuts: Tensor
    utilities: Tensor
    factor: Tensor


class _Place(NamedTuple):
    """Where a chain stands: cuts, predictors, and what is known there."""

    cuts: Tensor
    eta: Tensor
    point: Point

    def newton(self) -> Tensor:
        return self.point.newton(_joined(self.cuts, self.cuts.new_ones(()), self.point))


def draw_cuts_and_utilities(
    cuts: Tensor,
    eta: Tensor,
    scale: Tensor,
    place: Tensor,
    prior: CutDensity,
    moves: list[slice] | None = None,
    stretch: Stretch | None = None,
) -> Drawn:
    """Draw cuts given predictors, or given all of them but their scale, then utilities given both.

    Parameters
    ----------
    cuts : Tensor, shape (n_levels - 1,), float64
        About the predictors' centre, as `eta` is.
    eta, scale : Tensor, shape (nnz,), float64
        Predictors, and the utilities' standard deviations.
    place : Tensor, shape (nnz,), int32 or int64
        Which level each rating is.
    prior : CutDensity
    moves : list of slice, optional
        What `about_rare_levels` gives, where it is known.
    stretch : Stretch, optional
        What a common factor of all predictors changes beside the ratings' probabilities; without it the
        factor stays one.
    """
    pull = prior.draw_pull(cuts)
    here = _Place(cuts, eta, point_at(cuts, eta, scale, place, prior, pull, stretch))
    there, factor, ratio = _proposed(here, scale, place, prior, pull, stretch)
    chance = torch.rand((), device=eta.device).double().clamp_min(1e-300).log()
    taken = (there.cuts.diff() > 0).all() & (chance < ratio)
    cuts, cells = torch.where(taken, there.cuts, cuts), None
    if stretch is not None:
        factor = torch.where(taken, factor, 1.0)
        eta = torch.where(taken, there.eta, eta)
    if there.point.cells is not None and here.point.cells is not None:
        cells = Cells.either(taken, there.point.cells, here.point.cells)
    moves = about_rare_levels(place, len(cuts)) if moves is None else moves
    for moved in moves:
        cuts = _sliced(cuts, moved, eta, scale, place, prior)
    if moves or cells is None:
        return Drawn(cuts, draw_utilities(cuts, eta, scale, place), factor)
    return Drawn(cuts, draw_in_cells(eta, scale, cells), factor)


def _proposed(
    here: _Place, scale: Tensor, place: Tensor, prior: CutDensity, pull: Tensor, stretch: Stretch | None
) -> tuple[_Place, Tensor, Tensor]:
    """Return a proposal, its factor of the predictors, and the logarithm of its Metropolis-Hastings ratio."""
    n, eta = len(here.cuts), here.eta
    noise = torch.randn(len(here.point.gradient), dtype=eta.dtype, device=eta.device)
    step = torch.linalg.solve_triangular(here.point.root.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)
    found = here.newton() + step
    cuts, factor, more = found[:n], eta.new_ones(()), eta.new_zeros(())
    if stretch is not None:
        factor = found[n]
        eta = factor * eta
        # Proposals have densities per dg, from either place in its own unit, and the chain per dg / g.
        more = stretch.change(factor) - 2.0 * factor.log()
        stretch = stretch.after(factor)
    there = _Place(cuts, eta, point_at(cuts, eta, scale, place, prior, pull, stretch))
    back = there.point.root.mT @ (_joined(here.cuts, 1.0 / factor, here.point) - there.newton())
    forward = here.point.root.diagonal().log().sum() - 0.5 * noise @ noise
    backward = there.point.root.diagonal().log().sum() - 0.5 * back @ back
    return there, factor, there.point.height - here.point.height + more + backward - forward


def _joined(cuts: Tensor, factor: Tensor, point: Point) -> Tensor:
    """Return the coordinates of a point: cuts, and the factor where it is one of them."""
    return cuts if len(point.gradient) == len(cuts) else torch.cat([cuts, factor.reshape(1)])


def draw_utilities(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor) -> Tensor:
    """Draw utilities (nnz,) given cuts and predictors.

    Parameters
    ----------
    cuts : Tensor, shape (n_levels - 1,), or (nnz, n_levels - 1), float64
        Of all ratings, or of each.
    eta, scale, place
        As of `draw_cuts_and_utilities`.
    """

    def drawn(part: slice) -> Tensor:
        own = cuts if cuts.dim() == 1 else cuts[part]
        return draw_in_cells(eta[part], scale[part], Cells.of(eta[part], scale[part], own, place[part]))

    found = [drawn(part) for part in parts(eta)]
    return found[0] if len(found) == 1 else torch.cat(found)


def about_rare_levels(place: Tensor, n_cuts: int) -> list[slice]:
    """Return the cuts that are moved by slices: those about a level of few ratings, and both together."""
    counts = torch.bincount(place, minlength=n_cuts + 1).tolist()
    found = [
        (first, last)
        for level, count in enumerate(counts)
        if count < _RARE
        for first, last in ((level - 1, level), (level, level + 1), (level - 1, level + 1))
        if first >= 0 and last <= n_cuts
    ]
    return [slice(*ends) for ends in dict.fromkeys(found)]


def _sliced(
    cuts: Tensor, moved: slice, eta: Tensor, scale: Tensor, place: Tensor, prior: CutDensity
) -> Tensor:
    """Draw the shift of neighbouring cuts given all others: exact however skew its density is."""
    # A cut is the edge of two levels: other ratings say nothing.
    own = ((place >= moved.start) & (place <= moved.stop)).nonzero().squeeze(-1)
    eta, scale, place = eta[own], scale[own], place[own]

    def at(shift: float) -> Tensor:
        there = cuts.clone()
        there[moved] += shift
        return there

    def log_density(shift: float) -> float:
        there = at(shift)
        if not bool((there.diff() > 0).all()):
            return -math.inf
        said = log_cell_probability(*cell_ends(eta, scale, there, place)).sum()
        return float(said) + prior.of_numbers(there.tolist())

    return at(slice_draw(log_density, 0.5 * prior.spread))
