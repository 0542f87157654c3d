"""The example scripts run as a user would run them, and print what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PROMISES = {
    "quickstart.py": ("test RMSE", "mean_sd", "rank"),
    "own_ratings.py": ("a new user with 1 rating)", "a new user with 4 ratings", "musical"),
    "own_prior.py": ("both keep to", "LogisticPrior LaplaceNoise", "mean_sd"),
    "posterior_predictive.py": ("Bayesian p-value", "eta[0]"),
}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_example(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path), "MPLBACKEND": "Agg"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    for promise in PROMISES[name]:
        assert promise in done.stdout
    assert time.perf_counter() - started < 120


def test_there_are_examples() -> None:
    assert set(PROMISES) == {path.name for path in EXAMPLES.glob("*.py")}
