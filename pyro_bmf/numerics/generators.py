"""Torch's generators seeded for a while, without a trace in the process's own random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_generator(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Give a function that seeds torch's generators, which are put back as they were at the end.

    Distributions draw from the process's generators. `torch.manual_seed` visits those of every kind of device
    and costs more than a small draw.
    """
    cuda = device.type == "cuda"

    def reseed(seed: int) -> None:
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)

    with torch.random.fork_rng(devices=[device] if cuda else []):
        yield reseed
