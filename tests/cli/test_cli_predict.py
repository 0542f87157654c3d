"""`pyro-bmf predict`, `recommend`, `fold-in` and `similar`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pyro_bmf.cli.recommend as recommend_module
from pyro_bmf.posterior import Posterior
from pyro_bmf.selection import Recommender

Run = Any


@pytest.fixture(scope="module")
def posterior(tiny_run: Path) -> Posterior:
    return Posterior.load(tiny_run / "model.safetensors")


def rows(text: str) -> list[dict[str, Any]]:
    (line,) = text.splitlines()
    found: list[dict[str, Any]] = json.loads(line)["rows"]
    return found


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- predict --------------------------------------------------------------------------------------------


def test_predict_pairs_every_user_with_every_item(cli: Run, tiny_run: Path, posterior: Posterior) -> None:
    arguments = ("predict", tiny_run, "--user", 3, "--user", 5, "--item", 2, "--item", 9, "--no-clip")
    found = pd.DataFrame(rows(cli(*arguments, "--json").out))
    expected = posterior.predict([3, 3, 5, 5], [2, 9, 2, 9])
    assert found["title"].tolist() == ["Film [2] (1990)", "Film [9] (1990)"] * 2
    pd.testing.assert_frame_equal(found.drop(columns="title"), expected, check_dtype=False)
    shown = cli(*arguments, "--interval", 0.5).out
    assert "Film [2] (1990)" in shown  # no markup
    assert "50 % interval of mean" in shown
    assert f"{expected['mean'][0]:.2f}" in shown.splitlines()[3]


def test_predict_cuts_to_the_scale_and_says_so(cli: Run, tiny_run: Path) -> None:
    outcome = cli("predict", tiny_run, "--user", 1, "--item", 1, "--interval", 0.999, "--json")
    assert "cut to 1 to 5" in outcome.out
    (row,) = rows(outcome.out)
    assert (row["lower"], row["upper"]) == (1.0, 5.0)
    assert "cut" not in cli("predict", tiny_run, "--user", 1, "--item", 1, "--no-clip").out


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
def test_predict_a_file_of_pairs(
    cli: Run, tiny_run: Path, posterior: Posterior, tmp_path: Path, suffix: str, out: str
) -> None:
    pairs = pd.DataFrame({"item_id": [4, 1, 4], "note": ["a", "b", "c"], "user_id": [40, 2, 1]})
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".parquet":
        pairs.to_parquet(path)
    else:
        pairs.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    outcome = cli("predict", tiny_run, "--pairs", path, "--out", out)
    assert outcome.out == f"3 predictions are in {out}.\n"
    found = pd.read_csv(out) if out.endswith("csv") else pd.read_parquet(out)
    expected = posterior.predict([40, 2, 1], [4, 1, 4])
    np.testing.assert_allclose(found["mean"], posterior.scale.clip(expected["mean"]), rtol=1e-12)
    assert found["user_id"].tolist() == [40, 2, 1]
    assert found["item_id"].dtype == np.int64


def test_long_tables_are_cut_on_the_screen_only(cli: Run, tiny_run: Path, tmp_path: Path) -> None:
    lines = [f"{user},{item}" for user in range(1, 11) for item in range(1, 11)]
    path = write(tmp_path / "pairs.csv", "user_id,item_id\n" + "\n".join(lines))
    outcome = cli("predict", tiny_run, "--pairs", path, "--csv", tmp_path / "all.csv")
    assert "… and 60 more rows" in outcome.out
    assert len(pd.read_csv(tmp_path / "all.csv")) == 100
    assert len(rows(cli("predict", tiny_run, "--pairs", path, "--json").out)) == 100


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("user_id,item_id\n1,2\n1,99\n", "p.csv, row 2: unknown item id 99"),
        ("user_id,item_id\n1,2\n77,2\n78,2\n", "p.csv, row 2: unknown user ids 77, 78"),
        (
            "user_id,item_id\n1,2\n01,2\n",
            "p.csv, row 2: unknown user id '01': user ids of this run are integers",
        ),
        ("user_id,item_id\n1,2\n,3\n", "row 2 has no user_id"),
        ("user_id,rating\n1,2\n", "has no column item_id"),
        ("user_id,item_id\n", "holds no rows"),
        ("", "cannot be read"),
    ],
)
def test_wrong_files_of_pairs(cli: Run, tiny_run: Path, tmp_path: Path, content: str, words: str) -> None:
    outcome = cli("predict", tiny_run, "--pairs", write(tmp_path / "p.csv", content), "--out", "o.csv")
    assert outcome.code == 1
    assert outcome.out == ""
    assert words in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "o.csv").exists()


# --- recommend ------------------------------------------------------------------------------------------


def test_recommend_leaves_out_what_was_seen(cli: Run, tiny_run: Path, posterior: Posterior) -> None:
    found = rows(cli("recommend", tiny_run, "--user", 7, "--n", 30, "--json").out)
    train = posterior.train
    seen = set(posterior.item_vocabulary.raw(train.items[train.users == 6]).tolist())
    assert {row["item_id"] for row in found} == set(range(1, 31)) - seen
    assert [row["rank"] for row in found] == list(range(1, len(found) + 1))
    every = rows(cli("recommend", tiny_run, "--user", 7, "--n", 30, "--include-seen", "--json").out)
    assert len(every) == 30
    shown = cli("recommend", tiny_run, "--user", 7, "--n", 3).out.splitlines()
    assert shown[0].startswith("Recommendations for user 7, not rated in training")
    assert shown[1].split()[:3] == ["rank", "item", "title"]
    assert "90 % interval" in shown[1]
    assert f"Film [{found[0]['item_id']}] (1990)" in shown[3]
    assert f"{found[0]['lower']:.2f} to {found[0]['upper']:.2f}" in shown[3]


def test_recommend_may_leave_out_every_rated_item(cli: Run, tiny_run: Path, data_dir: Path) -> None:
    arguments = ("recommend", tiny_run, "--user", 7, "--n", 30, "--json")
    found = {row["item_id"] for row in rows(cli(*arguments, "--exclude-held-out").out)}
    lines = (data_dir / "ml-100k" / "u.data").read_text(encoding="utf-8").splitlines()
    rated = {int(line.split("\t")[1]) for line in lines if line.startswith("7\t")}
    assert found == set(range(1, 31)) - rated
    assert found < {row["item_id"] for row in rows(cli(*arguments).out)}


@pytest.mark.parametrize("content", ["3\n5\n1\n", "user_id\n3\n5\n1\n", "name,user_id\na,3\nb,5\nc,1\n"])
def test_recommend_to_a_file_of_users(cli: Run, tiny_run: Path, tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "users.txt", content)
    candidates = write(tmp_path / "items.csv", "item_id\n1\n2\n30\n")
    found = rows(
        cli(
            "recommend", tiny_run, "--users", path, "--candidates", candidates, "--include-seen", "--json"
        ).out
    )
    assert [row["user_id"] for row in found] == [3, 3, 3, 5, 5, 5, 1, 1, 1]
    assert {row["item_id"] for row in found} == {1, 2, 30}


@pytest.mark.parametrize("by", ["liked", "rating", "chosen"])
@pytest.mark.parametrize("out", ["all.csv", "all.parquet"])
def test_recommend_to_all_is_written_in_parts(
    cli: Run, tiny_run: Path, posterior: Posterior, out: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommend_module, "_ROWS_AT_ONCE", 12)  # four users at a time
    outcome = cli("recommend", tiny_run, "--all", "--n", 3, "--no-clip", "--by", by, "--out", out)
    assert outcome.out == f"120 recommendations for 40 users are in {out}.\n"
    found = pd.read_csv(out) if out.endswith("csv") else pd.read_parquet(out)
    expected = Recommender.load(tiny_run).recommend(n=3, by=by)
    if by == "rating":
        own = posterior.recommend(n=3)
        pd.testing.assert_frame_equal(expected[list(own)], own)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)
    assert found["item_id"].dtype == np.int64


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (("lower", "--quantile", "0.2"), "score: the 20 % quantile of the predictor, before it becomes a"),
        (("thompson", "--seed", "3"), "score: one draw of the predictor, before it becomes a rating, seed 3"),
        (("prob-top",), "score: the probability to be among the 2 best"),
        (("mean",), None),
    ],
)
def test_a_title_says_what_scores_are(
    cli: Run, tiny_run: Path, strategy: tuple[str, ...], words: str | None
) -> None:
    outcome = cli("recommend", tiny_run, "--user", 7, "--n", 2, "--by", "rating", "--strategy", *strategy)
    assert outcome.code == 0, outcome.err
    title = " ".join(outcome.out.split())
    assert (words in title) if words else ("score:" not in title)


def test_lists_that_are_short_say_so(cli: Run, tiny_run: Path) -> None:
    outcome = cli("recommend", tiny_run, "--user", 7, "--n", 5000)
    assert outcome.code == 0
    assert "shorter than --n" in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "Say for whom"),
        (("--user", "7", "--all"), 2, "Say for whom once"),
        (("--all",), 2, "--all needs a file"),
        (("--user", "7", "--out", "x.txt"), 2, "must end in .csv or .parquet"),
        (("--user", "7", "--include-seen", "--exclude-held-out"), 2, "exclude each other"),
        (("--user", "99"), 1, "unknown user id 99"),
        (("--user", "ann"), 1, "unknown user id 'ann'"),
        (("--user", "7", "--min-count", "1000"), 1, "--min-count 1000: none of the"),
        (("--user", "7", "--threshold", "5"), 1, "give one from 1 to below 5, the ends of the scale"),
        (("--user", "7", "--threshold", "0"), 1, "the threshold is 0"),
        (("--user", "7", "--n", "0"), 2, "0 is not in the range"),
    ],
)
def test_wrong_recommend(cli: Run, tiny_run: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    outcome = cli("recommend", tiny_run, *arguments)
    assert outcome.code == code
    assert words in outcome.err
    assert outcome.out == ""


# --- fold-in --------------------------------------------------------------------------------------------


def test_fold_in_typed_or_from_a_file(cli: Run, tiny_run: Path, posterior: Posterior, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", "item_id,rating\n2,5\n9,4.0\n11,1\n")
    typed = ("--rating", "2=5", "--rating", "9=4", "--rating", "11=1")
    expected = posterior.fold_in({2: 5, 9: 4, 11: 1})
    new = Recommender.load(tiny_run).fold_in({2: 5, 9: 4, 11: 1})
    for given in (typed, ("--ratings", file)):
        for by in ("liked", "chosen", "rating"):
            ask = ("fold-in", tiny_run, *given, "--n", 4, "--no-clip", "--by", by, "--json")
            found = pd.DataFrame(rows(cli(*ask).out))
            table = new.recommend(n=4, by=by).drop(columns="user_id")
            pd.testing.assert_frame_equal(found, table, check_dtype=False)
        own = expected.recommend(4)
        pd.testing.assert_frame_equal(found[list(own)], own, check_dtype=False)
    found = pd.DataFrame(
        rows(cli("fold-in", tiny_run, *typed, "--predict", 30, "--predict", 3, "--no-clip", "--json").out)
    )
    assert found["title"].tolist() == ["Film [30] (1990)", "Film [3] (1990)"]
    pd.testing.assert_frame_equal(found.drop(columns="title"), expected.predict([30, 3]), check_dtype=False)
    shown = cli("fold-in", tiny_run, *typed).out
    assert shown.startswith(
        "Recommendations for a new user with 3 ratings, folded in (by liked; chosen: among"
    )


def test_fold_in_of_an_item_and_of_many_users(cli: Run, tiny_run: Path, tmp_path: Path) -> None:
    film = write(tmp_path / "film.csv", "user_id,rating\n1,5\n2,1\n")
    outcome = cli("fold-in", tiny_run, "--side", "item", "--ratings", film, "--n", 2)
    assert outcome.out.startswith("Users likely to rate a new item with 2 ratings, folded in highest")
    many = write(tmp_path / "many.csv", "user_id,item_id,rating\nann,1,5\nann,2,4\nbob,1,3\n")
    found = rows(cli("fold-in", tiny_run, "--ratings", many, "--n", 2, "--json").out)
    assert [row["user_id"] for row in found] == ["ann", "ann", "bob", "bob"]
    found = rows(cli("fold-in", tiny_run, "--ratings", many, "--predict", 7, "--json").out)
    assert [(row["user_id"], row["item_id"]) for row in found] == [("ann", 7), ("bob", 7)]
    assert cli("fold-in", tiny_run, "--ratings", many, "--out", "n.csv").out == "20 rows are in n.csv.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "Give the new ratings"),
        (("--rating", "2"), 2, "write ID=RATING"),
        (("--rating", "2=x"), 1, "the rating 'x' in row 1 is not a number"),
        (("--rating", "2=nan"), 1, "is not a number"),
        (("--rating", "2=9"), 1, "--rating 2=9: the rating 9 is not on the rating scale"),
        (("--rating", "99=3"), 1, "unknown item id 99"),
        (
            ("--rating", "2=3", "--rating", "2=4"),
            1,
            "--rating 2=4: item 2 has a rating already (--rating 2=3)",
        ),
        (("--rating", "2=3", "--predict", "99"), 1, "unknown item id 99"),
    ],
)
def test_wrong_fold_in(cli: Run, tiny_run: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    outcome = cli("fold-in", tiny_run, *arguments)
    assert outcome.code == code
    assert words in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("a,1,3\na,2,9\n", "f.csv, row 2: the rating 9 is not on the rating scale"),
        ("a,1,3\nb,1,2\na,1,2\n", "f.csv, row 3: user a and item 1 have a rating already (f.csv, row 1)"),
    ],
)
def test_wrong_ratings_of_a_file(cli: Run, tiny_run: Path, lines: str, words: str) -> None:
    write(Path("f.csv"), f"user_id,item_id,rating\n{lines}")
    outcome = cli("fold-in", tiny_run, "--ratings", "f.csv")
    assert (outcome.code, outcome.out) == (1, "")
    assert words in outcome.err


def test_new_users_that_the_run_knows(cli: Run, tiny_run: Path) -> None:
    write(Path("f.csv"), "user_id,item_id,rating\n9,1,3\nx,1,2\n3,2,2\n")
    told = "2 of the user ids are known to the run, '9' first: each is taken for a new user"
    assert told in cli("fold-in", tiny_run, "--ratings", "f.csv", "--predict", 4).err
    write(Path("f.csv"), "user_id,item_id,rating\nx,1,2\n")
    outcome = cli("fold-in", tiny_run, "--ratings", "f.csv", "--predict", 4)
    assert "known to the run" not in outcome.err
    assert "for 1 new user, folded in" in outcome.out


@pytest.mark.parametrize(
    "words",
    [("predict", "--user", 1, "--item", 2), ("recommend", "--user", 1), ("fold-in", "--rating", "1=3")],
)
def test_what_was_asked_for_beside_out_is_there(cli: Run, tiny_run: Path, words: tuple[Any, ...]) -> None:
    line = (words[0], tiny_run, *words[1:])
    plain = cli(*line, "--json")
    outcome = cli(*line, "--out", "o.csv", "--csv", "c.csv", "--json")
    assert outcome.code == 0, outcome.err
    assert rows(outcome.out) == rows(plain.out)
    assert "in o.csv" in outcome.err
    assert len(pd.read_csv("c.csv")) == len(pd.read_csv("o.csv")) == len(rows(plain.out))
    Path("c.csv").unlink()
    outcome = cli(*line, "--out", "o.csv", "--csv", "c.csv")
    assert outcome.out.count("\n") == 1  # no table for people
    assert Path("c.csv").is_file()


def test_a_user_who_is_named_twice_has_one_list(cli: Run, tiny_run: Path) -> None:
    outcome = cli("recommend", tiny_run, "--user", 3, "--user", 3, "--n", 4, "--out", "o.csv")
    assert "1 user is named again, user '3' first: each gets one list." in outcome.err
    assert outcome.out == "4 recommendations for 1 user are in o.csv.\n"
    one = cli("predict", tiny_run, "--user", 1, "--item", 2, "--out", "o.csv")
    assert one.out == "1 prediction is in o.csv.\n"


# --- similar --------------------------------------------------------------------------------------------


def test_similar(cli: Run, tiny_run: Path, posterior: Posterior) -> None:
    found = pd.DataFrame(rows(cli("similar", tiny_run, "--item", 4, "--n", 3, "--json").out))
    pd.testing.assert_frame_equal(found, posterior.similar_items(4, 3), check_dtype=False)
    shown = cli("similar", tiny_run, "--item", 4).out
    assert shown.startswith("Items most like item 4, Film [4] (1990) (correlation)")
    shown = cli("similar", tiny_run, "--user", 4, "--measure", "cosine").out
    assert shown.startswith("Users most like user 4 (cosine)")
    assert cli("similar", tiny_run, "--item", 99).code == 1
    assert cli("similar", tiny_run).code == 2


# --- runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["predict RUN --user 1 --item 1", "recommend RUN --user 1", "fold-in RUN --rating 1=3", "evaluate RUN",
     "similar RUN --item 1", "export RUN --format parquet --out pq"],
)  # fmt: skip
def test_folders_that_are_no_finished_run(cli: Run, tiny_run: Path, tmp_path: Path, line: str) -> None:
    def err(run: Path) -> str:
        outcome = cli(*(str(run) if word == "RUN" else word for word in line.split()))
        assert outcome.code in (1, 2)
        assert outcome.out == ""
        return str(outcome.err)

    assert "does not exist" in err(tmp_path / "none")
    assert "is not a run folder" in err(tmp_path)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_bytes((tiny_run / "config.json").read_bytes())
    assert f"Go on with 'pyro-bmf fit --resume {unfinished}'" in err(unfinished)
    (unfinished / "model.safetensors").write_bytes(b"no tensors")
    assert "not a safetensors file, or a damaged one" in err(unfinished)


@pytest.mark.parametrize(
    ("command", "header", "lines"),
    [
        (("predict", "--pairs"), "user_id,item_id", "1,2,5\n3,4,4\n"),
        (("recommend", "--users"), "user_id", "1,7\n2,8\n"),
        (("fold-in", "--ratings"), "item_id,rating", "1,3,5\n2,4,4\n"),
    ],
    ids=["predict", "recommend", "fold-in"],
)
def test_fields_without_a_name_are_refused(
    cli: Run, tiny_run: Path, tmp_path: Path, command: tuple[str, str], header: str, lines: str
) -> None:
    """They were taken for the columns beside them: the pair (1, 2) was answered with (2, 5)."""
    (tmp_path / "f.csv").write_text(f"{header}\n{lines}", encoding="utf-8")
    outcome = cli(command[0], tiny_run, command[1], "f.csv")
    assert outcome.code == 1
    assert f"more fields than the first line, which names {header.replace(',', ', ')}" in outcome.err
    named = "\n".join([f"{header},more", *lines.splitlines()])
    (tmp_path / "f.csv").write_text(f"{named}\n", encoding="utf-8")
    assert cli(command[0], tiny_run, command[1], "f.csv").code == 0
