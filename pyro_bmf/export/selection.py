"""Which rows and which observed ratings an export holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..data.ratings import Ratings
from ..data.splits import Split
from ..errors import DataError, SettingsError
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices
from ..systems.raw_ids import id_values, need_columns

#: Rows of a side that are taken when nothing is asked for.
DEFAULT_ROWS = 50


@dataclass(frozen=True, eq=False)
class Subset:
    """What is asked for, by raw ids.

    Attributes
    ----------
    part : {"train", "valid", "test"}
        Whose ratings are the observed data.
    user_ids, item_ids : raw id or sequence or None
        Rows, with the observed ratings between them. One side alone takes the other side's rows that it was
        rated with.
    pairs : DataFrame or None
        Observed pairs instead, by columns ``user_id`` and ``item_id``.
    """

    part: str = "train"
    user_ids: Any = None
    item_ids: Any = None
    pairs: pd.DataFrame | None = None


@dataclass(frozen=True, eq=False)
class Selection:
    """Which rows and which observed ratings the groups hold.

    Attributes
    ----------
    users, items : ndarray
        Indices of the rows, ascending.
    pair_users, pair_items : ndarray, shape (n_pairs,)
        Places of each pair's user and item in `users` and `items`.
    ratings : ndarray, shape (n_pairs,)
    """

    users: Indices
    items: Indices
    pair_users: Indices
    pair_items: Indices
    ratings: NDArray[np.float64]


def select(posterior: Posterior, split: Split | None, subset: Subset, *, everything: bool) -> Selection:
    """Work out which rows and pairs are meant.

    Where none are named: all if `everything`, else the users and the items with most training ratings.

    Raises
    ------
    UnknownIdError, DataError
        For ids that are unknown, or pairs that were not observed.
    SettingsError
        For a part that there is not, another split, or pairs beside rows.
    """
    observed = _observed(posterior, split, subset.part)
    if subset.pairs is not None and (subset.user_ids is not None or subset.item_ids is not None):
        raise SettingsError("give either pairs or user_ids and item_ids, not both.")
    users = None if subset.user_ids is None else np.unique(posterior.user_vocabulary.index(subset.user_ids))
    items = None if subset.item_ids is None else np.unique(posterior.item_vocabulary.index(subset.item_ids))
    if subset.pairs is not None:
        return _select_rows(observed, _pair_rows(posterior, observed, subset.pairs), None, None)
    if users is None and items is None and everything:
        rows = np.arange(len(observed))
        return _select_rows(observed, rows, np.arange(observed.n_users), np.arange(observed.n_items))
    if users is None and items is None:
        users, items = _most_rated(posterior.train.user_counts), _most_rated(posterior.train.item_counts)
    keep = np.ones(len(observed), dtype=bool)
    for chosen, column in ((users, observed.users), (items, observed.items)):
        if chosen is not None:
            keep &= np.isin(column, chosen)
    return _select_rows(observed, np.flatnonzero(keep), users, items)


def _observed(posterior: Posterior, split: Split | None, part: str) -> Ratings:
    if part not in ("train", "valid", "test"):
        raise SettingsError(f"part is {part!r}: it may be train, valid or test.")
    if split is None:
        if part != "train":
            raise SettingsError(
                f"part is {part!r}: give the split, the posterior holds only its training part."
            )
        return posterior.train
    ratings = split.ratings
    if (
        ratings.user_vocabulary != posterior.user_vocabulary
        or ratings.item_vocabulary != posterior.item_vocabulary
    ):
        raise SettingsError(
            "the split has other users or items than the posterior: give the one that was fitted."
        )
    # After a refit the encoders have read more than the train part.
    observed: Ratings = posterior.train if part == "train" else getattr(split, part)
    return observed


def _select_rows(
    observed: Ratings, rows: NDArray[np.int64], users: ArrayLike | None, items: ArrayLike | None
) -> Selection:
    own_users = np.unique(observed.users[rows]) if users is None else np.asarray(users, dtype=np.int64)
    own_items = np.unique(observed.items[rows]) if items is None else np.asarray(items, dtype=np.int64)
    return Selection(
        own_users,
        own_items,
        np.searchsorted(own_users, observed.users[rows]),
        np.searchsorted(own_items, observed.items[rows]),
        observed.ratings[rows],
    )


def _pair_rows(posterior: Posterior, observed: Ratings, pairs: pd.DataFrame) -> NDArray[np.int64]:
    need_columns(pairs, ("user_id", "item_id"), "pairs")
    users = posterior.user_vocabulary.index(id_values(pairs["user_id"]))
    items = posterior.item_vocabulary.index(id_values(pairs["item_id"]))
    keys = observed.users * observed.n_items + observed.items
    wanted = users * observed.n_items + items
    rows = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    missing = keys[rows] != wanted if len(keys) else np.ones(len(wanted), dtype=bool)
    if bool(missing.any()):
        at = int(np.argmax(missing))
        user, item = pairs["user_id"].tolist()[at], pairs["item_id"].tolist()[at]
        raise DataError(
            f"user {user!r} and item {item!r} are not an observed pair: only ratings "
            "that were observed have a likelihood."
        )
    return rows


def _most_rated(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.lexsort((np.arange(len(counts)), -counts))
    return np.sort(order[:DEFAULT_ROWS])
