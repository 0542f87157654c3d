"""The mean of all train ratings, for everybody and everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.effects import variance_floor
from pyro_bmf.baselines.new_users import NewUserAnswers
from pyro_bmf.data import Ratings


class GlobalMean(Baseline):
    """Predict the train mean.

    The predictive variance is the train variance with n − 1 degrees of freedom, times 1 + 1/n for the
    estimated mean; with one train rating it is that of a uniform on the scale. A user or item without train
    ratings is predicted like any other. All scores are equal: its lists are the first items of the
    catalogue and say nothing, so `evaluate_with_references` gives it no ranking figures.
    """

    name = "global-mean"
    ranks = False
    mean: float
    variance: float

    def learn(self, train: Ratings, valid: Ratings | None) -> None:
        """Take mean and variance; there is nothing to choose by `valid`."""
        del valid
        n = len(train)
        self.mean = float(train.ratings.mean())
        if n > 1:
            variance = float(train.ratings.var(ddof=1)) * (1 + 1 / n)
        else:
            variance = (train.scale.high - train.scale.low) ** 2 / 12
        self.variance = max(variance, variance_floor(train))

    def moments(
        self, users: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean and the variance, for every pair."""
        return np.full(users.shape, self.mean), np.full(users.shape, self.variance)

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the mean, for every item."""
        return np.full((users.size, self.train.n_items), self.mean, dtype=np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return both numbers."""
        return {"mean": np.array(self.mean), "variance": np.array(self.variance)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take both back."""
        self.mean, self.variance = float(state["mean"]), float(state["variance"])

    def new_user(self, items: NDArray[np.int64], ratings: NDArray[np.float64]) -> NewUserAnswers:
        """Predict what is predicted for everybody."""
        del items, ratings
        mean, variance = (np.full(self.n_items, value) for value in (self.mean, self.variance))
        return NewUserAnswers(mean, variance, mean)
