"""`fit` and `evaluate` say when a chain has not settled: once, and in the files as well."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
START = "The chain has not settled: "


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(RUNS / "ratings.csv", tmp_path / "ratings.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_short_chain_is_told_once(here: Path, cli: Any, quiet: tuple[str, ...]) -> None:
    asked = ("--data", "ratings.csv", "--factors", 2, "--sweeps", 32, "--burn-in", 16, "--kept-draws", 16)
    outcome = cli("fit", *asked, "--out", "run", *quiet)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count(START) == 1
    assert "--sweeps" in outcome.err.split(START)[1]
    assert "the chain has not settled (R-hat of" in outcome.out.splitlines()[0]
    chain = json.loads((here / "run" / "metrics.json").read_text())["chain"]
    assert chain["settled"] is False
    assert chain["sentence"] in outcome.err.replace("\n", " ")
    again = cli("evaluate", "run", "--json")
    assert again.err.count(START) == 1
    assert "the chain has not settled" in json.loads(again.out.splitlines()[0])["title"]


def test_guides_without_a_chain_say_nothing(here: Path, cli: Any) -> None:
    asked = ("--data", "ratings.csv", "--factors", 2, "--preset", "conjugate", "--iterations", 2)
    outcome = cli("fit", *asked, "--out", "run")
    assert outcome.code == 0, outcome.err
    assert "settled" not in outcome.err + outcome.out
    assert json.loads((here / "run" / "metrics.json").read_text())["chain"] is None


def test_a_chain_of_which_nothing_was_said_is_looked_at() -> None:
    from pyro_bmf.posterior import Posterior
    from pyro_bmf.posterior.settling import settling_of

    posterior = Posterior.load(RUNS / "default" / "model.safetensors")
    del posterior.info["chain"]
    found = settling_of(posterior)
    assert found is not None
    assert found["n_draws"] == posterior.number_of_draws(None)
    assert found["sweeps"] == posterior.info["settings"]["gibbs"]["sweeps"]
