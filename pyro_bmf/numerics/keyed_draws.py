r"""Standard Normal noise that is keyed by the row it belongs to.

A draw of row i is a function of (seed, stream, i, draw, column) alone: not of which other rows were asked
for, of the size of a chunk, or of the device. So draw s of user 7 is the same in a prediction for one item,
in a subset for ArviZ and in an export of everything, and draws are *joint*: a user's draws are common to all
of its pairs. Each row is a SplitMix64 stream (doi 10.1145/2660193.2660195) that starts where a hash of its
key says; its 53-bit uniforms become Normal by the inverse distribution function.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


class Stream(IntEnum):
    """What noise is for: streams of one seed are independent."""

    USERS = 1
    ITEMS = 2
    FOLDED_USERS = 3
    FOLDED_ITEMS = 4
    RATINGS = 5
    PRIOR_USERS = 6
    PRIOR_ITEMS = 7
    PRIOR_RATINGS = 8
    INTERVALS = 9
    HYPERPARAMETERS = 10
    USER_TERMS = 11
    ITEM_TERMS = 12
    FOLDED_USER_TERMS = 13
    FOLDED_ITEM_TERMS = 14
    SELECTION = 15
    FOLDED_SELECTION = 16


#: Which noise makes the draws of rows' noise and cut points, by the stream of their factors.
TERMS = {
    Stream.USERS: Stream.USER_TERMS,
    Stream.ITEMS: Stream.ITEM_TERMS,
    Stream.FOLDED_USERS: Stream.FOLDED_USER_TERMS,
    Stream.FOLDED_ITEMS: Stream.FOLDED_ITEM_TERMS,
}


def row_noise(
    seed: int, stream: Stream, rows: NDArray[np.int64], draws: NDArray[np.int64], width: int
) -> NDArray[np.float64]:
    """Return standard Normal noise, shape (len(draws), len(rows), width).

    Parameters
    ----------
    seed : int
        Any integer; taken modulo 2^64.
    stream : Stream
    rows, draws : ndarray of int
        Which rows, and which draws of them, counted from 0.
    width : int
        Columns a row; the first columns of a wider row are other numbers than those of a narrower one.
    """
    keys = _mix(_key(seed, stream) + rows.astype(np.uint64) * _GOLDEN)
    places = draws.astype(np.uint64)[:, None] * np.uint64(width) + np.arange(1, width + 1, dtype=np.uint64)
    bits = _mix(keys[None, :, None] + (places * _GOLDEN)[:, None, :])
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    noise: NDArray[np.float64] = ndtri(uniform)
    return noise


def draw_seed(seed: int, stream: Stream, draw: int, block: int = 0) -> int:
    """Return a seed below 2^63 for a block of one draw, for generators that are seeded as a whole."""
    place = np.array([draw], dtype=np.uint64) * _GOLDEN
    bits = _mix(_mix(_key(seed, stream) + place) + np.array([block], dtype=np.uint64) * _GOLDEN)
    return int(bits[0] >> np.uint64(1))


def _key(seed: int, stream: Stream) -> NDArray[np.uint64]:
    start = np.array([seed % 2**64], dtype=np.uint64)
    return _mix(_mix(start + _GOLDEN) + np.array([int(stream)], dtype=np.uint64) * _GOLDEN)


def _mix(bits: NDArray[Any]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer: arrays of unsigned integers wrap around, as it needs."""
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    mixed: NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return mixed
