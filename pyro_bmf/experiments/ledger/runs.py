"""What experiments left in their folders, as the ledger reads it: figures by seed, verdicts, settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_bmf.data.sources import SOURCES
from pyro_bmf.errors import DataError, SavedFileError
from pyro_bmf.experiments.datasets import PAPERS_SETS
from pyro_bmf.experiments.papers.judging import interval
from pyro_bmf.experiments.reports import mean_and_se
from pyro_bmf.files import read_json
from pyro_bmf.tensor_files import first_line

if TYPE_CHECKING:
    import pandas as pd

#: Experiments whose folders are read, with the command that fills one.
EXPERIMENTS: Mapping[str, str] = {
    "table3": "pyro-bmf experiment table3 --data ml1m --out {}/table3",
    "significance": "pyro-bmf experiment significance --out {}/significance",
    "sparsity": "pyro-bmf experiment sparsity --data ml1m --out {}/sparsity",
    "table4": "pyro-bmf experiment table4 --data ml1m --out {}/table4",
    "convergence": "pyro-bmf experiment convergence --data ml1m --out {}/convergence",
}
_COLUMNS = {
    "table3": ("set", "model", "seed", "metric", "value", "state"),
    "table4": ("set", "base", "part", "tuned", "seed", "metric", "value", "state"),
}


@dataclass(frozen=True)
class Figure:
    """A figure by seed.

    Attributes
    ----------
    values : tuple of float
        One a seed; none where it was not measured.
    why : str
        Why there are none.
    """

    values: tuple[float, ...]
    why: str = ""

    @property
    def ends(self) -> tuple[float, float] | None:
        """Student's 95 % interval over seeds; None of fewer than two."""
        return interval(self.values) if self.values else None

    def told(self) -> str:
        """Return the mean, as text, or why there is none."""
        return f"{mean_and_se(self.values)[0]:.4f}" if self.values else self.why

    def told_interval(self) -> str:
        """Return the interval, as text."""
        ends = self.ends
        if ends is None:
            return "one seed" if self.values else "–"
        return f"{ends[0]:.4f} to {ends[1]:.4f}"


@dataclass(frozen=True)
class Runs:
    """A folder with a folder an experiment.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    @cached_property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """The figures of Tables 3 and 4, where there are any."""
        import pandas as pd

        found = {}
        for name, columns in _COLUMNS.items():
            path = self.folder / name / f"{name}.csv"
            if not path.is_file():
                continue
            try:
                table = pd.read_csv(path, keep_default_na=False, na_values={"value": [""], "seed": [""]})
            except (OSError, ValueError) as error:  # pandas' own errors among them
                raise SavedFileError(
                    f"{path} is damaged ({first_line(error)}): run 'pyro-bmf experiment {name}' again; "
                    "finished cells are kept."
                ) from error
            for column in ("protocol", "users"):
                if column not in table:
                    table[column] = ""
            if lacking := [column for column in columns if column not in table]:
                raise DataError(
                    f"{path} has no column {lacking[0]}: it is not of 'pyro-bmf experiment {name}', or of "
                    "another version. Run that command again; finished cells are kept."
                )
            found[name] = table
        return found

    def sets(self, name: str) -> list[str]:
        """Return the paper's sets, then others that an experiment has figures of."""
        others = [] if name not in self.tables else list(dict.fromkeys(self.tables[name]["set"]))
        return [*PAPERS_SETS, *(one for one in others if one not in PAPERS_SETS)]

    def figure(
        self, name: str, metric: str, *, protocol: str = "", users: str = "", **where: object
    ) -> Figure:
        """Return a figure of an experiment by seed; `where` gives columns and their values."""
        if name not in self.tables:
            return Figure((), "not run")
        table = self.tables[name]
        for column, value in where.items():
            table = table[table[column].astype(str) == str(value)]
        if not len(table):
            return Figure((), "not run")
        rows = table[
            (table["metric"] == metric.lower())
            & ((table["protocol"] == protocol) | (table["metric"] == "seconds"))
            & ((table["users"] == users) | (table["metric"] == "seconds"))
            & (table["state"] == "measured")
        ].sort_values("seed")
        values = tuple(float(value) for value in rows["value"].dropna())
        if values:
            return Figure(values)
        others = [str(one) for one in table["state"] if one != "measured"]
        return Figure((), others[0] if others else "not measured")

    def chosen(self, name: str, data: str, model: str) -> str:
        """Return the settings that tuning chose for a model on a set, or where others are from, as text."""
        settings = self._json(name, "chosen", dict).get(data, {}).get(model)
        if settings is None:
            return (
                "the full model's, with the part changed" if model.endswith("-untuned") else "as they stand"
            )
        return ", ".join(f"{key} {value}" for key, value in settings.items())

    def claims(self, name: str) -> list[dict[str, Any]]:
        """Return the verdicts that an experiment gave; none where it was not run."""
        return list(self._json(name, "claims", list))

    def paired(self) -> list[dict[str, Any]]:
        """Return the differences by user of pairs of models; none where they were not measured."""
        return list(self._json("significance", "paired", list))

    def command(self, name: str) -> str:
        """Return the command that an experiment was run by, or else one that would run it."""
        report = self.folder / name / f"{name}.md"
        if report.is_file():
            for line in report.read_text(encoding="utf-8").splitlines():
                if line.startswith("`pyro-bmf ") and line.endswith("`"):
                    return f"{line.strip('`')} --out {self.folder.as_posix()}/{name}"
        return EXPERIMENTS[name].format(self.folder.as_posix())

    def _json(self, name: str, ending: str, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
        """Return a file's content, whose entries are mappings; nothing where there is none."""
        path = self.folder / name / f"{name}-{ending}.json"
        if not path.is_file():
            return kind()
        try:
            content = read_json(path)
            entries = content.values() if isinstance(content, dict) else content
            if not isinstance(content, kind) or not all(isinstance(entry, dict) for entry in entries):
                raise ValueError(f"it holds no {kind.__name__} of mappings")
        except (OSError, ValueError) as error:
            raise SavedFileError(
                f"{path} is damaged ({first_line(error)}): run 'pyro-bmf experiment {name}' again; finished "
                "cells are kept."
            ) from error
        return content


def title_of(name: str) -> str:
    """Return what tables call a set: the paper's word, or the set's own title."""
    return PAPERS_SETS.get(name, SOURCES[name].title if name in SOURCES else name)
