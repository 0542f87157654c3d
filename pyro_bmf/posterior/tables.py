"""Tables of predictions and recommendations: arguments checked, raw ids in and out."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..data.scale import RatingScale
from ..errors import SettingsError
from ..numerics.chunks import CELLS, chunks
from ..numerics.level_sets import set_words, smallest_sets
from ..numerics.ranked_lists import Exclusion, best_columns, ordered_by
from ..systems.raw_ids import check_interval
from .predictive import PairPredictive

Indices = NDArray[np.int64]
Method = Literal["predictive", "plugin"]
Kind = Literal["rating", "eta"]


def check_kind(kind: str) -> str:
    """Return what is drawn, or raise SettingsError."""
    if kind not in ("rating", "eta"):
        raise SettingsError(f"kind is {kind!r}: it may be 'rating' or 'eta' (the predictor).")
    return kind


def prediction_columns(
    pairs: PairPredictive,
    users: Indices,
    items: Indices,
    scale: RatingScale,
    *,
    interval: float,
    method: str,
    clip: bool,
) -> dict[str, NDArray[Any]]:
    """Return the columns of `Posterior.predict` but for the ids."""
    if method not in ("predictive", "plugin"):
        raise SettingsError(f"method is {method!r}: it may be 'predictive' or 'plugin'.")
    interval = check_interval(interval)
    mean, sd = pairs.rating_moments(users, items)
    if method == "plugin":
        mean = pairs.plugin_mean(users, items)
    _, mean_sd = pairs.mean_moments(users, items)
    lower, upper = pairs.rating_interval(users, items, interval, scale.levels)
    mean_lower, mean_upper = pairs.mean_interval(users, items, interval)
    limit = scale.clip if clip else np.asarray
    sets = {} if scale.levels is None else _set_columns(pairs, users, items, scale.levels, interval)
    return {
        "mean": limit(mean),
        "sd": sd,
        "lower": limit(lower),
        "upper": limit(upper),
        **sets,
        "mean_sd": mean_sd,
        "mean_lower": limit(mean_lower),
        "mean_upper": limit(mean_upper),
    }


#: Columns of one rating that recommendations have too; the sets on a discrete scale alone.
RATING_COLUMNS = ("mean", "sd", "lower", "upper", "smallest_set", "set_probability")


def rating_columns(
    pairs: PairPredictive, users: Indices, items: Indices, scale: RatingScale, interval: float
) -> dict[str, NDArray[Any]]:
    """Return the columns of one rating that recommendations have."""
    values = prediction_columns(
        pairs, users, items, scale, interval=interval, method="predictive", clip=False
    )
    return {name: values[name] for name in RATING_COLUMNS if name in values}


def _set_columns(
    pairs: PairPredictive, users: Indices, items: Indices, levels: NDArray[np.float64], probability: float
) -> dict[str, NDArray[Any]]:
    """Return the smallest sets of levels as text, and their probabilities, a part of the pairs at a time."""
    words, held = np.empty(len(users), dtype=object), np.empty(len(users))
    for part in chunks(len(users), CELLS // len(levels)):
        inside, held[part] = smallest_sets(pairs.pmf(users[part], items[part], levels), probability)
        words[part] = set_words(inside, levels)
    return {"smallest_set": words, "set_probability": held}


def recommendation_places(
    pairs: PairPredictive,
    rows: Indices,
    candidates: Indices,
    n: int,
    exclusion: Exclusion | None,
    n_columns: int,
    *,
    by_item: bool = False,
) -> tuple[Indices, Indices, Indices]:
    """Find the best columns of each row and order them by predictive mean: (place in rows, rank, column).

    Rows are users and columns items, or the other way round when `by_item`.
    """

    def score(rows: Indices, columns: Indices) -> NDArray[np.float32]:
        return pairs.score(columns, rows).T.copy() if by_item else pairs.score(rows, columns)

    places, columns = best_columns(score, rows, candidates, n, exclusion, n_columns)
    users, items = (columns, rows[places]) if by_item else (rows[places], columns)
    order, ranks = ordered_by(pairs.rating_moments(users, items)[0], places, columns)
    return places[order], ranks, columns[order]
