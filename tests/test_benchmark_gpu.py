"""The script for a graphics card runs to its end on a CPU, in small, and says what it skips."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(out: Path, *options: str) -> tuple[str, dict[str, Any]]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--device", "cpu"]
    # From a plain checkout: nothing of it need be installed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(out), *options],
        capture_output=True,
        text=True,
        env=environment,
        cwd=out.parent,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(out.read_text("utf-8"))


def test_sums(tmp_path: Path) -> None:
    said, found = run(tmp_path / "found.json", "--only", "sums")
    assert found["wrong"] == []
    assert said.count("ok   ") == 7
    assert "all checks passed" in said


def test_iterations(tmp_path: Path) -> None:
    said, found = run(tmp_path / "found.json", "--only", "iterations")
    assert "ok    exact head, pairs streamed: the same bits" in said
    assert "skip  what the host waits for" in said
    assert set(found["iterations"]) == {"on the device", "streamed"}


@pytest.mark.slow
def test_the_whole_fit_is_run_where_it_is_asked_for(tmp_path: Path) -> None:
    said, found = run(tmp_path / "found.json", "--only", "whole")
    assert "default, to the end: deterministic True" in said
    assert set(found["whole"]) == {"default, to the end"}


def test_a_budget_that_is_over_skips_and_says_so(tmp_path: Path) -> None:
    said, found = run(tmp_path / "found.json", "--budget", "0")
    assert "skip  twenty: the 0 s are over" in said
    assert {"sums", "steps", "methods", "twenty", "tests"} <= {one["what"] for one in found["skipped"]}


@pytest.mark.slow
def test_every_section(tmp_path: Path) -> None:
    said, found = run(tmp_path / "found.json")
    assert found["wrong"] == []
    assert len(said.splitlines()) < 2000
    skipped = [one["what"] for one in found["skipped"]]
    assert "steps of paper, recorded" in skipped
    assert set(found["steps"]) == {"paper, plain", "paper, joint"}
    assert len(found["methods"]) == 7
    assert len(found["twenty"]) == 5
    assert all("rmse" in record for record in found["methods"].values())
