"""What every experiment is: cells that are run once each, and a report of those that are finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pyro_bmf.experiments.cells import Cell, CellStore
from pyro_bmf.experiments.reports import Report


class Experiment(Protocol):
    """A table or a figure of the paper, run again.

    A further experiment is a module with such a class, and a command in ``cli/experiment.py``: how cells are
    claimed, kept and gone on with, and how reports are written, is in `cells` and `reports`.
    """

    @property
    def name(self) -> str:
        """Of its files, and of its command."""

    def cells(self, store: CellStore) -> Sequence[Cell]:
        """Return every cell that is finished or can be run now; others may follow from their results."""

    def n_cells(self) -> int:
        """Return how many cells there will be."""

    def report(self, store: CellStore, command: str) -> Report:
        """Return the report of the finished cells; what is not finished is said to be so."""
