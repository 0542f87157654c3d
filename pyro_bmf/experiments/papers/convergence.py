"""The paper's Figure 4 as an experiment: its variants' cells, and their report."""

from __future__ import annotations

from pyro_bmf.experiments.cells import CellStore
from pyro_bmf.experiments.papers.convergence_cells import ConvergenceCells
from pyro_bmf.experiments.papers.convergence_report import report_convergence
from pyro_bmf.experiments.reports import Report


class Convergence(ConvergenceCells):
    """Test RMSE by iteration and by second, with and without cross feedback and attention."""

    name = "convergence"

    def report(self, store: CellStore, command: str) -> Report:
        """Return curves, what reached the target when, and verdicts."""
        return report_convergence(self, store, command)
