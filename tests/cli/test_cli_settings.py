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
        *(["--no-feedback"], ["--attention", "none"], ["--beta", "0.5"], ["--beta-user", "0.5"]),
        *(["--learning-rate", "0.01"], ["--units", "9"], ["--noise", "0.5"], ["--iterations", "3"]),
        *(["--set", "ema_decay=0.1"], ["--keep", "last"], ["--patience", "3"], ["--no-data-input"]),
        *(["--attention", "sum"], ["--feedback"], ["--prior-mean", "ratings"]),
        ["--likelihood", "normal", "--set", "plain_sweeps=3"],
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
    assert "choose with --preset" in outcome.err or "only where" in outcome.err or "drawn by" in outcome.err
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
    assert "Settings that follow those given: burn_in 2, kept_draws 4, plain_sweeps 1." in outcome.err
    assert "4 draws kept" in outcome.out
    settings = json.loads(Path("short/config.json").read_text(encoding="utf-8"))["settings"]
    assert settings["fit"] == {"method": "none", "seed": 0}
    assert "guide" not in settings
    assert settings["gibbs"]["kept_draws"] == 4


def test_encoders_with_sweeps_after_them_need_no_other_settings(fit: Any) -> None:
    options = ("--preset", "amortized", "--iterations", 1, "--factors", 2, "--batch-users", 40)
    outcome = fit(*options, "--sweeps", 20, "--burn-in", 5, "--kept-draws", 15, "--out", "both")
    assert outcome.code == 0, outcome.err
    gibbs = json.loads(Path("both/config.json").read_text(encoding="utf-8"))["settings"]["gibbs"]
    assert (gibbs["sweeps"], gibbs["burn_in"], gibbs["kept_draws"]) == (20, 5, 15)


def test_a_run_that_holds_unread_settings_opens_and_says_so(cli: Any) -> None:
    outcome = cli("recommend", RUNS / "amortized", "--user", "u1")
    assert outcome.code == 0, outcome.err
    told = "records settings that its fit never read, so they changed nothing: n_units 4."
    assert outcome.err.count(told) == 1
    assert "never read" not in cli("recommend", RUNS / "default", "--user", "u1").err


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
