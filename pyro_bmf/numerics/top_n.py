"""The best n items of many users at once, with ties broken the same way everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def top_n(scores: NDArray[np.floating[Any]], n: int) -> NDArray[np.int64]:
    """Return the `n` best items of every row, best first, equal scores by ascending item index.

    Parameters
    ----------
    scores
        (rows, n_items) larger is better. Minus infinity marks an item that is no candidate; NaN must not
        occur.
    n
        Length of a list, at least 1.

    Returns
    -------
    numpy.ndarray
        (rows, n) item indices, int64; -1 fills the end of a list with fewer than `n` candidates.

    Notes
    -----
    A partition finds each row's n-th best value; ties at that value are admitted by item index, so the result
    does not depend on how the partition orders equal values. O(n_items) a row, plus sorting the `n` found.
    """
    n_rows, n_items = scores.shape
    result = np.full((n_rows, n), -1, dtype=np.int64)
    k = min(n, n_items)
    if n_rows == 0 or k == 0:
        return result
    bound = np.partition(scores, n_items - k, axis=1)[:, n_items - k, None]
    chosen = scores > bound
    tied = scores == bound
    room = k - chosen.sum(axis=1)
    crowded = np.flatnonzero(tied.sum(axis=1) > room)
    if crowded.size:
        some = tied[crowded]
        tied[crowded] = some & (np.cumsum(some, axis=1, dtype=np.int32) <= room[crowded, None])
    chosen |= tied
    items = np.nonzero(chosen)[1].reshape(n_rows, k)  # ascending item index in every row
    values = np.take_along_axis(scores, items, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    items = np.take_along_axis(items, order, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    result[:, :k] = np.where(np.isneginf(values), -1, items)
    return result
