r"""What an ordered probit's chain draws: cut points with the utilities integrated out, then the utilities.

The prior of the cuts, about the predictors' centre, is the one under which the cells of a Normal of standard
deviation `spread` have shares from a Dirichlet distribution with all concentrations 2:

.. math::

   \log p(c) = \sum_k \log\left(\Phi(c_k / s) - \Phi(c_{k-1} / s)\right) - \frac{1}{2 s^2} \sum_k c_k^2 +
   \text{const}.

It says as much as one rating of each level at the centre, and keeps the cuts about a level that no rating has
apart, and out of infinity. On top of it cuts are expected to be spaced as the levels are: with r what is left
of them by the regression on the midpoints m of the levels, and t the `bend` that is expected,

.. math::

   r = c - \hat\alpha - \hat\beta m \sim t_1(0, t^2 I) \quad \text{on its } n - 2 \text{ dimensions},

a multivariate Cauchy: a few hundred ratings, which say little of each cut, leave a utility that is a rating
but for its scale, as under a Normal likelihood, and thousands of them bend the scale as they like. The two
factors are multiplied; that the product is no longer normalised matters to nothing, as it has no parameter.
The Cauchy is a Normal of precision p, the `pull`, with :math:`p \sim \mathrm{Gamma}(1/2, t^2/2)`, given which
the density is log-concave.

Cuts are moved by Metropolis-Hastings with the proposal of one Newton step, :math:`N(c + H^{-1} g, H^{-1})`
for gradient g and negative Hessian H of the log-posterior at c, given a pull that is drawn before; with
thousands of ratings the target is nearly that Normal and nearly every proposal is taken. Cuts about a level
of few ratings are moved by slices too (`slice_draw`), one by one and in pairs. Given the cuts a utility is a
truncated Normal, drawn by inversion. Cowles (1996), doi 10.1007/BF00162520, on why cuts and utilities must
not be drawn one given the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..estimate import RATINGS_AT_ONCE
from . import room
from .chunks import chunks
from .conjugate_draws import draw_gamma
from .normal_cells import LOG_DENSITY, Cells, cell_ends, log_cell_probability
from .segment_sums import class_sums
from .slice_draw import slice_draw
from .truncated_normal import SMALL_CELL, draw_in_cells

#: Of the shares' Dirichlet prior: as a rating of each level.
CONCENTRATION = 2.0
#: Ratings of a level below which the cuts about it are also moved by slices: their density is skew.
_RARE = 10
_ROOT_HALF = math.sqrt(0.5)


class CutDensity:
    """The prior density of cut points about the centre.

    Parameters
    ----------
    middles : sequence of float
        Midpoints of neighbouring levels, one a cut, in any unit.
    spread : float
        Standard deviation of the Normal whose cells have Dirichlet shares.
    bend : float
        t: how far cuts are expected to be from any even spacing; infinite where nothing is said of it.
    """

    def __init__(self, middles: Sequence[float], spread: float, bend: float = math.inf) -> None:
        n = len(middles)  # Two cuts are always evenly spaced, and an infinite bend makes a pull of zero.
        self.spread, self.bend = spread, bend if n > 2 else math.inf
        points = torch.tensor(middles, dtype=torch.float64)
        #: Orthonormal vectors (n, 2) whose span is the even spacings.
        self.even: Tensor = torch.linalg.qr(torch.stack([torch.ones(n, dtype=points.dtype), points], 1)).Q
        self._even = self.even.mT.tolist()
        #: Dimensions in which cuts are expected to be even.
        self.bent = n - 2 if math.isfinite(self.bend) else 0
        self._shape = 0.5 * (self.bent + 1)

    def log_density(self, cuts: Tensor) -> Tensor:
        """Return the log-density of ascending cuts (*batch, n), float64, up to a constant; of none, zero."""
        if not cuts.shape[-1]:
            return cuts.sum(-1)
        found = self.log_cells(cuts) - 0.5 * (cuts / self.spread).square().sum(-1)
        return found - self._shape * (self.uneven(cuts).square().sum(-1) / self.bend**2).log1p()

    def log_cells(self, cuts: Tensor) -> Tensor:
        """Return the logarithm of the product of the cells' probabilities: minus infinity out of order."""
        levels = torch.arange(cuts.shape[-1] + 1, device=cuts.device)
        ends = cell_ends(torch.zeros_like(cuts[..., :1]), self.spread, cuts.unsqueeze(-2), levels)
        found: Tensor = log_cell_probability(*ends).sum(-1)
        return found.masked_fill(~(cuts.diff() > 0).all(-1), -math.inf)

    def of_numbers(self, cuts: list[float]) -> float:
        """Do as `log_density` for plain numbers, as slices need it often: minus infinity out of order."""
        ends = [-math.inf, *(cut / self.spread for cut in cuts), math.inf]
        total = -0.5 * sum(end * end for end in ends[1:-1])
        for low, high in pairwise(ends):
            if not low < high:
                return -math.inf
            # Mirrored below zero, where a difference of two small tails keeps its digits.
            near, far = (-high, -low) if low > 0 else (low, high)
            above = math.erfc(-far * _ROOT_HALF)
            share = above - math.erfc(-near * _ROOT_HALF)
            if share > 1e-9 * above and share > 1e-290:
                total += math.log(0.5 * share)
            else:
                a, b = (torch.tensor(end, dtype=torch.float64) for end in (low, high))
                total += float(log_cell_probability(a, b))
        if self.bent:
            left = cuts
            for direction in self._even:
                along = sum(a * b for a, b in zip(direction, left, strict=True))
                left = [cut - along * a for a, cut in zip(direction, left, strict=True)]
            total -= self._shape * math.log1p(sum(r * r for r in left) / self.bend**2)
        return total

    def uneven(self, cuts: Tensor) -> Tensor:
        """Return r, what no even spacing explains of cuts (*batch, n)."""
        if self.even.device != cuts.device:  # moved once: a host that copies waits
            self.even = self.even.to(cuts.device)
        return cuts - (cuts @ self.even) @ self.even.mT

    def draw_pull(self, cuts: Tensor) -> Tensor:
        """Draw the pull, (), given cuts (n,): zero where nothing is bent."""
        rate = self._pull_rate(cuts)
        return draw_gamma(torch.full_like(rate, self._shape), rate)

    def expected_pull(self, cuts: Tensor) -> Tensor:
        """Return its mean given cuts, with which the log-density has the same gradient."""
        return self._shape / self._pull_rate(cuts)

    def _pull_rate(self, cuts: Tensor) -> Tensor:
        return 0.5 * (self.bend**2 + self.uneven(cuts).square().sum())


@dataclass(frozen=True, eq=False)
class _Point:
    """The log-posterior of cuts, and its first two derivatives."""

    height: Tensor
    gradient: Tensor
    root: Tensor  # Cholesky factor of the negative Hessian
    cells: Cells | None  # of the ratings; None where these are too many to be kept

    def newton(self, cuts: Tensor) -> Tensor:
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


def _parts(eta: Tensor) -> list[slice]:
    """Return slices of the ratings: one on a card, whose work is not to be cut, and where they are few."""
    n = len(eta)
    if n <= RATINGS_AT_ONCE or room.waits(eta.device):
        return [slice(0, n)]
    return list(chunks(n, RATINGS_AT_ONCE))


def _at(
    cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor, prior: CutDensity, pull: Tensor | None = None
) -> _Point:
    """Return the log-posterior at cuts: of them alone, or given a pull."""
    found = (_of_cells(cuts, eta[part], scale[part], place[part]) for part in _parts(eta))
    said = reduce(_Terms.plus, found)
    levels = torch.arange(len(cuts) + 1, device=cuts.device)
    centre = torch.zeros(len(levels), dtype=cuts.dtype, device=cuts.device)
    cells = _of_cells(cuts, centre, torch.full_like(centre, prior.spread), levels)
    identity, height = torch.eye(len(cuts), dtype=cuts.dtype, device=cuts.device), said.height
    if pull is None:
        pull, height = prior.expected_pull(cuts), height + prior.log_density(cuts)
    else:
        height = height + cells.height - 0.5 * (cuts / prior.spread).square().sum()
        height = height - 0.5 * pull * prior.uneven(cuts).square().sum()
    back = cuts / prior.spread**2 + pull * prior.uneven(cuts)
    root = _factorised(
        said.hessian + cells.hessian + identity / prior.spread**2 + pull * prior.uneven(identity)
    )
    return _Point(height, said.gradient + cells.gradient - back, root, said.cells)


def _of_cells(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor) -> _Terms:
    """Return what the cells of Normals say of the cuts."""
    cells = Cells.of(eta, scale, cuts, place)
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
    # The ends of the scale are edges too: what is summed there is left out, as they do not move.
    n = len(cuts) + 2
    nothing = torch.zeros(n, dtype=eta.dtype, device=eta.device)

    def by_edge(at_low: Tensor, at_high: Tensor) -> Tensor:
        return class_sums(at_high, place + 1, class_sums(at_low, place, nothing))

    gradient = by_edge(from_low, from_high)[1:-1]
    diagonal = by_edge(from_low**2 + from_low * a / scale, from_high**2 + from_high * b / scale)[1:-1]
    between = class_sums(from_low * from_high, place, nothing)
    off = between[1 : n - 2]
    hessian = torch.diag(diagonal) + torch.diag(off, 1) + torch.diag(off, -1)
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
    here = _at(cuts, eta, scale, place, prior)
    for _ in range(steps):
        there = here.newton(cuts)
        for _ in range(60):
            if bool((there.diff() > 0).all()):
                new = _at(there, eta, scale, place, prior)
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
    here, good = _at(cuts, eta, scale, place, prior), torch.ones((), dtype=torch.bool, device=cuts.device)
    for _ in range(steps):
        cuts = here.newton(cuts)
        new = _at(cuts, eta, scale, place, prior)
        good = good & (cuts.diff() > 0).all() & _no_lower(new, here)
        here = new
    return cuts, good


def _no_lower(new: _Point, here: _Point) -> Tensor:
    """Return whether a step has not gone down, but for rounding."""
    return new.height >= here.height - 1e-9 * here.height.abs()


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
    here = _at(cuts, eta, scale, place, prior, pull)
    noise = torch.randn(len(cuts), dtype=eta.dtype, device=eta.device)
    there = here.newton(cuts) + torch.linalg.solve_triangular(
        here.root.mT, noise.unsqueeze(-1), upper=True
    ).squeeze(-1)
    chance = math.log(max(float(torch.rand(()).numpy()), 1e-300))
    new = _at(there, eta, scale, place, prior, pull)
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

    found = [drawn(part) for part in _parts(eta)]
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
