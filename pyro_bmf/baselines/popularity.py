"""The items that most users rated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.baselines.ranking_only import RankingOnly
from pyro_bmf.data import Ratings


class Popularity(RankingOnly):
    """Rank items by their number of train ratings, those without any last; predict an item's shrunk mean.

    Attributes
    ----------
    item_counts : numpy.ndarray
        (n_items,) train ratings of each item: the scores.
    """

    name = "popularity"
    item_counts: NDArray[np.int64]

    def learn_scores(self, train: Ratings, valid: Ratings | None) -> None:
        """Count; there is nothing to choose by `valid`."""
        del valid
        self.item_counts = train.item_counts

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the counts, for everybody."""
        # float32 counts exactly up to 16.7 million ratings of one item
        scores = self.item_counts.astype(np.float32)
        return np.broadcast_to(scores, (users.size, scores.size))

    def scores_state(self) -> dict[str, NDArray[Any]]:
        """Return nothing: the counts are those of the ratings."""
        return {}

    def restore_scores(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Count again."""
        del state
        self.item_counts = self.train.item_counts

    def new_user_scores(self, items: NDArray[np.int64], ratings: NDArray[np.float64]) -> NDArray[Any]:
        """Return the counts."""
        del items, ratings
        return self.item_counts
