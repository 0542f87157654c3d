"""What a reader gives: columns as they stand in a file, not yet checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .reading.counts import ReadCounts


@dataclass
class RawColumns:
    """What a reader gives: one row a line of the file, in file order.

    Attributes
    ----------
    user_codes, item_codes
        Positions in `user_ids`, `item_ids`, shape (n,).
    user_ids, item_ids
        Distinct raw ids in any order: int64, or object arrays of ``str``.
    ratings
        float64, shape (n,); not yet checked.
    timestamps
        int64, shape (n,), or None.
    place
        Tells where row i stands, as ``"line 17 of ratings.csv"``.
    ticks_per_second
        In which parts of a second the timestamps count; see `times`.
    counts
        How the lines of the file were used.
    """

    user_codes: NDArray[Any]
    user_ids: NDArray[Any]
    item_codes: NDArray[Any]
    item_ids: NDArray[Any]
    ratings: NDArray[np.float64]
    timestamps: NDArray[np.int64] | None
    place: Callable[[int], str]
    ticks_per_second: int = 1
    counts: ReadCounts | None = None

    def __len__(self) -> int:
        return len(self.ratings)

    def keep(self, rows: NDArray[np.int64]) -> RawColumns:
        """Return the rows at `rows`; ids left without a row stay in the tables."""
        place = self.place
        return RawColumns(
            self.user_codes[rows],
            self.user_ids,
            self.item_codes[rows],
            self.item_ids,
            self.ratings[rows],
            None if self.timestamps is None else self.timestamps[rows],
            lambda row: place(int(rows[row])),
            self.ticks_per_second,
            None if self.counts is None else self.counts.less(filtered=len(self) - len(rows)),
        )
