"""Studies on disk: shared by processes, gone on with after kill -9, the same as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from experiments.study_worker import opened, value_of

from pyro_bmf.experiments.claims import Claims
from pyro_bmf.experiments.studies import SharedStudy

WORKER = Path(__file__).with_name("study_worker.py")


def start(folder: Path, sampler: str, trials: int, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, str(WORKER), str(folder), sampler, str(trials), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def run_here(shared: SharedStudy, trials: int) -> None:
    while (asked := shared.ask(trials)) is not None:
        with asked.claim:
            shared.study.tell(asked.trial, value_of(asked.cell))


def table(shared: SharedStudy) -> list[tuple[object, object]]:
    return [(tuple(trial.user_attrs["cell"]), trial.value) for trial in shared.trials]


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_study_tries_nothing_twice_and_ends_with_its_grid(sampler: str, tmp_path: Path) -> None:
    shared = opened(tmp_path, sampler)
    run_here(shared, 100)
    cells = [cell for cell, _ in table(shared)]
    assert len(cells) == len(set(cells)) == 30
    assert set(cells) == set(shared.grid.cells)
    assert shared.ask(100) is None


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_study_in_pieces_is_that_in_one(sampler: str, tmp_path: Path) -> None:
    run_here(opened(tmp_path / "one", sampler), 14)
    for trials in (3, 4, 9, 14):
        run_here(opened(tmp_path / "pieces", sampler), trials)
    assert table(opened(tmp_path / "one", sampler)) == table(opened(tmp_path / "pieces", sampler))


def test_tpe_learns_what_the_order_of_a_grid_does_not(tmp_path: Path) -> None:
    sums = {}
    for sampler in ("grid", "tpe"):
        shared = opened(tmp_path / sampler, sampler)
        run_here(shared, 18)
        sums[sampler] = sum(float(value) for _, value in table(shared)[6:])  # type: ignore[arg-type]
    assert sums["tpe"] < sums["grid"]


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    workers = [start(tmp_path, "tpe", 16, 0.01) for _ in range(2)]
    said = [worker.communicate(timeout=60)[0].splitlines() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert [lines[-1] for lines in said] == ["end", "end"]
    begun = [line for lines in said for line in lines if line.startswith("begin")]
    assert len(begun) == len(set(begun)) == 16
    shared = opened(tmp_path, "tpe")
    cells = [cell for cell, _ in table(shared)]
    assert len(cells) == len(set(cells)) == 16
    assert all(trial.state.name == "COMPLETE" for trial in shared.trials)


@pytest.mark.parametrize(("sampler", "before"), [("grid", 7), ("tpe", 3), ("tpe", 7)])
def test_a_trial_of_a_killed_process_is_run_again(sampler: str, before: int, tmp_path: Path) -> None:
    """TPE's first six trials follow from the seed alone, later ones from those before as well."""
    run_here(opened(tmp_path / "killed", sampler), before)
    killed = start(tmp_path / "killed", sampler, 14, 60)
    assert killed.stdout is not None
    assert killed.stdout.readline().startswith("begin ")
    shared = opened(tmp_path / "killed", sampler)
    assert shared.recover() == []  # it runs
    assert shared.n_counted() == before + 1
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert shared.n_counted() == before + 1
    run_here(shared, 14)
    run_here(opened(tmp_path / "whole", sampler), 14)
    assert [trial.state.name for trial in shared.study.get_trials()].count("FAIL") >= 1
    assert all(trial.state.name == "COMPLETE" for trial in shared.trials)
    assert len(shared.trials) == 14
    assert table(shared) == table(opened(tmp_path / "whole", sampler))


def test_a_journal_that_was_cut_off_within_a_line_is_gone_on_with(tmp_path: Path) -> None:
    run_here(opened(tmp_path, "grid"), 3)
    with open(tmp_path / "journal.log", "ab") as file:
        file.write(b'{"op_code":5,"worker')
    shared = opened(tmp_path, "grid")
    run_here(shared, 5)
    assert len(table(opened(tmp_path, "grid"))) == 5


def test_a_claim_is_held_once_and_ends_with_its_block(tmp_path: Path) -> None:
    mine, other = Claims(tmp_path), Claims(tmp_path)
    with mine.tried("one") as got:
        assert got
        assert not other.is_free("one")
        with other.tried("one") as second:
            assert not second
        assert other.is_free("two")
    assert other.is_free("one")
    assert not list(tmp_path.glob("one*"))


def test_a_trial_that_ends_while_stale_ones_are_looked_for_is_not_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = opened(tmp_path, "grid"), opened(tmp_path, "grid")
    asked = mine.ask(5)
    assert asked is not None
    look = other.claims.is_free

    def end_first(name: str) -> bool:
        """What may happen between the list of running trials and the look at a claim."""
        with asked.claim:
            mine.study.tell(asked.trial, 1.0)
        return look(name)

    monkeypatch.setattr(other.claims, "is_free", end_first)
    assert other.recover() == []
    assert [trial.state.name for trial in other.trials] == ["COMPLETE"]
