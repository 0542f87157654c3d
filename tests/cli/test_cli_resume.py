"""Fits that are interrupted or killed go on to the very bits of an uninterrupted one."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

Run = Any
COMMAND = "import sys; from pyro_bmf.cli.main import main; main(sys.argv[1:])"
FIT = (
    *("--preset", "amortized"),
    *("--columns", "user,item,stars", "--scale", "1:5:1", "--threads", "1", "--quiet"),
    *("--batch-users", "10", "--batch-items", "10", "--factors", "4"),
    *("--checkpoint-every", "1", "--patience", "1000", "--iterations"),
)


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A suite that runs in the background may ignore interrupts, and children inherit that.
        preexec_fn=_heed_interrupts,
    )


def wait_until(process: subprocess.Popen[str], happens: Callable[[], bool], *, seconds: float = 120) -> bool:
    """Wait as tightly as can be; tell whether it happened before the process ended."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if happens():
            return True
        assert time.monotonic() < end, "the fit never came to the point"
    return False


def finish(process: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str]:
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def assert_same_model(one: Path, other: Path) -> None:
    left, right = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def records(run: Path) -> list[dict[str, str | None]]:
    """Return the history without its columns of times."""
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


@pytest.fixture
def whole(cli: Run, own_csv: Path, tmp_path: Path) -> Callable[[int], Path]:
    """An uninterrupted fit of so many iterations."""

    def fit(iterations: int, *more: str) -> Path:
        outcome = cli("fit", "--data", own_csv, *FIT, iterations, *more, "--out", "whole")
        assert outcome.code == 0, outcome.err
        return tmp_path / "whole"

    return fit


def test_killed_in_the_middle_of_writing_a_checkpoint(
    cli: Run, own_csv: Path, tmp_path: Path, whole: Callable[[int], Path]
) -> None:
    run = tmp_path / "killed"
    process = start("fit", "--data", own_csv, *FIT, 8, "--out", run)
    checkpoint = run / "checkpoint.safetensors"
    caught = wait_until(
        process, lambda: checkpoint.exists() and any(run.glob(".checkpoint.safetensors.*.tmp"))
    )
    code, _ = finish(process, signal.SIGKILL)
    assert caught
    assert code == -signal.SIGKILL
    assert not (run / "model.safetensors").exists()
    outcome = cli("fit", "--resume", run)
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json", "environment.json", "history.csv", "metrics.json", "model.safetensors",
        "selection.safetensors", "split-hash.json",
    ]  # fmt: skip
    uninterrupted = whole(8)
    assert_same_model(run, uninterrupted)
    assert records(run) == records(uninterrupted)


def test_ctrl_c_says_how_to_go_on(cli: Run, own_csv: Path, tmp_path: Path) -> None:
    run = tmp_path / "a run"
    process = start("fit", "--data", own_csv, *FIT, 5000, "--out", run)
    assert wait_until(process, (run / "checkpoint.safetensors").exists)
    code, err = finish(process, signal.SIGINT)
    assert code == 130
    assert err.splitlines()[-1] == (
        f"Interrupted. The last checkpoint is kept; go on with: pyro-bmf fit --resume '{run}'"
    )
    assert not list(run.glob(".*.tmp"))
    outcome = cli("predict", run, "--user", "u 1", "--item", "film 1")
    assert "has no model yet" in outcome.err
    outcome = cli("fit", "--resume", run, "--threads", 2)
    assert outcome.code == 1
    assert "its threads is 1, here it is 2" in outcome.err
    assert (run / "checkpoint.safetensors").exists()


def test_ctrl_c_before_the_first_checkpoint(own_csv: Path, tmp_path: Path) -> None:
    run = tmp_path / "early"
    process = start("fit", "--data", own_csv, *FIT, 5000, "--checkpoint-every", 4000, "--out", run)
    assert wait_until(process, (run / "split-hash.json").exists)
    time.sleep(0.3)  # the fit's own imports, or its first iterations
    code, err = finish(process, signal.SIGINT)
    assert code == 130
    assert "Interrupted before the first checkpoint (one every 4000 iterations)" in err
    assert f"pyro-bmf fit --resume {run}" in err


def test_ctrl_c_where_there_are_no_checkpoints(own_csv: Path, tmp_path: Path) -> None:
    run = tmp_path / "ascent"
    process = start(
        *("fit", "--data", own_csv, "--columns", "user,item,stars", "--scale", "1:5:1", "--quiet"),
        *("--preset", "conjugate", "--factors", 2),
        *("--iterations", 100_000, "--patience", 100_000, "--threads", 1, "--out", run),
    )
    assert wait_until(process, (run / "split-hash.json").exists)
    time.sleep(0.3)
    code, err = finish(process, signal.SIGINT)
    assert code == 130
    assert (
        f"A fit by coordinate ascent writes no checkpoints; start over with: pyro-bmf fit --resume {run}"
        in err
    )


def test_killed_before_anything_was_done(
    cli: Run, own_csv: Path, tmp_path: Path, whole: Callable[[int], Path]
) -> None:
    """The folder that such a kill leaves: a config, and perhaps the split's hash."""
    uninterrupted = whole(3)
    run = tmp_path / "early"
    run.mkdir()
    (run / "config.json").write_bytes((uninterrupted / "config.json").read_bytes())
    (run / ".model.safetensors.0123abcd.tmp").mkdir()
    (run / ".model.safetensors.0123abcd.tmp" / "content").write_bytes(b"half")
    assert cli("fit", "--resume", run).code == 0
    assert_same_model(run, uninterrupted)
    assert not list(run.glob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("refit", [False, True])
def test_killed_again_and_again_at_random(
    cli: Run, own_csv: Path, tmp_path: Path, whole: Callable[..., Path], refit: bool
) -> None:
    more = ("--refit",) if refit else ()
    run = tmp_path / "killed"
    arguments: tuple[object, ...] = ("fit", "--data", own_csv, *FIT, 40, *more, "--out", run)
    rng = np.random.default_rng(int(refit))
    kills = 0
    for _ in range(40):
        process = start(*arguments)
        if wait_until(process, (run / "split-hash.json").exists):
            time.sleep(float(rng.uniform(0, 2.5)))
            kills += process.poll() is None
        code, err = finish(process, signal.SIGKILL)
        assert code in (0, -signal.SIGKILL), err
        if (run / "model.safetensors").exists():
            break
        arguments = ("fit", "--resume", run)
    assert kills >= 2
    assert cli("fit", "--resume", run).code == 0
    uninterrupted = whole(40, *more)
    assert_same_model(run, uninterrupted)
    assert records(run) == records(uninterrupted)
