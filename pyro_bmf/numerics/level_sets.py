"""The smallest sets of levels that hold a given probability, and how they are written.

A central interval on a few levels holds far more than it is asked for: its ends are levels, and a whole level
is in or out at both. The smallest set takes the likeliest levels until the probability is reached, so that
it is never larger than the interval, and may have gaps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyro_bmf.errors import SettingsError

__all__ = ["set_words", "smallest_sets"]

Floats = NDArray[np.float64]
#: Probabilities closer together than this are equal.
_TIE = 1e-12


def smallest_sets(pmf: ArrayLike, probability: float) -> tuple[NDArray[np.bool_], Floats]:
    """Return the smallest set of levels with at least a given probability, for each row.

    Parameters
    ----------
    pmf
        (n, L) probability of each level; rows sum to 1.
    probability
        In (0, 1).

    Returns
    -------
    tuple of numpy.ndarray
        (n, L) whether a level is in the set, and (n,) the sets' probabilities. No set of fewer levels has the
        probability, and none of as many levels has more. Of equally likely levels the lower one is taken
        first.

    Raises
    ------
    SettingsError
        If the probability is not between 0 and 1.
    """
    if not 0 < probability < 1:
        raise SettingsError(f"the probability of a set must be between 0 and 1, not {probability}.")
    values = np.asarray(pmf, dtype=np.float64)
    # A stable sort of rounded numbers: what differs by rounding alone is a tie.
    order = np.argsort(-np.round(values / _TIE) * _TIE, axis=1, kind="stable")
    reached = np.cumsum(np.take_along_axis(values, order, axis=1), axis=1)
    sizes = (reached[:, :-1] < probability - _TIE).sum(axis=1) + 1
    inside = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(inside, order, np.arange(values.shape[1]) < sizes[:, None], axis=1)
    held: Floats = np.minimum(np.take_along_axis(reached, sizes[:, None] - 1, axis=1)[:, 0], 1.0)
    return inside, held


def set_words(inside: NDArray[np.bool_], levels: ArrayLike) -> NDArray[np.object_]:
    """Write sets of levels: ``4, 5`` for two, ``3 to 5`` for three neighbours, ``1, 3 to 5`` with a gap.

    Parameters
    ----------
    inside
        (n, L) whether a level is in the set.
    levels
        (L,) ascending.

    Returns
    -------
    numpy.ndarray
        (n,) text.
    """
    grid = [f"{level:g}" for level in np.asarray(levels, dtype=np.float64)]
    packed = np.packbits(inside, axis=1)
    _, first, place = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    # Few sets are different, however many rows there are.
    texts = np.array([_words(inside[row], grid) for row in first], dtype=object)
    result: NDArray[np.object_] = texts[place.reshape(-1)]
    return result


def _words(inside: NDArray[np.bool_], grid: list[str]) -> str:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    parts: list[str] = []
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if stop - start > 2:
            parts.append(f"{grid[start]} to {grid[stop - 1]}")
        else:
            parts += grid[start:stop]
    return ", ".join(parts)
