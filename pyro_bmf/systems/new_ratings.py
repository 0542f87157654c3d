"""Ratings of rows that were not there when a system was fitted: read in any form, and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.scale import RatingScale
from ..data.validation import rating_array
from ..data.vocabulary import Vocabulary
from ..errors import DataError
from .raw_ids import Indices, id_values, need_columns

NewRatings: TypeAlias = Mapping[Any, float] | pd.Series | pd.DataFrame | Iterable[tuple[Any, float]]
ManyNewRatings: TypeAlias = pd.DataFrame | Mapping[Any, NewRatings]


@dataclass(frozen=True, eq=False)
class CheckedRatings:
    """New rows' ratings after the checks: places in the new vocabulary, indices of the other side, values."""

    vocabulary: Vocabulary
    rows: Indices
    columns: Indices
    ratings: NDArray[np.float64]


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
