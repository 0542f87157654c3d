"""A level for each user and each item, without interaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.effects import Effects, fit_effects
from pyro_bmf.baselines.new_users import NewUserAnswers
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

    name = "bias-only"
    effects: Effects

    def learn(self, train: Ratings, valid: Ratings | None) -> None:
        """Fit both effects; there is nothing to choose by `valid`."""
        del valid
        self.effects = fit_effects(train)

    def moments(
        self, users: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sums of effects and of variances."""
        e = self.effects
        mean = e.centre + e.user_loc[users] + e.item_loc[items]
        return mean, e.noise_variance + e.user_variance[users] + e.item_variance[items]

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the items' effects, for everybody."""
        # The user's effect moves all scores of a list alike; without it, close items cannot tie by rounding
        # for some users and not for others.
        scores = (self.effects.centre + self.effects.item_loc).astype(np.float32)
        return np.broadcast_to(scores, (users.size, scores.size))

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the effects, by name."""
        return self.effects.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take the effects back."""
        self.effects = Effects.of_state(state, self.train)

    def new_user(self, items: NDArray[np.int64], ratings: NDArray[np.float64]) -> NewUserAnswers:
        """Give the user the posterior of its effect, the items' effects being what they are."""
        e = self.effects
        shrunk = len(ratings) + e.noise_variance / e.user_prior_variance
        own = float((ratings - e.centre - e.item_loc[items]).sum()) / shrunk
        variance = e.noise_variance + e.noise_variance / shrunk + e.item_variance
        return NewUserAnswers(e.centre + own + e.item_loc, variance, e.centre + e.item_loc)
