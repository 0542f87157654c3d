r"""The ordered logistic: ratings as the cells of a logistic utility, with learned cut points.

.. math:: P(x = l_k \mid \eta) = \sigma\left(\frac{c_k - \eta}{s}\right) - \sigma\left(\frac{c_{k-1} -
\eta}{s}\right), \qquad c_0 = -\infty, \; c_L = \infty.

Utility, predictor and cuts are in rating units, and s is fixed: all L - 1 cuts are then identified.
McCullagh (1980), doi 10.1111/j.2517-6161.1980.tb01109.x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...errors import SettingsError
from ...numerics.normal_cells import cell_ends, midway
from ..pair_terms import Relative
from .level_distribution import LevelProbabilities
from .ordered import OrderedLikelihood
from .rating_levels import same_levels


class OrderedLogisticLikelihood(OrderedLikelihood):
    """Ratings on a discrete scale by an ordered logistic with learned cut points.

    Parameters
    ----------
    levels : sequence of float
        The scale's levels, ascending; at least two.
    scale : float
        s, in rating units: a convention that fixes the unit. 0.45 gives the utility a standard deviation
        of about 0.8.
    cuts : {"shared", "user"}
        Whether users have cut points of their own, which shrink towards the shared ones.

    Raises
    ------
    SettingsError
        As `OrderedLikelihood`, or if `scale` is not positive.
    """

    density = "sigmoid((c_k - eta) / s) - sigmoid((c_(k-1) - eta) / s) for the k-th level"
    called = "ordered logistic"

    def __init__(self, levels: Sequence[float], scale: float = 0.45, cuts: str = "shared") -> None:
        super().__init__(levels, cuts)
        if not (math.isfinite(scale) and scale > 0.0):
            raise SettingsError(f"scale is {scale!r}: give a positive number.")
        self.scale = float(scale)

    def forward(self, eta: Tensor, relative: Relative | None = None) -> TorchDistribution:
        """Return the distribution of ratings; `relative` multiplies s."""
        return LevelProbabilities(self._log_cells(eta, relative), self.levels)

    def log_prob_rating(self, eta: Tensor, levels: Tensor, relative: Relative | None = None) -> Tensor:
        """Return the log-probability of each level; the levels must be the likelihood's own."""
        same_levels(levels, self._given, "the ordered logistic likelihood")
        return self._log_cells(eta.double(), relative)

    def log_prob_observed(
        self, eta: Tensor, places: Tensor, levels: Tensor, relative: Relative | None = None
    ) -> Tensor:
        """Return the log-probability of one level for each predictor, at a level's share of the cost."""
        same_levels(levels, self._given, "the ordered logistic likelihood")
        more = self.pair_scale(relative)
        scale = self.scale if more is None else self.scale * more.to(eta.dtype)
        low, high = cell_ends(eta, scale, self.pair_cuts(relative).to(eta.dtype), places)
        return logsigmoid(high) + logsigmoid(-low) + torch.log(-torch.expm1(low - high))

    def log_prob_of(self, ratings: Tensor, eta: Tensor, *relative: Any) -> Tensor:
        """Return the log-probability of ratings' levels: the same numbers, one level's and not all."""
        places = torch.bucketize(ratings, midway(self.levels)).expand_as(eta)
        return self.log_prob_observed(eta, places, self.levels, *relative)

    def settings(self) -> dict[str, Any]:
        """Return the kind, the levels, s and whose the cuts are."""
        found = {"kind": "ordered-logistic", "levels": self._given, "scale": self.scale}
        return found if self.cuts_by == "shared" else {**found, "cuts": self.cuts_by}

    def _log_cells(self, eta: Tensor, relative: Relative | None) -> Tensor:
        more = self.pair_scale(relative)
        scale = self.scale if more is None else self.scale * more.to(eta.dtype).unsqueeze(-1)
        edges = (self.pair_cuts(relative).to(eta.dtype) - eta.unsqueeze(-1)) / scale
        low, high = edges[..., :-1], edges[..., 1:]
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): nothing is lost to cancellation.
        inner = logsigmoid(high) + logsigmoid(-low) + torch.log(-torch.expm1(low - high))
        return torch.cat([logsigmoid(edges[..., :1]), inner, logsigmoid(-edges[..., -1:])], dim=-1)
