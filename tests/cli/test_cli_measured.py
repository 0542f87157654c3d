"""A run is measured with its own model on its own ratings, and written by one fit at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyro_bmf.checking.predictive_check import check_predictive
from pyro_bmf.cli.runs.lock import locked
from pyro_bmf.data import load_ratings, random_split
from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation import evaluate, evaluate_with_references
from pyro_bmf.posterior import Posterior

Run = Any
RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
COMMAND = "import sys; from pyro_bmf.cli.main import main; main(sys.argv[1:])"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Finished runs, in a folder that may be written to, which is the current one."""
    target = tmp_path / "runs"
    target.mkdir()
    shutil.copy(RUNS / "ratings.csv", target)
    for name in ("amortized", "refit", "paper"):
        shutil.copytree(RUNS / name, target / name)
    monkeypatch.chdir(target)
    return target


@pytest.fixture
def other(cli: Run, runs: Path) -> Path:
    """A run of another split of the same ratings, with the settings of `amortized`."""
    config = json.loads(Path("amortized/config.json").read_text(encoding="utf-8"))
    config["splitting"]["seed"] = 1
    Path("other").mkdir()
    Path("other/config.json").write_text(json.dumps(config), encoding="utf-8")
    outcome = cli("fit", "--resume", "other", "--quiet")
    assert outcome.code == 0, outcome.err
    return runs / "other"


_CONJUGATE = ("--preset", "conjugate", "--factors", 2, "--iterations", 2, "--quiet")
MEASURES: tuple[tuple[object, ...], ...] = (
    ("evaluate", "amortized"),
    ("ppc", "amortized"),
    ("compare", "amortized", "paper"),
    ("stack", "amortized", "paper"),
    ("diagnose", "amortized"),
    ("sensitivity", "amortized"),
    ("calibrate", "amortized"),
    ("export", "amortized", "--format", "netcdf", "--out", "a.nc", "--part", "test"),
    ("predict", "amortized", "--user", "u1", "--item", "i1"),
    ("fit", "--resume", "amortized"),
)


def test_a_model_of_another_split_is_refused_by_every_command(cli: Run, other: Path) -> None:
    shutil.copy(other / "model.safetensors", "amortized/model.safetensors")
    for command in MEASURES:
        outcome = cli(*command)
        assert outcome.code == 1, command
        assert "is of another run: it was fitted to the split" in outcome.err, command
    # Without the file that tells the split's hash, the model's own is still compared.
    Path("amortized/split-hash.json").unlink()
    outcome = cli("evaluate", "amortized")
    assert outcome.code == 1
    assert "amortized was fitted to another split" in outcome.err


def test_a_model_of_other_settings_is_refused(cli: Run, runs: Path) -> None:
    shutil.copy("paper/model.safetensors", "amortized/model.safetensors")
    outcome = cli("evaluate", "amortized")
    assert outcome.code == 1
    assert "is of another run: it was fitted with" in outcome.err
    assert cli("evaluate", "paper").code == 0


def test_a_model_of_other_parts_or_a_config_of_another_fit_is_refused(cli: Run, runs: Path) -> None:
    outcome = cli("fit", "--data", "ratings.csv", *_CONJUGATE, "--out", "a")
    assert outcome.code == 0, outcome.err
    assert cli("fit", "--data", "ratings.csv", *_CONJUGATE, "--refit", "--out", "b").code == 0
    kept = Path("b/model.safetensors").read_bytes()
    shutil.copy("a/model.safetensors", "b/model.safetensors")
    outcome = cli("evaluate", "b")
    assert outcome.code == 1
    assert "it was fitted to train, config.json asks for train+valid" in outcome.err
    Path("b/model.safetensors").write_bytes(kept)
    assert cli("evaluate", "b").code == 0
    Path("b/model.safetensors").unlink()
    shutil.copy("a/config.json", "b/config.json")
    outcome = cli("fit", "--resume", "b")
    assert outcome.code == 1
    assert "b/config.json or split-hash.json is of another run, or was changed" in outcome.err


@pytest.mark.filterwarnings("ignore::pyro_bmf.data.notices.DataNotice")
def test_the_rule_in_python(runs: Path) -> None:
    split = random_split(load_ratings("ratings.csv"), seed=0)
    another = random_split(split.ratings, seed=1)
    posterior = Posterior.load("amortized/model.safetensors")
    assert evaluate(posterior, split, protocols=()).fitted_on == "train"
    for measure in (evaluate, evaluate_with_references, check_predictive):
        with pytest.raises(SettingsError, match="was fitted to another split"):
            measure(posterior, another)  # type: ignore[operator]
    with pytest.raises(SettingsError, match="fitted_on is 'train\\+valid', but"):
        evaluate(posterior, split, protocols=(), fitted_on="train+valid")
    # Without a hash its own training ratings decide.
    nameless = replace(posterior, info={})
    assert evaluate(nameless, split, protocols=()).fitted_on == "train"
    with pytest.raises(SettingsError, match="its training ratings are not the split's"):
        evaluate(nameless, another, protocols=())
    refit = Posterior.load("refit/model.safetensors")
    for model in (refit, replace(refit, info={})):
        assert evaluate(model, split, protocols=()).fitted_on == "train+valid"
        with pytest.raises(SettingsError, match="measure it on test"):
            evaluate(model, split, protocols=(), part="valid")


def test_ratings_that_moved(cli: Run, runs: Path) -> None:
    config = json.loads(Path("amortized/config.json").read_text(encoding="utf-8"))
    config["data"] = str(runs / "ratings.csv")
    Path("amortized/config.json").write_text(json.dumps(config), encoding="utf-8")
    Path("moved").mkdir()
    Path("ratings.csv").rename("moved/elsewhere.csv")
    for command in (("evaluate",), ("ppc",), ("calibrate", "--refits", 2), ("fit", "--resume")):
        outcome = cli(*command, "amortized")
        assert outcome.code == 1, command
        assert "ratings.csv, to which amortized was fitted, is not there any more" in outcome.err
        assert "with --data" in outcome.err
    assert cli("evaluate", "amortized", "--data", "moved/elsewhere.csv").code == 0
    assert cli("fit", "--resume", "amortized", "--data", "moved/elsewhere.csv").code == 0
    lines = Path("moved/elsewhere.csv").read_text(encoding="utf-8").splitlines()
    Path("changed.csv").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    outcome = cli("evaluate", "amortized", "--data", "changed.csv")
    assert outcome.code == 1
    assert "The ratings are not those of the run" in outcome.err


def test_given_files_that_moved(cli: Run, runs: Path) -> None:
    lines = Path("ratings.csv").read_text(encoding="utf-8").splitlines()
    for name, part in (("tr.csv", lines[1:150]), ("te.csv", lines[150:])):
        Path(name).write_text("\n".join([lines[0], *part]) + "\n", encoding="utf-8")
    given = ("--train", "tr.csv", "--test", "te.csv", "--preset", "conjugate", "--factors", 2)
    outcome = cli("fit", *given, "--iterations", 2, "--quiet", "--out", "given")
    assert outcome.code == 0, outcome.err
    Path("moved").mkdir()
    for name in ("tr.csv", "te.csv"):
        Path(name).rename(f"moved/{name}")
    assert "tr.csv, to which given was fitted, is not there any more" in cli("evaluate", "given").err
    assert "give the folder that holds them now" in cli("evaluate", "given", "--data", "moved/tr.csv").err
    outcome = cli("evaluate", "given", "--data", "moved")
    assert outcome.code == 0, outcome.err


def test_ratings_that_came_through_a_pipe(cli: Run, runs: Path) -> None:
    config = json.loads(Path("amortized/config.json").read_text(encoding="utf-8"))
    for place in ("/dev/stdin", "/dev/fd/63", "-"):
        config["data"] = place
        Path("amortized/config.json").write_text(json.dumps(config), encoding="utf-8")
        outcome = cli("evaluate", "amortized")
        assert outcome.code == 1
        assert (
            f"came through {place}, which is not kept: say where its ratings are, with --data" in outcome.err
        )
        assert cli("evaluate", "amortized", "--data", "ratings.csv").code == 0


# --- one fit at a time ------------------------------------------------------------------------------------

_FIT = (
    "--preset",
    "amortized",
    "--columns",
    "user,item,stars",
    "--factors",
    "4",
    "--threads",
    "1",
    "--quiet",
)


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_second_fit_in_the_folder_is_refused_at_once(cli: Run, own_csv: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit = ("fit", "--data", own_csv, *_FIT, "--iterations", 5000, "--checkpoint-every", 1)
    with start(*fit, "--out", run) as process:
        end = time.monotonic() + 120
        while not (run / "checkpoint.safetensors").exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        before = (run / "config.json").read_bytes()
        for command in ((*fit, "--out", run), ("fit", "--resume", run)):
            outcome = cli(*command)
            assert outcome.code == 1
            assert f"{run} is being written by another fit (process {process.pid} on " in outcome.err
            assert "delete" not in outcome.err
        assert "has no model yet" in cli("evaluate", run).err  # a reader is not held up
        assert (run / "config.json").read_bytes() == before
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    assert (run / ".lock").exists()  # which is stale, and in nobody's way
    with locked(run):
        assert "is being written by another fit" in cli("fit", "--resume", run).err
    assert not (run / ".lock").exists()


def test_fits_that_begin_together_get_folders_of_their_own(own_csv: Path, tmp_path: Path) -> None:
    fit = ("fit", "--data", own_csv, *_FIT, "--iterations", 1, "--batch-users", 100, "--batch-items", 100)
    processes = [start(*fit) for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    for name in ("own", "own-2"):
        assert (tmp_path / "runs" / name / "model.safetensors").is_file()
        assert not (tmp_path / "runs" / name / ".lock").exists()
