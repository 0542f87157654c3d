"""Make the next value in a thread while the last one is used."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Value = TypeVar("_Value")


def ahead(values: Iterator[_Value]) -> Iterator[_Value]:
    """Give values in their order, one of them made ahead; what making them raises is raised here."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_next, values)
        while (found := coming.result()) is not None:
            coming = pool.submit(_next, values)
            yield found[0]


def _next(values: Iterator[_Value]) -> tuple[_Value] | None:
    for value in values:
        return (value,)
    return None
