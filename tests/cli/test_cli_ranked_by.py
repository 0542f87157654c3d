"""`recommend --by`, its files and reasons; runs without a selection model; rankings in `evaluate`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Cli

from pyro_bmf.cli.printing import ranked_by
from pyro_bmf.cli.printing.rating_tables import rating_rows
from pyro_bmf.selection import Recommender

Rows = list[dict[str, Any]]


def rows(text: str) -> Rows:
    found: Rows = json.loads(text)["rows"]
    return found


@pytest.fixture
def old_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A run of an earlier version: without a selection model."""
    copy = tmp_path / "old run"
    shutil.copytree(tiny_run, copy)
    (copy / "selection.safetensors").unlink()
    return copy


@pytest.fixture(scope="module")
def recommender(tiny_run: Path) -> Recommender:
    return Recommender.load(tiny_run)


@pytest.mark.parametrize("by", ["liked", "rating", "chosen"])
def test_python_and_the_command_line_have_the_same_words(
    cli: Cli, tiny_run: Path, recommender: Recommender, by: str
) -> None:
    found = rows(cli("recommend", tiny_run, "--user", 7, "--n", 5, "--by", by, "--no-clip", "--json").out)
    expected = recommender.recommend([7], 5, by=by).to_dict("records")
    assert [row["item_id"] for row in found] == [row["item_id"] for row in expected]
    for row, own in zip(found, expected, strict=True):
        for name in ("liked", "chosen", "liked_if_chosen", "mean", "lower", "upper"):
            assert row[name] == pytest.approx(own[name], rel=1e-6)
    shown = cli("recommend", tiny_run, "--user", 7, "--n", 5, "--by", by).out.splitlines()
    assert f"by {by}; chosen: among the 30.1 % of ratings that were held out" in shown[0]
    assert "liked if chosen" in shown[1]


def test_a_split_by_time_names_its_period(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    data = ("--data", "ml100k", "--data-dir", data_dir, "--scheme", "time")
    printed = cli("fit", *data, "--iterations", 2, "--preset", "guide", "--out", tmp_path / "run")
    assert printed.code == 0, printed.err
    shown = cli("recommend", tmp_path / "run", "--user", 7, "--n", 3).out.splitlines()[0]
    found = re.search(r"of ratings that were held out, (from time \d+ to \d+);", shown)
    assert found is not None, shown
    part = cli("evaluate", tmp_path / "run").out
    assert re.search(r"chosen: among the test ratings, [\d.]+ % of all,\s+from time \d+ to \d+;", part), part


def test_liked_is_what_decides_by_default(cli: Cli, tiny_run: Path) -> None:
    found = rows(cli("recommend", tiny_run, "--user", 7, "--n", 8, "--json").out)
    liked = [row["liked"] for row in found]
    assert liked == sorted(liked, reverse=True)
    assert all(row["liked"] == pytest.approx(row["chosen"] * row["liked_if_chosen"]) for row in found)
    high = rows(cli("recommend", tiny_run, "--user", 7, "--n", 8, "--threshold", 4, "--json").out)
    assert max(row["liked"] for row in high) < max(liked)


@pytest.mark.parametrize("strategy", ["lower", "thompson", "prob-top"])
def test_strategies_give_a_score(cli: Cli, tiny_run: Path, recommender: Recommender, strategy: str) -> None:
    found = rows(cli("recommend", tiny_run, "--user", 7, "--n", 4, "--strategy", strategy, "--json").out)
    expected = recommender.recommend([7], 4, strategy=strategy)
    assert [row["item_id"] for row in found] == expected["item_id"].tolist()
    np.testing.assert_allclose([row["score"] for row in found], expected["score"], rtol=1e-6)


def test_candidates_exclusions_and_a_minimum_count(
    cli: Cli, tiny_run: Path, recommender: Recommender
) -> None:
    Path("some.csv").write_text("item_id\n1\n2\n3\n9\n")
    Path("watched.txt").write_text("2\n9\n")
    ask = ("recommend", tiny_run, "--user", 7, "--n", 30, "--include-seen", "--json")
    found = {
        row["item_id"] for row in rows(cli(*ask, "--candidates", "some.csv", "--exclude", "watched.txt").out)
    }
    assert found == {1, 3}
    assert {row["item_id"] for row in rows(cli(*ask, "--exclude", "watched.txt").out)} == set(
        range(1, 31)
    ) - {2, 9}
    counts = recommender.posterior.train.item_counts
    most = int(np.median(counts))
    often = {row["item_id"] for row in rows(cli(*ask, "--min-count", most).out)}
    assert often == set((np.flatnonzero(counts >= most) + 1).tolist())
    Path("bad.csv").write_text("item_id\n 3\n99\n")
    for option in ("--exclude", "--candidates"):
        outcome = cli(*ask, option, "bad.csv")
        assert outcome.code == 1
        assert "bad.csv, row 2: unknown item id 99" in outcome.err


def test_why_names_the_users_own_ratings(cli: Cli, tiny_run: Path, recommender: Recommender) -> None:
    found = rows(cli("recommend", tiny_run, "--user", 7, "--n", 2, "--why", "--json").out)
    for row in found:
        table = recommender.why(7, [row["item_id"]])
        named = zip(table["title"], table["rating"], strict=True)
        assert row["because_of"] == "; ".join(f"{title} ({rating:g})" for title, rating in named)
    assert found[0]["because_of"].count("Film [") == 3


def test_an_old_run_says_what_to_do_and_ranks_by_rating(cli: Cli, old_run: Path, data_dir: Path) -> None:
    outcome = cli("recommend", old_run, "--user", 7)
    assert outcome.code == 1
    assert f"pyro-bmf fit --resume '{old_run}'" in outcome.err
    assert "--by rating does without" in outcome.err
    found = rows(cli("recommend", old_run, "--user", 7, "--by", "rating", "--json").out)
    assert "liked" not in found[0]
    assert cli("recommend", old_run, "--user", 7, "--by", "rating", "--why").code == 1
    new = ("fold-in", old_run, "--rating", "2=5", "--json")
    assert cli(*new).code == 1
    assert "liked" not in rows(cli(*new, "--by", "rating").out)[0]
    assert cli(*new, "--predict", 3).code == 0
    measured = cli("evaluate", old_run, "--data-dir", data_dir)
    assert measured.code == 0
    assert "no rankings by liked" in measured.err
    model = (old_run / "model.safetensors").read_bytes()
    added = cli("fit", "--resume", old_run, "--data-dir", data_dir)
    assert added.code == 0, added.err
    assert (old_run / "model.safetensors").read_bytes() == model
    assert cli("recommend", old_run, "--user", 7).code == 0


def test_what_is_added_later_is_what_the_fit_gives(
    cli: Cli, tiny_run: Path, old_run: Path, data_dir: Path
) -> None:
    cli("fit", "--resume", old_run, "--data-dir", data_dir)
    added = (old_run / "selection.safetensors").read_bytes()
    # Times of fits differ: compare what is predicted.
    own = [Recommender.load(path).recommend([1, 2, 3], 5) for path in (tiny_run, old_run)]
    assert own[0].equals(own[1])
    assert added


def test_choices_of_a_run_read_its_predicted_ratings(
    cli: Cli, recommender: Recommender, data_dir: Path, tmp_path: Path
) -> None:
    assert recommender.selection.known.term is not None
    assert recommender.selection.new.term is not None
    # Of a refit the posterior has read what that would be fitted to.
    data = ("--data", "ml100k", "--data-dir", data_dir, "--preset", "guide", "--iterations", 2)
    printed = cli("fit", *data, "--refit", "--out", tmp_path / "run")
    assert printed.code == 0, printed.err
    assert "P(chosen) does not depend on predicted ratings" in printed.err
    assert Recommender.load(tmp_path / "run").selection.known.term is None


def test_a_selection_model_of_another_run_is_refused(cli: Cli, tiny_run: Path, old_run: Path) -> None:
    content = bytearray((tiny_run / "selection.safetensors").read_bytes())
    content[-8] ^= 1
    (old_run / "selection.safetensors").write_bytes(bytes(content))
    outcome = cli("recommend", old_run, "--user", 7)
    assert outcome.code == 1
    assert "selection.safetensors" in outcome.err
    assert "pyro-bmf fit --resume" in outcome.err


def test_evaluate_tells_what_rankings_are_worth(cli: Cli, tiny_run: Path, data_dir: Path) -> None:
    outcome = cli("evaluate", tiny_run, "--data-dir", data_dir)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("Rankings (full)"))
    assert "chosen: among the test ratings, 15 % of all" in lines[place]
    assert [line.split()[0] for line in lines[place + 3 : place + 7]] == [
        "liked",
        "rating",
        "chosen",
        "popularity",
    ]
    written = json.loads((tiny_run / "metrics.json").read_text(encoding="utf-8"))
    by = {record["ranked_by"]: record for record in written["ranked_by"]}
    assert by["rating"]["ndcg"] == next(
        one["ndcg"]
        for one in written["evaluations"][0]["ranking"]
        if (one["protocol"], one["n"]) == ("full", 20)
    )
    assert 0 < by["liked"]["ndcg"] <= 1


def test_of_a_large_catalogue_lists_are_made_for_some_users(
    cli: Cli, tiny_run: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("evaluate", tiny_run, "--data-dir", data_dir)
    text = (tiny_run / "metrics.json").read_text(encoding="utf-8")
    whole = {record["ranked_by"]: record for record in json.loads(text)["ranked_by"]}
    n_items = Recommender.load(tiny_run).posterior.n_items
    monkeypatch.setattr(ranked_by, "MOST_PAIRS", 7 * n_items + 1)
    outcome = cli("evaluate", tiny_run, "--data-dir", data_dir, "--detail")
    n_users = whole["liked"]["n_users"]
    assert f"liked and chosen of 7 of {n_users} users, drawn at random" in outcome.out
    assert f"Lists of 20: what they are like; of 7 of {n_users} users, drawn at random" in outcome.out
    text = (tiny_run / "metrics.json").read_text(encoding="utf-8")
    some = {record["ranked_by"]: record for record in json.loads(text)["ranked_by"]}
    assert [some[by]["n_users"] for by in ("liked", "chosen", "rating")] == [7, 7, n_users]
    assert some["liked"]["ndcg"] != whole["liked"]["ndcg"]


def test_detail_tells_what_lists_are_like_and_whether_liked_comes_true(
    cli: Cli, tiny_run: Path, data_dir: Path
) -> None:
    outcome = cli("evaluate", tiny_run, "--data-dir", data_dir, "--detail", "--protocol", "full", "--json")
    found = {
        table["title"].split(":")[0]: table["rows"] for table in map(json.loads, outcome.out.splitlines())
    }
    lists = found["Lists of 20"]
    assert [row["ranked_by"] for row in lists] == ["liked", "rating", "chosen", "popularity"]
    assert {"catalogue_share", "gini", "novelty", "intra_list_similarity"} <= set(lists[0])
    groups = found["Calibration of liked"]
    assert len(groups) == 1 + 10 + 1 + 3 + 3
    written = json.loads((tiny_run / "metrics.json").read_text(encoding="utf-8"))
    assert written["ranked_by"][0]["calibration"]["groups"] == groups


def test_one_user_has_no_standard_error(cli: Cli, tmp_path: Path) -> None:
    lines = [f"u{u},i{i},{1 if u < 3 else 5}" for u in range(6) for i in range(6)]
    (tmp_path / "r.csv").write_text("user,item,rating\n" + "\n".join(lines) + "\n", encoding="utf-8")
    quick = ("--preset", "conjugate", "--factors", 2, "--iterations", 3, "--threads", 1, "--quiet")
    outcome = cli("fit", "--data", "r.csv", "--out", "run", *quick)
    assert outcome.code == 0, outcome.err
    ranked = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["ranked_by"]
    assert [row["recall_se"] for row in ranked] == [None] * 4
    assert all(0.0 <= row["recall"] <= 1.0 for row in ranked)
    assert cli("evaluate", "run", "--detail").code == 0


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        ([0.0391, 0.0004], ["0.039", "4e-04"]),
        ([5.616, 0.5], ["5.62", "0.50"]),
        ([0.5, -0.2], [" 0.50", "-0.20"]),
    ],
)
def test_scores_that_are_probabilities_are_told_apart(
    recommender: Recommender, scores: list[float], shown: list[str]
) -> None:
    table = recommender.recommend([7], 2, strategy="lower").assign(score=scores)
    assert [row["score"] for row in rating_rows(table, 0.9)] == shown
