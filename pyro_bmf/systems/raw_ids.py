"""Raw ids in and out of a fitted system: pairs, candidates, exclusions and titles, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..data.ratings import Ratings
from ..data.vocabulary import Vocabulary
from ..errors import DataError, SettingsError
from ..numerics.ranked_lists import Exclusion

Indices = NDArray[np.int64]


def pair_indices(
    user_ids: Any, item_ids: Any, users: Vocabulary, items: Vocabulary
) -> tuple[Indices, Indices]:
    """Return indices of pairs of raw ids; one id on either side goes with all of the other.

    Raises
    ------
    UnknownIdError
        Naming the ids that are not known.
    DataError
        If the two sides have different lengths.
    """
    u, v = users.index(user_ids), items.index(item_ids)
    if np.ndim(user_ids) == 0:
        u = np.repeat(u, len(v))
    elif np.ndim(item_ids) == 0:
        v = np.repeat(v, len(u))
    if len(u) != len(v):
        raise DataError(
            f"{len(u)} user ids and {len(v)} item ids: pairs need as many of one as of the other, or one id"
        )
    return u, v


def check_interval(interval: float) -> float:
    """Return the probability of an interval, or raise SettingsError."""
    if not 0.0 < interval < 1.0:
        raise SettingsError(f"interval is {interval}: give a probability between 0 and 1, such as 0.9.")
    return float(interval)


def check_count(name: str, value: int) -> int:
    """Return a number of things, or raise SettingsError unless it is at least 1."""
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise SettingsError(f"{name} is {value!r}: give a whole number of at least 1.")
    return int(value)


def checked_indices(indices: ArrayLike, size: int, kind: str) -> Indices:
    """Return indices of rows as int64, shape (n,).

    Raises
    ------
    SettingsError
        If they are not integers in one dimension.
    DataError
        Naming the first that is outside 0..size - 1: -1 is not the last row.
    """
    found: NDArray[Any] = np.atleast_1d(np.asarray(indices))
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise SettingsError(f"{kind} indices must be a one-dimensional array of integers.")
    outside = (found < 0) | (found >= size)
    if outside.any():
        raise DataError(f"{kind} index {found[outside][0]} is outside 0..{size - 1}.")
    return found.astype(np.int64, copy=False)


def candidate_indices(candidates: ArrayLike | None, vocabulary: Vocabulary) -> Indices:
    """Return the columns to choose from, ascending, each once: all when `candidates` is None."""
    if candidates is None:
        return np.arange(len(vocabulary))
    return np.unique(vocabulary.index(candidates))


def need_columns(table: pd.DataFrame, names: tuple[str, ...], what: str) -> None:
    """Raise DataError if a column is missing."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(
            f"{what} have no column {', '.join(missing)}: the columns {', '.join(names)} are needed, "
            f"found {', '.join(map(str, table.columns)) or 'none'}"
        )


def id_values(ids: pd.Series[Any]) -> NDArray[Any]:
    """Return the ids in a column: integers stay integers, text becomes an object array."""
    values: NDArray[Any] = ids.to_numpy() if ids.dtype.kind in "iu" else ids.to_numpy(dtype=object)
    return values


def exclusion_of(train: Ratings, exclude_seen: bool, more: Ratings | pd.DataFrame | None) -> Exclusion | None:
    """Return the pairs that a recommendation leaves out; see `Posterior.recommend`."""
    parts = [(train.users, train.items)] if exclude_seen else []
    if isinstance(more, Ratings):
        if (more.user_vocabulary, more.item_vocabulary) != (train.user_vocabulary, train.item_vocabulary):
            raise SettingsError("exclude has other users or items than this posterior: give it as raw ids.")
        parts.append((more.users, more.items))
    elif more is not None:
        need_columns(more, ("user_id", "item_id"), "the pairs to exclude")
        users = train.user_vocabulary.index(id_values(more["user_id"]))
        parts.append((users, train.item_vocabulary.index(id_values(more["item_id"]))))
    if not parts:
        return None
    rows, columns = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return Exclusion.of_pairs(rows, columns, train.n_users)


def titled(table: pd.DataFrame, titles: NDArray[Any] | None, items: Indices) -> pd.DataFrame:
    """Put a title beside each item id, "" where unknown."""
    text = np.full(len(items), "", dtype=object) if titles is None else titles[items]
    table.insert(int(table.columns.get_loc("item_id")) + 1, "title", text)
    return table
