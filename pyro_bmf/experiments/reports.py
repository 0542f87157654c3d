"""What an experiment gives, as files: CSV, markdown, pictures as PNG and SVG, and settings as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_bmf.files import atomic_write, make_folder, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes
    ----------
    title : str
    rows : sequence of mapping
        Of a table, as text; the columns are the keys. None: no table.
    text : str
        Markdown, before the table.
    """

    title: str
    rows: Sequence[Mapping[str, str]] = ()
    text: str = ""


@dataclass(frozen=True)
class Report:
    """The files of an experiment.

    Attributes
    ----------
    name : str
        Of the files.
    title : str
    sections : sequence of Section
    records : sequence of mapping
        Every figure by itself, one a line of the CSV file.
    figures : mapping
        Pictures by what is added to the name; ``""`` is the main one.
    documents : mapping
        What is written as JSON, by what is added to the name.
    """

    name: str
    title: str
    sections: Sequence[Section]
    records: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """Return the report as markdown."""
        parts = [f"# {self.title}"]
        for section in self.sections:
            parts.append(f"## {section.title}")
            parts += [section.text] if section.text else []
            parts += [markdown_table(section.rows)] if section.rows else []
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write all files, each whole; return them."""
        import pandas as pd

        make_folder(folder)
        table, text = folder / f"{self.name}.csv", folder / f"{self.name}.md"
        with atomic_write(table) as temporary:
            pd.DataFrame(list(self.records)).to_csv(temporary, index=False, lineterminator="\n")
        with atomic_write(text) as temporary:
            temporary.write_text(self.markdown(), encoding="utf-8")
        files = [table, text]
        for ending, content in self.documents.items():
            file = folder / f"{self.name}-{ending}.json"
            write_json(file, content)
            files.append(file)
        for ending, figure in self.figures.items():
            files += save_figure(figure, folder / (f"{self.name}-{ending}" if ending else self.name))
        return files


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows as a table of markdown."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    body = [line([row.get(column, "") for column in columns]) for row in rows]
    return "\n".join([line(columns), line(["---"] * len(columns)), *body])


def mean_and_se(values: Sequence[float]) -> tuple[float, float | None]:
    """Return a mean over seeds and its standard error; None of a single one."""
    found = np.asarray(values, dtype=np.float64)
    if len(found) < 2:
        return float(found.mean()), None
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found)))


def with_se(value: float, se: float | None, *, decimals: int = 4) -> str:
    """Return a figure with its standard error, as text."""
    return f"{value:.{decimals}f}" + ("" if se is None else f" ± {se:.{decimals}f}")


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and as SVG, each whole; return the files."""
    files = []
    for form in ("png", "svg"):
        file = stem.with_name(f"{stem.name}.{form}")
        with atomic_write(file) as temporary:
            figure.savefig(temporary, format=form, dpi=130, bbox_inches="tight")
        files.append(file)
    return files
