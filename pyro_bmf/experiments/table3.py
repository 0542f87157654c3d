"""The paper's Table 3 as an experiment: its rows' cells, and their report."""

from __future__ import annotations

from pyro_bmf.experiments.cells import CellStore
from pyro_bmf.experiments.reports import Report
from pyro_bmf.experiments.table3_report import report_table3
from pyro_bmf.experiments.table3_rows import Table3Rows


class Table3(Table3Rows):
    """Models by data sets, tuned on one seed's validation part, measured over seeds."""

    name = "table3"

    def report(self, store: CellStore, command: str) -> Report:
        """Return the tables, verdicts and pictures of what is finished."""
        return report_table3(self, store, command)
