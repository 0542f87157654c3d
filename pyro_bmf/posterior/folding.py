"""Rows that were not there when the model was fitted: their posterior comes from the encoder alone.

Nothing is trained, and a folded-in row enters no other row's encoder: what is known of all others stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from ..data.scale import RatingScale
from ..data.vocabulary import Vocabulary
from ..model.fitted import Guide, Rows, Side
from ..numerics.keyed_draws import Stream
from ..numerics.ranked_lists import Exclusion
from ..systems.new_ratings import CheckedRatings
from ..systems.raw_ids import candidate_indices, check_count, pair_indices, titled
from .encoding import feedback_of
from .predictive import PairPredictive
from .tables import (
    Indices,
    Kind,
    Method,
    check_kind,
    prediction_columns,
    rating_columns,
    recommendation_places,
)


@dataclass(frozen=True, eq=False)
class FoldedRows:
    """Folded-in rows of one side, predicted with all rows of the other.

    Attributes
    ----------
    side : {"user", "item"}
        Which side the new rows are on.
    vocabulary : Vocabulary
        Ids of the new rows, ascending: their order in `rows`. They are a name space of their own; an id may
        be that of a row of the model, which stays as it is.
    rows : Rows
        What the guide says of them.
    others : Vocabulary
        Ids of the other side.
    """

    side: str
    vocabulary: Vocabulary
    rows: Rows
    others: Vocabulary
    scale: RatingScale
    item_titles: NDArray[Any] | None
    pairs: PairPredictive
    seen: Exclusion

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"FoldedRows({len(self)} new {self.side}s)"

    @property
    def counts(self) -> Indices:
        """Number of ratings each row was folded in with, shape (n_rows,)."""
        return np.diff(self.seen.starts)

    def __getitem__(self, row_id: Any) -> FoldedRow:
        """Return one of the rows by its id."""
        return FoldedRow(self, int(self.vocabulary.index(row_id)[0]))

    def predict(
        self,
        row_ids: Any,
        other_ids: Any,
        *,
        interval: float = 0.9,
        method: Method = "predictive",
        clip: bool = False,
    ) -> pd.DataFrame:
        """Predict ratings of new rows with rows of the other side; columns as `Posterior.predict`."""
        own, other = self._pair(row_ids, other_ids)
        users, items = self._sides(own, other)
        table = pd.DataFrame(
            {
                f"{self.side}_id": self.vocabulary.raw(own),
                f"{self.others.kind}_id": self.others.raw(other),
                **prediction_columns(
                    self.pairs, users, items, self.scale, interval=interval, method=method, clip=clip
                ),
            }
        )
        return table

    def sample(
        self, row_ids: Any, other_ids: Any, num_samples: int, seed: int, *, kind: Kind = "rating"
    ) -> NDArray[np.float32]:
        """Draw pairs jointly, as `Posterior.sample` does, shape (num_samples, n)."""
        users, items = self._sides(*self._pair(row_ids, other_ids))
        return self.pairs.sample(
            users, items, check_count("num_samples", num_samples), seed, check_kind(kind)
        )

    def recommend(
        self,
        row_ids: Any = None,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: ArrayLike | None = None,
        interval: float = 0.9,
    ) -> pd.DataFrame:
        """Return the best `n` rows of the other side for each new row; columns as `Posterior.recommend`.

        New users are recommended items; for new items these are the users whose predicted rating is highest.
        """
        own = np.arange(len(self)) if row_ids is None else self.vocabulary.index(row_ids)
        places, ranks, columns = recommendation_places(
            self.pairs,
            own,
            candidate_indices(candidates, self.others),
            check_count("n", n),
            self.seen if exclude_seen else None,
            len(self.others),
            by_item=self.side == "item",
        )
        users, items = self._sides(own[places], columns)
        table = pd.DataFrame(
            {
                f"{self.side}_id": self.vocabulary.raw(own[places]),
                "rank": ranks,
                f"{self.others.kind}_id": self.others.raw(columns),
                **rating_columns(self.pairs, users, items, self.scale, interval),
            }
        )
        return titled(table, self.item_titles, items) if self.side == "user" else table

    def _pair(self, row_ids: Any, other_ids: Any) -> tuple[Indices, Indices]:
        return pair_indices(row_ids, other_ids, self.vocabulary, self.others)

    def _sides(self, own: Indices, other: Indices) -> tuple[Indices, Indices]:
        return (own, other) if self.side == "user" else (other, own)


@dataclass(frozen=True, eq=False)
class FoldedRow:
    """One folded-in row: what `FoldedRows` offers, without an id to name it by."""

    all_rows: FoldedRows
    index: int

    @property
    def posterior(self) -> Rows:
        """The row's own posterior: one row."""
        rows = self.all_rows.rows
        return rows.select(torch.tensor([self.index], device=rows.device))

    @property
    def count(self) -> int:
        """Number of ratings it was folded in with."""
        return int(self.all_rows.counts[self.index])

    def __repr__(self) -> str:
        return f"FoldedRow(a new {self.all_rows.side} with {self.count} rating{'s' * (self.count != 1)})"

    def predict(
        self, ids: Any, *, interval: float = 0.9, method: Method = "predictive", clip: bool = False
    ) -> pd.DataFrame:
        """Predict its ratings with the rows `ids` of the other side; see `Posterior.predict`."""
        table = self.all_rows.predict(self._id, ids, interval=interval, method=method, clip=clip)
        return table.drop(columns=f"{self.all_rows.side}_id")

    def sample(self, ids: Any, num_samples: int, seed: int, *, kind: Kind = "rating") -> NDArray[np.float32]:
        """Draw its ratings (or predictors) with the rows `ids` jointly, shape (num_samples, n)."""
        return self.all_rows.sample(self._id, ids, num_samples, seed, kind=kind)

    def recommend(
        self,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: ArrayLike | None = None,
        interval: float = 0.9,
    ) -> pd.DataFrame:
        """Return the best `n` rows of the other side; see `Posterior.recommend`."""
        table = self.all_rows.recommend(
            self._id, n, exclude_seen=exclude_seen, candidates=candidates, interval=interval
        )
        return table.drop(columns=f"{self.all_rows.side}_id")

    @property
    def _id(self) -> Any:
        return self.all_rows.vocabulary.raw([self.index])[0]


def fold_rows(
    new: CheckedRatings,
    side: Side,
    guide: Guide,
    pairs: PairPredictive,
    others: Vocabulary,
    scale: RatingScale,
    item_titles: NDArray[Any] | None,
) -> FoldedRows:
    """Encode new rows and put them where the model's own rows of that side stand in `pairs`.

    Raises
    ------
    DataError
        If a rating is outside the likelihood's support.
    """
    if len(new.ratings):
        pairs.likelihood.check(new.ratings)
    n_rows = len(new.vocabulary)
    rows = guide.encode_side(
        side, feedback_of(new.rows, new.columns, new.ratings, n_rows, len(others), pairs.model)
    )
    if side == "user":
        pairs = replace(pairs, users=rows, user_stream=Stream.FOLDED_USERS)
    else:
        pairs = replace(pairs, items=rows, item_stream=Stream.FOLDED_ITEMS)
    seen = Exclusion.of_pairs(new.rows, new.columns, n_rows)
    return FoldedRows(side, new.vocabulary, rows, others, scale, item_titles, pairs, seen)
