r"""The ordered logistic: ratings as the cells of a logistic utility, with learned cut points.

.. math:: P(x = l_k \mid \eta) = \sigma\left(\frac{c_k - \eta}{s}\right) - \sigma\left(\frac{c_{k-1} -
\eta}{s}\right), \qquad c_0 = -\infty, \; c_L = \infty.

Utility, predictor and cuts are in rating units, and s is fixed: all L - 1 cuts are then identified.
McCullagh (1980), doi 10.1111/j.2517-6161.1980.tb01109.x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ..errors import SettingsError
from .discrete_rating import LevelProbabilities
from .levels import check_levels, same_levels
from .likelihoods import Likelihood


class OrderedLogisticLikelihood(Likelihood):
    """Ratings on a discrete scale by an ordered logistic with learned cut points.

    Parameters
    ----------
    levels : sequence of float
        The scale's levels, ascending; at least two.
    scale : float
        s, in rating units: a convention that fixes the unit. 0.45 gives the utility a standard deviation
        of about 0.8.

    Raises
    ------
    SettingsError
        If there are fewer than two levels, they do not ascend, or `scale` is not positive.
    """

    density = "sigmoid((c_k - eta) / s) - sigmoid((c_(k-1) - eta) / s) for the k-th level"
    levels: Tensor

    def __init__(self, levels: Sequence[float], scale: float = 0.45) -> None:
        super().__init__()
        given = [float(level) for level in levels]
        if len(given) < 2 or any(b <= a for a, b in pairwise(given)):
            raise SettingsError(f"levels are {given}: an ordered logistic needs two or more, ascending.")
        if not (math.isfinite(scale) and scale > 0.0):
            raise SettingsError(f"scale is {scale!r}: give a positive number.")
        self._given, self.scale = given, float(scale)
        self.register_buffer("levels", torch.tensor(given, dtype=torch.float64))
        middle = (self.levels[1:] + self.levels[:-1]) / 2
        self.first_cut = nn.Parameter(middle[0].clone())
        self.log_gaps = nn.Parameter(middle.diff().log())

    @property
    def cuts(self) -> Tensor:
        """The cut points, shape (n_levels - 1,), ascending, rating units."""
        return torch.cat([self.first_cut.reshape(1), self.first_cut + self.log_gaps.exp().cumsum(0)])

    def check(self, ratings: np.ndarray) -> None:
        """Raise DataError for the first rating that is no level."""
        check_levels(ratings, self._given, "the ordered logistic likelihood")

    def forward(self, eta: Tensor, relative: Tensor | None = None) -> TorchDistribution:
        """Return the distribution of ratings; `relative` multiplies s."""
        return LevelProbabilities(self._log_cells(eta, relative), self.levels)

    def log_prob_rating(self, eta: Tensor, levels: Tensor, relative: Tensor | None = None) -> Tensor:
        """Return the log-probability of each level; the levels must be the likelihood's own."""
        same_levels(levels, self._given, "the ordered logistic likelihood")
        return self._log_cells(eta.double(), relative)

    def log_prob_observed(
        self, eta: Tensor, places: Tensor, levels: Tensor, relative: Tensor | None = None
    ) -> Tensor:
        """Return the log-probability of one level for each predictor, at a level's share of the cost."""
        same_levels(levels, self._given, "the ordered logistic likelihood")
        scale = self.scale if relative is None else self.scale * relative.to(eta.dtype)
        far = self.cuts.new_full((1,), 1e6)
        cuts = torch.cat([-far, self.cuts, far]).to(eta.dtype)
        low, high = (cuts[places] - eta) / scale, (cuts[places + 1] - eta) / scale
        return logsigmoid(high) + logsigmoid(-low) + torch.log(-torch.expm1(low - high))

    def settings(self) -> dict[str, Any]:
        """Return the kind, the levels and s."""
        return {"kind": "ordered-logistic", "levels": self._given, "scale": self.scale}

    def _log_cells(self, eta: Tensor, relative: Tensor | None) -> Tensor:
        scale = self.scale if relative is None else self.scale * relative.to(eta.dtype).unsqueeze(-1)
        edges = (self.cuts.to(eta.dtype) - eta.unsqueeze(-1)) / scale
        low, high = edges[..., :-1], edges[..., 1:]
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): nothing is lost to cancellation.
        inner = logsigmoid(high) + logsigmoid(-low) + torch.log(-torch.expm1(low - high))
        return torch.cat([logsigmoid(edges[..., :1]), inner, logsigmoid(-edges[..., -1:])], dim=-1)
