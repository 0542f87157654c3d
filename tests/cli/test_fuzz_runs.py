"""A slice of the fuzz of damaged run folders; `benchmarks/fuzz_runs.py` does as many as one likes."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pyro_bmf.checkpoint import CHAIN_CHECKPOINT
from pyro_bmf.posterior.saved import FILE
from pyro_bmf.tensor_files import read_tensors, write_tensors

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fuzz_runs() -> ModuleType:
    """The benchmark's module."""
    spec = importlib.util.spec_from_file_location("fuzz_runs", ROOT / "benchmarks" / "fuzz_runs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_damaged_run_folders(fuzz_runs: ModuleType) -> None:
    done, bad = fuzz_runs.fuzz(ROOT / "tests" / "fixtures" / "runs", 10, 7)
    assert sum(done.values()) == 10
    assert not bad, "\n".join(bad)


def test_what_a_fuzz_found_once(
    fuzz_runs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain's model without its rows' noise, and a chain's checkpoint under settings that have no chain."""
    runs = ROOT / "tests" / "fixtures" / "runs"
    shutil.copy(runs / "ratings.csv", tmp_path)
    for name in ("default", "amortized-after-2-checkpoints"):
        shutil.copytree(runs / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    document, tensors = read_tensors(Path("default/model.safetensors"), FILE)
    del tensors["items.noise_factor"]
    write_tensors(Path("default/model.safetensors"), FILE, document, tensors)
    code, _, err = fuzz_runs.call("predict", "default", "--user", "u1", "--item", "i1")
    assert code == 1
    assert "the tensor items.noise_factor is missing" in err
    checkpoint = Path("amortized-after-2-checkpoints/checkpoint.safetensors")
    write_tensors(checkpoint, CHAIN_CHECKPOINT, {}, {"a": torch.zeros(1)})
    code, _, err = fuzz_runs.call("fit", "--resume", checkpoint.parent)
    assert code == 1
    assert "this is not a checkpoint" in err
