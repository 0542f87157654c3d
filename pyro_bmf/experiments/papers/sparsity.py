"""The paper's Figure 3 as an experiment: its rows' cells, and their report."""

from __future__ import annotations

from pyro_bmf.experiments.cells import CellStore
from pyro_bmf.experiments.papers.sparsity_report import report_sparsity
from pyro_bmf.experiments.papers.sparsity_rows import SparsityRows
from pyro_bmf.experiments.reports import Report


class Sparsity(SparsityRows):
    """Models on small random shares of the ratings, each tuned anew."""

    name = "sparsity"

    def report(self, store: CellStore, command: str) -> Report:
        """Return tables, verdicts and a picture of what is finished."""
        return report_sparsity(self, store, command)
