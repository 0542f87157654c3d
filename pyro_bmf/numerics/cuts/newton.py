"""The log-posterior of cut points with the utilities integrated out, its derivatives, and steps uphill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ...estimate import RATINGS_AT_ONCE
from .. import room
from ..chunks import chunks
from ..normal_cells import LOG_DENSITY, Cells, log_cell_probability
from ..segment_sums import class_sums
from ..truncated_normal import SMALL_CELL
from .density import CutDensity
from .stretch import Stretch


@dataclass(frozen=True, eq=False)
class Point:
    """The log-posterior of cuts, and its first two derivatives."""

    height: Tensor
    gradient: Tensor
    root: Tensor  # Cholesky factor of the negative Hessian
    cells: Cells | None  # of the ratings; None where these are too many to be kept

    def newton(self, cuts: Tensor) -> Tensor:
        """Return where a Newton step from the cuts leads."""
        return cuts + torch.cholesky_solve(self.gradient.unsqueeze(-1), self.root).squeeze(-1)


class _Terms(NamedTuple):
    height: Tensor
    gradient: Tensor
    hessian: Tensor  # negative
    cells: Cells | None

    def plus(self, more: _Terms) -> _Terms:
        """Return the sums over both, which keep no cells."""
        gradient, hessian = self.gradient + more.gradient, self.hessian + more.hessian
        return _Terms(self.height + more.height, gradient, hessian, None)


def parts(eta: Tensor) -> list[slice]:
    """Return slices of the ratings: one on a card, whose work is not to be cut, and where they are few."""
    n = len(eta)
    if n <= RATINGS_AT_ONCE or room.waits(eta.device):
        return [slice(0, n)]
    return list(chunks(n, RATINGS_AT_ONCE))


def point_at(
    cuts: Tensor,
    eta: Tensor,
    scale: Tensor,
    place: Tensor,
    prior: CutDensity,
    pull: Tensor | None = None,
    stretch: Stretch | None = None,
) -> Point:
    """Return the log-posterior at cuts: of them alone, or given a pull.

    With a `stretch` its derivatives are also by the factor of the predictors, last, which is one here; what
    the stretch itself says is in them, and not in the height.
    """
    n = len(cuts)
    found = (_of_cells(cuts, eta[p], scale[p], place[p], stretch=stretch is not None) for p in parts(eta))
    said = reduce(_Terms.plus, found)
    levels = torch.arange(n + 1, device=cuts.device)
    centre = torch.zeros(len(levels), dtype=cuts.dtype, device=cuts.device)
    cells = _of_cells(cuts, centre, torch.full_like(centre, prior.spread), levels)
    identity, height = torch.eye(n, dtype=cuts.dtype, device=cuts.device), said.height
    if pull is None:
        pull, height = prior.expected_pull(cuts), height + prior.log_density(cuts)
    else:
        height = height + cells.height - 0.5 * (cuts / prior.spread).square().sum()
        height = height - 0.5 * pull * prior.uneven(cuts).square().sum()
    gradient, hessian = said.gradient, said.hessian
    gradient[:n] += cells.gradient - cuts / prior.spread**2 - pull * prior.uneven(cuts)
    hessian[:n, :n] += cells.hessian + identity / prior.spread**2 + pull * prior.uneven(identity)
    if stretch is not None:
        gradient[n] += stretch.gradient()
        hessian[n, n] += stretch.curvature()
    return Point(height, gradient, _factorised(hessian), said.cells)


def edge_scores(cells: Cells, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logarithms of the cells' probabilities, and their derivatives by the lower and upper edges.

    Parameters
    ----------
    cells : Cells
        Of Normals, each (nnz,).
    scale : Tensor, shape (nnz,)
        Their standard deviations.
    """
    a, b = cells.low, cells.high
    share = cells.share.clamp_min(1e-300)
    density = 1.0 / (math.sqrt(2.0 * math.pi) * scale)
    from_low = -(-0.5 * a * a).exp() * density / share
    from_high = (-0.5 * b * b).exp() * density / share
    log_share = share.log()
    far = share < SMALL_CELL
    # Few ratings, if any, lie so far from their cell: those alone are computed by logarithms.
    at = room.exceptions(far)
    if at is not None:
        at_a, at_b, at_sd = a[at], b[at], scale[at]
        exact = log_cell_probability(at_a, at_b)
        low = -(-0.5 * at_a * at_a + LOG_DENSITY - exact).exp() / at_sd
        high = (-0.5 * at_b * at_b + LOG_DENSITY - exact).exp() / at_sd
        log_share = room.with_exceptions(log_share, far, exact)
        from_low = room.with_exceptions(from_low, far, low)
        from_high = room.with_exceptions(from_high, far, high)
    return log_share, from_low, from_high


def _of_cells(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor, *, stretch: bool = False) -> _Terms:
    """Return what the cells of Normals say of the cuts, and, it may be, of a factor of the predictors."""
    cells = Cells.of(eta, scale, cuts, place)
    a, b = cells.low, cells.high
    log_share, from_low, from_high = edge_scores(cells, scale)
    # The ends of the scale are edges too: what is summed there is left out, as they do not move.
    n = len(cuts) + 2
    nothing = torch.zeros(n, dtype=eta.dtype, device=eta.device)

    def by_edge(at_low: Tensor, at_high: Tensor) -> Tensor:
        return class_sums(at_high, place + 1, class_sums(at_low, place, nothing))

    gradient = by_edge(from_low, from_high)[1:-1]
    at_low, at_high = from_low**2 + from_low * a / scale, from_high**2 + from_high * b / scale
    across = from_low * from_high
    diagonal = by_edge(at_low, at_high)[1:-1]
    off = class_sums(across, place, nothing)[1 : n - 2]
    hessian = torch.diag(diagonal) + torch.diag(off, 1) + torch.diag(off, -1)
    if stretch:
        # A predictor moves both edges of its cell the other way; an end of the scale says nothing.
        low = (at_low + across).masked_fill_(place == 0, 0.0).mul_(eta)
        high = (at_high + across).masked_fill_(place == n - 2, 0.0).mul_(eta)
        gradient = torch.cat([gradient, -(eta @ (from_low + from_high)).reshape(1)])
        mixed, own = -by_edge(low, high)[1:-1], (eta @ (low + high)).reshape(1)
        hessian = torch.cat(
            [torch.cat([hessian, mixed.unsqueeze(1)], 1), torch.cat([mixed, own]).unsqueeze(0)]
        )
    # The log-likelihood is concave (Pratt 1981), and nearly flat where hardly a rating is near a cut.
    return _Terms(log_share.sum(), gradient, hessian, cells)


def _factorised(hessian: Tensor) -> Tensor:
    """Return the Cholesky factor of a negative Hessian with a ridge: as small a one as rounding allows."""
    identity = torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(hessian + 1e-3 * identity)
    good = (failed == 0) & torch.isfinite(root).all()
    if room.waits(hessian.device):
        # The last resort of below, without a question whether it is needed.
        last = torch.nan_to_num(hessian, nan=0.0, posinf=1e200, neginf=-1e200).abs().sum(1)
        return torch.where(good, root, torch.diag((1e-3 + 2.0 * last).sqrt()))
    if bool(good):
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


def fit_cuts(
    cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor, prior: CutDensity, *, steps: int = 8
) -> Tensor:
    """Return the most likely cuts given predictors and prior, by Newton steps that keep them in order."""
    if room.waits(cuts.device):
        # Nearly always all steps are good, which is one question.
        found, good = cuts_ahead(cuts, eta, scale, place, prior, steps=steps)
        if bool(good):
            return found
    here = point_at(cuts, eta, scale, place, prior)
    for _ in range(steps):
        there = here.newton(cuts)
        for _ in range(60):
            if bool((there.diff() > 0).all()):
                new = point_at(there, eta, scale, place, prior)
                if bool(_no_lower(new, here)):
                    break
            there = 0.5 * (there + cuts)
        else:
            return cuts
        cuts, here = there, new
    return cuts


def cuts_ahead(
    cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor, prior: CutDensity, *, steps: int = 8
) -> tuple[Tensor, Tensor]:
    """Take the steps of `fit_cuts` without a look at any, and return with the cuts whether all were good."""
    here, good = (
        point_at(cuts, eta, scale, place, prior),
        torch.ones((), dtype=torch.bool, device=cuts.device),
    )
    for _ in range(steps):
        cuts = here.newton(cuts)
        new = point_at(cuts, eta, scale, place, prior)
        good = good & (cuts.diff() > 0).all() & _no_lower(new, here)
        here = new
    return cuts, good


def _no_lower(new: Point, here: Point) -> Tensor:
    """Return whether a step has not gone down, but for rounding."""
    return new.height >= here.height - 1e-9 * here.height.abs()
