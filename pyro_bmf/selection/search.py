"""The best of what is bounded above, exactly, without making all of it.

Columns are visited by falling bound until it is below the n-th best value found: nothing that was not visited
can be among the n best. A product of two probabilities is at most its first factor.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..numerics.top_n import top_n

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
#: Columns visited at first, and how many times more at each further round.
FIRST, GROWTH = 64, 3


def best_bounded(
    bounds: Floats, value: Callable[[Indices, Indices], Floats], n: int, *, first: int = FIRST
) -> tuple[Indices, Floats]:
    """Find the columns of each row with the largest values.

    Parameters
    ----------
    bounds : ndarray, shape (n_rows, n_columns)
        What the values are at most; minus infinity marks what is no candidate.
    value : callable
        ``value(rows, columns)`` gives the values of pairs, (n,); one above its bound counts as the bound.
    n : int
        Length of a list.
    first : int
        Columns of each row that are visited at first.

    Returns
    -------
    columns : ndarray, shape (n_rows, n)
        Best first, equal values by ascending column; -1 fills the end of a list with too few candidates.
    values : ndarray, shape (n_rows, n)
        Minus infinity there.
    """
    n_rows, n_columns = bounds.shape
    lists = np.full((n_rows, n), -1, dtype=np.int64)
    values = np.full((n_rows, n), -np.inf)
    left = np.arange(n_rows)
    found = np.empty((n_rows, 0))
    done, size = 0, min(max(first, 2 * n), n_columns)
    while len(left):
        visited = top_n(bounds[left], max(size, 1)) if n_columns else np.zeros((len(left), 0), dtype=np.int64)
        found = np.hstack([found, _values(bounds, value, left, visited[:, done:])])
        order = np.lexsort((visited, -found), axis=1)[:, :n]
        best = np.take_along_axis(found, order, axis=1)
        columns = np.where(np.isneginf(best), -1, np.take_along_axis(visited, order, axis=1))
        over = np.zeros(len(left), dtype=bool)
        if size >= n_columns:
            over[:] = True
        else:
            last = visited[:, -1]
            rest = np.where(last < 0, -np.inf, bounds[left, last])
            # What was not visited is at most `rest`; an equal one could stand before it by its column.
            over = np.isneginf(rest) | (best[:, n - 1] > rest if best.shape[1] == n else False)
        lists[left[over], : columns.shape[1]] = columns[over]
        values[left[over], : best.shape[1]] = best[over]
        left, found = left[~over], found[~over]
        done, size = size, min(size * GROWTH, n_columns)
    return lists, values


def _values(
    bounds: Floats, value: Callable[[Indices, Indices], Floats], rows: Indices, columns: Indices
) -> Floats:
    """Return values of a block of columns of each row, minus infinity where there is none."""
    found = np.full(columns.shape, -np.inf)
    at, place = np.nonzero(columns >= 0)
    if len(at):
        own, other = rows[at], columns[at, place]
        found[at, place] = np.minimum(value(own, other), bounds[own, other])
    return found
