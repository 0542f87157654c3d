"""Figure 3 on a tiny set: shares, what is tuned on them, and verdicts."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call

from pyro_bmf.data.splits import subsample_split
from pyro_bmf.experiments.cells import CellStore
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.papers.sparsity import Sparsity
from pyro_bmf.experiments.papers.sparsity_report import _end, _smallest_margin
from pyro_bmf.experiments.papers.sparsity_rows import SCOPES, Subsample
from pyro_bmf.experiments.table3_rows import Choices
from pyro_bmf.methods.settings import preset


def test_models_on_two_shares(here: Path) -> None:
    outcome = call(
        *("experiment", "sparsity", "--data", "ml100k", "--models", "bias-only,ncf,i-rec,vae-cf"),
        *("--percents", "20,10", "--seeds", 2, "--trials", 1, "--iterations", 1, "--threads", 1, "--quiet"),
        *("--out", "figure"),
    )
    assert outcome.code == 0, outcome.err
    with open(here / "figure/sparsity.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["set"] for row in rows} == {"ml100k"}
    assert {(float(row["percent"]), row["model"]) for row in rows} == {
        (percent, model) for percent in (10, 20) for model in ("bias-only", "ncf", "i-rec", "vae-cf")
    }
    assert {row["state"] for row in rows} == {"measured"}
    found = {
        (float(row["percent"]), row["model"], row["seed"]): float(row["value"])
        for row in rows
        if row["metric"] == "rmse"
    }
    text = (here / "figure/sparsity.md").read_text(encoding="utf-8")
    line = next(one for one in text.split("MovieLens 100K: RMSE")[1].splitlines() if "I-Rec" in one)
    for percent, cell in zip((10.0, 20.0), line.strip("| ").split(" | ")[1:], strict=True):
        mean = np.mean([found[percent, "i-rec", seed] for seed in "01"])
        assert float(re.findall(r"\d\.\d+", cell)[0]) == pytest.approx(mean, abs=6e-5)
    claims = json.loads((here / "figure/sparsity-claims.json").read_text(encoding="utf-8"))
    assert [(one["percent"], one["key"]) for one in claims] == [
        (percent, key)
        for percent in (10.0, 20.0)
        for key in (
            *("lowest-rmse", "lowest-rmse-default", "ncf-second"),
            *("vae-cf-second-ranking", "i-rec-suffers-most", "local-or-global"),
        )
    ] + [(None, "smallest-margin")]
    (ncf,) = [one for one in claims if (one["percent"], one["key"]) == (10.0, "ncf-second")]
    means = {name: np.mean([found[10.0, name, seed] for seed in "01"]) for name in ("ncf", "i-rec", "vae-cf")}
    assert ncf["difference"] == pytest.approx(min(means["i-rec"], means["vae-cf"]) - means["ncf"])
    assert "not measured: cnn-cf, u-rec, dae-cf" in ncf["told"]
    for name in ("sparsity.png", "sparsity.svg", "sparsity-chosen.json"):
        assert (here / "figure" / name).stat().st_size > 100


def test_a_row_far_above_the_baselines_does_not_flatten_the_others() -> None:
    rows = {"i-rec": (1.10, 1.05), "ncf": (1.00, 0.95), "paper": (1.08, 0.99)}
    assert _end(rows) is None
    assert _end({"paper": (2.0, 1.5)}) is None
    assert _end(rows | {"literal": (2.2, 1.1)}) == pytest.approx(1.10 + 0.3 * 0.15)


@pytest.fixture
def tiny(small_data: Path) -> DataSet:
    return DataSet("tiny", "Tiny", str(small_data.parent / "my.csv"), {"scale": "1:5:1"})


def test_a_share_trains_and_the_rest_is_halved(tiny: DataSet, tmp_path: Path) -> None:
    choices = Choices({"i-rec": 2}, {"i-rec": 1})
    experiment = Sparsity(("i-rec",), (tiny,), {"tiny": (20, 10)}, 2, choices, threads=1)
    assert [share.name for share in experiment.sets] == ["tiny-10%", "tiny-20%"]
    for share, percent in zip(experiment.sets, (10, 20), strict=True):
        split = share.split(1)
        assert split.hash == subsample_split(tiny.ratings, percent, 1).hash
        assert len(split.train_rows) == round(len(tiny.ratings) * percent / 100)
        assert abs(len(split.valid_rows) - len(split.test_rows)) <= 1
        assert share.base == "tiny"
    cells = experiment.cells(CellStore(tmp_path))
    hashes = [subsample_split(tiny.ratings, percent, 0).hash for percent in (10, 20)]
    assert [cell.identity["split_hash"] for cell in cells] == hashes


def test_what_is_chosen_for_a_set_is_for_its_shares(tiny: DataSet, tmp_path: Path) -> None:
    choices = Choices(
        {"i-rec@tiny": 2, "i-rec@tiny-20%": 3},
        cuts={"i-rec@tiny": {"l2": (0.1,)}},
        chosen={"tiny": {"u-rec": {"n_factors": 5}}},
    )
    experiment = Sparsity(("i-rec", "u-rec"), (tiny,), {"*": (10, 20)}, 1, choices, threads=1)
    cells = experiment.cells(CellStore(tmp_path))
    tuning = [cell for cell in cells if cell.kind == "tuning"]
    assert [cell.identity["trials"] for cell in tuning] == [2, 3]
    assert [cell.identity["settings"]["grid"]["l2"] for cell in tuning] == [[0.1], [0.1]]
    finals = [cell for cell in cells if cell.kind == "final"]
    assert [cell.identity["settings"]["n_factors"] for cell in finals] == [5, 5]


def test_scopes_of_attention_follow_the_paper_s_row(tiny: DataSet, tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    experiment = Sparsity(
        ("paper",), (tiny,), {"*": (20,)}, 1, Choices({"paper": 1}, {"paper": 1}), threads=1
    )
    assert experiment.n_cells() == 4
    while left := [cell for cell in experiment.cells(store) if not store.has(cell)]:
        store.run(left[0])
    scopes = {
        row.model.name: row.finals[0].identity["settings"]["cross-feedback"]["encoder"]["attention_scope"]
        for row in experiment.rows(store)[1:]
    }
    assert scopes == dict(zip(SCOPES, ("local", "global"), strict=True))
    claims = experiment.report(store, "a command").documents["claims"]
    (one,) = [claim for claim in claims if claim["key"] == "local-or-global"]
    assert one["difference"] is not None


def test_a_cell_knows_what_few_ratings_leave_out(tiny: DataSet, tmp_path: Path) -> None:
    """Else a cell from before a rule changed would be taken for finished."""
    store = CellStore(tmp_path)
    experiment = Sparsity(("default", "literal", "bias-only"), (tiny,), {"*": (5, 90)}, 1, threads=1)
    found = {
        (cell.identity["model"], cell.identity["data"]): cell.identity.get("suited")
        for cell in experiment.cells(store)
    }
    few, many = (one.train_size(0) for one in experiment.sets)
    assert few == (round(0.05 * len(tiny.ratings)), tiny.ratings.n_users + tiny.ratings.n_items)
    for share, size in (("tiny-5%", few), ("tiny-90%", many)):
        expected = preset().suited(*size).model
        told = {"n_factors": expected.n_factors}
        if not expected.implicit:
            told["implicit"] = False
        assert found["default", share] == (told if told["n_factors"] < 24 else None)
        assert found["literal", share] is None
        assert found["bias-only", share] is None
    assert found["default", "tiny-5%"] == {"n_factors": 1, "implicit": False}
    asked = preset().replace(n_factors=24, implicit=True)
    assert asked.suited(*few).model == asked.model


def test_a_set_may_have_shares_of_its_own(tiny: DataSet, tmp_path: Path) -> None:
    other = replace(tiny, name="other", title="Other")
    experiment = Sparsity(("i-rec",), (tiny, other), {"*": (5, 10), "other": (20,)}, 1, threads=1)
    assert [share.name for share in experiment.sets] == ["tiny-5%", "tiny-10%", "other-20%"]
    lead = experiment.report(CellStore(tmp_path), "a command").sections[0].text
    assert "Trained on random 5 and 10 % of Tiny, 20 % of Other, one seed" in lead
    default = Sparsity(("i-rec",), (tiny, other), {"other": (20,)}, 1, threads=1)
    assert [share.percent for share in default.sets] == [1, 2, 3, 5, 10, 20]


def test_the_command_is_written_as_it_was_given(here: Path) -> None:
    outcome = call(
        *("experiment", "sparsity", "--data", "ml100k", "--models", "bias-only", "--percents", "2.5,10"),
        *("--percents", "ml100k=20,5", "--seeds", 1, "--threads", 1, "--quiet", "--out", "figure"),
    )
    assert outcome.code == 0, outcome.err
    text = (here / "figure/sparsity.md").read_text(encoding="utf-8")
    assert "--percents 2.5,10 --percents ml100k=20,5" in text
    assert "Trained on random 5 and 20 % of the ratings" in text


def test_refusals(here: Path) -> None:
    outcome = call("experiment", "sparsity", "--data", "ml100k", "--percents", "0,5")
    assert outcome.code == 1
    assert "Shares to train on are 0 %: give some between 0 and 100 percent" in outcome.err
    outcome = call("experiment", "sparsity", "--data", "ml100k", "--percents", "few")
    assert "'few': write numbers with commas between, or SET=NUMBER,NUMBER" in outcome.err
    outcome = call("experiment", "sparsity", "--data", "ml100k", "--percents", "ml1m=1")
    assert outcome.code == 1
    assert "Shares of ml1m are given, and the sets are ml100k" in outcome.err


class _Known:
    """A row whose RMSE by seed is known."""

    def __init__(self, *rmse: float) -> None:
        self.rmse = list(rmse)

    def values(self, *_: object) -> list[float]:
        return self.rmse


def test_the_smallest_margin_is_of_all_shares(tiny: DataSet) -> None:
    def share(percent: float, paper: tuple[float, ...], ncf: tuple[float, ...]) -> Any:
        return Subsample.of(tiny, percent), {"paper": _Known(*paper), "ncf": _Known(*ncf)}

    wide = share(1, (0.90, 0.91, 0.92), (1.00, 1.01, 1.02))
    narrow = share(3, (0.90, 0.91, 0.92), (0.908, 0.9181, 0.9279))
    one = _smallest_margin(tiny, [wide, narrow])
    assert (one.set, one.verdict) == ("tiny", "holds")
    assert one.difference == pytest.approx(0.003, abs=1e-6)
    assert "the smallest margin is +0.0080, at 3 %, against ncf" in one.told
    assert _smallest_margin(tiny, [wide, share(3, (0.9, 0.91, 0.92), (0.9, 0.9101, 0.9201))]).verdict == (
        "does not hold"
    )
    assert _smallest_margin(tiny, [(wide[0], {"ncf": wide[1]["ncf"]})]).verdict == "cannot be judged"
