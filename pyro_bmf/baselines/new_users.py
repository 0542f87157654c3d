"""New users of a baseline: predicted and recommended to as `pyro_bmf.systems.contract.NewRow` has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pyro_bmf.data import Ratings
from pyro_bmf.numerics.cell_arrays import normal_pmf
from pyro_bmf.numerics.top_n import top_n
from pyro_bmf.systems.predictions import (
    LevelPredictions,
    NormalPredictions,
    PairPredictions,
    rating_columns,
)
from pyro_bmf.systems.raw_ids import candidate_indices, check_count, titled

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class NewUserAnswers:
    """What a system says of one new user.

    Attributes
    ----------
    mean, variance : ndarray, shape (n_items,)
        Of the rating of each item.
    scores : ndarray, shape (n_items,)
        Larger is better.
    pmf : ndarray, shape (n_items, L), optional
        Probability of each level of the scale; cells of a Normal where a system has none of its own.
    """

    mean: Floats
    variance: Floats
    scores: NDArray[Any]
    pmf: Floats | None = None


@dataclass(frozen=True, eq=False)
class NewUser:
    """A user that was not there at the fit.

    Attributes
    ----------
    answers : NewUserAnswers
    train : Ratings
        What the system was fitted to: its items, scale and titles.
    rated : ndarray of int
        Indices of the items that the user rated.
    """

    answers: NewUserAnswers
    train: Ratings
    rated: Indices

    def predict(self, ids: Any, *, interval: float = 0.9, clip: bool = False) -> pd.DataFrame:
        """Predict ratings of the items `ids`; columns ``item_id`` and those of `rating_columns`."""
        items = self.train.item_vocabulary.index(ids)
        return pd.DataFrame(
            {
                "item_id": self.train.item_vocabulary.raw(items),
                **rating_columns(self._said(items), self.train.scale, interval=interval, clip=clip),
            }
        )

    def recommend(
        self,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: ArrayLike | None = None,
        interval: float = 0.9,
    ) -> pd.DataFrame:
        """Return the `n` items with the highest scores, equal ones by item id."""
        allowed = np.zeros(self.train.n_items, dtype=np.bool_)
        allowed[candidate_indices(candidates, self.train.item_vocabulary)] = True
        if exclude_seen:
            allowed[self.rated] = False
        scores = np.where(allowed, self.answers.scores.astype(np.float64), -np.inf)
        best = top_n(scores[None], check_count("n", n))[0]
        items = best[best >= 0]
        table = pd.DataFrame(
            {
                "rank": np.arange(1, len(items) + 1),
                "item_id": self.train.item_vocabulary.raw(items),
                **rating_columns(self._said(items), self.train.scale, interval=interval),
            }
        )
        return titled(table, self.train.item_titles, items)

    def _said(self, items: Indices) -> PairPredictions:
        mean, sd = self.answers.mean[items], np.sqrt(self.answers.variance[items])
        levels = self.train.scale.levels
        if levels is None:
            return NormalPredictions(mean, sd, None)
        own = self.answers.pmf
        return LevelPredictions(mean, sd, normal_pmf(mean, sd, levels) if own is None else own[items], levels)
