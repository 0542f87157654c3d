r"""By how much rows differ in their noise, drawn with utilities integrated out and rows in their order.

Rows multiply the noise's precision by w ~ Gamma(a, a). Given utilities, multipliers are known better than
ratings know them, and the spread :math:`a^{-1/2}` creeps with them: where it is small, most of what
utilities say of it is what it was when they were drawn. The move of one side by t,

.. math:: w_i \to w_i^t, \qquad a \to a / t^2,

leaves multipliers their pattern and changes how large it is. It is the orbit of a group, of multiplications
of log w: a draw from its conditional under Haar's measure dt / t leaves the posterior as it is (Liu and
Sabatti 2000, doi 10.1093/biomet/87.2.353), and given a pattern ratings say much of t. With s = log t,
a' = a / t^2 and x = t log w, the priors and the Jacobian are

.. math::

   n \left(a' \log a' - a' - \log \Gamma(a')\right) - a' \sum_i (e^{x_i} - 1 - x_i) + n s
   + \log p_0(\log a'),

and ratings add the logarithms of their cells' probabilities. All sides move at once by Metropolis-Hastings
with the proposal of one Newton step, of Student's t, in which the information of the ratings is the sum of
squares of their scores. Utilities must be drawn anew right after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..normal_cells import Cells
from .newton import edge_scores, parts

#: Shapes from which on differences of Gamma functions are taken by Stirling's series.
_LARGE = 1e4
#: Information that is added to every coordinate: no step is expected to be longer than one.
_RIDGE = 1.0
#: Degrees of freedom of the proposals. From where there is next to no spread, of which ratings say little, a
#: Normal one would hardly ever lead back: its tails from there are too light.
_FREEDOM = 4


@dataclass(frozen=True, eq=False)
class NoisyRows:
    """One side's multipliers of the noise's precision.

    Attributes
    ----------
    logs : Tensor, shape (n_rows,), float64
        log w.
    shape : Tensor, shape (), float64
        a.
    of : Tensor, shape (nnz,)
        Row of each rating.
    rate : float
        Of the Exponential prior of the spread.
    """

    logs: Tensor
    shape: Tensor
    of: Tensor
    rate: float

    def moved(self, t: Tensor) -> NoisyRows:
        """Return the rows after a move by t ()."""
        return replace(self, logs=t * self.logs, shape=self.shape / t**2)

    def prior(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log-density but for n s, its slope by s with that at s = 0, and how it curves down."""
        a, x, n = self.shape, self.logs, len(self.logs)
        grown = torch.expm1(x)
        over, along, square = (grown - x).sum(), (x * grown).sum(), (x * x * (grown + 1.0)).sum()
        near, far = a.clamp_max(_LARGE), a.clamp_min(_LARGE)
        small = a < _LARGE
        # f = a log a - a - log Gamma(a), a f', and a trigamma(a) - 1.
        direct = near * near.log() - near - torch.lgamma(near)
        series = 0.5 * (far / (2.0 * math.pi)).log() - 1.0 / (12.0 * far)
        first = torch.where(small, near * (near.log() - torch.digamma(near)), 0.5 + 1.0 / (12.0 * far))
        second = torch.where(small, near * torch.polygamma(1, near) - 1.0, 0.5 / far + 1.0 / (6.0 * far**2))
        spread = a.rsqrt()
        height = n * torch.where(small, direct, series) - a * over - self.rate * spread - 0.5 * a.log()
        slope = -2.0 * n * first + 2.0 * a * over - a * along + n - self.rate * spread + 1.0
        curved = 4.0 * n * (first - a * second) - 4.0 * a * over + 3.0 * a * along - a * square
        return height, slope, self.rate * spread - curved


class _Point(NamedTuple):
    """Where a chain stands: what is known of all sides' s there, () or (m,) or (m, m)."""

    height: Tensor
    gradient: Tensor
    root: Tensor  # Cholesky factor of the information

    def newton(self) -> Tensor:
        return torch.cholesky_solve(self.gradient.unsqueeze(-1), self.root).squeeze(-1)


def draw_spreads(
    rows: Sequence[NoisyRows], cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor
) -> Tensor:
    """Draw the factors t (m,) of all sides that have noise of their own, utilities integrated out.

    Parameters
    ----------
    rows : sequence of NoisyRows
        Of m sides.
    cuts, eta, scale, place : Tensor
        As of `cuts.draws.draw_cuts_and_utilities`; `scale` as multipliers are now.
    """
    still = eta.new_zeros(len(rows))
    here = _point_at(still, rows, cuts, eta, scale, place)
    normal = torch.randn(len(rows) + _FREEDOM, dtype=eta.dtype, device=eta.device)
    noise = normal[_FREEDOM:] * (normal[:_FREEDOM].square().mean()).rsqrt()
    step = torch.linalg.solve_triangular(here.root.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)
    s = here.newton() + step
    there = _point_at(s, rows, cuts, eta, scale, place)
    back = there.root.mT @ (-s - there.newton())
    ratio = there.height - here.height + _log_density(there.root, back) - _log_density(here.root, noise)
    chance = torch.rand((), device=eta.device).double().clamp_min(1e-300).log()
    return torch.where(chance < ratio, s, still).exp()


def _point_at(
    s: Tensor, rows: Sequence[NoisyRows], cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor
) -> _Point:
    """Return what is known after a move by s (m,) from where the standard deviations are `scale`."""
    t, found = s.exp(), s.new_zeros(len(rows), len(rows))
    priors = [one.moved(by).prior() for one, by in zip(rows, t, strict=True)]
    height, slope, curved = (torch.stack(one) for one in zip(*priors, strict=True))
    total = (height + torch.stack([len(one.logs) * step for one, step in zip(rows, s, strict=True)])).sum()
    # By rows first: there are fewer of them than ratings.
    by_row = [(-0.5 * (by - 1.0) * one.logs).exp() for one, by in zip(rows, t, strict=True)]
    for part in parts(eta):
        logs = torch.stack([one.logs.index_select(0, one.of[part]) for one in rows])
        sd = scale[part]
        for one, factors in zip(rows, by_row, strict=True):
            sd = sd * factors.index_select(0, one.of[part])
        cells = Cells.of(eta[part], sd, cuts, place[part])
        log_share, from_low, from_high = edge_scores(cells, sd)
        low, high = (end.masked_fill(end.isinf(), 0.0) for end in (cells.low, cells.high))
        scores = logs.mul_(low.mul_(from_low).add_(high.mul_(from_high)).mul_(sd))
        total = total + log_share.sum()
        slope = slope + 0.5 * t * scores.sum(1)
        found = found + scores @ scores.mT
    found = 0.25 * found * torch.outer(t, t)
    information = found + torch.diag(curved.clamp_min(0.0) + _RIDGE)
    return _Point(total, slope, torch.linalg.cholesky_ex(information).L)


def _log_density(root: Tensor, noise: Tensor) -> Tensor:
    """Return the log-density of a step, up to a constant, given what it is in units of the information."""
    return root.diagonal().log().sum() - 0.5 * (_FREEDOM + len(noise)) * (noise @ noise / _FREEDOM).log1p()
