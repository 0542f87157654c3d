"""The mean of all train ratings, for everybody and everything."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.effects import variance_floor
from pyro_bmf.data import Ratings


class GlobalMean(Baseline):
    """Predict the train mean.

    The predictive variance is the train variance with n − 1 degrees of freedom, times 1 + 1/n for the
    estimated mean; with one train rating it is that of a uniform on the scale. A user or item without train
    ratings is predicted like any other. All scores are equal: its lists are the first items of the
    catalogue and say nothing, so `evaluate_with_references` gives it no ranking figures.
    """

    name: ClassVar[str] = "global-mean"

    def _fit(self, train: Ratings) -> None:
        n = len(train)
        self.mean = float(train.ratings.mean())
        if n > 1:
            variance = float(train.ratings.var(ddof=1)) * (1 + 1 / n)
        else:
            variance = (train.scale.high - train.scale.low) ** 2 / 12
        self.variance = max(variance, variance_floor(train))

    def _moments(
        self, users: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.full(users.shape, self.mean), np.full(users.shape, self.variance)

    def _scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.full((users.size, self.train.n_items), self.mean, dtype=np.float32)
