r"""The prior of an ordered probit's cut points.

About the predictors' centre it is the one under which the cells of a Normal of standard deviation `spread`
have shares from a Dirichlet distribution with all concentrations 2:

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
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..conjugate_draws import draw_gamma
from ..normal_cells import cell_ends, log_cell_probability

#: Of the shares' Dirichlet prior: as a rating of each level.
CONCENTRATION = 2.0
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
