"""Running an experiment: its cells in one process or several, and its report at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from pyro_bmf.files import clean_leftovers

from ..printing.output import Row, TableWriter
from ..printing.progress import bar
from ..printing.text import shell_word, shown
from .workers import run_workers

if TYPE_CHECKING:
    from pyro_bmf.experiments.cells import Cell, CellStore
    from pyro_bmf.experiments.experiment import Experiment


class Spec(Protocol):
    """What an experiment is made of, small enough to be sent to another process."""

    def open(self) -> Experiment:
        """Load what is needed."""

    @property
    def command(self) -> str:
        """The command line that asks for it."""


@dataclass(frozen=True)
class Job:
    """An experiment in a folder, until a moment of the machine's clock."""

    spec: Spec
    folder: Path
    until: float | None
    earlier: tuple[Path, ...] = ()

    def store(self) -> CellStore:
        """Return its cells, with those of other folders that it may take."""
        from pyro_bmf.experiments.cells import CellStore

        return CellStore(self.folder, self.earlier)


def work(job: Job) -> None:
    """Run cells until none is left: what each of several processes does."""
    from pyro_bmf.experiments.cells import run_cells

    run_cells(job.spec.open(), job.store(), deadline=_deadline(job))


def run_experiment(job: Job, *, jobs: int, quiet: bool, tables: TableWriter, screen: Sequence[str]) -> None:
    """Run what is not finished, write the report, and show its first tables.

    Parameters
    ----------
    screen
        Titles of the sections that are shown, or how they begin.
    """
    from pyro_bmf.experiments.cells import run_cells

    experiment, store = job.spec.open(), job.store()
    total = experiment.n_cells()
    done = _n_done(experiment.cells(store), store)
    try:
        with bar(experiment.name, total, "cells") as move:
            if not quiet:
                move(done)
            if jobs > 1:
                files = _n_files(store.folder)

                def look() -> None:
                    nonlocal files
                    now = _n_files(store.folder)
                    if not quiet:
                        move(now - files)
                    files = now

                run_workers(work, job, jobs, look)
            else:

                def tell(cells: Sequence[Cell], doing: str) -> None:
                    nonlocal done
                    now = _n_done(cells, store)
                    if not quiet:
                        move(now - done)
                        if doing and not sys.stderr.isatty():
                            click.echo(
                                shown(f"{time.strftime('%H:%M:%S')} {now + 1}/{total} {doing}"), err=True
                            )
                    done = now

                run_cells(experiment, store, deadline=_deadline(job), tell=tell)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"Interrupted. {shell_word(str(job.folder))} keeps the finished cells; the same command goes on."
        ) from error
    _report(experiment, store, job, tables, screen)


def _report(
    experiment: Experiment, store: CellStore, job: Job, tables: TableWriter, screen: Sequence[str]
) -> None:
    report = experiment.report(store, job.spec.command)
    for section in report.sections:
        if section.rows and section.title.startswith(tuple(screen)):
            rows: list[Row] = [
                {name: cell.replace("*", "") for name, cell in row.items()} for row in section.rows
            ]
            tables.show(section.title, rows)
    files = report.write(job.folder)
    for file in files:
        clean_leftovers(file)
    left = experiment.n_cells() - _n_done(experiment.cells(store), store)
    tables.say(f"\nWritten: {', '.join(shell_word(str(file)) for file in files)}.")
    if left:
        tables.say(f"{left} cells are not finished; the same command goes on.")


def _n_done(cells: Sequence[Cell], store: CellStore) -> int:
    return sum(store.has(cell) for cell in cells)


def _n_files(folder: Path) -> int:
    return sum(1 for _ in (folder / "cells").glob("*.json"))


def _deadline(job: Job) -> float | None:
    """Return the job's end by this process's own clock."""
    return None if job.until is None else time.monotonic() + job.until - time.time()
