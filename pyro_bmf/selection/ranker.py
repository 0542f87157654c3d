"""A recommender as evaluation asks systems: lists of items by what will be chosen and liked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..numerics.ranked_lists import Exclusion
from ..systems.contract import Advance, BasePredictor, FittedTo
from .horizon import Floats, Horizon
from .product import Decision
from .rated_sets import Indices
from .recommender import Recommender


class ProductRanker(BasePredictor):
    """Ranks by ``liked`` or by ``chosen``; predicts ratings as the posterior does.

    Parameters
    ----------
    recommender : Recommender
    by : {"liked", "chosen"}
    horizon : Horizon, optional
        Which ratings the probabilities are about, where a part is measured: that part.
    """

    screens_catalogue = True

    def __init__(self, recommender: Recommender, by: str = "liked", horizon: Horizon | None = None) -> None:
        self.posterior = recommender.posterior
        self.how = Decision(by)
        self.product = recommender.product(horizon=horizon)
        self.name = f"by {by}"

    @property
    def fitted_to(self) -> FittedTo:
        """What the posterior was fitted to."""
        return self.posterior.fitted_to

    def predict_mean(self, users: Indices, items: Indices) -> NDArray[Any]:
        """Return what pairs are ranked by: a probability."""
        chosen, liking = self.product.chosen_and_liking(users, items)
        return chosen if self.how.by == "chosen" else chosen * liking

    def predict_sd(self, users: Indices, items: Indices) -> NDArray[Any]:
        """Return the ratings' standard deviations."""
        return self.posterior.predict_sd(users, items)

    def predict_pmf(self, users: Indices, items: Indices, levels: Floats) -> NDArray[Any]:
        """Return the ratings' probabilities."""
        return self.posterior.predict_pmf(users, items, levels)

    def score_items(self, users: Indices) -> NDArray[Any]:
        """Return what all items are ranked by, (n_users, n_items)."""
        n_items = self.posterior.n_items
        own, items = np.repeat(users, n_items), np.tile(np.arange(n_items), len(users))
        return self.predict_mean(own, items).reshape(len(users), n_items)

    def best_items(
        self, users: Indices, n: int, exclusion: Exclusion | None, advance: Advance | None = None
    ) -> Indices:
        """Return each user's `n` best items, exactly, visiting few of them."""
        lists = np.full((len(users), n), -1, dtype=np.int64)
        allowed = np.arange(self.posterior.n_items)
        for part, items, _ in self.product.best(users, n, allowed, exclusion, self.how):
            lists[part] = items
            if advance is not None:
                advance(len(items))
        return lists
