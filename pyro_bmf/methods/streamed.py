"""Chunks of tensors that lie with the host, on a device: the next is copied while the present is computed on.

On a card copies go from pinned memory through a stream beside the one that computes, into two buffers in
turn; events keep a buffer from being filled before it has been used, and from being used before it is full.
On a CPU the copies are plain, and the order of the work is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Entries of a chunk on a card: megabytes, which a copy is no longer than its start for.
CHUNK = 8_000_000


def with_host(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the host from where a device is filled: pinned for a card."""
    return tensor.cpu().pin_memory() if device.type == "cuda" else tensor.cpu()


def row_parts(edges: NDArray[np.int32], rows: slice, most: int) -> list[slice]:
    """Cut rows of a compressed layout, its `edges` (n + 1,), into runs of so many entries, a row at least."""
    found, start = [], rows.start
    while start < rows.stop:
        end = int(np.searchsorted(edges, edges[start] + most, side="right")) - 1
        end = min(max(end, start + 1), rows.stop)
        found.append(slice(start, end))
        start = end
    return found


def streamed(
    parts: Sequence[slice], tensors: Sequence[Tensor], device: torch.device
) -> Iterator[tuple[Tensor, ...]]:
    """Give the chunks of tensors (n,) of the host on a device, each until the next is asked for.

    Parameters
    ----------
    parts : sequence of slice
        Of the tensors, in the order in which they are used.
    tensors : sequence of Tensor
        As `with_host` gives them.
    device : torch.device
    """
    if not parts:
        return
    most = max(part.stop - part.start for part in parts)
    buffers = [[torch.empty(most, dtype=one.dtype, device=device) for one in tensors] for _ in range(2)]
    beside = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    full: list[torch.cuda.Event | None] = [None, None]
    used: list[torch.cuda.Event | None] = [None, None]
    if beside is not None:
        # The buffers' memory may still be read by what was asked for before.
        beside.wait_stream(torch.cuda.current_stream(device))

    def fill(number: int) -> None:
        place, part = number % 2, parts[number]
        stream: AbstractContextManager[object] = nullcontext()
        if beside is not None:
            stream = torch.cuda.stream(beside)
        with stream:
            before = used[place]
            if beside is not None and before is not None:
                beside.wait_event(before)
            for buffer, tensor in zip(buffers[place], tensors, strict=True):
                buffer[: part.stop - part.start].copy_(tensor[part], non_blocking=True)
            if beside is not None:
                full[place] = beside.record_event()

    try:
        fill(0)
        for number, part in enumerate(parts):
            if number + 1 < len(parts):
                fill(number + 1)
            place = number % 2
            ready = full[place]
            if ready is not None:
                torch.cuda.current_stream(device).wait_event(ready)
            yield tuple(buffer[: part.stop - part.start] for buffer in buffers[place])
            if beside is not None:
                used[place] = torch.cuda.current_stream(device).record_event()
    finally:
        if beside is not None:
            # Who stops early gives the buffers back while a copy may still be on its way into them.
            torch.cuda.current_stream(device).wait_stream(beside)
