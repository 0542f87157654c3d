"""`pyro-bmf tune`: its best trial is a run, its refusals name the flag, and it goes on where it stood."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import call

from pyro_bmf.baselines import IRec

FEW = ("--data", "ml100k", "--threads", "1", "--quiet")
QUICK = (*FEW, "--model", "i-rec", "--iterations", "3", "--set", "batch_size=20")


def test_the_best_trial_becomes_a_run_that_evaluate_reads(here: Path) -> None:
    line = ("tune", *FEW, "--model", "paper", "--iterations", "2", "--set", "user_batch_size=20")
    line = (*line, "--set", "item_batch_size=40", "--out", "study")
    outcome = call(*line, "--trials", 2)
    assert outcome.code == 0, outcome.err
    assert "Next: pyro-bmf evaluate study/best" in outcome.out
    config = json.loads((here / "study/best/config.json").read_text(encoding="utf-8"))
    report = json.loads((here / "study/report.json").read_text(encoding="utf-8"))
    for name in ("beta_user", "user_batch_size", "max_iterations"):
        assert config["settings"]["cross-feedback"][name] == report["chosen"][name]
    measured = call("evaluate", "study/best", "--part", "valid", "--json")
    assert measured.code == 0, measured.err
    rows = json.loads(measured.out.splitlines()[0])["rows"]
    (own,) = [row for row in rows if row["system"] not in ("global-mean", "bias-only", "popularity")]
    assert own["rmse"] == pytest.approx(report["value"], rel=1e-6)
    before = (here / "study/best/model.safetensors").stat().st_mtime_ns
    again = call(*line, "--trials", 2)
    assert again.code == 0, again.err
    assert again.out == outcome.out  # nothing is run again
    assert (here / "study/best/model.safetensors").stat().st_mtime_ns == before


def test_a_baseline_is_saved_and_more_trials_go_on(here: Path) -> None:
    first = call("tune", *QUICK, "--trials", 2)
    assert first.code == 0, first.err
    assert "No picture of what mattered" in first.err
    more = call("tune", *QUICK, "--trials", 6, "--no-prune")
    assert more.code == 1
    assert "holds a study whose prune is True" in more.err
    more = call("tune", *QUICK, "--trials", 6, "--json")
    assert more.code == 0, more.err
    rows = json.loads(more.out.splitlines()[0])["rows"]
    assert sorted(row["trial"] for row in rows) == list(range(6))
    folder = here / "tuning/ml100k-i-rec"
    with open(folder / "trials.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 6
    chosen = json.loads((folder / "report.json").read_text(encoding="utf-8"))["chosen"]
    settings = IRec.load(folder / "best").settings()
    assert {name: settings[name] for name in chosen} == chosen
    assert (folder / "best/tuned.json").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*FEW, "--model", "svd"), "--model svd: There is no model 'svd': choose from"),
        ((*FEW, "--model", "bias-only"), "bias-only has nothing to tune"),
        (("--model", "i-rec"), "as in --data ml100k"),
        ((*QUICK, "--grid", "n_units=11"), "n_units=11 is not of the grid: choose from 10, 25, 50, 100"),
        ((*QUICK, "--grid", "n_units"), "write NAME=VALUE"),
        ((*QUICK, "--set", "l2=0,1"), "l2: give one value"),
        ((*QUICK, "--set", "max_iterations=3"), "--iterations and --set max_iterations are one setting"),
        ((*QUICK, "--objective", "nll", "--prune"), "--prune goes with --objective rmse alone"),
        ((*QUICK, "--fractions", "0.9,0,0.1"), "the split has none: split some off (--fractions)"),
        ((*QUICK, "--set", "colour=1"), "'colour' is not a setting of i-rec"),
        ((*FEW, "--model", "bias-only", "--iterations", "3"), "bias-only has no iterations"),
    ],
)
def test_refusals_name_the_remedy(words: tuple[str, ...], said: str, here: Path) -> None:
    outcome = call("tune", *words)
    assert outcome.code in (1, 2)
    assert said in outcome.err
    assert not list(here.iterdir())


@pytest.mark.slow
def test_several_processes_and_their_errors(here: Path) -> None:
    outcome = call("tune", *QUICK, "--trials", 4, "--jobs", 2)
    assert outcome.code == 0, outcome.err
    report = json.loads((here / "tuning/ml100k-i-rec/report.json").read_text(encoding="utf-8"))
    assert [one["state"] for one in report["trials"]] == ["complete"] * 4
