"""Rows that were not there when the model was fitted: their posterior comes from the encoder alone.

Nothing is trained, and a folded-in row enters no other row's encoder: what is known of all others stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from ..data.scale import RatingScale
from ..data.validation import rating_array
from ..data.vocabulary import Vocabulary
from ..errors import DataError
from ..methods.cross_feedback.guide import Side
from ..model.rows import Rows
from ..numerics.keyed_draws import Stream
from ..numerics.ranked_lists import Exclusion
from ..systems.raw_ids import candidate_indices, check_count, id_values, need_columns, pair_indices, titled
from .encoding import Guide, feedback_of
from .predictive import PairPredictive
from .tables import (
    RATING_COLUMNS,
    Indices,
    Kind,
    Method,
    check_kind,
    prediction_columns,
    recommendation_places,
)

NewRatings: TypeAlias = Mapping[Any, float] | pd.Series | pd.DataFrame | Iterable[tuple[Any, float]]
ManyNewRatings: TypeAlias = pd.DataFrame | Mapping[Any, NewRatings]


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
    rows : RowPosterior or RowDraws
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
        values = prediction_columns(
            self.pairs, users, items, self.scale, interval=interval, method="predictive", clip=False
        )
        table = pd.DataFrame(
            {
                f"{self.side}_id": self.vocabulary.raw(own[places]),
                "rank": ranks,
                f"{self.others.kind}_id": self.others.raw(columns),
                **{name: values[name] for name in RATING_COLUMNS if name in values},
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


@dataclass(frozen=True, eq=False)
class CheckedRatings:
    """New rows' ratings after the checks: places in the new vocabulary, indices of the other side, values."""

    vocabulary: Vocabulary
    rows: Indices
    columns: Indices
    ratings: NDArray[np.float64]


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


def checked_many(
    ratings: ManyNewRatings, side: str, others: Vocabulary, scale: RatingScale
) -> CheckedRatings:
    """Check the ratings of many new rows.

    Raises
    ------
    UnknownIdError
        Naming ids of the other side that the model does not know.
    DataError
        For ratings that are not finite numbers or off the scale, a pair given twice, or missing columns.
    """
    own_name, other_name = f"{side}_id", f"{others.kind}_id"
    if isinstance(ratings, pd.DataFrame):
        need_columns(ratings, (own_name, other_name, "rating"), "new ratings")
        other_ids, values = _pairs(ratings, other_name)
        codes, distinct = pd.factorize(id_values(ratings[own_name]))
        vocabulary = Vocabulary(distinct, side)
        rows = vocabulary.index(distinct)[codes] if len(codes) else np.zeros(0, dtype=np.int64)
    elif not isinstance(ratings, Mapping):
        raise DataError(
            f"ratings of many new rows must be a mapping of {own_name} to ratings, or a data frame with "
            f"columns {own_name}, {other_name} and rating, not {ratings!r:.80}"
        )
    else:
        lists = {row_id: _pairs(given, other_name) for row_id, given in ratings.items()}
        vocabulary = Vocabulary(list(lists), side)
        sizes = [len(one[0]) for one in lists.values()]
        rows = np.repeat(vocabulary.index(list(lists)), sizes)
        other_ids = [other_id for one in lists.values() for other_id in one[0]]
        values = [value for one in lists.values() for value in one[1]]
    return CheckedRatings(vocabulary, rows, *_checked(rows, other_ids, values, side, others, scale))


def checked_one(ratings: NewRatings, side: str, others: Vocabulary, scale: RatingScale) -> CheckedRatings:
    """Check the ratings of one new row, which has the id 0; raises as `checked_many` does."""
    other_ids, values = _pairs(ratings, f"{others.kind}_id")
    rows = np.zeros(len(other_ids), dtype=np.int64)
    vocabulary = Vocabulary(np.zeros(1, dtype=np.int64), side)
    return CheckedRatings(vocabulary, rows, *_checked(rows, other_ids, values, side, others, scale))


def _pairs(ratings: NewRatings, other_name: str) -> tuple[Any, Any]:
    if isinstance(ratings, pd.DataFrame):
        need_columns(ratings, (other_name, "rating"), "new ratings")
        return id_values(ratings[other_name]), ratings["rating"].to_numpy()
    wanted = (
        f"new ratings must be ({other_name}, rating) pairs, a mapping, a series whose index holds the "
        f"{other_name}s, or a data frame"
    )
    if isinstance(ratings, pd.Series):
        if ratings.index.nlevels != 1:
            raise DataError(f"{wanted}: the series' index has {ratings.index.nlevels} levels")
        return id_values(ratings.index.to_series()), ratings.to_numpy()
    try:
        pairs = list(ratings.items()) if isinstance(ratings, Mapping) else [tuple(pair) for pair in ratings]
    except TypeError:
        raise DataError(f"{wanted}, not {ratings!r:.80}") from None
    if any(len(pair) != 2 for pair in pairs):
        raise DataError(wanted)
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _checked(
    rows: Indices, other_ids: Any, values: Any, side: str, others: Vocabulary, scale: RatingScale
) -> tuple[Indices, NDArray[np.float64]]:
    columns = others.index(other_ids)
    ratings = rating_array(values, f"the ratings of a new {side}")
    raw = others.raw(columns)

    def refuse(wrong: NDArray[np.bool_], what: str) -> None:
        if bool(wrong.any()):
            at = int(np.argmax(wrong))
            raise DataError(
                f"the new rating {ratings[at]:g} of {others.kind} {raw[at : at + 1].tolist()[0]!r} {what}"
            )

    refuse(~np.isfinite(ratings), "is not a finite number: leave it out or mend it")
    # A continuous scale that was read off the training ratings is no law for new ones.
    if scale.step is not None or scale.source != "inferred":
        refuse(scale.off_scale(ratings), f"is not on the rating scale {scale}")
    key = rows * len(others) + columns
    again = np.ones(len(key), dtype=bool)
    again[np.unique(key, return_index=True)[1]] = False
    refuse(again, f"is the second one for this {side}: give one a pair")
    return columns, ratings
