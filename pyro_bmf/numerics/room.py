"""What a device asks of whoever computes on it: how much at once, and whether the host waits for it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: A chunk takes one part in so many of what is free on a card: what is made of it takes as much again.
_PARTS = 8
#: Cells of a chunk at most: beyond, fewer launches save nothing.
_MOST = 2**29
#: Ratings from which on an iteration takes so long that fresh pages do not count.
_MANY_RATINGS = 4_000_000


def waits(device: torch.device) -> bool:
    """Return whether the host waits where it reads a number of a tensor: on all devices but a CPU.

    A card is given work ahead of time, and must have done all of it before a number can be read.
    """
    return device.type != "cpu"


def to_device(numbers: list[float] | NDArray[np.floating[Any]], device: torch.device) -> Tensor:
    """Return numbers as a tensor (n,) of doubles on a device, which the host does not wait for."""
    made = torch.empty(len(numbers), dtype=torch.float64, pin_memory=device.type == "cuda")
    made.numpy()[:] = numbers
    return made.to(device, non_blocking=True)


def free_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a card, with those that torch keeps for itself but does not use."""
    # One question: each of torch's named figures asks for all of them, and sorts them by name.
    stats = torch.cuda.memory_stats_as_nested_dict(device)
    kinds = (stats[kind]["all"]["current"] if stats else 0 for kind in ("reserved_bytes", "allocated_bytes"))
    reserved, allocated = kinds
    if torch.cuda.is_current_stream_capturing():
        # The card itself is not to be asked while work is recorded.
        return int(torch.cuda.get_device_properties(device).total_memory) - allocated
    return int(torch.cuda.mem_get_info(device)[0]) + reserved - allocated


def cells_on(
    device: torch.device, cells: int, *, free: Callable[[torch.device], int] = free_bytes, itemsize: int = 4
) -> int:
    """Return how many cells a chunk of rows may have on a device.

    On a CPU the given number, which its caches are made for. On a card as many as memory allows: each chunk
    is a few launches, and a card with room for all rows takes all of them at once. A power of two, so that
    fits on one card cut rows alike though what is free varies: sums over chunks then have the same bits.
    A CPU that computes in the way of a card has room for all.

    Parameters
    ----------
    device : torch.device
    cells : int
        Cells of a chunk on a CPU.
    free : callable
        Gives the bytes that are free on a card.
    itemsize : int
        Bytes of a cell.
    """
    if device.type == "cpu":
        return _MOST if waits(device) else cells
    room = max(free(device) // (_PARTS * itemsize), 1)
    return int(min(1 << (room.bit_length() - 1), _MOST))


def hand_back(n_ratings: int) -> None:
    """Hand memory that was freed back to the system, where an iteration goes over many ratings.

    glibc keeps what lies between arrays that are in use: over a long fit of large sets that is a sixth of the
    memory. Handing it back takes milliseconds, and fresh pages some tenths of a second an iteration. Nothing
    is done for fewer ratings, and under C libraries that keep nothing or cannot be asked.
    """
    if n_ratings >= _MANY_RATINGS:
        with suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)


def exceptions(mask: Tensor) -> Tensor | slice | None:
    """Return where a few numbers are to be computed in another way: for `with_exceptions`.

    Parameters
    ----------
    mask : Tensor, shape (n,), bool
        Which ones.

    Returns
    -------
    Tensor, slice or None
        On a CPU the mask, or None where there are none. On a card all places: how many there are is a
        question to wait for, and the rest is dropped at less cost.
    """
    if waits(mask.device):
        return slice(None)
    return mask if bool(mask.any()) else None


def with_exceptions(values: Tensor, mask: Tensor, found: Tensor) -> Tensor:
    """Return numbers (n,) with those of a mask as they were found at its `exceptions`; in place on a CPU."""
    if waits(mask.device):
        return torch.where(mask, found, values)
    values[mask] = found
    return values
