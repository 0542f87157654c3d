"""Cells of an experiment: each is run once, by whichever process claims it, and kept in one JSON file.

A cell's file is named by a digest of everything that decides its result: what it runs, with which settings,
on which data and split, by which software. It is written under a temporary name and renamed, so that it is
there whole or not at all. A cell whose process was killed is run again by the next that looks.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pyro_bmf import __version__
from pyro_bmf.errors import FitError, SavedFileError
from pyro_bmf.experiments.claims import Claims
from pyro_bmf.files import atomic_write, make_folder, read_json, write_json

_FORMAT, _VERSION = "pyro-bmf cell", 1
_PAUSE = 1.0  # seconds between two looks, while others run the cells that are left


def software() -> dict[str, str]:
    """Return the versions that a cell's result depends on."""
    import torch

    return {"pyro-bmf": __version__, "torch": torch.__version__}


@dataclass(frozen=True, eq=False)
class Cell:
    """Something that is run once.

    Attributes
    ----------
    kind : str
        As in ``"final"``: cells of one kind hold results of one form.
    label : str
        For people and for the file's name; it decides nothing.
    identity : mapping
        What decides the result beside the software, JSON-ready.
    run : callable
        Gives the result, JSON-ready; it is told a path, not there yet or left by an interrupted run, for what
        it keeps on its way.
    """

    kind: str
    label: str
    identity: Mapping[str, Any]
    run: Callable[[Path], Mapping[str, Any]]

    @cached_property
    def key(self) -> str:
        """A SHA-256 of what decides the result."""
        told = {"version": _VERSION, "kind": self.kind, "software": software(), **self.identity}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class CellStore:
    """The cells of experiments, in a folder that processes and machines may share.

    Parameters
    ----------
    folder : Path
    others : sequence of Path
        Folders of other experiments: what is finished there under the same key is copied, and not run again.
    """

    def __init__(self, folder: Path, others: Sequence[Path] = ()) -> None:
        self.folder, self.others = folder, tuple(others)
        self.claims = Claims(folder / "claims")

    def path(self, cell: Cell) -> Path:
        """Return the cell's file: under its label, or under that of a finished cell of the same key."""
        stem = re.sub(r"[^a-z0-9]+", "-", f"{cell.kind} {cell.label}".lower()).strip("-")
        path = self.folder / "cells" / f"{stem}-{cell.key[:16]}.json"
        return path if path.is_file() else next(_files(self.folder, cell), path)

    def has(self, cell: Cell) -> bool:
        """Return whether a cell is finished, here or in another experiment's folder."""
        if self.path(cell).is_file():
            return True
        for folder in self.others:
            for file in _files(folder, cell):
                make_folder(self.path(cell).parent)
                with atomic_write(self.path(cell)) as temporary:
                    temporary.write_bytes(file.read_bytes())
                return True
        return False

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """Return a finished cell's result, with its seconds; None of another.

        Raises
        ------
        SavedFileError
            If its file is damaged.
        """
        if not self.has(cell):
            return None
        path = self.path(cell)
        try:
            content = read_json(path)
            if content["format"] != _FORMAT or content["key"] != cell.key:
                raise ValueError("it is of another cell")
            return dict(content["result"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SavedFileError(
                f"{path} is damaged ({error}): delete it, and the cell is run again."
            ) from error

    def run(self, cell: Cell) -> None:
        """Run a cell and keep its result; a fit that fails is a result too, which says why."""
        work = self.folder / "work" / cell.key[:32]
        make_folder(work.parent)
        started = time.perf_counter()
        try:
            result = dict(cell.run(work))
        except FitError as error:
            result = {"failed": str(error)}
        write_json(
            self.path(cell),
            {
                "format": _FORMAT,
                "key": cell.key,
                "kind": cell.kind,
                "label": cell.label,
                "identity": dict(cell.identity),
                "software": {**software(), "python": platform.python_version()},
                "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "cell_seconds": time.perf_counter() - started,
                "result": result,
            },
        )
        if work.is_file():
            work.unlink()  # a checkpoint; a study's folder stays, more trials go on with it


def _files(folder: Path, cell: Cell) -> Iterator[Path]:
    """Give the files of a folder that hold a cell, whatever its label was."""
    return (folder / "cells").glob(f"*-{cell.key[:16]}.json")


class CellMaker(Protocol):
    """What gives the cells of an experiment, as far as they are known."""

    def cells(self, store: CellStore) -> Sequence[Cell]:
        """Return every cell that is finished or can be run now; others may follow from their results."""


def run_cells(
    maker: CellMaker,
    store: CellStore,
    *,
    deadline: float | None = None,
    tell: Callable[[Sequence[Cell], str], None] = lambda cells, doing: None,
) -> bool:
    """Run every cell that is neither finished nor being run, until all are finished.

    Parameters
    ----------
    deadline
        Of `time.monotonic`: after it no cell begins.
    tell
        Told of all cells that are known, and which one begins; of an empty label when one has ended.

    Returns
    -------
    bool
        Whether all cells are finished.
    """
    while True:
        cells = maker.cells(store)
        left = [cell for cell in cells if not store.has(cell)]
        tell(cells, "")
        if not left:
            return True
        if deadline is not None and time.monotonic() > deadline:
            return False
        for cell in left:
            with store.claims.tried(cell.key[:32]) as mine:
                if mine and not store.has(cell):
                    tell(cells, f"{cell.kind} {cell.label}")
                    store.run(cell)
                    break
        else:
            time.sleep(_PAUSE)


def finished(cells: Sequence[Cell], store: CellStore) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Give the finished cells with their results."""
    for cell in cells:
        result = store.result(cell)
        if result is not None:
            yield cell, result
