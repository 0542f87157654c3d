"""Slices of bounded size."""

from __future__ import annotations

from collections.abc import Iterator

#: Numbers held at once by a chunk of an ordinary computation; bounds its memory at tens of megabytes.
CELLS = 2_000_000


def chunks(n: int, size: int) -> Iterator[slice]:
    """Cut 0..n into slices of at most `size`."""
    for start in range(0, n, max(size, 1)):
        yield slice(start, min(start + max(size, 1), n))
