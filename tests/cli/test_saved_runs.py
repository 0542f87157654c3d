"""Runs that were written once: they open and predict the same, and interrupted ones go on to the same.

`fixtures/make_runs.py` made them; what they must predict was recorded by the version before. Processors of
one instruction set may round differently, by the sizes of their caches, so that bits cannot be compared with
those of another machine: what is opened predicts the same to a millionth, and what goes on, by single
precision, to a ten-thousandth. That a fit repeats itself to the bit is tested where both runs are made.
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


def assert_same(found: dict[str, torch.Tensor], name: str, *, within: float) -> None:
    expected = load_file(RUNS / name / "expected.safetensors")
    torch.testing.assert_close(found, expected, rtol=within, atol=within)  # names the key that differs


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All the runs, in a folder that may be written to, which is the current one."""
    target = tmp_path / "runs"
    shutil.copytree(RUNS, target)
    monkeypatch.chdir(target)
    return target


def test_there_are_runs_of_every_kind() -> None:
    assert FINISHED == [
        "amortized", "conjugate", "default", "default-refit", "exact-head", "guide-then-sweeps", "paper",
        "refit",
    ]  # fmt: skip
    assert {finished_of(name) for name in UNFINISHED} == set(FINISHED)


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_predicts_the_same(name: str) -> None:
    assert_same(predictions(RUNS / name / "model.safetensors"), name, within=1e-6)


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_interrupted_run_goes_on_to_the_same_predictions(name: str, copied: Path, cli: Any) -> None:
    begun = json.loads((RUNS / "made-by.json").read_text(encoding="utf-8"))
    checkpoint = list((copied / name).glob("checkpoint*"))
    outcome = cli("fit", "--resume", name)
    swept = ("default-after-4-checkpoints", "default-refit-after-4-checkpoints")
    staged = ("guide-then-sweeps-after-6-checkpoints", "exact-head-after-4-checkpoints")
    if checkpoint and name in (*swept, *staged):
        # Their sweeps had other priors or fewer moves: they do not go on by others.
        assert outcome.code == 1
        assert "of another fit: its version of the sweeps is" in outcome.err
        return
    if checkpoint and name == "exact-head-after-1-checkpoints":
        # Its guide had another prior of the factors: it does not go on by this one.
        assert outcome.code == 1
        assert "of another fit: its model is" in outcome.err
        return
    if checkpoint and begun["torch"] != torch.__version__:
        assert outcome.code == 1
        assert "of another fit: its torch is" in outcome.err
        return
    assert outcome.code == 0, outcome.err
    found = predictions(copied / name / "model.safetensors")
    afterwards = ("guide-then-sweeps-after-2-checkpoints",)
    if name == "conjugate-before-its-end" or name in afterwards:
        # Without a checkpoint it is fitted anew, now with a prior of the cut points; after its guide it is
        # swept under other priors, or by other moves.
        expected = load_file(RUNS / finished_of(name) / "expected.safetensors")
        assert found.keys() == expected.keys()
        assert all(found[key].shape == value.shape for key, value in expected.items())
        assert all(bool(torch.isfinite(value).all()) for value in found.values())
        return
    # The second fit of one that is interrupted in its first begins anew, by steps that round otherwise.
    assert_same(found, finished_of(name), within=1e-4)
