"""Ratings: the frozen, canonical table that everything else reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from .reading.counts import ReadCounts
from .reading.times import TICKS
from .scale import RatingScale
from .vocabulary import Vocabulary

__all__ = ["RatingScale", "Ratings", "Vocabulary"]


@dataclass(frozen=True, eq=False)
class Ratings:
    """Observed ratings in canonical order: rows sorted by (user, item), one row a pair, arrays read-only.

    Use `load_ratings` or `ratings_from_arrays` to make one from a file or from columns of raw ids.

    Attributes
    ----------
    users, items
        Positions in the vocabularies, int64, shape (n,).
    ratings
        Values in rating units, float64, shape (n,), all finite.
    timestamps
        Times since 1970 (or whatever the file counts in), int64, shape (n,); None where there are none.
    user_vocabulary, item_vocabulary
        Raw ids; they may hold users and items without a rating here.
    scale
        The rating scale.
    item_titles
        Text for each item, object array of shape (n_items,), "" where unknown; None without titles.
    name
        What the data are called in tables.
    ticks_per_second
        In which parts of a second `timestamps` count: 1 for whole seconds (or whatever the file counts in),
        1,000, 1,000,000 or 1,000,000,000 where some have fractions.
    counts
        How the lines or rows that these ratings were read from were used; None where they were not read.

    Raises
    ------
    DataError
        When arrays disagree in length, hold positions outside the vocabularies or non-finite ratings, or are
        not in canonical order.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.float64]
    timestamps: NDArray[np.int64] | None
    user_vocabulary: Vocabulary
    item_vocabulary: Vocabulary
    scale: RatingScale
    item_titles: NDArray[Any] | None = None
    name: str = field(default="ratings")
    ticks_per_second: int = 1
    counts: ReadCounts | None = None

    def __post_init__(self) -> None:
        """Check shapes, ranges and order once, and make every array read-only."""
        n = len(self.ratings)
        if self.ticks_per_second not in TICKS:
            raise DataError(f"ticks_per_second={self.ticks_per_second!r}: use one of {TICKS}")
        columns = {"users": np.int64, "items": np.int64, "ratings": np.float64, "timestamps": np.int64}
        for name, dtype in columns.items():
            array = getattr(self, name)
            if array is None and name == "timestamps":
                continue
            if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != (n,):
                raise DataError(f"{name} must be a {np.dtype(dtype).name} array of shape ({n},)")
            object.__setattr__(self, name, _frozen(array))
        for name, size in (("users", self.n_users), ("items", self.n_items)):
            array = getattr(self, name)
            if n and not (int(array.min()) >= 0 and int(array.max()) < size):
                raise DataError(f"{name} hold a position outside 0..{size - 1}")
        if n and not bool(np.isfinite(self.ratings).all()):
            raise DataError("ratings hold a value that is not finite")
        before, after = slice(None, -1), slice(1, None)
        same_user = self.users[after] == self.users[before]
        ordered = np.where(
            same_user, self.items[after] > self.items[before], self.users[after] > self.users[before]
        )
        if not bool(ordered.all()):
            raise DataError("rows must be sorted by (user, item), each pair once: use ratings_from_arrays")
        if self.item_titles is not None:
            if self.item_titles.shape != (self.n_items,):
                raise DataError(f"item_titles must have shape ({self.n_items},), one title an item")
            object.__setattr__(self, "item_titles", _frozen(self.item_titles))

    @property
    def n_users(self) -> int:
        """Number of users in the vocabulary, with or without a rating."""
        return len(self.user_vocabulary)

    @property
    def n_items(self) -> int:
        """Number of items in the vocabulary, with or without a rating."""
        return len(self.item_vocabulary)

    def __len__(self) -> int:
        return len(self.ratings)

    def __repr__(self) -> str:
        return (
            f"Ratings({self.name!r}: {len(self):,} ratings, {self.n_users:,} users, {self.n_items:,} items, "
            f"scale {self.scale})"
        )

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over users, items, ratings, timestamps and raw ids, as hexadecimal digits.

        The order of rows in the file, titles, the name and the scale leave it unchanged.
        """
        state = hashlib.sha256(b"pyro-bmf ratings 1\n")
        state.update(f"{self.user_vocabulary.digest} {self.item_vocabulary.digest}\n".encode())
        state.update(np.ascontiguousarray(self.users, dtype="<i8").data)
        state.update(np.ascontiguousarray(self.items, dtype="<i8").data)
        state.update(np.ascontiguousarray(self.ratings, dtype="<f8").data)
        if self.timestamps is not None:
            # Whole seconds hash as they did before there were fractions of them.
            ticks = "" if self.ticks_per_second == 1 else f" {self.ticks_per_second}"
            state.update(f"timestamps{ticks}\n".encode())
            state.update(np.ascontiguousarray(self.timestamps, dtype="<i8").data)
        return state.hexdigest()

    def take(self, rows: ArrayLike) -> Ratings:
        """Return the ratings at `rows` (positions, any order, each once) under the same vocabularies."""
        positions = np.sort(np.asarray(rows, dtype=np.int64))
        if len(positions) and (positions[0] < 0 or positions[-1] >= len(self)):
            raise DataError(f"rows must lie in 0..{len(self) - 1}")
        return replace(
            self,
            users=self.users[positions],
            items=self.items[positions],
            ratings=self.ratings[positions],
            timestamps=None if self.timestamps is None else self.timestamps[positions],
        )

    @cached_property
    def user_counts(self) -> NDArray[np.int64]:
        """Number of ratings of each user, shape (n_users,)."""
        return _frozen(np.bincount(self.users, minlength=self.n_users))

    @cached_property
    def item_counts(self) -> NDArray[np.int64]:
        """Number of ratings of each item, shape (n_items,)."""
        return _frozen(np.bincount(self.items, minlength=self.n_items))


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    # A view: the caller's own array stays as it was.
    view = array.view()
    view.flags.writeable = False
    return view
