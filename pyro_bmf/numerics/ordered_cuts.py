r"""What an ordered probit's chain draws: cut points with the utilities integrated out, then the utilities.

Cuts are moved by Metropolis-Hastings with the proposal of one Newton step, :math:`N(c + H^{-1} g, H^{-1})`
for gradient g and negative Hessian H of the log-likelihood at c; with thousands of ratings the target is
nearly that Normal and nearly every proposal is taken. Given the cuts a utility is a truncated Normal,
drawn by inversion. Cowles (1996), doi 10.1007/BF00162520, on why cuts and utilities must not be drawn one
given the other.

A level that no rating has leaves the cuts about it without a likelihood: it would send them to infinity, or
onto each other. Cuts are found and drawn for the levels that ratings have, and those of the others put where
such a level has about the probability of one rating more (`_Merged`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.special import ndtri

from .normal_cells import LOG_DENSITY, Cells, log_cell_probability
from .truncated_normal import SMALL_CELL, draw_in_cells


@dataclass(frozen=True, eq=False)
class _Point:
    """The log-likelihood of cuts, and its first two derivatives."""

    height: float
    gradient: Tensor
    root: Tensor  # Cholesky factor of the negative Hessian
    cells: Cells

    def newton(self, cuts: Tensor) -> Tensor:
        return cuts + torch.cholesky_solve(self.gradient.unsqueeze(-1), self.root).squeeze(-1)


def _at(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor) -> _Point:
    cells = Cells.of(eta, scale, cuts, place)
    a, b = cells.low, cells.high
    share = cells.share.clamp_min(1e-300)
    density = 1.0 / (math.sqrt(2.0 * math.pi) * scale)
    from_low = -(-0.5 * a * a).exp() * density / share
    from_high = (-0.5 * b * b).exp() * density / share
    log_share = share.log()
    far = share < SMALL_CELL
    if bool(far.any()):
        # Few ratings, if any, lie so far from their cell: those alone are computed by logarithms.
        at_a, at_b, spread = a[far], b[far], scale[far]
        exact = log_cell_probability(at_a, at_b)
        log_share[far] = exact
        from_low[far] = -(-0.5 * at_a * at_a + LOG_DENSITY - exact).exp() / spread
        from_high[far] = (-0.5 * at_b * at_b + LOG_DENSITY - exact).exp() / spread
    # The ends of the scale are edges too: what is summed there is left out, as they do not move.
    n = len(cuts) + 2

    def by_edge(at_low: Tensor, at_high: Tensor) -> Tensor:
        total = torch.zeros(n, dtype=eta.dtype, device=eta.device)
        return total.index_add_(0, place, at_low).index_add_(0, place + 1, at_high)

    gradient = by_edge(from_low, from_high)[1:-1]
    diagonal = by_edge(from_low**2 + from_low * a / scale, from_high**2 + from_high * b / scale)[1:-1]
    between = torch.zeros(n, dtype=eta.dtype, device=eta.device).index_add_(0, place, from_low * from_high)
    off = between[1 : n - 2]
    hessian = torch.diag(diagonal) + torch.diag(off, 1) + torch.diag(off, -1)
    # The log-likelihood is concave (Pratt 1981), and nearly flat where hardly a rating is near a cut.
    return _Point(float(log_share.sum()), gradient, _factorised(hessian), cells)


def _factorised(hessian: Tensor) -> Tensor:
    """Return the Cholesky factor of a negative Hessian with a ridge: as small a one as rounding allows."""
    identity = torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(hessian + 1e-3 * identity)
    if not bool(failed) and bool(torch.isfinite(root).all()):
        return root
    # Cells of next to no width have entries that dwarf all else, whose rounding is beyond the ridge.
    hessian = torch.nan_to_num(hessian, nan=0.0, posinf=1e200, neginf=-1e200)
    # Each row's off-diagonal sum on its diagonal makes any symmetric matrix positive.
    sums = hessian.abs().sum(1)
    for share in (1e-12, 1e-9, 1e-6, 1e-3):
        root, failed = torch.linalg.cholesky_ex(hessian + torch.diag(1e-3 + share * sums))
        if not bool(failed):
            return root
    diagonal: Tensor = torch.diag((1e-3 + 2.0 * sums).sqrt())
    return diagonal


@dataclass(frozen=True, eq=False)
class _Merged:
    """The levels that ratings have, as a scale of their own, and the way back to all levels.

    Attributes
    ----------
    present : Tensor, shape (n_present,), int64
        Which levels.
    place : Tensor, shape (nnz,), int64
        Which of those each rating is.
    """

    present: Tensor
    place: Tensor

    @classmethod
    def of(cls, place: Tensor, n_levels: int) -> _Merged | None:
        """Return the levels that there are; None where that is all of them."""
        counts = torch.bincount(place, minlength=n_levels)
        if bool((counts > 0).all()):
            return None
        present = counts.nonzero().squeeze(-1)
        order = torch.zeros(n_levels, dtype=torch.int64, device=place.device)
        order[present] = torch.arange(len(present), device=place.device)
        return cls(present, order[place])

    def cuts(self, cuts: Tensor) -> Tensor:
        """Return the cut between each two neighbours that there are, of all cuts."""
        above, below = cuts[self.present[:-1]], cuts[self.present[1:] - 1]
        return 0.5 * (above + below)

    def all_cuts(self, merged: Tensor, n_cuts: int, eta: Tensor, scale: Tensor) -> Tensor:
        """Return all cuts, where those about an absent level follow from the others.

        Levels between two neighbours share a strip about the neighbours' cut that holds the probability of
        one rating, and levels beyond the ends have it between them.
        """
        n = len(eta)
        centre, spread = eta.mean(), (eta.var(correction=0) + (scale**2).mean()).sqrt()
        cuts = torch.empty(n_cuts, dtype=merged.dtype, device=merged.device)
        z = (merged.unsqueeze(-1) - centre) / spread
        density = (-0.5 * z**2 + LOG_DENSITY).exp().squeeze(-1) / spread
        gaps = merged.diff()
        end = spread.expand(1)
        room = torch.minimum(torch.cat([end, gaps]), torch.cat([gaps, end]))
        strip = torch.minimum(1.0 / ((n + 1) * density.clamp_min(1e-300)), 0.5 * room)
        levels = self.present.tolist()
        for order, (left, right) in enumerate(pairwise(levels)):
            share = torch.linspace(-0.5, 0.5, right - left, dtype=cuts.dtype, device=cuts.device)
            # One cut where they are neighbours: linspace then gives its start.
            cuts[left:right] = merged[order] + (share * strip[order] if right - left > 1 else 0.0)
        tail = float(ndtri(torch.tensor(1.0 / (n + 1.0), dtype=torch.float64))) * spread
        steps = torch.arange(1, n_cuts + 1, dtype=cuts.dtype, device=cuts.device)
        if levels[0]:
            first = torch.minimum(centre + tail, merged[0] - 0.5 * spread)
            cuts[: levels[0]] = first - 0.25 * spread * (steps[: levels[0]].flip(0) - 1.0)
        if levels[-1] < n_cuts:
            last = torch.maximum(centre - tail, merged[-1] + 0.5 * spread)
            cuts[levels[-1] :] = last + 0.25 * spread * (steps[: n_cuts - levels[-1]] - 1.0)
        return cuts


def fit_cuts(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor, *, steps: int = 8) -> Tensor:
    """Return the most likely cuts given predictors, by Newton steps that keep them in order.

    Levels that no rating has get cuts as `_Merged` has it; where all ratings are of one level, which tells
    nothing of cuts, they stay as they are.
    """
    merged = _Merged.of(place, len(cuts) + 1)
    if merged is None:
        return _climbed(cuts, eta, scale, place, steps)
    if len(merged.present) == 1:
        return cuts
    found = _climbed(merged.cuts(cuts), eta, scale, merged.place, steps)
    return merged.all_cuts(found, len(cuts), eta, scale)


def _climbed(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor, steps: int) -> Tensor:
    """Return cuts after Newton steps, each halved until it keeps the order and does not go down."""
    here = _at(cuts, eta, scale, place)
    for _ in range(steps):
        there = here.newton(cuts)
        for _ in range(60):
            if bool((there.diff() > 0).all()):
                new = _at(there, eta, scale, place)
                if new.height >= here.height - 1e-9 * abs(here.height):
                    break
            there = 0.5 * (there + cuts)
        else:
            return cuts
        cuts, here = there, new
    return cuts


def draw_cuts_and_utilities(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Draw cuts given predictors, then utilities given both.

    Parameters
    ----------
    cuts : Tensor, shape (n_levels - 1,), float64
    eta, scale : Tensor, shape (nnz,), float64
        Predictors, and the utilities' standard deviations.
    place : Tensor, shape (nnz,), int64
        Which level each rating is.

    Returns
    -------
    cuts, utilities : Tensor
    """
    merged = _Merged.of(place, len(cuts) + 1)
    if merged is None:
        return _drawn(cuts, eta, scale, place)
    if len(merged.present) == 1:
        return cuts, draw_in_cells(eta, scale, Cells.of(eta, scale, cuts, place))
    found, utilities = _drawn(merged.cuts(cuts), eta, scale, merged.place)
    return merged.all_cuts(found, len(cuts), eta, scale), utilities


def _drawn(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    here = _at(cuts, eta, scale, place)
    noise = torch.randn(len(cuts), dtype=eta.dtype, device=eta.device)
    there = here.newton(cuts) + torch.linalg.solve_triangular(
        here.root.mT, noise.unsqueeze(-1), upper=True
    ).squeeze(-1)
    chance = math.log(max(float(torch.rand(())), 1e-300))
    if bool((there.diff() > 0).all()):
        new = _at(there, eta, scale, place)
        back = new.root.mT @ (cuts - new.newton(there))
        forward = float(here.root.diagonal().log().sum() - 0.5 * noise @ noise)
        backward = float(new.root.diagonal().log().sum() - 0.5 * back @ back)
        if chance < new.height - here.height + backward - forward:
            cuts, here = there, new
    return cuts, draw_in_cells(eta, scale, here.cells)
