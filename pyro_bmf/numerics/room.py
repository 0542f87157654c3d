"""How much is computed at once on a device: what a CPU's caches hold, or what a card has room for."""

from __future__ import annotations

from collections.abc import Callable

import torch

#: A chunk takes one part in so many of what is free on a card: what is made of it takes as much again.
_PARTS = 8
#: Cells of a chunk at most: beyond, fewer launches save nothing.
_MOST = 2**29


def free_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a card, with those that torch keeps for itself but does not use."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def cells_on(
    device: torch.device, cells: int, *, free: Callable[[torch.device], int] = free_bytes, itemsize: int = 4
) -> int:
    """Return how many cells a chunk of rows may have on a device.

    On a CPU the given number, which its caches are made for. On a card as many as memory allows: each chunk
    is a few launches, and a card with room for all rows takes all of them at once.

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
        return cells
    return min(max(free(device) // (_PARTS * itemsize), 1), _MOST)
