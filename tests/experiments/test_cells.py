"""A cell is run once, whoever looks, and its file is there whole or not at all."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command_line import call

from pyro_bmf.errors import FitError, SavedFileError
from pyro_bmf.experiments.cells import Cell, CellStore, finished, run_cells
from pyro_bmf.experiments.contenders import contender


class Chain:
    """Six cells, and six more of which each needs the result of one of those."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.lock = threading.Lock()

    def cell(self, kind: str, number: int, value: int) -> Cell:
        def run(work: Path) -> Mapping[str, Any]:
            assert not work.exists()
            with self.lock:
                self.runs[f"{kind} {number}"] += 1
            time.sleep(0.01)
            return {"value": value}

        return Cell(kind, f"number {number}", {"number": number, "value": value}, run)

    def cells(self, store: CellStore) -> list[Cell]:
        first = [self.cell("first", number, number**2) for number in range(6)]
        results = {cell.label: result for cell, result in finished(first, store)}
        return first + [
            self.cell("second", number, results[f"number {number}"]["value"] + 1)
            for number in range(6)
            if f"number {number}" in results
        ]


def test_several_workers_run_each_cell_once(tmp_path: Path) -> None:
    chain, done = Chain(), []
    workers = [
        threading.Thread(target=lambda: done.append(run_cells(chain, CellStore(tmp_path)))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert done == [True] * 4
    assert set(chain.runs.values()) == {1}
    assert len(chain.runs) == 12
    store = CellStore(tmp_path)
    values = [result["value"] for _, result in finished(chain.cells(store), store)]
    assert values == [0, 1, 4, 9, 16, 25, 1, 2, 5, 10, 17, 26]


def test_a_cell_that_another_finished_before_it_was_claimed_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other, store = Chain(), Chain(), CellStore(tmp_path)
    take = store.claims.tried

    @contextmanager
    def late(name: str) -> Iterator[bool]:
        """Let another process run everything between the list of cells and the first claim."""
        run_cells(other, CellStore(tmp_path))
        with take(name) as got:
            yield got

    monkeypatch.setattr(store.claims, "tried", late)
    assert run_cells(mine, store)
    assert not mine.runs
    assert len(other.runs) == 12


def test_no_cell_begins_after_the_deadline(tmp_path: Path) -> None:
    chain = Chain()
    assert not run_cells(chain, CellStore(tmp_path), deadline=time.monotonic() - 1)
    assert not chain.runs


def test_what_is_kept_of_a_cell(tmp_path: Path) -> None:
    def run(work: Path) -> Mapping[str, Any]:
        work.write_text("a checkpoint", encoding="utf-8")
        return {"value": 1.5}

    store, cell = CellStore(tmp_path), Cell("final", "A b/c", {"seed": 0}, run)
    assert store.result(cell) is None
    store.run(cell)
    path = store.path(cell)
    assert path.name.startswith("final-a-b-c-")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["identity"] == {"seed": 0}
    assert set(content["software"]) == {"pyro-bmf", "torch", "python"}
    assert content["cell_seconds"] > 0
    assert not list((tmp_path / "work").iterdir())
    assert store.result(cell) == {"value": 1.5}
    path.write_text(path.read_text(encoding="utf-8").replace(content["key"], "0" * 64), encoding="utf-8")
    with pytest.raises(SavedFileError, match=r"it is of another cell.*delete it"):
        store.result(cell)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(SavedFileError, match="is damaged"):
        store.result(cell)


def test_a_failed_fit_is_a_result_and_another_error_is_not(tmp_path: Path) -> None:
    def diverge(work: Path) -> Mapping[str, Any]:
        raise FitError("it diverged")

    def interrupt(work: Path) -> Mapping[str, Any]:
        raise KeyboardInterrupt

    store = CellStore(tmp_path)
    failed, stopped = Cell("final", "one", {}, diverge), Cell("final", "two", {"two": 2}, interrupt)
    store.run(failed)
    assert store.result(failed) == {"failed": "it diverged"}
    with pytest.raises(KeyboardInterrupt):
        store.run(stopped)
    assert not store.has(stopped)


@pytest.mark.slow
def test_processes_divide_a_table(here: Path) -> None:
    line = (
        *("experiment", "table3", "--data", "ml100k", "--models", "bias-only,u-rec,i-rec", "--seeds", 2),
        *("--trials", 2, "--iterations", 3, "--threads", 1, "--quiet"),
    )
    both = call(*line, "--jobs", 2, "--out", "both")
    assert both.code == 0, both.err
    alone = call(*line, "--out", "alone")
    assert alone.code == 0, alone.err
    names = [{file.name for file in (here / one / "cells").iterdir()} for one in ("both", "alone")]
    assert names[0] == names[1]
    assert both.out.replace("both/", "alone/") == alone.out


def test_cells_of_our_presets_stay_known() -> None:
    """A setting that is new, at what was done before, must not make finished cells strangers: see `LATER`."""
    first = json.loads((Path(__file__).parent / "first_settings.json").read_text(encoding="utf-8"))
    for name, told in first.items():
        assert json.loads(json.dumps(contender(name).settings({}, 0))) == told, name
