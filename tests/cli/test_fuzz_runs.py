"""A slice of the fuzz of damaged run folders; `benchmarks/fuzz_runs.py` does as many as one likes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

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
