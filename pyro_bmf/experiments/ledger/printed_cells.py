"""Every cell of the paper's Tables 3 and 4 beside what was measured, with a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pyro_bmf.experiments.datasets import PAPERS_SETS
from pyro_bmf.experiments.ledger.runs import Figure, Runs
from pyro_bmf.experiments.printed import MODELS, TABLE3, printed, printed_part
from pyro_bmf.experiments.scoring import USERS

METRICS = tuple(TABLE3)
#: The six.
BASELINE_ROWS = MODELS[:-1]
#: Ours that stand beside the paper's own row.
OURS = ("paper", "literal", "default")
PARTS: Mapping[str, str] = {
    "no-data-input": "no data input",
    "no-feedback": "no cross feedback",
    "no-attention": "no attention",
    "full": "full model",
}
#: What is nearest to the levels that the paper prints.
NEAREST = {"protocol": "rated-precision", "users": USERS[1]}
#: Half of the last digit that the paper prints.
ROUNDING = 0.0005


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes
    ----------
    data : str
        The set, by our name.
    metric, row : str
    printed : float or None
        None where the paper has no such cell.
    ours : Figure
    """

    data: str
    metric: str
    row: str
    printed: float | None
    ours: Figure

    @property
    def verdict(self) -> str:
        """holds, better, worse or why it cannot be judged."""
        if self.printed is None:
            return "–"
        if not self.ours.values:
            return "not run" if self.ours.why == "not run" else f"cannot be judged: {self.ours.why}"
        if self.metric != "RMSE":
            return "cannot be judged: measure"
        ends = self.ours.ends
        if ends is None:
            return "cannot be judged: one seed"
        if ends[0] - ROUNDING <= self.printed <= ends[1] + ROUNDING:
            return "holds"
        return "better" if ends[1] < self.printed else "worse"

    def line(self) -> dict[str, str]:
        """Return it as a line of a table."""
        return {
            "figure": self.metric,
            "row": self.row,
            "printed": "–" if self.printed is None else f"{self.printed:.3f}",
            "ours": self.ours.told(),
            "95 % interval": self.ours.told_interval(),
            "verdict": self.verdict,
        }


def table3_cells(runs: Runs, data: str) -> Iterator[Cell]:
    """Give the cells of Table 3 for a set: the paper's models, with three of ours in the place of its own."""
    for metric in METRICS:
        where = {} if metric == "RMSE" else NEAREST
        for model in (*BASELINE_ROWS, *OURS):
            told = printed(metric, "ours" if model in OURS else model, PAPERS_SETS.get(data, ""))
            row = f"ours: {model}" if model in OURS else model
            yield Cell(data, metric, row, told, runs.figure("table3", metric, set=data, model=model, **where))


def table4_cells(runs: Runs, data: str) -> Iterator[Cell]:
    """Give the cells of Table 4 for a set, then other rows as far as they were run.

    Those are parts of `paper` with the full model's settings, and parts of our own presets.
    """
    for metric in METRICS:
        where = {} if metric == "RMSE" else NEAREST
        for part, title in PARTS.items():
            told = printed_part(metric, part, PAPERS_SETS.get(data, ""))
            for tuned in (True, False):
                found = runs.figure("table4", metric, set=data, base="paper", part=part, tuned=tuned, **where)
                if tuned or found.values:
                    row = title if tuned else f"{title}, not tuned"
                    yield Cell(data, metric, row, told if tuned else None, found)
        for base, part in _own_rows(runs, data):
            found = runs.figure("table4", metric, set=data, base=base, part=part, **where)
            if found.values:
                yield Cell(data, metric, f"ours: {base}, {part.replace('-', ' ')}", None, found)


def _own_rows(runs: Runs, data: str) -> list[tuple[str, str]]:
    """Return base and part of the rows that are not the paper's, in their order."""
    if "table4" not in runs.tables:
        return []
    table = runs.tables["table4"]
    own = table[(table["set"] == data) & ((table["base"] != "paper") | ~table["part"].isin(list(PARTS)))]
    return list(dict.fromkeys(zip(own["base"], own["part"], strict=True)))
