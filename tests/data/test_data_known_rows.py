"""Rows that are known before they are written and damaged: each is read, or its loss is refused by name."""

import importlib.util
import random
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

_PATH = Path(__file__).parents[2] / "benchmarks" / "fuzz_readers.py"


def _script() -> ModuleType:
    # The folder of benchmarks is no package.
    specification = importlib.util.spec_from_file_location("fuzz_readers", _PATH)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["fuzz_readers"] = module
    specification.loader.exec_module(module)
    return module


fuzz: Any = _script()


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_no_row_is_lost_without_a_word(seed: int) -> None:
    rng = random.Random(seed)
    file = fuzz.damage(rng, fuzz.draw(rng))
    with tempfile.TemporaryDirectory() as folder:
        outcome, why = fuzz.check(file, Path(folder))
    assert outcome in ("read", "refused"), why


def test_what_is_undamaged_is_read() -> None:
    # The fuzz can find a fault only where most files are read, and all kinds of damage occur.
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(150):
            rng = random.Random(f"plain {seed}")
            file = fuzz.damage(rng, fuzz.draw(rng))
            if file.what == "nothing":
                outcomes.append(fuzz.check(file, Path(folder))[0])
    assert len(outcomes) > 30
    assert set(outcomes) == {"read"}


@pytest.mark.slow
def test_many_files_of_a_new_seed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz_readers.py", "--files", "2000"])
    assert fuzz.main() == 0, capsys.readouterr().out
