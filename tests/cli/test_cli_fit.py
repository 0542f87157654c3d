"""`pyro-bmf fit`: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf.errors import SettingsError
from pyro_bmf.methods.settings import preset
from pyro_bmf.posterior import Posterior

Run = Any
QUICK = (
    *(
        "--preset",
        "amortized",
        "--threads",
        "1",
        "--batch-users",
        "100",
        "--batch-items",
        "100",
        "--iterations",
        "2",
    ),
    *("--factors", "4", "--tower-outputs", "8"),
)
COLUMNS = ("--columns", "user,item,stars", "--scale", "1:5:1")


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- what it prints and writes --------------------------------------------------------------------------


def test_output(fitted: tuple[Path, Any]) -> None:
    path, outcome = fitted
    lines = outcome.out.splitlines()
    assert "test ratings (random split 70/15/15, seed 0), posterior-predictive mean" in lines[0]
    place = next(number for number, line in enumerate(lines) if line.startswith("Recommendations"))
    assert lines[place - 1] == ""
    assert lines[place].endswith("; posterior-predictive mean and 90 % interval, cut to 1 to 5)")
    assert "(by liked; chosen: among the 30.1 % of ratings that were held out; " in lines[place]
    assert lines[place + 3].split()[0] == "1"
    assert "Film [" in lines[place + 3]
    assert " to " in lines[place + 3]
    assert lines[-3].startswith(f"Saved in {path} (3 iterations in ")
    assert "validation RMSE" in lines[-3]
    assert lines[-2] == f"Next: pyro-bmf recommend {path} --user 7"
    assert lines[-1] == f"      pyro-bmf evaluate {path} --detail"
    assert "M parameters" in outcome.err
    assert "s an iteration after the first" in outcome.err


def test_run_folder(tiny_run: Path, data_dir: Path) -> None:
    assert sorted(path.name for path in tiny_run.iterdir()) == [
        "config.json", "environment.json", "history.csv", "metrics.json", "model.safetensors",
        "selection.safetensors", "split-hash.json",
    ]  # fmt: skip
    config = json.loads((tiny_run / "config.json").read_text(encoding="utf-8"))
    assert config["data"] == "ml100k"
    assert config["reading"]["data_dir"] == str(data_dir)
    assert config["settings"]["model"]["n_factors"] == 4
    assert config["running"]["threads"] == 1
    with open(tiny_run / "history.csv", newline="", encoding="utf-8") as file:
        history = list(csv.DictReader(file))
    assert [row["iteration"] for row in history] == ["1", "2", "3"]
    assert float(history[-1]["valid_rmse"]) > 0
    assert "kl_user_factors" in history[0]
    surroundings = json.loads((tiny_run / "environment.json").read_text(encoding="utf-8"))
    assert surroundings["threads"] == 1
    assert surroundings["iterations"] == 3
    split = json.loads((tiny_run / "split-hash.json").read_text(encoding="utf-8"))
    posterior = Posterior.load(tiny_run / "model.safetensors")
    assert posterior.info["split_hash"] == split["hash"]


def test_json_is_all_that_is_printed(cli: Run, own_csv: Path, tmp_path: Path) -> None:
    outcome = cli(
        *("fit", "--data", own_csv, *COLUMNS, *QUICK, "--json", "--quiet", "--recommend-for", "u 3"),
        *("--csv", tmp_path / "figures.csv"),
    )
    assert outcome.code == 0, outcome.err
    systems, rankings, films, run = lines_of(outcome.out)
    assert [row["ranked_by"] for row in rankings["rows"]] == ["liked", "rating", "chosen", "popularity"]
    assert [row["system"] for row in systems["rows"]] == [
        "pyro-bmf", "global-mean", "bias-only", "popularity",
    ]  # fmt: skip
    assert len(films["rows"]) == 10
    assert films["rows"][0]["user_id"] == "u 3"
    assert run["rows"][0]["run"] == "runs/own"
    assert "M parameters" not in outcome.err  # quiet
    assert (tmp_path / "figures-recommendations.csv").is_file()
    assert cli("fit", "--data", own_csv, *COLUMNS, *QUICK, "--quiet").out.count("Saved in runs/own-2 ") == 1


def test_threads_that_the_number_of_ratings_chose_are_written_down(
    cli: Run, own_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    rest = [word for word in QUICK if word not in ("--threads", "1")]
    for few, expected in ((20_000, 1), (10, 2)):
        monkeypatch.setattr("pyro_bmf.process.FEW", few)
        out = f"few-{few}"
        assert cli("fit", "--data", own_csv, *COLUMNS, *rest, "--out", out, "--quiet").code == 0
        config = json.loads(Path(out, "config.json").read_text(encoding="utf-8"))
        assert config["running"]["threads"] == expected


def test_a_folder_with_the_name_of_a_set_is_not_that_set(cli: Run, data_dir: Path, tmp_path: Path) -> None:
    arguments = ("fit", "--data", "ml100k", "--data-dir", data_dir, "--quiet", *QUICK)
    assert cli(*arguments, "--out", "ml100k").code == 0
    assert cli(*arguments).code == 0  # beside ./ml100k, which is a run
    assert cli("evaluate", "runs/ml100k").code == 0


def test_a_written_split_is_fitted_as_it_is(cli: Run, data_dir: Path) -> None:
    assert cli("data", "split", "ml100k", "--data-dir", data_dir, "--seed", 4, "--out", "mine").code == 0
    outcome = cli("fit", "--data", "mine", "--quiet", *QUICK)
    assert "random split 70/15/15, seed 4" in outcome.out
    assert cli("evaluate", "runs/mine").code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--likelihood", "ordered-logistic"), "the likelihood ordered-logistic: taking"),
        (
            ("--likelihood", "ordered-probit:cuts=user"),
            "the likelihood ordered-probit with cut points by user: taking",
        ),
        (("--prior", "student-t:df=4"), "the prior student-t: taking"),
    ],
)
def test_what_the_default_does_not_know_goes_to_the_encoders(
    cli: Run, own_csv: Path, options: tuple[str, ...], said: str
) -> None:
    """And says so: the default preset was not asked for by name."""
    outcome = cli("fit", "--data", own_csv, *COLUMNS, *QUICK[2:], *options, "--out", "runs/own")
    assert outcome.code == 0, outcome.err
    assert f"The preset default does not know {said} the preset amortized" in outcome.err
    config = json.loads(Path("runs/own/config.json").read_text())
    assert config["settings"]["preset"] == "amortized"


def test_without_validation_the_last_state_is_kept(cli: Run, own_csv: Path) -> None:
    outcome = cli("fit", "--data", own_csv, *COLUMNS, *QUICK, "--fractions", "0.8,0,0.2")
    assert outcome.code == 0, outcome.err
    assert "kept: iteration 2)." in outcome.out


def test_stopped_by_patience_says_so(cli: Run, own_csv: Path) -> None:
    outcome = cli(
        *("fit", "--data", own_csv, *COLUMNS, *QUICK, "--iterations", "60", "--learning-rate", 0.05),
        *("--patience", 1, "--set", "ema_decay=0", "--quiet"),
    )
    assert outcome.code == 0, outcome.err
    assert "stopped as validation RMSE did not improve" in outcome.out


# --- refit and warm start -------------------------------------------------------------------------------


def test_refit_trains_on_train_and_validation(cli: Run, own_csv: Path) -> None:
    arguments = ("fit", "--data", own_csv, *COLUMNS, *QUICK, "--quiet", "--refit", "--out", "refitted")
    outcome = cli(*arguments)
    assert outcome.code == 0, outcome.err
    assert "posterior-predictive mean, fitted to train + validation" in outcome.out
    split = json.loads(Path("refitted/split-hash.json").read_text(encoding="utf-8"))
    posterior = Posterior.load("refitted/model.safetensors")
    assert len(posterior.train) == split["n_train"] + split["n_valid"]
    chosen = json.loads(Path("refitted/selection.json").read_text(encoding="utf-8"))["iterations"]
    assert len(Path("refitted/history.csv").read_text(encoding="utf-8").splitlines()) == chosen + 1
    assert not list(Path("refitted").glob("checkpoint*"))
    outcome = cli("evaluate", "refitted", "--part", "valid")
    assert outcome.code == 1
    assert "was fitted to the validation ratings too: measure it on test" in outcome.err


def test_warm_start_takes_new_rows_and_tells_what_it_has_seen(
    cli: Run, own_csv: Path, tmp_path: Path
) -> None:
    assert cli("fit", "--data", own_csv, *COLUMNS, *QUICK, "--quiet", "--out", "first").code == 0
    more = own_csv.read_text(encoding="utf-8") + "".join(f"ann,film {n},4\nu 3,new {n},2\n" for n in range(9))
    (tmp_path / "more.csv").write_text(more, encoding="utf-8")
    outcome = cli(
        *("fit", "--data", "more.csv", *COLUMNS, "--threads", 1, "--warm-start", "first", "--quiet"),
        *("--recommend-for", "ann", "--out", "second"),
    )
    assert outcome.code == 0, outcome.err
    split = json.loads(Path("second/split-hash.json").read_text(encoding="utf-8"))
    seen = split["n_test_seen_by_warm_start"]
    first, second = (Posterior.load(f"{name}/model.safetensors") for name in ("first", "second"))
    assert second.n_factors == first.n_factors == 4  # the settings of the earlier run
    known = set(zip(*raw_pairs(first), strict=True))
    assert 0 < seen < len(known)
    assert f"Note: {seen} of the {split['n_test']} test ratings were training ratings" in outcome.err
    assert outcome.out.splitlines()[0].endswith(f"; the warm start was trained on {seen} of them")
    assert f"; the warm start was trained on {seen} of them" in cli("evaluate", "second").out
    outcome = cli("fit", "--data", "more.csv", *COLUMNS, "--warm-start", "first", "--factors", 7, "--quiet")
    assert outcome.code == 1
    assert "A warm start needs the same architecture: n_factors is 4" in outcome.err
    assert not Path("runs/more").exists()
    outcome = cli("fit", "--data", "more.csv", "--warm-start", "first", "--preset", "paper")
    assert "--warm-start takes the settings of its run: leave out --preset" in outcome.err


def raw_pairs(posterior: Posterior) -> tuple[list[Any], list[Any]]:
    train = posterior.train
    return (
        train.user_vocabulary.raw(train.users).tolist(),
        train.item_vocabulary.raw(train.items).tolist(),
    )


# --- what it refuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--recommend-for", "nobody"), 1, "--recommend-for: unknown user id 'nobody'"),
        (("--device", "cuda:99"), 1, "cuda:99"),
        (("--device", "abacus"), 1, "There is no device 'abacus'"),
        (("--factors", "900000000"), 1, "This fit would need"),
        (("--scheme", "time"), 1, "needs timestamps"),
        (("--refit", "--fractions", "0.8,0,0.2"), 2, "--refit needs validation ratings"),
        (("--noise", "loud"), 2, "'loud' is neither a positive number nor 'learned'"),
        (("--noise", "0"), 2, "'0' is neither a positive number nor 'learned'"),
        (("--prior-scale", "0"), 2, "0.0 is not in the range x>0"),
        (("--prior-mean", "far"), 2, "'far' is neither a number nor 'ratings'"),
        (("--prior-mean", "inf"), 2, "'inf' is neither a number nor 'ratings'"),
        (("--prior-mean", "0.5", "--prior", "laplace"), 1, "prior_mean is 0.5 and prior 'laplace'"),
        (("--learning-rate", "nan"), 1, "learning_rate is nan"),
        (("--set", "ema_decay=high"), 1, "ema_decay is 'high': give a share"),
        (("--set", "biases=1"), 1, "biases is 1: give true or false"),
        (("--set", "n_head_layers=none"), 1, "n_head_layers is None: give a whole number"),
        (("--set", "colour=red"), 1, "'colour' is not a setting"),
        (("--set", "colour"), 2, "write NAME=VALUE"),
        (("--no-feedback", "--no-data-input"), 1, "both off"),
        (("--no-feedback", "--attention", "sum"), 1, "feedback is off"),
        (("--learning-rate", "1e30", "--iterations", "2"), 1, "The fit diverged"),
        (("--warm-start", "nowhere"), 2, "'nowhere' does not exist"),
        (("--warm-start", "."), 1, "is not a run folder"),
    ],
)  # fmt: skip
def test_errors_come_first_and_leave_nothing(
    cli: Run, own_csv: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    # A warm start brings its run's settings, so it takes no preset.
    quick = QUICK[2:] if "--warm-start" in arguments else QUICK
    outcome = cli("fit", "--data", own_csv, *COLUMNS, *quick, *arguments)
    assert outcome.code == code, outcome.err
    assert words in outcome.err
    assert outcome.out == ""
    assert "iteration 1/" not in outcome.err
    assert outcome.err.splitlines()[-1].startswith("Error: ")
    assert not Path("runs/own").exists()


def test_which_ratings_and_where_to(cli: Run, own_csv: Path, tiny_run: Path) -> None:
    assert "Say which ratings to fit" in cli("fit").err
    assert "neither a file nor a data set" in cli("fit", "--data", "nothing").err
    assert "is a file: give a folder" in cli("fit", "--data", "ml100k", "--out", own_csv).err
    held = cli("fit", "--data", "ml100k", "--out", tiny_run)
    assert f"go on with --resume {tiny_run}" in held.err
    assert held.code == 1


def test_a_diverged_fit_keeps_the_last_good_state(cli: Run, own_csv: Path) -> None:
    outcome = cli(
        *("fit", "--data", own_csv, *COLUMNS, *QUICK, "--quiet", "--iterations", 30, "--out", "wild"),
        *("--set", "final_learning_rate=1e9", "--learning-rate", 1e-3),
    )
    assert outcome.code == 1
    assert "The fit diverged" in outcome.err
    assert "Lower the learning rate" in outcome.err
    assert outcome.err.strip().endswith("That state is saved in wild.")
    assert np.isfinite(Posterior.load("wild/model.safetensors").predict(["u 1"], ["film 1"])["mean"][0])


@pytest.mark.parametrize("option", [("--refit",), ("--preset", "paper"),
                                    ("--factors", "3"), ("--scale", "1:5:1"), ("--split-seed", "1"),
                                    ("--out", "x"), ("--set", "seed=2")])  # fmt: skip
def test_resume_takes_no_other_data_or_settings(cli: Run, tiny_run: Path, option: tuple[str, ...]) -> None:
    outcome = cli("fit", "--resume", tiny_run, *option)
    assert outcome.code == 2
    assert f"leave out {option[0]}." in outcome.err


def test_resume_of_a_finished_run_shows_it(cli: Run, tiny_run: Path) -> None:
    model = (tiny_run / "model.safetensors").read_bytes()
    outcome = cli("fit", "--resume", tiny_run, "--recommend-for", 3)
    assert outcome.code == 0, outcome.err
    assert f"{tiny_run} is finished already." in outcome.err
    assert "Recommendations for user 3" in outcome.out
    assert outcome.out.splitlines()[-3] == f"Saved in {tiny_run}."
    assert (tiny_run / "model.safetensors").read_bytes() == model
    assert "unknown user id 99" in cli("fit", "--resume", tiny_run, "--recommend-for", 99).err


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("config.json", "{", "config.json is not JSON"),
        ("config.json", "[]", "Expected `object`, got `array`"),
        ("config.json", '{"format": "else"}', "is not the config of a pyro-bmf run"),
        ("config.json", '{"format": "pyro-bmf run", "format_version": 99}', "install the newer pyro-bmf"),
        ("config.json", '{"format": "pyro-bmf run", "format_version": 1}', "fit again, or use the pyro-bmf"),
        ("config.json", '{"format": "pyro-bmf run", "format_version": 2}', "missing required field `data`"),
        ("split-hash.json", "{", "split-hash.json is not JSON"),
        ("split-hash.json", '{"hash": "0123"}', "split-hash.json is damaged"),
        ("split-hash.json", json.dumps({"hash": "0123" * 16}), "says 012301230123"),
    ],
)
def test_damaged_run_folders(
    cli: Run, tiny_run: Path, tmp_path: Path, name: str, change: str, words: str
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tiny_run.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / name).write_text(change, encoding="utf-8")
    for command in (("evaluate", copy), ("fit", "--resume", copy)):
        outcome = cli(*command)
        assert outcome.code == 1
        assert words in outcome.err
        assert outcome.err.count("Error: ") == 1


def test_settings_of_another_version(cli: Run, tiny_run: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_run / "config.json").read_text(encoding="utf-8"))
    config["settings"]["method"] = "from-the-future"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    outcome = cli("fit", "--resume", tmp_path / "run")
    assert outcome.code == 1
    assert "settings is damaged" in outcome.err


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("default", {"seed": "x"}, "seed is 'x': give a whole number of 0 or more, and below 2^64."),
        ("default", {"seed": 2**64}, f"seed is {2**64}: give a whole number of 0 or more, and below 2^64."),
        ("paper", {"prior_mean": "rating"}, "prior_mean is 'rating': give a number or 'ratings'."),
        ("amortized", {"clip_norm": True}, "clip_norm is True: give a positive number or None."),
        ("amortized", {"keep": "first"}, "keep is 'first': give 'best' or 'last'."),
        ("amortized", {"n_factors": 2.5}, "n_factors is 2.5: give a whole number of 1 or more."),
    ],
)
def test_a_value_is_of_the_right_kind(name: str, change: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as error:
        preset(name).replace(**change)
    assert str(error.value) == told


def test_a_split_without_validation_ratings_is_told(cli: Run, own_csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "none"
    few = ("--factors", 2, "--iterations", 1, "--sweeps", 2, "--burn-in", 1, "--kept-draws", 1, "--chains", 1)
    words = ("fit", "--data", own_csv, *COLUMNS, "--threads", 1, "--fractions", "0.8,0,0.2", "--out", out)
    outcome = cli(*words, *few)
    assert outcome.code == 0, outcome.err
    assert "Note: The split leaves no validation ratings: there is no validation RMSE" in outcome.err
    assert "2 Gibbs sweeps in " in outcome.out
    assert "1 draw kept)." in outcome.out
    refitted = cli("fit", "--data", own_csv, *COLUMNS, "--threads", 1, "--refit", "--out", "again", *few)
    assert "1 draw kept of train + validation)." in refitted.out, refitted.err
    assert "leaves no validation ratings" not in refitted.err


@pytest.mark.parametrize("seed", [("--seed", 2**64), ("--split-seed", 2**32), ("--set", f"seed={2**64}")])
def test_seeds_that_no_generator_takes(
    cli: Run, own_csv: Path, tmp_path: Path, seed: tuple[str, object]
) -> None:
    outcome = cli("fit", "--data", own_csv, *COLUMNS, *QUICK, "--out", tmp_path / "run", *seed)
    assert outcome.code == 2
    assert f"'{seed[0]}': {str(seed[1]).removeprefix('seed=')}: a seed is a whole number from" in outcome.err
    assert not (tmp_path / "run").exists()
