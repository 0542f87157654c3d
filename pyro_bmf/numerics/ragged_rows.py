"""The ratings of chosen users, in ratings sorted by user."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def row_starts(users: NDArray[np.int64], n_users: int) -> NDArray[np.int64]:
    """Return (n_users + 1,) positions at which each user's ratings begin in ratings sorted by user."""
    return np.searchsorted(users, np.arange(n_users + 1)).astype(np.int64, copy=False)


def ragged_rows(
    starts: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the place in `chosen` and the row of every rating of the `chosen` users."""
    counts = starts[chosen + 1] - starts[chosen]
    local = np.repeat(np.arange(chosen.size), counts)
    first = np.cumsum(counts) - counts
    rows = np.arange(local.size) - first[local] + starts[chosen][local]
    return local, rows
