"""`pyro-bmf evaluate`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pyro_bmf.data import load_ratings, random_split
from pyro_bmf.evaluation import evaluate
from pyro_bmf.posterior import Posterior

Run = Any


def tables(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_main_table_fits_a_screen_and_says_what_it_is(cli: Run, tiny_run: Path) -> None:
    outcome = cli("evaluate", tiny_run)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].startswith("ml100k: ")
    assert (
        "test ratings (random split 70/15/15, seed 0), posterior-predictive mean, fitted to train" in lines[0]
    )
    assert lines[1].split("  ")[0] == "system"
    for words in ("pyro-bmf", "global mean", "user and item biases", "popularity"):
        assert any(line.startswith(words) for line in lines[3:7])
    for column in ("RMSE", "MAE", "NLL", "RPS", "90 % by PIT", "interval holds", "recall@20", "NDCG@20"):
        assert column in lines[1]
    assert "protocol full" in outcome.out
    assert "inside the printed 90 % interval, a Normal's." in outcome.out  # the likelihood is Normal
    assert "whole levels" not in outcome.out
    assert max(map(len, lines[:-1])) <= 115  # the last names a path


@pytest.mark.filterwarnings("ignore::pyro_bmf.data.notices.DataWarning")
@pytest.mark.filterwarnings("ignore::pyro_bmf.data.notices.DataNotice")
def test_figures_are_those_of_the_library(cli: Run, tiny_run: Path, data_dir: Path) -> None:
    found = tables(cli("evaluate", tiny_run, "--json").out)
    assert len(found) == 2  # the systems, and the rankings by what decides
    first = found[0]["rows"][0]
    split = random_split(load_ratings("ml100k", data_dir=data_dir), seed=0)
    expected = evaluate(Posterior.load(tiny_run / "model.safetensors"), split, threshold=3.0)
    assert first["system"] == "pyro-bmf"
    assert first["rmse"] == pytest.approx(expected.rmse, rel=1e-6)
    assert first["nll"] == pytest.approx(expected.nll, rel=1e-6)
    assert first["full:recall@20"] == pytest.approx(expected.ranking[0].recall)
    assert found[0]["title"].startswith(f"ml100k: {len(split.test_rows):,} test")
    written = json.loads((tiny_run / "metrics.json").read_text(encoding="utf-8"))
    assert written["evaluations"][0]["rmse"] == first["rmse"]
    assert [one["system"] for one in written["evaluations"]][1:] == ["global-mean", "bias-only", "popularity"]
    assert written["evaluations"][0]["split_hash"] == split.hash


def test_detail_shows_every_further_table(cli: Run, tiny_run: Path, tmp_path: Path) -> None:
    shown = cli("evaluate", tiny_run, "--detail").out
    for title in (
        "More figures",
        "Ranking figures by protocol",
        "Difference from each reference",
        "by randomised PIT, in the printed intervals",
        "by decile of the user's number of training ratings",
        "by decile of the item's number of training ratings",
    ):
        assert title in shown
    assert max(map(len, shown.splitlines()[:-1])) <= 120
    found = tables(cli("evaluate", tiny_run, "--detail", "--json", "--csv", tmp_path / "f.csv").out)
    assert len(found) >= 8
    deciles = next(one for one in found if "by decile of the item" in one["title"])["rows"]
    assert {row["by"] for row in deciles} == {"item"}
    with open(tmp_path / "f-item-deciles.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(deciles)
    assert {row["protocol"] for row in found[2]["rows"]} == {"full", "rated", "rated-precision"}


def test_part_lengths_threshold_and_protocol(cli: Run, tiny_run: Path) -> None:
    metrics = (tiny_run / "metrics.json").read_bytes()
    arguments = (
        "evaluate",
        tiny_run,
        "--part",
        "valid",
        "--n",
        "5,3",
        "--threshold",
        2,
        "--protocol",
        "rated",
    )
    row = tables(cli(*arguments, "--json").out)[0]["rows"][0]
    assert {name for name in row if ":" in name} == {
        "rated:recall@5", "rated:ndcg@5", "rated:recall@3", "rated:ndcg@3",
    }  # fmt: skip
    shown = cli(*arguments).out
    assert "validation ratings" in shown
    assert "these ratings chose the state that is kept" in shown
    assert "recall@5" in shown
    assert "relevant is a rating above 2." in shown
    assert (tiny_run / "metrics.json").read_bytes() == metrics  # the test part's alone


def test_other_ratings_are_refused(cli: Run, tiny_run: Path, data_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "ml-100k"
    other.mkdir(parents=True)
    for name in ("u.data", "u.item"):
        (other / name).write_bytes((data_dir / "ml-100k" / name).read_bytes())
    lines = (other / "u.data").read_text(encoding="utf-8").splitlines()
    user, item, rating, time = lines[0].split("\t")
    lines[0] = "\t".join((user, item, "1" if rating != "1" else "2", time))
    (other / "u.data").write_text("\n".join(lines) + "\n", encoding="utf-8")
    outcome = cli("evaluate", tiny_run, "--data-dir", other.parent)
    assert outcome.code == 1
    assert "Error: The ratings are not those of the run" in outcome.err
    assert cli("evaluate", tiny_run, "--data-dir", data_dir).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--n", "0"), "whole numbers of at least 1"),
        (("--n", "many"), "whole numbers of at least 1"),
        (("--protocol", "best"), "is not one of 'full', 'rated', 'rated-precision'"),
        (("--part", "train"), "is not one of 'test', 'valid'"),
    ],
)
def test_wrong_options(cli: Run, tiny_run: Path, arguments: tuple[str, ...], words: str) -> None:
    outcome = cli("evaluate", tiny_run, *arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.err.count("\n") == 1
