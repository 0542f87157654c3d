r"""Ratings binarised: whether a rating is above a threshold is Bernoulli.

.. math:: P(x > t \mid \eta) = \sigma(\eta).

Within either class a rating has the training ratings' own frequencies, whatever the pair: so the likelihood
gives the probability of each rating, and a mean in rating units, and can be compared with any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...errors import SettingsError
from .level_distribution import LevelProbabilities
from .normal import Likelihood, refuse_noise
from .rating_levels import check_levels, same_levels


class BernoulliLikelihood(Likelihood):
    """A rating by whether it is above a threshold.

    Parameters
    ----------
    levels : sequence of float
        The scale's levels, ascending; at least two.
    threshold : float, optional
        A rating above it is a one; the middle of the scale when not given.

    Raises
    ------
    SettingsError
        If levels do not ascend, or none is on one side of the threshold.
    """

    density = "sigmoid(eta) if x > threshold else 1 - sigmoid(eta), times the level's training frequency"
    called = "Bernoulli"
    levels: Tensor
    log_frequencies: Tensor

    def __init__(self, levels: Sequence[float], threshold: float | None = None) -> None:
        super().__init__()
        given = [float(level) for level in levels]
        if len(given) < 2 or any(b <= a for a, b in pairwise(given)):
            raise SettingsError(f"levels are {given}: a Bernoulli of them needs two or more, ascending.")
        self.threshold = (given[0] + given[-1]) / 2 if threshold is None else float(threshold)
        if not given[0] <= self.threshold < given[-1]:
            raise SettingsError(
                f"threshold is {self.threshold:g}: levels from {given[0]:g} to {given[-1]:g} need one on "
                "either side of it."
            )
        self._given = given
        self.register_buffer("levels", torch.tensor(given, dtype=torch.float64))
        above = self.levels > self.threshold
        start = torch.where(above, 1.0 / above.sum(), 1.0 / (~above).sum())
        self.register_buffer("log_frequencies", start.log())

    def check(self, ratings: np.ndarray) -> None:
        """Raise DataError for the first rating that is no level."""
        check_levels(ratings, self._given, f"the {self.called} likelihood")

    def start(self, ratings: np.ndarray) -> None:
        """Take the levels' frequencies within their classes, one added to each count."""
        levels = np.array(self._given)
        places = np.abs(ratings[:, None] - levels).argmin(axis=1)
        counts = np.bincount(places, minlength=len(levels)) + 1.0
        above = levels > self.threshold
        totals = np.where(above, counts[above].sum(), counts[~above].sum())
        with torch.no_grad():
            self.log_frequencies.copy_(torch.from_numpy(np.log(counts / totals)))

    def predictor_centre(self, centre: Tensor) -> Tensor:
        """Return the log-odds of a one at which the mean rating is `centre`."""
        low, high = self._class_means()
        share = ((centre.double() - low) / (high - low)).clamp(0.01, 0.99)
        return torch.logit(share).to(centre.dtype)

    def forward(self, eta: Tensor, relative: Tensor | None = None) -> TorchDistribution:
        """Return the distribution of ratings."""
        return LevelProbabilities(self._log_cells(eta, relative), self.levels)

    def log_prob_rating(self, eta: Tensor, levels: Tensor, relative: Tensor | None = None) -> Tensor:
        """Return the log-probability of each level; the levels must be the likelihood's own."""
        same_levels(levels, self._given, f"the {self.called} likelihood")
        return self._log_cells(eta.double(), relative)

    def settings(self) -> dict[str, Any]:
        """Return the kind, the levels and the threshold."""
        return {"kind": "bernoulli", "levels": self._given, "threshold": self.threshold}

    def _class_means(self) -> tuple[Tensor, Tensor]:
        share, above = self.log_frequencies.exp(), self.levels > self.threshold
        return (share * self.levels)[~above].sum(), (share * self.levels)[above].sum()

    def _log_cells(self, eta: Tensor, relative: Tensor | None) -> Tensor:
        refuse_noise(relative, self)
        signs = torch.where(self.levels > self.threshold, 1.0, -1.0).to(eta)
        return logsigmoid(eta.unsqueeze(-1) * signs) + self.log_frequencies.to(eta)
