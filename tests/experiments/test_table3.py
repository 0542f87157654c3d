"""Table 3 on a tiny set: every row, what it says, and that an interrupted one goes on to the same table."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import call

from pyro_bmf.baselines import IRec
from pyro_bmf.evaluation import evaluate, evaluate_ranking
from pyro_bmf.experiments.cells import CellStore
from pyro_bmf.experiments.contenders import PAPER_AXES, contender
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.papers.convergence_cells import variant_settings
from pyro_bmf.experiments.printed import MODELS, SETS, TABLE3
from pyro_bmf.experiments.table3 import Table3
from pyro_bmf.experiments.table3_rows import Choices
from pyro_bmf.methods.settings import preset

LINE = (
    *("experiment", "table3", "--data", "ml100k", "--models", "bias-only,u-rec,i-rec", "--seeds", "2"),
    *("--trials", "2", "--iterations", "3", "--threads", "1", "--quiet"),
)


def figures(folder: Path) -> list[dict[str, str]]:
    """Return every figure but the seconds."""
    with open(folder / "table3.csv", encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["metric"] != "seconds"]


def tables(folder: Path) -> str:
    """Return the report without what a clock says."""
    text = (folder / "table3.md").read_text(encoding="utf-8")
    return re.sub(r"( \| [\d.,– ]+){2} \|$", "", text, flags=re.M)


def cell_files(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder / "cells").glob("*.json")}


def test_every_row_of_the_table_is_tuned_and_measured(here: Path) -> None:
    """The default rows on a tiny set, a trial and an iteration or two each."""
    outcome = call(
        *("experiment", "table3", "--data", "ml100k", "--data", "ml10m", "--seeds", "1", "--trials", "1"),
        *("--iterations", "1", "--iterations", "literal=1"),
        *("--settings", write_settings(here), "--threads", "1", "--quiet", "--out", "table"),
    )
    assert outcome.code == 0, outcome.err
    text = (here / "table/table3.md").read_text(encoding="utf-8")
    assert "## ML-10M: not run" in text
    first = text.split("## MovieLens 100K")[1].split("##")[0]
    lines = [line for line in first.splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[0].strip("| ") for line in lines] == [
        *("NCF", "CNN-CF", "U-Rec", "I-Rec", "DAE-CF", "VAE-CF"),
        *("ours, literal", "ours, paper", "ours, default"),
    ]
    cells = [cell.strip(" |") for line in lines for cell in line.split(" | ")[1:]]
    assert len(cells) == 9 * 5
    assert all(re.fullmatch(r"(\*\*)?\d\.\d{4}(\*\*)?", cell) for cell in cells), cells
    for column, best in zip(range(5), (min, *[max] * 4), strict=True):
        figures = [float(cell.strip("*")) for cell in cells[column::5]]
        (bold,) = [cell for cell in cells[column::5] if cell.startswith("**")]
        assert float(bold.strip("*")) == best(figures)
    for name in ("table3.csv", "table3.png", "table3.svg", "table3-curves.png", "table3-chosen.json"):
        assert (here / "table" / name).stat().st_size > 100
    chosen = json.loads((here / "table/table3-chosen.json").read_text(encoding="utf-8"))["ml100k"]
    assert set(chosen) == {"ncf", "cnn-cf", "u-rec", "dae-cf", "vae-cf", "paper"}
    assert "whether" in outcome.out.lower()
    judged = [line for line in text.split("## Whether")[1].splitlines() if line.startswith("| MovieLens")]
    assert len(judged) >= 4
    said = [line.split(" | ")[2] for line in judged]
    assert all(re.match("holds|does not hold|cannot be judged", one) for one in said), said


def write_settings(folder: Path) -> Path:
    """Settings of two rows that are chosen already: of the default, the fewest sweeps that make a chain."""
    path = folder / "chosen.json"
    short = {"sweeps": 8, "burn_in": 2, "kept_draws": 6, "max_iterations": 2, "plain_iterations": 1}
    chosen = {"i-rec": {"n_factors": 5, "batch_size": 20}, "default": {"n_factors": 2, **short}}
    path.write_text(json.dumps({"*": chosen}), encoding="utf-8")
    return path


def test_a_table_that_was_killed_goes_on_to_the_same_table(here: Path) -> None:
    whole = call(*LINE, "--out", "whole")
    assert whole.code == 0, whole.err
    killed = here / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "pyro_bmf.cli.main", *LINE, "--out", str(killed)], stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 100
    while len(cell_files(killed)) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = cell_files(killed)
    assert 2 <= len(before) < 8, "it was to be killed on its way"
    assert not (killed / "table3.md").exists()
    again = call(*LINE, "--out", "killed")
    assert again.code == 0, again.err
    assert {name: when for name, when in cell_files(killed).items() if name in before} == before
    assert figures(killed) == figures(here / "whole")
    assert tables(killed) == tables(here / "whole")
    assert cell_files(killed).keys() == cell_files(here / "whole").keys()
    third = call(*LINE, "--out", "killed")
    assert third.code == 0
    assert cell_files(killed).keys() == cell_files(here / "whole").keys()


def test_time_that_is_over_leaves_a_table_that_says_so(here: Path) -> None:
    outcome = call(*LINE, "--out", "short", "--timeout", 0)
    assert outcome.code == 0, outcome.err
    text = (here / "short/table3.md").read_text(encoding="utf-8")
    assert "| I-Rec | not finished | not finished |" in text
    assert "not finished, 0 of 2 seeds" in text
    assert "8 cells are not finished; the same command goes on." in outcome.out
    assert "not finished" in {row["state"] for row in figures(here / "short")}


@pytest.fixture
def tiny(small_data: Path) -> DataSet:
    return DataSet("tiny", "Tiny", str(small_data.parent / "my.csv"), {"scale": "1:5:1"})


def table3(tiny: DataSet, **choices: Any) -> Table3:
    told = {"trials": {"i-rec": 2}, "iterations": {"i-rec": 2}, **choices}
    return Table3(("i-rec",), (tiny,), 2, Choices(**told), threads=1)


def test_a_cell_is_known_by_what_decides_it(tiny: DataSet, tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    (one,) = table3(tiny).cells(store)
    (same,) = table3(tiny).cells(store)
    assert one.key == same.key
    others = [
        table3(tiny, trials={"i-rec": 3}),
        table3(tiny, iterations={"i-rec": 3}),
        table3(tiny, cuts={"i-rec": {"l2": (0.01, 0.1)}}),
        table3(tiny, sampler="grid"),
    ]
    assert (
        table3(tiny, iterations={"i-rec@tiny": 3, "i-rec": 2}).cells(store)[0].key
        == others[1].cells(store)[0].key
    )
    on_one_set = {"i-rec": {"l2": (0.1, 1.0)}, "i-rec@tiny": {"l2": (0.01, 0.1)}}
    assert table3(tiny, cuts=on_one_set).cells(store)[0].key == others[2].cells(store)[0].key
    keys = {other.cells(store)[0].key for other in others}
    assert len(keys | {one.key}) == 5
    finals = table3(tiny, trials={"i-rec": 0}).cells(store)
    assert len({cell.key for cell in finals}) == 2
    hashes = [cell.identity["split_hash"] for cell in finals]
    assert hashes == [tiny.split(0).hash, tiny.split(1).hash]
    assert one.identity["split_hash"] == hashes[0]
    assert one.identity["data_hash"] == tiny.ratings.data_hash


@pytest.mark.parametrize(("name", "follows"), [("default", True), ("paper", False)])
def test_finals_that_end_in_sweeps_are_known_by_what_sweeps_draw(
    tiny: DataSet, monkeypatch: pytest.MonkeyPatch, name: str, follows: bool
) -> None:
    rows = Table3((name,), (tiny,), 1, Choices({name: 0}), threads=1)
    model = contender(name)
    before = rows._final(model, tiny, {}, 0).key
    monkeypatch.setattr("pyro_bmf.experiments.table3_rows.POSTERIOR_VERSION", -1)
    assert (rows._final(model, tiny, {}, 0).key != before) is follows


def test_the_settings_of_the_finals_are_those_of_the_best_trial(tiny: DataSet, tmp_path: Path) -> None:
    store, experiment = CellStore(tmp_path), table3(tiny)
    (tuning,) = experiment.cells(store)
    store.run(tuning)
    told = store.result(tuning)
    assert told is not None
    best = min(
        (one for one in told["trials"] if one["state"] == "complete"), key=lambda one: one["valid_rmse"]
    )
    finals = experiment.cells(store)[1:]
    assert [cell.identity["seed"] for cell in finals] == [0, 1]
    for cell in finals:
        settings = cell.identity["settings"]
        assert settings["max_iterations"] == 2
        assert all(
            best[name] in (None, settings[name]) for name in ("n_factors", "n_layers", "n_units", "l2")
        )
    assert experiment.n_cells() == 3


def test_a_final_cell_is_scored_as_the_evaluation_does(tiny: DataSet, tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    # Seed 2: two of the users whose test ratings are liked have one of them.
    experiment = Table3(("i-rec",), (tiny,), 3, Choices({"i-rec": 0}, {"i-rec": 2}), threads=1)
    cell = experiment.cells(store)[2]
    store.run(cell)
    result = store.result(cell)
    assert result is not None
    assert len(result["curve"]) == 2
    split = tiny.split(2)
    system = IRec(IRec.settings_class(**cell.identity["settings"])).fit(split)
    found = evaluate(system, split)
    assert result["figures"]["rmse"] == pytest.approx(found.rmse, rel=1e-6)
    ours = {
        (one["protocol"], one["n"]): one for one in result["ranking"] if one["users"] == "two test ratings"
    }
    for ranking in found.ranking:
        assert ours[ranking.protocol, ranking.n]["ndcg"] == pytest.approx(ranking.ndcg, rel=1e-6)
    theirs = [one for one in result["ranking"] if one["users"] == "two rated items"]
    counted = evaluate_ranking(system, split, counted=split.ratings)
    assert [one["recall"] for one in theirs] == pytest.approx([one.recall for one in counted], rel=1e-6)
    assert (theirs[0]["n_users"], ours["full", 20]["n_users"]) == (7, 5)


def test_a_fit_that_fails_is_said_in_the_table(tiny: DataSet, tmp_path: Path) -> None:
    chosen = {"*": {"i-rec": {"learning_rate": 1e30, "output": "identity"}}}
    store, experiment = CellStore(tmp_path), table3(tiny, chosen=chosen)
    for cell in experiment.cells(store):
        store.run(cell)
    report = experiment.report(store, "a command")
    assert "| I-Rec | failed | failed |" in report.markdown()
    assert "I-Rec on Tiny: failed, The loss became" in report.markdown()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--models", "svd"), "--models svd: choose from ncf, cnn-cf"),
        (("--data", "netflix"), "There is no named set 'netflix'"),
        (("--models", "i-rec", "--trials", "u-rec=3"), "u-rec is not among the models of the table (i-rec)"),
        (
            ("--models", "i-rec", "--trials", "i-rec@ml1m=3"),
            "ml1m is not among the sets of the table (ml100k)",
        ),
        (("--trials", "many"), "write a whole number, or MODEL=NUMBER"),
        (("--models", "i-rec", "--grid", "l2=1"), "write MODEL:NAME=VALUE,VALUE"),
        (("--models", "i-rec", "--grid", "i-rec:l2=7"), "l2=7 is not of the grid"),
        (("--models", "i-rec", "--grid", "i-rec@ml1m:l2=0.1"), "ml1m is not among the sets of the table"),
        (("--settings", "bad.json"), "settings by set and model are needed"),
        (("--sets", "bad.toml"), "[mine] names no file"),
    ],
)
def test_refusals(words: tuple[str, ...], said: str, here: Path) -> None:
    (here / "bad.json").write_text("[1]", encoding="utf-8")
    (here / "bad.toml").write_text("[mine]\ncolumns = '0,1,2'\n", encoding="utf-8")
    outcome = call("experiment", "table3", *(("--data", "ml100k") if "--data" not in words else ()), *words)
    assert outcome.code in (1, 2)
    assert said in outcome.err


def test_sets_described_in_a_file(here: Path, small_data: Path) -> None:
    path = here / "lists" / "sets.toml"
    path.parent.mkdir()
    path.write_text(
        f'[mine]\nfile = "{small_data.parent / "my_ratings.csv"}"\ntitle = "My films"\n'
        'columns = "user,film,stars"\nscale = "1:5:1"\n',
        encoding="utf-8",
    )
    report = here / "experiments/table3/table3.md"
    # The command is told so that it can be typed again, without where this machine keeps its files.
    for given, told in ((path, "--sets sets.toml"), ("lists/sets.toml", "--sets lists/sets.toml")):
        outcome = call(
            *("experiment", "table3", "--sets", given, "--models", "bias-only", "--seeds", 1, "--quiet"),
        )
        assert outcome.code == 0, outcome.err
        assert "My films (not one of the paper's sets)" in outcome.out
        assert told in report.read_text(encoding="utf-8")


def test_the_printed_table_is_whole() -> None:
    """Its column means, added by hand from the paper."""
    assert {metric: set(rows) for metric, rows in TABLE3.items()} == {key: set(MODELS) for key in TABLE3}
    assert all(len(values) == len(SETS) for rows in TABLE3.values() for values in rows.values())
    assert sum(TABLE3["RMSE"]["ours"]) == pytest.approx(4.220)
    assert sum(TABLE3["RMSE"]["i-rec"]) == pytest.approx(4.500)
    assert sum(TABLE3["Recall@50"]["cnn-cf"]) == pytest.approx(4.087)
    assert all(
        min(rows, key=lambda one: rows[one][at]) == "ours" for at in range(5) for rows in [TABLE3["RMSE"]]
    )


def test_blocks_of_the_literal_preset_follow_the_data() -> None:
    one = contender("literal")
    assert one.for_data("ml1m") == {"user_batch_size": 100, "item_batch_size": 100}
    assert one.for_data("ml100k") == {"user_batch_size": 1000, "item_batch_size": 1000}
    assert contender("paper").for_data("ml1m") == {}


def test_tables_take_the_paper_within_its_grid_whatever_the_preset_has_beyond() -> None:
    taken, now = contender("paper").chosen({}, 0).values(), preset("paper").values()
    assert (taken["n_tower_outputs"], taken["input_dropout"], taken["max_iterations"]) == (50, 0.2, 120)
    changed = {name for name, value in now.items() if taken[name] != value}
    assert changed == {"n_tower_outputs", "input_dropout", "max_iterations"}
    assert taken["n_tower_outputs"] in PAPER_AXES["n_tower_outputs"]
    assert variant_settings("C", "paper", 100, 0).values()["input_dropout"] == 0.2
