"""`pyro-bmf tune`: what it says of a baseline, and of a study that is of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyro_bmf.baselines import IRec

Run = Any
FEW = (
    "--model",
    "i-rec",
    "--columns",
    "user,item,stars",
    "--scale",
    "1:5:1",
    "--trials",
    1,
    "--out",
    "study",
)


def test_a_baseline_is_no_run_and_says_how_it_is_read(cli: Run, own_csv: Path) -> None:
    words = ("tune", "--data", own_csv, *FEW, "--iterations", 1, "--quiet", "--threads", 1)
    outcome = cli(*words)
    assert outcome.code == 0, outcome.err
    assert "\n1 trial of " in outcome.out
    assert "Trials and report are in study, the best fit is in study/best." in outcome.out
    assert "a fitted baseline and no run: evaluate, predict and recommend do not read it." in outcome.out
    assert "pyro_bmf.baselines.IRec.load('study/best')" in outcome.out
    assert IRec.load("study/best").name == "i-rec"
    other = cli(*(2 if word == 1 else word for word in words))
    assert other.code == 1
    assert "whose trials (--set, --iterations) all have {'max_iterations': 1}, and" in other.err


@pytest.mark.parametrize("seed", ["--seed", "--split-seed"])
def test_seeds_that_no_generator_takes(cli: Run, own_csv: Path, seed: str) -> None:
    outcome = cli("tune", "--data", own_csv, *FEW, seed, 2**64)
    assert outcome.code == 2
    assert f"'{seed}': {2**64}: a seed is a whole number from 0 to 4294967295." in outcome.err
    assert not Path("study").exists()
