"""A (user, item) pair that stands more than once: refused, or merged into one row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .notices import notice
from .raw_columns import RawColumns
from .scale import RatingScale
from .vocabulary import Vocabulary

DUPLICATES = ("error", "last", "mean")


@dataclass(frozen=True, eq=False)
class SortedColumns:
    """Columns sorted by pair, then by place in the file.

    Attributes
    ----------
    key : ndarray of int, shape (n,)
        A number for each pair: user times the number of items, plus item.
    ratings, timestamps : ndarray, shape (n,)
        `timestamps` may be None.
    rows : ndarray of int, shape (n,)
        The raw row of each.
    """

    key: NDArray[np.int64]
    ratings: NDArray[np.float64]
    timestamps: NDArray[np.int64] | None
    rows: NDArray[np.int64]

    @property
    def repeated(self) -> NDArray[np.bool_]:
        """Which rows, of all but the first, are of the pair of the row before; (n - 1,)."""
        repeated: NDArray[np.bool_] = self.key[1:] == self.key[:-1]
        return repeated

    def refuse(
        self, raw: RawColumns, users: Vocabulary, items: Vocabulary, name: str, *, several: bool
    ) -> NoReturn:
        """Raise for the first pair that stands twice; `several`: in the files of one split."""
        remedy = (
            "a pair may stand once in all files of a split together, so remove one of the two"
            if several
            else "choose duplicates 'last' or 'mean' (--duplicates, in Python duplicates=)"
        )
        repeated = self.repeated
        first = int(np.argmax(repeated))
        user, item = divmod(int(self.key[first]), len(items))
        raise DataError(
            f"{name} holds {int(repeated.sum()):,} duplicate (user, item) rows, the first for user "
            f"{users.raw([user]).tolist()[0]!r} and item {items.raw([item]).tolist()[0]!r} in "
            f"{raw.place(int(self.rows[first]))} and {raw.place(int(self.rows[first + 1]))}: {remedy}"
        )

    def merged(self, policy: str, scale: RatingScale, name: str) -> SortedColumns:
        """Return one row a pair, by the policy ``"last"`` or ``"mean"``, and say so."""
        key, ratings, timestamps, rows = self.key, self.ratings, self.timestamps, self.rows
        repeated = self.repeated
        extra = int(repeated.sum())
        if timestamps is not None:
            # Within a pair by time, then by place in the file (the sort is stable).
            by_time = np.lexsort((timestamps, key))
            ratings, timestamps, rows = ratings[by_time], timestamps[by_time], rows[by_time]
        starts = np.flatnonzero(np.concatenate(([True], ~repeated)))
        ends = np.concatenate((starts[1:], [len(key)])) - 1
        if policy == "last":
            merged = ratings[ends]
            how = "the latest" if timestamps is not None else "the last in the file"
            notice(f"{name}: {extra:,} duplicate (user, item) rows dropped, {how} of each pair kept")
        else:
            merged = np.add.reduceat(ratings, starts) / (ends - starts + 1)
            several = ends > starts
            rounded = ""
            if scale.step is not None:
                merged[several] = scale.nearest_level(merged[several])
                rounded = f", rounded to the scale {scale}"
            notice(
                f"{name}: {extra:,} duplicate (user, item) rows merged into the mean of their pair{rounded}"
            )
        times = None if timestamps is None else timestamps[ends]
        return SortedColumns(key[ends], merged, times, rows[ends])
