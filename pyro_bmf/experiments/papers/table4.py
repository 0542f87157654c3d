"""The paper's Table 4 as an experiment: its rows' cells, and their report."""

from __future__ import annotations

from pyro_bmf.experiments.cells import CellStore
from pyro_bmf.experiments.papers.table4_report import report_table4
from pyro_bmf.experiments.papers.table4_rows import Table4Rows
from pyro_bmf.experiments.reports import Report


class Table4(Table4Rows):
    """The model without one part, and the variants that the paper's text speaks of."""

    name = "table4"

    def report(self, store: CellStore, command: str) -> Report:
        """Return tables, verdicts and a picture of what is finished."""
        return report_table4(self, store, command)
