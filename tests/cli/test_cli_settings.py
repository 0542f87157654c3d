"""Settings on the command line: each is read or refused by its flag, and what is recorded was in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"


@pytest.fixture
def fit(cli: Any, data_dir: Path) -> Any:
    return lambda *options: cli("fit", "--data", "ml100k", "--data-dir", data_dir, "--quiet", *options)


@pytest.mark.parametrize(
    "options",
    [
        *(["--no-feedback"], ["--attention", "none"], ["--preset", "gibbs", "--beta", "0.5"]),
        *(["--preset", "gibbs", "--beta-user", "0.5"], ["--preset", "gibbs", "--iterations", "3"]),
        *(["--preset", "gibbs", "--learning-rate", "0.01"], ["--units", "9"], ["--noise", "0.5"]),
        *(["--set", "ema_decay=0.1"], ["--keep", "last"], ["--patience", "3"], ["--no-data-input"]),
        *(["--attention", "sum"], ["--feedback"], ["--prior-mean", "ratings"]),
        ["--likelihood", "normal", "--set", "plain_sweeps=3"],
        ["--preset", "amortized", "--sweeps", "40"],
        ["--no-implicit", "--set", "solver_tolerance=0.1"],
        ["--likelihood", "ordered-probit:noise=0.3"],
        ["--preset", "conjugate", "--beta", "0.5"],
        ["--preset", "conjugate", "--burn-in", "5"],
        ["--preset", "amortized", "--attention", "none", "--attention-scope", "global"],
        ["--preset", "amortized", "--burn-in", "5"],
        ["--preset", "amortized", "--units", "9"],
        ["--preset", "amortized", "--likelihood", "poisson", "--noise", "0.5"],
        ["--preset", "amortized", "--prior", "student-t", "--prior-scale", "0.5"],
    ],
)
def test_what_is_not_read_is_refused_by_its_flag(fit: Any, options: list[str]) -> None:
    outcome = fit(*options)
    assert outcome.code != 0
    flag = " ".join(options[-2:]) if len(options) > 1 else options[0]
    assert f"{flag}: " in outcome.err or f"{flag}, " in outcome.err
    assert "choose with --preset" in outcome.err or "only where" in outcome.err or "found by" in outcome.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--sweeps", "40", "--kept-draws", "60"], ["--sweeps 40", "--kept-draws 60"]),
        (["--burn-in", "10", "--set", "plain_sweeps=15"], ["--burn-in 10", "--set plain_sweeps=15"]),
        (["--preset", "paper", "--no-feedback", "--attention", "sum"], ["--no-feedback", "--attention sum"]),
        (["--preset", "amortized", "--beta", "0.5", "--beta-user", "0.3"], ["--beta 0.5", "--beta-user 0.3"]),
        (["--factors", "3", "--set", "n_factors=4"], ["--factors 3", "--set n_factors=4"]),
        (["--set", "n_factors=3", "--set", "n_factors=4"], ["--set n_factors=3", "--set n_factors=4"]),
        (["--preset", "amortized", "--final-learning-rate", "0.1"], ["--final-learning-rate 0.1", "0.002"]),
        (["--preset", "conjugate", "--checkpoint-every", "5"], ["--checkpoint-every"]),
    ],
)  # fmt: skip
def test_contradictions_are_told_by_the_flags_that_were_given(
    fit: Any, options: list[str], told: list[str]
) -> None:
    outcome = fit(*options)
    assert outcome.code != 0
    assert all(one in outcome.err for one in told), outcome.err


def test_dependent_defaults_follow_and_the_config_holds_what_was_read(fit: Any) -> None:
    outcome = fit("--factors", 2, "--sweeps", 6, "--threads", 1, "--out", "short")
    assert outcome.code == 0, outcome.err
    assert "Settings that follow those given: burn_in 2, kept_draws 4." in outcome.err
    assert "4 draws kept" in outcome.out
    settings = json.loads(Path("short/config.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["method"], settings["then"], settings["seed"]) == ("exact-head", "gibbs", 0)
    assert "cross-feedback" not in settings
    assert settings["gibbs"]["kept_draws"] == 4


def test_encoders_with_sweeps_after_them_need_no_other_settings(fit: Any) -> None:
    options = ("--preset", "amortized", "--iterations", 1, "--factors", 2, "--batch-users", 40)
    outcome = fit(*options, "--then-sweeps", 20, "--burn-in", 5, "--kept-draws", 15, "--out", "both")
    assert outcome.code == 0, outcome.err
    settings = json.loads(Path("both/config.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["method"], settings["then"]) == ("cross-feedback", "gibbs")
    gibbs = settings["gibbs"]
    assert (gibbs["sweeps"], gibbs["burn_in"], gibbs["kept_draws"]) == (20, 5, 15)


def test_a_run_of_an_older_format_is_refused_with_the_remedy(cli: Any) -> None:
    Path("old").mkdir()
    config = {"format": "pyro-bmf run", "format_version": 1}
    Path("old/config.json").write_text(json.dumps(config), encoding="utf-8")
    outcome = cli("fit", "--resume", "old")
    assert outcome.code == 1
    assert "fit again, or use the pyro-bmf that wrote it" in outcome.err


@pytest.mark.parametrize("name", ["default", "conjugate", "amortized", "paper", "literal"])
def test_a_preset_is_shown_with_every_flag_and_value(cli: Any, name: str) -> None:
    from pyro_bmf import preset

    rows = json.loads(cli("presets", name, "--json").out)["rows"]
    assert {row["setting"] for row in rows} == preset(name).values().keys()
    flags = {row["setting"]: row["flag"] for row in rows}
    help = cli("fit", "--help-all").out
    for flag in flags.values():
        assert flag.startswith("--set ") or flag.split("/")[0] in help
    assert name in cli("presets").out


def test_the_ablations_of_the_benchmark_need_encoders(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        import accuracy
    finally:
        sys.path.pop(0)
    monkeypatch.setattr(sys, "argv", ["accuracy.py", "--ablations", "--out", "never.json"])
    with pytest.raises(SystemExit):
        accuracy.main()
    told = capsys.readouterr().err
    assert "no data input" in told
    assert "data_input=False" in told
    assert "preset('amortized')" in told
    assert not Path("never.json").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        # The remedy is another value than the one that was given.
        (["--method", "coordinate-ascent", "--units", "9"], "or --method cross-feedback."),
        (["--preset", "amortized", "--burn-in", "5"], "--method gibbs or --then-sweeps 150."),
        (["--preset", "conjugate", "--sweeps", "5"], "--method gibbs or --then-sweeps 150."),
        (["--preset", "gibbs", "--then-sweeps", "5"], "Gibbs sweeps already: set then to None"),
        (["--then-sweeps", "5", "--sweeps", "6"], "--then-sweeps 5 and --sweeps 6 are two numbers of sweeps"),
        # What is not read is told first, and needs no better value.
        (["--final-learning-rate", "0.1"], "--final-learning-rate 0.1: read by encoders fitted by SVI alone"),
        (["--set", "ema_start=2"], "--set ema_start=2: read by encoders fitted by SVI alone"),
        (["--preset", "conjugate", "--set", "input_dropout=x"], "--set input_dropout=x: read by encoders"),
        # A condition comes with what brings it about, and a value as it was typed.
        (["--preset", "amortized", "--units", "9"], "as with --tower-layers 1 or --head-layers 1."),
        (["--preset", "amortized", "--set", "covariance_rank=2"], "as with --set covariance=low-rank."),
        (["--preset", "amortized", "--set", "input_prior_scale=2"], "as with --set bayesian_input=true."),
        (["--noise", "0.5"], "gives no noise of its own, as with --likelihood normal."),
        (["--set", "residual=true"], "--set residual=true: read by"),
        # Others.
        (["--set", "sweeps=0"], "sweeps is 0: give a whole number of 1 or more. (Given: --set sweeps=0.)"),
        (["--set", "in_rating_units=noise"], "'in_rating_units' is not a setting"),
        (["--set", "method=svi"], "give one of exact-head, gibbs, coordinate-ascent, cross-feedback"),
        (["--set", "method=none"], "give one of exact-head, gibbs, coordinate-ascent, cross-feedback"),
        (["--set", "then_sweeps=none"], "--set then_sweeps=none: give a number of sweeps."),
        (["--set", "then=3"], "--set then=3: this is an object, in Python; give --then-sweeps."),
        (["--set", "model=3"], "--set model=3: this is an object, in Python; give the options of the"),
        (["--preset", "conjugate", "--prior", "student-t"], "or choose the method cross-feedback."),
        (["--sweeps", "9", "--burn-in", "8", "--kept-draws", "4"], "Give more sweeps, or fewer of"),
        (["--set", "factors=3"], "did you mean 'n_factors'?"),
        (["--set", "n_factors=x"], "give a whole number of 1 or more. (Given: --set n_factors=x.)"),
        (["--set", "=3"], "'=3': write NAME=VALUE"),
    ],
)  # fmt: skip
def test_the_remedy_is_what_to_type(fit: Any, options: list[str], told: str) -> None:
    outcome = fit(*options)
    assert outcome.code != 0
    assert told in outcome.err, outcome.err


def test_a_method_that_was_chosen_says_itself_what_it_does_not_know(fit: Any) -> None:
    outcome = fit("--method", "coordinate-ascent", "--likelihood", "student-t")
    assert "needs a Normal or ordered probit likelihood, not StudentTLikelihood" in outcome.err
    assert "taking the preset" not in outcome.err


def test_a_number_may_be_whole_or_not(fit: Any) -> None:
    for warmup in ("1", "0.5"):
        outcome = fit(
            *("--preset", "amortized", "--iterations", 2, "--factors", 2, "--batch-users", 40),
            *("--warmup", warmup, "--out", f"warm{warmup}"),
        )
        assert outcome.code == 0, outcome.err
        config = json.loads(Path(f"warm{warmup}/config.json").read_text(encoding="utf-8"))
        assert config["settings"]["cross-feedback"]["warmup_iterations"] == float(warmup)


def test_a_warm_start_names_the_settings_that_differ(fit: Any) -> None:
    outcome = fit("--warm-start", RUNS / "amortized", "--no-feedback", "--factors", 3, "--out", "warm")
    assert outcome.code == 1
    told = "feedback is True in the earlier fit and False here"
    assert told in outcome.err
    assert "n_factors is " in outcome.err
    assert "Settings(" not in outcome.err
    assert not Path("warm").exists()


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ("amortized", "these ratings chose the state that is kept"),
        ("conjugate", "these ratings said when to stop"),
        ("default", None),
        ("guide-then-sweeps", None),
    ],
)
def test_what_validation_ratings_decided(cli: Any, run: str, told: str | None) -> None:
    outcome = cli("evaluate", RUNS / run, "--part", "valid", "--data", RUNS / "ratings.csv")
    assert outcome.code == 0, outcome.err
    title = outcome.out.splitlines()[0]
    assert ("these ratings" in title) == (told is not None)
    assert told is None or title.endswith(told)


def test_what_follows_is_told_and_recorded_where_it_is_read_alone(fit: Any, cli: Any) -> None:
    outcome = fit("--preset", "conjugate", "--factors", 2, "--iterations", 3, "--out", "short")
    assert outcome.code == 0, outcome.err
    assert "warmup_iterations" not in outcome.err
    assert "warmup_iterations" not in Path("short/config.json").read_text(encoding="utf-8")


def test_a_relative_path_that_is_gone_has_its_remedy(cli: Any) -> None:
    outcome = cli("evaluate", RUNS / "conjugate")  # its ratings were ratings.csv in another folder
    assert outcome.code == 1
    assert "is not there any more: say where its ratings are now, with --data" in outcome.err


def test_a_pair_that_stands_in_two_files_of_a_split(cli: Any) -> None:
    for name in ("train.csv", "test.csv"):
        Path(name).write_text("user,item,rating\n1,1,3\n2,2,4\n1,2,5\n", encoding="utf-8")
    outcome = cli("fit", "--train", "train.csv", "--test", "test.csv")
    assert outcome.code == 1
    assert "a pair may stand once in all files of a split together" in outcome.err
    assert "duplicates 'last'" not in outcome.err  # which given files do not take


def test_a_dash_is_no_output_file(cli: Any) -> None:
    outcome = cli("predict", RUNS / "conjugate", "--user", "u1", "--item", "i1", "--csv", "-")
    assert outcome.code == 2
    assert "write /dev/stdout for standard output" in outcome.err
    assert not Path("-").exists()


@pytest.mark.parametrize("words", [["ppc", "o.png"], ["sensitivity", "o.csv"], ["calibrate", "o.png"]])
def test_a_file_that_goes_beside_another_does_not_replace_it(cli: Any, words: list[str]) -> None:
    outcome = cli(words[0], RUNS / "conjugate", "--out", words[1])
    assert outcome.code == 1
    assert f"--out {words[1]}: a second file goes beside it" in outcome.err
    assert not Path(words[1]).exists()


@pytest.mark.parametrize("threshold", ["nan", "inf", "5", "0.5"])
def test_a_threshold_is_a_rating(cli: Any, threshold: str) -> None:
    words = ("--part", "valid", "--data", RUNS / "ratings.csv", "--threshold", threshold)
    outcome = cli("evaluate", RUNS / "conjugate", *words)
    assert outcome.code == 1
    assert f"--threshold {threshold}: relevant is a rating above it" in outcome.err
    assert outcome.out == ""


def test_what_to_ask_is_chosen_among_the_items_there_are(cli: Any) -> None:
    title = cli("elicit", RUNS / "conjugate", "--user", "u1", "--n", 2).out.splitlines()[0]
    assert "of all 16 items" in title
    few = cli("elicit", RUNS / "conjugate", "--user", "u1", "--n", 2, "--popular", 9).out.splitlines()[0]
    assert "of the 9 items rated most" in few


def test_the_unit_of_a_number_is_no_setting_that_follows(fit: Any) -> None:
    outcome = fit("--preset", "conjugate", "--iterations", 1, "--prior-scale", "0.5", "--out", "units")
    assert outcome.code == 0, outcome.err
    assert "Settings that follow" not in outcome.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["recommend", "--user", "u1", "--quantile", "0.2"], "--quantile is read with --strategy lower"),
        (["recommend", "--user", "u1", "--samples", "9", "--seed", "1"], "--samples is read with --strategy"),
        (["recommend", "--user", "u1", "--seed", "1"], "--seed is read with --strategy lower, thompson"),
        (["recommend", "--user", "u1", "--strategy", "thompson", "--samples", "9"], "lower or prob-top"),
        (["recommend", "--user", "u1", "--strategy", "lower", "--samples", "999"], "--samples is 999"),
        (["recommend", "--user", "u1", "--data-dir", "."], "--data-dir is read with --exclude"),
        (["fold-in", "--rating", "i1=3", "--predict", "i2", "--n", "3"], "--n is read without --predict"),
        (["diagnose", "--draws", "200", "--searched", "3"], "--draws and --searched are read of a"),
        (["export", "--format", "netcdf", "--out", "o.nc", "--data-dir", "."], "--data-dir is read with"),
        (["evaluate", "--data-dir", "."], "--data-dir is where named sets are, and"),
        (["ppc", "--draws", "999", "--data", RUNS / "ratings.csv"], "(--draws) is 999, but the chain"),
        (["calibrate", "--preset", "default"], "leave out --preset, or RUN."),
        (["calibrate", "--split-seed", "3", "--scheme", "time"], "leave out --scheme, --split-seed, or RUN."),
        (["calibrate", "--columns", "0,1,2"], "leave out --columns, or RUN."),
        (["calibrate", "--from", RUNS / "default"], "--from RUN names the run: leave out the RUN beside"),
        (["calibrate", "--users", "999", "--data", RUNS / "ratings.csv"], "--users 999: ratings.csv has 24 "),
        (["calibrate", "--items", "999", "--data", RUNS / "ratings.csv"], "--items 999: ratings.csv has 16 "),
        (["elicit", "--n", "99", "--popular", "3"], "--n 99: of the 3 items rated most (--popular 3) there"),
        (["elicit", "--rating", "i1=9"], "--rating i1=9: the rating 9 is not on the rating scale"),
        (["diagnose", "--seed", "99999999999999999999"], "'--seed': 99999999999999999999: a seed is a whole"),
        (["export", "--format", "netcdf", "--out", "o.nc", "--seed", str(2**32)], "from 0 to 4294967295."),
        (["calibrate", "--simulation-seed", "-1"], "'--simulation-seed': -1: a seed is a whole number"),
    ],
)  # fmt: skip
def test_options_that_a_command_would_not_read_are_refused(cli: Any, words: list[str], told: str) -> None:
    outcome = cli(words[0], RUNS / "default", *words[1:])
    assert outcome.code in (1, 2), outcome.out
    assert told in outcome.err, outcome.err


def test_loo_ratings_need_loo(cli: Any) -> None:
    outcome = cli("compare", RUNS / "default", RUNS / "conjugate", "--loo-ratings", 50)
    assert outcome.code == 2
    assert "--loo-ratings is read with --loo alone: leave it out." in outcome.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--draws", 50, "--seed", 1], "--draws and --seed are read with --loo, with --new-users or on a"),
        (
            ["--new-users", 5],
            "--new-users 5 of default: its 6 draws are too few to smooth importance weights",
        ),
        (["--new-users", 5, "--draws", 50], "default: num_samples (--draws) is 50, but the chain kept 6"),
        (["--out", "file/all.json"], "file/all.json cannot be written: Not a directory."),
    ],
)
def test_comparisons_that_cannot_be_made_are_not_begun(cli: Any, words: list[Any], told: str) -> None:
    Path("file").touch()
    data = ("--data", RUNS / "ratings.csv")
    outcome = cli("compare", RUNS / "conjugate", RUNS / "default", *data, *words)
    assert outcome.code in (1, 2)
    assert outcome.out == ""
    assert told in outcome.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data", "info", "ml100k", "--columns", "1,0,2"], "columns '1,0,2' is for a file: how ml100k"),
        (["fit", "--data", "ml100k", "--format", "csv", "--no-header"], "format 'csv' and header False are"),
        (["fit", "--data", "synthetic", "--scale", "1:10:1", "--min-ratings", "3"], "min_ratings 3 are for"),
        (["fit", "--data", "r.csv", "--data-dir", "."], "named sets are, and r.csv is none"),
        (["data", "split", "r.csv", "--data-dir", ".", "--out", "x"], "--data-dir is where named sets are"),
        (["calibrate", "--data", "synthetic", "--seed", "3"], "--seed 3: each simulated fit has its own"),
    ],
)  # fmt: skip
def test_options_of_reading_that_are_not_read_are_refused(
    cli: Any, data_dir: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.setenv("PYRO_BMF_DATA_DIR", str(data_dir))
    Path("r.csv").write_text("user,item,rating\n1,1,3\n", encoding="utf-8")
    outcome = cli(*words)
    assert outcome.code in (1, 2), outcome.out
    assert told in outcome.err, outcome.err
    assert not Path("runs").exists()


def test_a_written_split_takes_no_options_of_reading(cli: Any) -> None:
    lines = "".join(f"{user},{item},{1 + (user + item) % 5}\n" for user in range(6) for item in range(6))
    Path("r.csv").write_text(f"user,item,rating\n{lines}", encoding="utf-8")
    assert cli("data", "split", "r.csv", "--out", "here").code == 0
    assert cli("data", "info", "here").code == 0
    outcome = cli("data", "info", "here", "--columns", "0,1,2")
    assert outcome.code == 2
    assert "takes no options of reading" in outcome.err


def _accuracy(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    import sys

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import accuracy

    monkeypatch.setattr(sys, "argv", ["accuracy.py", "--data", "synthetic", "--out", "cells.json", *words])
    return accuracy


def test_cells_of_the_benchmark_are_those_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ("--preset", "conjugate", "--set", "n_factors=2", "--set", "max_iterations=2")
    _accuracy(monkeypatch, *words).main()
    before = Path("cells.json").read_bytes()
    table = capsys.readouterr().out
    assert "| full model, seed 0 |" in table
    _accuracy(monkeypatch, *words).main()  # is there already
    assert Path("cells.json").read_bytes() == before
    for other, told in (
        (
            ("--preset", "conjugate", "--set", "n_factors=3", "--set", "max_iterations=2"),
            "n_factors 2, not 3",
        ),
        (("--preset", "default"), "preset 'conjugate', not 'default'"),
        ((*words, "--data", "ml100k"), "data synthetic, not ml100k"),
        (("--set", "seed=3"), "--set seed: the cell 'full model' sets it itself"),
        (("--set", "n_factors"), "write NAME=VALUE"),
        (("--set", "nosuch=3"), "'nosuch' is not a setting"),
    ):
        with pytest.raises(SystemExit):
            _accuracy(monkeypatch, *other).main()
        assert told in capsys.readouterr().err
    assert Path("cells.json").read_bytes() == before
