"""A level for each user and each item, without interaction."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.effects import Effects, fit_effects
from pyro_bmf.data import Ratings


class BiasOnly(Baseline):
    """Predict centre + user effect + item effect, both shrunk by learned variances (see `fit_effects`).

    The predictive variance is noise + the posterior variances of the two effects. A user or item without
    train ratings has effect 0 and the prior's variance, so it is predicted by the rest, with more width.

    Attributes
    ----------
    effects : Effects
        What was learned.
    """

    name: ClassVar[str] = "bias-only"
    effects: Effects

    def _fit(self, train: Ratings) -> None:
        self.effects = fit_effects(train)

    def _moments(
        self, users: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        e = self.effects
        mean = e.centre + e.user_loc[users] + e.item_loc[items]
        return mean, e.noise_variance + e.user_variance[users] + e.item_variance[items]

    def _scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        # The user's effect moves all scores of a list alike; without it, close items cannot tie by rounding
        # for some users and not for others.
        scores = (self.effects.centre + self.effects.item_loc).astype(np.float32)
        return np.broadcast_to(scores, (users.size, scores.size))
