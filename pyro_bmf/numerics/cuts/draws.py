r"""What an ordered probit's chain draws: cut points with the utilities integrated out, then the utilities.

Cuts are moved by Metropolis-Hastings with the proposal of one Newton step, :math:`N(c + H^{-1} g, H^{-1})`
for gradient g and negative Hessian H of the log-posterior at c, given a pull that is drawn before; with
thousands of ratings the target is nearly that Normal and nearly every proposal is taken. Cuts about a level
of few ratings are moved by slices too (`slice_draw`), one by one and in pairs. Given the cuts a utility is a
truncated Normal, drawn by inversion. Cowles (1996), doi 10.1007/BF00162520, on why cuts and utilities must
not be drawn one given the other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..normal_cells import Cells, cell_ends, log_cell_probability
from ..slice_draw import slice_draw
from ..truncated_normal import draw_in_cells
from .density import CutDensity
from .newton import parts, point_at

#: Ratings of a level below which the cuts about it are also moved by slices: their density is skew.
_RARE = 10


def draw_cuts_and_utilities(
    cuts: Tensor,
    eta: Tensor,
    scale: Tensor,
    place: Tensor,
    prior: CutDensity,
    moves: list[slice] | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw cuts given predictors, then utilities given both.

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

    Returns
    -------
    cuts, utilities : Tensor
    """
    pull = prior.draw_pull(cuts)
    here = point_at(cuts, eta, scale, place, prior, pull)
    noise = torch.randn(len(cuts), dtype=eta.dtype, device=eta.device)
    there = here.newton(cuts) + torch.linalg.solve_triangular(
        here.root.mT, noise.unsqueeze(-1), upper=True
    ).squeeze(-1)
    chance = math.log(max(float(torch.rand(()).numpy()), 1e-300))
    new = point_at(there, eta, scale, place, prior, pull)
    back = new.root.mT @ (cuts - new.newton(there))
    forward = here.root.diagonal().log().sum() - 0.5 * noise @ noise
    backward = new.root.diagonal().log().sum() - 0.5 * back @ back
    taken = (there.diff() > 0).all() & (chance < new.height - here.height + backward - forward)
    cuts, cells = torch.where(taken, there, cuts), None
    if new.cells is not None and here.cells is not None:
        cells = Cells.either(taken, new.cells, here.cells)
    moves = about_rare_levels(place, len(cuts)) if moves is None else moves
    for moved in moves:
        cuts = _sliced(cuts, moved, eta, scale, place, prior)
    if moves or cells is None:
        return cuts, draw_utilities(cuts, eta, scale, place)
    return cuts, draw_in_cells(eta, scale, cells)


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
