"""The items that most users rated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.effects import Effects, fit_effects
from pyro_bmf.baselines.new_users import NewUserAnswers
from pyro_bmf.data import Ratings


class Popularity(Baseline):
    """Rank items by their number of train ratings; predict an item's shrunk mean.

    A count says nothing about a rating, so the predictions are those of centre + item effect (`fit_effects`
    without users), whose variance is noise + the effect's posterior variance. An item without train ratings
    is ranked last and predicted at the centre; users are all alike.

    Attributes
    ----------
    effects : Effects
        What was learned for prediction.
    item_counts : numpy.ndarray
        (n_items,) train ratings of each item: the scores.
    """

    name = "popularity"
    effects: Effects
    item_counts: NDArray[np.int64]

    def learn(self, train: Ratings, valid: Ratings | None) -> None:
        """Count, and fit the items' effects; there is nothing to choose by `valid`."""
        del valid
        self.effects = fit_effects(train, user_effects=False)
        self.item_counts = train.item_counts

    def moments(
        self, users: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the items' levels and their variances."""
        e = self.effects
        return e.centre + e.item_loc[items], e.noise_variance + e.item_variance[items]

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the counts, for everybody."""
        # float32 counts exactly up to 16.7 million ratings of one item
        scores = self.item_counts.astype(np.float32)
        return np.broadcast_to(scores, (users.size, scores.size))

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the effects, by name."""
        return self.effects.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take the effects back."""
        self.effects = Effects.of_state(state, self.train)
        self.item_counts = self.train.item_counts

    def new_user(self, items: NDArray[np.int64], ratings: NDArray[np.float64]) -> NewUserAnswers:
        """Predict what is predicted for everybody."""
        del items, ratings
        e = self.effects
        return NewUserAnswers(e.centre + e.item_loc, e.noise_variance + e.item_variance, self.item_counts)
