"""Mean ratings and probabilities to like of pairs, from one look at their predictive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from ..data.scale import RatingScale
from ..numerics.chunks import CELLS, chunks
from ..posterior.predictive import PairPredictive
from .horizon import Floats
from .rated_sets import Indices


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predicted ratings of pairs on their scale.

    Attributes
    ----------
    pairs : PairPredictive
    scale : RatingScale
    """

    pairs: PairPredictive
    scale: RatingScale

    def mean(self, users: Indices, items: Indices) -> Floats:
        """Return the predicted mean rating of pairs, (n,)."""
        return self.mean_and_liking(users, items, self.scale.liked_above)[0]

    def mean_and_liking(self, users: Indices, items: Indices, threshold: float) -> tuple[Floats, Floats]:
        """Return the mean rating and P(rating > threshold) of pairs, should they be rated, (n,) each.

        The mean is that of the scale's levels, where it has any.
        """
        levels = self.scale.levels
        if levels is None:
            mean, sd = self.pairs.rating_moments(users, items)
            found: Floats = ndtr((mean - threshold) / np.maximum(sd, 1e-12))
            return mean, found
        means, liking = np.empty(len(users)), np.empty(len(users))
        for part in chunks(len(users), CELLS // len(levels)):
            pmf = self.pairs.pmf(users[part], items[part], levels)
            means[part] = pmf @ levels
            liking[part] = pmf[:, levels > threshold].sum(axis=1)
        return means, np.clip(liking, 0.0, 1.0)
