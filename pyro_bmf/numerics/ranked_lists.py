"""The best columns of many rows in bounded memory: what recommendations are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunks import chunks
from .ragged_rows import ragged_rows, row_starts
from .top_n import top_n

Indices = NDArray[np.int64]

#: Scores held at once; bounds memory at about 10 bytes each.
MAX_SCORES = 4_000_000


@dataclass(frozen=True, eq=False)
class Exclusion:
    """Pairs that may not be recommended, compressed by row.

    Attributes
    ----------
    starts : ndarray, shape (n_rows + 1,)
    columns : ndarray, shape (n_pairs,)
        Row i excludes ``columns[starts[i]:starts[i + 1]]``.
    """

    starts: Indices
    columns: Indices

    @classmethod
    def of_pairs(cls, rows: Indices, columns: Indices, n_rows: int) -> Exclusion:
        """Compress pairs given in any order; a pair may stand there twice."""
        order = np.argsort(rows, kind="stable")
        return cls(row_starts(rows[order], n_rows), columns[order])


def best_columns(
    score: Callable[[Indices, Indices], NDArray[Any]],
    rows: Indices,
    candidates: Indices,
    n: int,
    exclusion: Exclusion | None,
    n_columns: int,
) -> tuple[Indices, Indices]:
    """Find the `n` candidates with the highest score for each row; see `best_scores`."""
    return best_scores(score, rows, candidates, n, exclusion, n_columns)[:2]


def best_scores(
    score: Callable[[Indices, Indices], NDArray[Any]],
    rows: Indices,
    candidates: Indices,
    n: int,
    exclusion: Exclusion | None,
    n_columns: int,
) -> tuple[Indices, Indices, NDArray[np.float64]]:
    """Find the `n` candidates with the highest score for each row, and their scores.

    Parameters
    ----------
    score : callable
        ``score(rows, columns)`` gives a matrix of scores, larger is better.
    rows : ndarray, shape (n_rows,)
        Rows to find candidates for; one may stand there twice.
    candidates : ndarray
        Columns to choose from, each once, ascending.
    exclusion : Exclusion or None
        Pairs left out.
    n_columns : int
        Number of columns there are, candidates or not.

    Returns
    -------
    places, columns : ndarray, shape (n_found,)
        Position in `rows`, ascending, and the column, best first; equal scores by ascending column. A row
        with fewer than `n` candidates left has fewer.
    scores : ndarray, shape (n_found,)
    """
    place = np.full(n_columns, -1, dtype=np.int64)
    place[candidates] = np.arange(len(candidates))
    found_rows, found_columns = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    found_scores = [np.zeros(0)]
    for part in chunks(len(rows), MAX_SCORES // max(len(candidates), 1)):
        scores = np.asarray(score(rows[part], candidates))
        if exclusion is not None:
            at, entries = ragged_rows(exclusion.starts, rows[part])
            columns = place[exclusion.columns[entries]]
            inside = columns >= 0
            scores[at[inside], columns[inside]] = -np.inf
        best = top_n(scores, n)
        at, rank = np.nonzero(best >= 0)
        found_rows.append(at + part.start)
        found_columns.append(candidates[best[at, rank]])
        found_scores.append(scores[at, best[at, rank]].astype(np.float64))
    return np.concatenate(found_rows), np.concatenate(found_columns), np.concatenate(found_scores)


def ordered_by(
    values: NDArray[np.float64], places: Indices, columns: Indices
) -> tuple[NDArray[np.intp], Indices]:
    """Order found columns within their rows by `values`, highest first, ties by column; give ranks from 1.

    The scores that chose them are single precision; the values shown beside them are not, and a list must be
    in the order of what it shows.
    """
    order = np.lexsort((columns, -values, places))
    sizes = np.bincount(places) if len(places) else np.zeros(0, dtype=np.int64)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order, np.arange(len(places)) - first + 1
