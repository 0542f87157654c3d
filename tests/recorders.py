"""Recorders of repeated steps that need no card, and a reporter that interrupts a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro_bmf.progress import Silent


class OnTheSpot:
    """Does the work again each time that it is asked for: what a card does, without one.

    Attributes
    ----------
    recorded, runs : int
        Recordings made, and how often one was run.
    """

    usable = True

    def __init__(self) -> None:
        self.recorded = self.runs = 0

    def record(self, warm_up: Callable[[], object], work: Callable[[], object]) -> Callable[[], object]:
        warm_up()
        self.recorded += 1

        def again() -> None:
            self.runs += 1
            work()

        return again


class Failing:
    """Cannot record."""

    usable = True

    def record(self, warm_up: Callable[[], object], work: Callable[[], object]) -> Callable[[], object]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


class StopsAt(Silent):
    """Interrupts after a sweep, as a user would.

    Parameters
    ----------
    sweep : int
        Counted through all chains.
    """

    def __init__(self, sweep: int) -> None:
        self.sweep = sweep

    def iteration(self, record: dict[str, Any]) -> None:
        if record.get("sweep") == self.sweep:
            raise KeyboardInterrupt
