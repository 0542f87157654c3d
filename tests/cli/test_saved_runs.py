"""Runs that an earlier version wrote: they open and predict the same bits, and go on or are refused by name.

`fixtures/make_runs.py` made them. Bits are compared where torch and the processor are those that made them;
elsewhere figures agree as closely as single precision lets them.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUNS = FIXTURES / "runs"
FINISHED = sorted(path.parent.name for path in RUNS.glob("*/expected.safetensors"))
UNFINISHED = sorted(path.name for path in RUNS.iterdir() if path.is_dir() and path.name not in FINISHED)

sys.path.insert(0, str(FIXTURES))
from make_runs import predictions  # noqa: E402


def finished_of(unfinished: str) -> str:
    return max((name for name in FINISHED if unfinished.startswith(f"{name}-")), key=len)


def assert_same(found: dict[str, torch.Tensor], name: str) -> None:
    expected = load_file(RUNS / name / "expected.safetensors")
    made_by = json.loads((RUNS / "made-by.json").read_text(encoding="utf-8"))
    here = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if here == made_by:
            assert torch.equal(found[key], value), key
        else:
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-4)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All the runs, in a folder that may be written to, which is the current one."""
    target = tmp_path / "runs"
    shutil.copytree(RUNS, target)
    monkeypatch.chdir(target)
    return target


def test_there_are_runs_of_every_kind() -> None:
    assert FINISHED == [
        "amortized", "conjugate", "default", "default-refit", "guide-then-sweeps", "paper", "refit"
    ]  # fmt: skip
    assert {finished_of(name) for name in UNFINISHED} == set(FINISHED)


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_predicts_the_same(name: str) -> None:
    assert_same(predictions(RUNS / name / "model.safetensors"), name)


@pytest.mark.parametrize("name", [name for name in UNFINISHED if list((RUNS / name).glob("checkpoint*"))])
def test_a_checkpoint_without_a_checksum_is_refused_by_name(name: str, copied: Path, cli: Any) -> None:
    outcome = cli("fit", "--resume", name)
    assert outcome.code == 1
    assert "safetensors: this is no checkpoint" in outcome.err
    assert "Delete it and start over" in outcome.err
    for file in (copied / name).glob("checkpoint*"):
        file.unlink()
    begins_anew(name, copied, cli)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(copied: Path, cli: Any) -> None:
    begins_anew("conjugate-before-its-end", copied, cli)


def begins_anew(name: str, copied: Path, cli: Any) -> None:
    """Fit by today's methods with the run's own data and settings: much the same model, not the same bits."""
    outcome = cli("fit", "--resume", name)
    assert outcome.code == 0, outcome.err
    found = predictions(copied / name / "model.safetensors")["mean"]
    expected = load_file(RUNS / finished_of(name) / "expected.safetensors")["mean"]
    assert float((found - expected).square().mean().sqrt()) < 0.25
