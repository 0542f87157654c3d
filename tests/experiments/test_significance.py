"""Friedman's and Nemenyi's tests on the printed table, against formulas written out here."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import call
from scipy import stats

from pyro_bmf.errors import SettingsError
from pyro_bmf.experiments.cells import CellStore
from pyro_bmf.experiments.datasets import sets_of_file
from pyro_bmf.experiments.papers.ours import Ours
from pyro_bmf.experiments.papers.refitting import Final, refit
from pyro_bmf.experiments.printed import SETS, TABLE3
from pyro_bmf.experiments.significance import Significance, compare, top_models

pytest.importorskip("scikit_posthocs", reason="the experiments extra is not installed")

RMSE = pd.DataFrame(dict(TABLE3["RMSE"]), index=list(SETS))


def test_the_ranks_in_rmse_are_not_those_of_the_papers_text() -> None:
    four = ["ours", "ncf", "i-rec", "cnn-cf"]
    assert top_models("RMSE", RMSE, 4) == [
        ["ncf", "i-rec", "ours", "cnn-cf"],
        ["ncf", "i-rec", "ours", "vae-cf"],
    ]
    found = compare("RMSE", RMSE[four])
    assert found.models == ("ours", "ncf", "i-rec", "cnn-cf")
    assert list(found.ranks) == pytest.approx([1.0, 2.6, 2.8, 3.6])


def test_both_tests_are_their_formulas() -> None:
    """Demšar 2006: chi square of mean ranks; z of a rank difference against the studentised range."""
    figures = RMSE[["ours", "ncf", "i-rec", "cnn-cf"]]
    found = compare("RMSE", figures)
    n, k = figures.shape
    mean = figures.rank(axis=1).mean()
    chi = 12 * n / (k * (k + 1)) * (float((mean**2).sum()) - k * (k + 1) ** 2 / 4)
    assert found.statistic == pytest.approx(chi)
    assert found.p == pytest.approx(stats.chi2.sf(chi, k - 1))
    q = abs(mean["ours"] - mean["cnn-cf"]) / np.sqrt(k * (k + 1) / (6 * n)) * np.sqrt(2)
    expected = stats.studentized_range.sf(q, k, np.inf)
    assert found.nemenyi.loc["ours", "cnn-cf"] == pytest.approx(expected, rel=1e-3)
    assert found.different(0.1) == [("ours", "cnn-cf")]
    assert found.different(0.001) == []


def test_models_that_never_differ() -> None:
    found = compare("RMSE", pd.DataFrame(0.5, index=["x", "y"], columns=["a", "b", "c"]))
    assert (found.p, found.different(0.1), list(found.ranks)) == (1.0, [], [2.0, 2.0, 2.0])


def test_higher_is_better_in_ranking() -> None:
    figures = pd.DataFrame(dict(TABLE3["NDCG@20"]), index=list(SETS))
    assert compare("NDCG@20", figures).models[0] == "ours"
    assert compare("NDCG@20", figures).models[-1] == "i-rec"


def test_the_command_writes_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = call("experiment", "significance")
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "experiments/significance"
    text = (folder / "significance.md").read_text(encoding="utf-8")
    assert "ours 1.0, ncf 2.6, i-rec 2.8, cnn-cf 3.6" in text
    for name in ("significance.png", "significance.svg", "significance.csv"):
        assert (folder / name).stat().st_size > 500
    with pytest.raises(SettingsError, match="compare at least 3"):
        Significance(2)
    with pytest.raises(SettingsError, match="alpha is 1"):
        Significance(4, 1.0)


TABLE = (
    *("experiment", "table3", "--models", "bias-only,u-rec,i-rec", "--seeds", 2, "--trials", 0),
    *("--iterations", 3, "--threads", 1, "--quiet"),
)


@pytest.fixture(scope="module")
def made(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Table 3 of two tiny sets."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "sets.toml").write_text(
        f'[mine]\nfile = "{small_data.parent / "my_ratings.csv"}"\n'
        'columns = "user,film,stars"\nscale = "1:5:1"\n',
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRO_BMF_DATA_DIR", str(small_data))
        patch.setenv("MPLBACKEND", "Agg")
        outcome = call(*TABLE, "--data", "ml100k", "--sets", folder / "sets.toml", "--out", folder / "table")
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture
def table(here: Path, made: Path) -> Path:
    """That table, in the folder where the test works."""
    shutil.copytree(made, here, dirs_exist_ok=True)
    return here / "table"


def test_a_table_that_was_run(table: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("experiment", "significance", "--from", "table", "--sets", "sets.toml", "--threads", 1, "--n", 3)
    outcome = call(*line, "--out", "tests")
    assert outcome.code == 0, outcome.err
    rows = pd.read_csv(table / "table3.csv")
    measured = rows[rows["metric"] == "rmse"]
    ranks = measured.pivot_table(index="set", columns="model", values="value").rank(axis=1).mean()
    told = pd.read_csv(here / "tests/significance.csv")
    own = told[(told["source"] == "ours") & (told["metric"] == "RMSE")]
    for name, rank in ranks.items():
        assert float(own[own["what"] == f"mean rank of {name}"]["value"].iloc[0]) == pytest.approx(rank)
    pairs = json.loads((here / "tests/significance-paired.json").read_text(encoding="utf-8"))
    assert len(pairs) == 2 * 2 * 3  # sets, metrics, pairs of three models
    for pair in pairs:
        assert pair["seeds"] == 2
        if pair["metric"] == "RMSE":
            # Every seed has as many test ratings: squared errors over both are their mean.
            part = measured[measured["set"] == pair["set"]]
            squares = {name: np.mean(group["value"] ** 2) for name, group in part.groupby("model")}
            gap = np.sqrt(squares[pair["a"]]) - np.sqrt(squares[pair["b"]])
            assert pair["difference"] == pytest.approx(gap, abs=1e-6)
            assert pair["low"] <= pair["difference"] + 3 * pair["se"]
            assert pair["low"] < pair["high"]
    text = (here / "tests/significance.md").read_text(encoding="utf-8")
    assert "## Pairs on ml100k, by user" in text
    gap = float(re.search(r"RMSE differed from theirs by (\S+) at most", text).group(1))  # type: ignore[union-attr]
    assert gap < 1e-6
    assert (here / "tests/significance-ours.png").stat().st_size > 500
    # A finished comparison is not made again.
    monkeypatch.setattr("pyro_bmf.experiments.papers.ours.refit", None)
    again = call(*line, "--out", "tests")
    assert again.code == 0, again.err


def test_a_comparison_that_was_cut_off_goes_on(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {one.name: one for one in sets_of_file(table.parent / "sets.toml")}
    ours = Ours(table, known, threads=1)
    assert ours.missing("ml100k") is not None
    (cell,) = ours.cells(CellStore(tmp_path))
    whole = cell.run(tmp_path / "whole")
    done = []

    def some(final: Final, *rest: Any, **named: Any) -> Any:
        done.append(final.key)
        if len(done) == 4:
            raise KeyboardInterrupt
        return refit(final, *rest, **named)

    monkeypatch.setattr("pyro_bmf.experiments.papers.ours.refit", some)
    with pytest.raises(KeyboardInterrupt):
        cell.run(tmp_path / "cut")
    assert cell.run(tmp_path / "cut") == whole
    assert len(done) == 4 + 3, "three of six were kept"


def test_one_set_is_compared_in_pairs_alone(table: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(table / "table3.csv")
    rows[rows["set"] == "ml100k"].to_csv(table / "table3.csv", index=False)
    tests = Significance(3, 0.1, Ours(table, {}, paired=False))
    report = tests.report(CellStore(tmp_path), "a command")
    assert not tests.of_ours()
    assert "The tests need 2 data sets and 3 models: they cannot be done" in report.markdown()


def test_settings_of_our_presets_come_back(tmp_path: Path) -> None:
    """What a cell says of a preset's fit gives the same settings again, whatever was changed."""
    from pyro_bmf.experiments.contenders import contender
    from pyro_bmf.experiments.papers.refitting import _values

    for name, values in (
        ("paper", {"n_factors": 25, "feedback": False, "max_iterations": 7}),
        ("default", {"sweeps": 20, "row_noise": "none"}),
        ("literal", {"user_batch_size": 1000, "attention_scope": "global"}),
    ):
        model = contender(name)
        stored = json.loads(json.dumps(model.settings(values, 3)))
        assert model.settings(_values(model, stored), 3) == model.settings(values, 3)


def test_refusals_of_tables(here: Path, table: Path) -> None:
    empty = here / "empty"
    empty.mkdir()
    outcome = call("experiment", "significance", "--from", empty)
    assert "empty has no table3.csv: give the folder of a Table 3" in outcome.err
    outcome = call("experiment", "significance", "--no-paired")
    assert "--no-paired is of a table that was run: give its folder (--from)" in outcome.err
    (table / "table3.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    outcome = call("experiment", "significance", "--from", table)
    assert "is damaged" in outcome.err


def test_a_set_that_lacks_models_is_left_out_where_others_have_all(tmp_path: Path) -> None:
    sets, models = ["a", "b", "c", "d"], ["i-rec", "ncf", "u-rec", "default"]
    lines = [
        {
            "set": one, "model": model, "seed": 0, "state": "measured", "metric": "rmse",
            "value": 0.8 + at / 10, "protocol": "", "users": "",
        }
        for one in sets
        for at, model in enumerate(models)
        if not (one == "d" and model in ("default", "u-rec"))
    ]  # fmt: skip

    def of(some: list[str]) -> Ours:
        pd.DataFrame([line for line in lines if line["set"] in some]).to_csv(tmp_path / "table3.csv")
        return Ours(tmp_path, {}, paired=False)

    ours = of(sets)
    assert ours.left_out() == ["d"]
    assert list(ours.figures()["RMSE"].index) == ["a", "b", "c"]
    assert set(ours.figures()["RMSE"].columns) == set(models)
    few = of(["a", "b", "d"])  # too few without it: the models that all of them have
    assert few.left_out() == []
    assert set(few.figures()["RMSE"].columns) == {"i-rec", "ncf"}
