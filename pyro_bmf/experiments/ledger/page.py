"""The ledger as a page of markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyro_bmf.experiments.ledger.claims import CLAIMS
from pyro_bmf.experiments.ledger.judgements import PRINTED, Outcome
from pyro_bmf.experiments.ledger.printed_cells import BASELINE_ROWS, OURS, Cell, table3_cells, table4_cells
from pyro_bmf.experiments.ledger.runs import EXPERIMENTS, Runs, title_of
from pyro_bmf.experiments.reports import markdown_table

_LEAD = """What Jin et al. (arXiv 2002.09145v3) print and claim, beside what was run here. This page is
written by `pyro-bmf experiment ledger` from the folders of the [experiments](experiments.md), and holds
nothing that they do not. What is not run says so.

**Claims.** A claim *holds* where the difference, paired by seed, has Student's 95 % interval on its side of
zero, *does not hold* where it is on the other side, and *cannot be judged* between, nor by a single seed.
The lines of the printed tables say whether the paper's own figures bear it out.

**Cells.** A cell of RMSE *holds* where the printed figure, with its rounding, lies within our interval over
seeds, and is else *better* (ours is lower) or *worse*. The splits are ours, as the paper's are not published;
each seed has its own. Levels of Recall and NDCG *cannot be judged*: no reading of the paper's text gives
figures such as its own, whose Recall@50 is below its Recall@20. Ours beside them are those of the
[protocol](evaluation.md#ranking) that comes nearest, `rated-precision` for users with two rated items."""


def ledger_page(runs: Runs) -> str:
    """Return the page."""
    outcomes = [(claim, outcome) for claim in CLAIMS for outcome in claim.outcomes(runs)]
    by_set = {
        name: [(data, list(cells(runs, data))) for data in runs.sets(name)]
        for name, cells in (("table3", table3_cells), ("table4", table4_cells))
    }
    parts = ["# Reproduction", _LEAD, "## In short", markdown_table(_short([o for _, o in outcomes], by_set))]
    parts += [
        "## Claims",
        markdown_table(
            [
                {
                    "section": claim.section,
                    "claim": claim.text,
                    "on": outcome.where,
                    "verdict": outcome.verdict,
                    "by": outcome.told,
                }
                for claim, outcome in outcomes
            ]
        ),
    ]
    for name, title in (("table3", "Table 3"), ("table4", "Table 4")):
        for data, cells in by_set[name]:
            parts += [f"## {title}: {title_of(data)}", markdown_table([cell.line() for cell in cells])]
    parts += ["## Settings and seconds", markdown_table(_fits(runs)) if runs.tables else "Nothing is run."]
    parts += ["## Commands", _commands(runs)]
    return "\n\n".join(parts) + "\n"


def write_ledger(results: Path, page: Path) -> Path:
    """Write the ledger of a folder of results; returns the file."""
    from pyro_bmf.files import atomic_write, make_folder

    text = ledger_page(Runs(results))
    make_folder(page.parent)
    with atomic_write(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


def _short(
    outcomes: Sequence[Outcome], by_set: dict[str, list[tuple[str, list[Cell]]]]
) -> list[dict[str, str]]:
    lines = [
        _counts("claims in the printed tables", [o.verdict for o in outcomes if o.where == PRINTED]),
        _counts("claims on what was run", [o.verdict for o in outcomes if o.where != PRINTED]),
    ]
    for name, title in (("table3", "cells of Table 3"), ("table4", "cells of Table 4")):
        verdicts = [c.verdict for _, cells in by_set[name] for c in cells if c.printed is not None]
        lines.append(_counts(title, verdicts))
    return lines


def _counts(what: str, verdicts: Iterable[str]) -> dict[str, str]:
    found = Counter(verdict.partition(":")[0] for verdict in verdicts)
    words = ("holds", "better", "worse", "does not hold", "cannot be judged", "not run")
    return {"": what, **{word: str(found[word]) if found[word] else "–" for word in words}}


def _fits(runs: Runs) -> list[dict[str, str]]:
    lines = []
    for data in runs.sets("table3"):
        for model in (*BASELINE_ROWS, *OURS):
            seconds = runs.figure("table3", "seconds", set=data, model=model)
            if seconds.values:
                lines.append(_fit("Table 3", data, model, runs.chosen("table3", data, model), seconds.values))
    if "table4" in runs.tables:
        for data in runs.sets("table4"):
            table = runs.tables["table4"]
            for model in dict.fromkeys(table[table["set"] == data]["model"]):
                seconds = runs.figure("table4", "seconds", set=data, model=model)
                if seconds.values:
                    lines.append(
                        _fit("Table 4", data, model, runs.chosen("table4", data, model), seconds.values)
                    )
    return lines or [{"set": "–", "row": "nothing is run"}]


def _fit(table: str, data: str, row: str, settings: str, seconds: Sequence[float]) -> dict[str, str]:
    told = ", ".join(f"{one:.0f}" if one >= 10 else f"{one:.1f}" for one in seconds)
    return {"table": table, "set": title_of(data), "row": row, "settings": settings, "seconds a fit": told}


def _commands(runs: Runs) -> str:
    lines = [runs.command(name) for name in EXPERIMENTS]
    lines.append(f"pyro-bmf experiment ledger --results {runs.folder.as_posix()} --out docs/reproduction.md")
    mark = "<!-- excerpt: each takes hours; what is finished is kept -->"
    return f"{mark}\n```text\n" + "\n".join(lines) + "\n```"
