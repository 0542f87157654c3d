"""Table 4 on a tiny set: every row, its verdicts, and that an interrupted one goes on to the same table."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import call

from pyro_bmf.experiments.cells import CellStore
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.papers.judging import interval, judge
from pyro_bmf.experiments.papers.table4 import Table4
from pyro_bmf.experiments.papers.table4_report import _ranking
from pyro_bmf.experiments.papers.table4_rows import PARTS
from pyro_bmf.experiments.printed import SETS, TABLE3, TABLE4
from pyro_bmf.experiments.table3 import Table3
from pyro_bmf.experiments.table3_rows import Choices

LINE = (
    *(
        "experiment",
        "table4",
        "--data",
        "ml100k",
        "--seeds",
        "2",
        "--trials",
        "1",
        "--threads",
        "1",
        "--quiet",
    ),
)
SMALL = ("--models", "paper-no-attention-untuned", "--iterations", 1)


def figures(folder: Path) -> list[dict[str, str]]:
    """Return every figure but the seconds."""
    with open(folder / "table4.csv", encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["metric"] != "seconds"]


def tables(folder: Path) -> str:
    """Return the report without what a clock says."""
    text = (folder / "table4.md").read_text(encoding="utf-8")
    return re.sub(r"( \| [\d.,– ]+){2} \|$", "", text, flags=re.M)


def cell_files(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder / "cells").glob("*.json")}


def test_every_row_of_the_table(here: Path) -> None:
    short = ("--iterations", 1, "--iterations", "guide=2", "--iterations", "amortized=1")
    outcome = call(*LINE, *short, "--seeds", 1, "--out", "table")
    assert outcome.code == 0, outcome.err
    rows = figures(here / "table")
    assert {row["model"] for row in rows} == set(PARTS)
    assert {row["state"] for row in rows} == {"measured"}
    for row in rows:
        part = PARTS[row["model"]]
        assert (row["base"], row["part"], row["tuned"]) == (part.base, part.part, str(part.tuned))
    rmse = {row["model"]: float(row["value"]) for row in rows if row["metric"] == "rmse"}
    # What is taken away makes another model of it.
    for base in ("paper", "amortized", "guide"):
        parts = [name for name, part in PARTS.items() if part.base == base and part.part.startswith("no-")]
        assert len({rmse[name] for name in (base, *parts)}) > len(parts) / 2
    claims = json.loads((here / "table/table4-claims.json").read_text(encoding="utf-8"))
    assert [one["key"] for one in claims] == [
        *("data-input", "feedback", "attention", "data-input-largest", "attention-least", "full-ranking"),
        *("average-input", "sequential", "local-attention"),
    ]
    for one in claims:
        if one["key"] in ("data-input", "feedback", "attention"):
            gap = rmse[f"paper-no-{one['key']}"] - rmse["paper"]
            assert one["difference"] == pytest.approx(gap)
            assert one["verdict"] == "cannot be judged"
        if one["key"] == "full-ranking":
            gains = [
                max(
                    found[f"paper-{part}"] - found["paper"]
                    for part in ("no-data-input", "no-feedback", "no-attention")
                )
                for metric in ("recall@20", "recall@50", "ndcg@20", "ndcg@50")
                for found in [
                    {
                        row["model"]: float(row["value"])
                        for row in rows
                        if row["metric"] == metric and row["protocol"] == "full"
                    }
                ]
            ]
            assert one["difference"] == pytest.approx(-max(gains))
    text = (here / "table/table4.md").read_text(encoding="utf-8")
    for title in ("each row tuned anew", "untuned", "our default's guide", "our encoders", "claims hold"):
        assert re.search(f"^## .*{title}", text, re.M), title
    assert "those of paper, with attention none" in text
    for name in ("table4.png", "table4.svg", "table4-chosen.json"):
        assert (here / "table" / name).stat().st_size > 100


def test_a_table_that_was_killed_goes_on_to_the_same_table(here: Path) -> None:
    whole = call(*LINE, *SMALL, "--out", "whole")
    assert whole.code == 0, whole.err
    killed = here / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "pyro_bmf.cli.main", *LINE, *map(str, SMALL), "--out", str(killed)],
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 100
    while len(cell_files(killed)) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    rows = [row for row in figures(here / "whole") if row["metric"] == "rmse"]
    assert [row["model"] for row in rows] == ["paper"] * 2 + ["paper-no-attention-untuned"] * 2
    (tuning,) = (here / "whole/cells").glob("tuning-*.json")
    (trial,) = json.loads(tuning.read_text(encoding="utf-8"))["result"]["trials"]
    assert trial["iterations"] == 1, "what is said of all models is of the full one too"
    before = cell_files(killed)
    assert 2 <= len(before) < len(cell_files(here / "whole")), "it was to be killed on its way"
    assert not (killed / "table4.md").exists()
    again = call(*LINE, *SMALL, "--out", "killed")
    assert again.code == 0, again.err
    assert {name: when for name, when in cell_files(killed).items() if name in before} == before
    assert figures(killed) == figures(here / "whole")
    assert tables(killed) == tables(here / "whole")
    assert (killed / "table4-claims.json").read_bytes() == (here / "whole/table4-claims.json").read_bytes()


@pytest.fixture
def tiny(small_data: Path) -> DataSet:
    return DataSet("tiny", "Tiny", str(small_data.parent / "my.csv"), {"scale": "1:5:1"})


def table4(tiny: DataSet, rows: tuple[str, ...], **choices: Any) -> Table4:
    told = {"trials": {"paper": 1}, "iterations": {"paper": 1}, **choices}
    return Table4(rows, (tiny,), 1, Choices(**told), threads=1)


def run_all(experiment: Table4 | Table3, store: CellStore) -> None:
    while left := [cell for cell in experiment.cells(store) if not store.has(cell)]:
        store.run(left[0])


def test_cells_are_shared_with_table_3(tiny: DataSet, tmp_path: Path) -> None:
    earlier = CellStore(tmp_path / "table3")
    choices = Choices({"paper": 1}, {"paper": 1})
    run_all(Table3(("paper",), (tiny,), 1, choices, threads=1), earlier)
    store = CellStore(tmp_path / "table4", (tmp_path / "table3",))
    experiment = table4(tiny, ("paper", "paper-local-attention-untuned", "paper-global-attention-untuned"))
    left = [cell for cell in experiment.cells(store) if not store.has(cell)]
    # The full model is there, and so is that of the two scopes which it has.
    assert len(left) == 1
    (chosen,) = {cell.identity["settings"]["cross-feedback"]["encoder"]["attention_scope"] for cell in left}
    run_all(experiment, store)
    (full, *scopes) = experiment.rows(store)
    assert full.tuned is not None
    assert full.tuned["chosen"]["attention_scope"] != chosen
    assert {cell.key for row in scopes for cell in row.finals} == {full.finals[0].key, left[0].key}
    assert len(list((tmp_path / "table4/cells").iterdir())) == 3
    shutil.rmtree(tmp_path / "table3")
    assert all(store.has(cell) for cell in experiment.cells(store)), "they were copied"


@pytest.mark.parametrize("whose", ["paper", "paper@tiny"])
def test_what_is_chosen_for_the_preset_is_for_its_parts(tiny: DataSet, tmp_path: Path, whose: str) -> None:
    rows = ("paper", "paper-no-attention", "paper-no-feedback", "paper-no-data-input")
    cuts = {whose: {"n_factors": (10,), "attention_scope": ("local",)}}
    experiment = table4(tiny, rows, cuts=cuts, trials={"paper": 2, "paper-no-feedback": 3})
    found = {
        json.dumps(cell.identity["settings"]["fixed"]): cell for cell in experiment.cells(CellStore(tmp_path))
    }
    assert len(found) == 4
    for cell in found.values():
        grid = cell.identity["settings"]["grid"]
        assert grid["n_factors"] == [10]
        fixed = cell.identity["settings"]["fixed"]
        without = fixed.get("attention") == "none" or fixed.get("feedback") is False
        assert ("attention_scope" in grid) is not without
        assert cell.identity["trials"] == (3 if fixed.get("feedback") is False else 2)


def test_parts_follow_the_full_model_and_drop_what_is_not_read(tiny: DataSet, tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    experiment = table4(tiny, ("paper-no-attention-untuned", "paper-no-data-input-untuned"))
    assert experiment.n_cells() == 4
    (tuning,) = experiment.cells(store)
    store.run(tuning)
    told = store.result(tuning)
    assert told is not None
    _, none, ratings = experiment.rows(store)
    assert none.values == {
        **{name: value for name, value in told["chosen"].items() if name != "attention_scope"},
        "attention": "none",
    }
    assert ratings.values == {**told["chosen"], "data_input": False}


def test_without_data_input_ratings_are_not_read(tiny: DataSet) -> None:
    """The guide of a fit gives the same to rows that rated the same items otherwise."""
    import torch

    from pyro_bmf.experiments.contenders import Running
    from pyro_bmf.model.feedback import Feedback
    from pyro_bmf.progress import Silent

    ratings = tiny.split(0).train
    users, items = torch.tensor(ratings.users), torch.tensor(ratings.items)
    given = torch.tensor(ratings.ratings, dtype=torch.float32)
    for name, same in (("paper-no-data-input", True), ("paper", False)):
        model = PARTS[name].model()
        values = {**model.for_data("tiny"), "max_iterations": 1}
        fitted = model.fit(tiny.split(0), values, seed=0, running=Running(Silent(), threads=1))
        guide: Any = fitted.system.guide  # type: ignore[attr-defined]
        rows = [
            guide.encode_side("user", Feedback.from_coo(users, items, one, ratings.n_users, ratings.n_items))
            for one in (given, 6 - given)
        ]
        assert torch.equal(rows[0].loc, rows[1].loc) is same


def test_a_claim_is_judged_by_its_interval(tiny: DataSet) -> None:
    """Student's t with two degrees of freedom at 97.5 % is 4.3027."""
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), rel=1e-4)
    assert judge(tiny, "k", "c", [1.0, 1.1, 0.9]).verdict == "holds"
    assert judge(tiny, "k", "c", [-1.0, -1.1, -0.9]).verdict == "does not hold"
    assert judge(tiny, "k", "c", [1.0, 2.0, 3.0]).verdict == "cannot be judged"
    for one in (0.1, -0.1):
        alone = judge(tiny, "k", "c", [one])
        assert (alone.verdict, alone.told) == ("cannot be judged", f"{one:+.4f}; one seed")
    missing = judge(tiny, "k", "c", [], missing="not run")
    assert (missing.verdict, missing.told) == ("cannot be judged", "not run")


def test_the_printed_table_is_whole() -> None:
    """Its row of the full model is Table 3's; sums were added by hand from the paper."""
    assert {metric: rows["full"] for metric, rows in TABLE4.items()} == {
        metric: TABLE3[metric]["ours"] for metric in TABLE4
    }
    assert all(len(values) == len(SETS) for rows in TABLE4.values() for values in rows.values())
    assert sum(TABLE4["RMSE"]["no-data-input"]) == pytest.approx(4.751)
    assert sum(TABLE4["Recall@50"]["no-feedback"]) == pytest.approx(4.180)


def test_refusals(here: Path) -> None:
    outcome = call("experiment", "table4", "--data", "ml100k", "--models", "paper-no-users")
    assert outcome.code == 2
    assert "--models paper-no-users: choose from paper, paper-no-data-input" in outcome.err


@pytest.mark.parametrize(
    ("without", "word", "told"),
    [
        ([0.1, 0.11, 0.09], "does not hold", "higher in 12 of 12"),
        ([0.3, 0.0, -0.1], "cannot be judged", "none beyond what seeds tell apart"),
        ([-0.1, -0.2, -0.1], "holds", "higher in 0 of 12"),
        ([], "cannot be judged", "not measured"),
    ],
)
def test_ranking_without_a_part(tiny: DataSet, without: list[float], word: str, told: str) -> None:
    def row(values: list[float]) -> Any:
        return type("Row", (), {"values": lambda self, *_: values, "state": "not finished"})()

    rows = {f"paper-{part}": row(without) for part in ("no-data-input", "no-feedback", "no-attention")}
    found = _ranking(tiny, rows, row([0.0, 0.0, 0.0]))
    assert found.verdict == word
    assert told in found.told
    del rows["paper-no-feedback"]
    if word == "holds":
        assert _ranking(tiny, rows, row([0.0, 0.0, 0.0])).verdict == "cannot be judged"
