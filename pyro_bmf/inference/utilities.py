r"""What an ordered probit's chain draws: cut points with the utilities integrated out, then the utilities.

Cuts are moved by Metropolis-Hastings with the proposal of one Newton step, :math:`N(c + H^{-1} g, H^{-1})`
for gradient g and negative Hessian H of the log-likelihood at c; with thousands of ratings the target is
nearly that Normal and nearly every proposal is taken. Given the cuts a utility is a truncated Normal,
drawn by inversion. Cowles (1996), doi 10.1007/BF00162520, on why cuts and utilities must not be drawn one
given the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_FAR = 1e6
_ROOT_HALF = math.sqrt(0.5)


def _cdf(z: Tensor) -> Tensor:
    result: Tensor = 0.5 * torch.special.erfc(z * -_ROOT_HALF)
    return result


@dataclass(frozen=True, eq=False)
class _Point:
    """The log-likelihood of cuts, and its first two derivatives."""

    height: float
    gradient: Tensor
    root: Tensor  # Cholesky factor of the negative Hessian
    low: Tensor
    high: Tensor

    def newton(self, cuts: Tensor) -> Tensor:
        return cuts + torch.cholesky_solve(self.gradient.unsqueeze(-1), self.root).squeeze(-1)


def _at(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor) -> _Point:
    edges = torch.cat([cuts.new_full((1,), -_FAR), cuts, cuts.new_full((1,), _FAR)])
    a, b = (edges[place] - eta) / scale, (edges[place + 1] - eta) / scale
    low, high = _cdf(a), _cdf(b)
    share = (high - low).clamp_min(1e-300)
    density = 1.0 / (math.sqrt(2.0 * math.pi) * scale)
    from_low = -(-0.5 * a * a).exp() * density / share
    from_high = (-0.5 * b * b).exp() * density / share
    n = len(edges)

    def by_edge(at_low: Tensor, at_high: Tensor) -> Tensor:
        total = torch.zeros(n, dtype=eta.dtype, device=eta.device)
        return total.index_add_(0, place, at_low).index_add_(0, place + 1, at_high)

    gradient = by_edge(from_low, from_high)[1:-1]
    diagonal = by_edge(from_low**2 + from_low * a / scale, from_high**2 + from_high * b / scale)[1:-1]
    between = torch.zeros(n, dtype=eta.dtype, device=eta.device).index_add_(0, place, from_low * from_high)
    off = between[1 : n - 2]
    hessian = torch.diag(diagonal) + torch.diag(off, 1) + torch.diag(off, -1)
    # The log-likelihood is concave (Pratt 1981); a level that nobody gave leaves its cuts flat.
    root = torch.linalg.cholesky(hessian + 1e-3 * torch.eye(len(cuts), dtype=eta.dtype, device=eta.device))
    return _Point(float(share.log().sum()), gradient, root, low, high)


def fit_cuts(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor, *, steps: int = 8) -> Tensor:
    """Return the most likely cuts given predictors, by Newton steps that keep them in order."""
    for _ in range(steps):
        there = _at(cuts, eta, scale, place).newton(cuts)
        while not bool((there.diff() > 0).all()):
            there = 0.5 * (there + cuts)
        cuts = there
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
    return cuts, draw_truncated(eta, scale, here.low, here.high)


def draw_truncated(eta: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Draw N(eta, scale^2) whose distribution function lies between `low` and `high`, by inversion."""
    share = low + (high - low) * torch.rand_like(low)
    drawn: Tensor = eta + scale * torch.special.ndtri(share.clamp(1e-15, 1.0 - 1e-15))
    return drawn
