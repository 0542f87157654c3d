import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_bmf.data import (
    Ratings,
    Split,
    given_split,
    kfold_splits,
    load_ratings,
    random_split,
    read_split,
    subsample_split,
    write_split,
)
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import DataError, SavedFileError

Write = Callable[[str, str | bytes], Path]


def same(a: Split, b: Split) -> None:
    assert a.hash == b.hash
    assert a.ratings.data_hash == b.ratings.data_hash
    for part in ("train_rows", "valid_rows", "test_rows"):
        np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
    assert a.ratings.user_vocabulary == b.ratings.user_vocabulary
    assert a.ratings.item_vocabulary == b.ratings.item_vocabulary
    assert (a.ratings.scale, a.ratings.name, a.scheme, a.settings) == (
        b.ratings.scale,
        b.ratings.name,
        b.scheme,
        b.settings,
    )
    titles = [None if x.ratings.item_titles is None else x.ratings.item_titles.tolist() for x in (a, b)]
    assert titles[0] == titles[1]


def test_a_written_split_comes_back(small: Ratings, tmp_path: Path) -> None:
    for number, split in enumerate(
        (random_split(small), subsample_split(small, 1), *kfold_splits(small, 2, valid_fraction=0))
    ):
        same(read_split(write_split(split, tmp_path / str(number))), split)


def test_anyone_can_read_the_files(tmp_path: Path) -> None:
    ratings = ratings_from_arrays(
        [2, 2, 1, 1], ["a,b", 'say "x"', "a,b", "01"], [0.5, 3.0, 4.5, 5.0], [9, 8, 7, 6],
        scale="0.5:5:0.5", item_titles={"01": "Él, \"the\" 1"},
    )  # fmt: skip
    write_split(Split(ratings, np.array([0, 3]), np.array([1]), np.array([2]), "mine"), tmp_path / "s")
    with open(tmp_path / "s/train.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["user_id", "item_id", "rating", "timestamp"], ["1", "01", "5", "6"], ["2", 'say "x"', "3", "8"],
        ]  # fmt: skip
    with open(tmp_path / "s/items.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["item_id", "title"],
            ["01", 'Él, "the" 1'],
            ["a,b", ""],
            ['say "x"', ""],
        ]
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [
        "items.csv", "split.json", "test.csv", "train.csv", "users.csv", "valid.csv",
    ]  # fmt: skip
    content = json.loads((tmp_path / "s/split.json").read_text())
    assert content["counts"] == {"train": 2, "valid": 1, "test": 1}
    assert (content["user_ids"], content["item_ids"]) == ("integer", "text")


def test_ids_absent_from_every_part_come_back(small: Ratings, tmp_path: Path) -> None:
    few = Split(small, np.array([0]), np.array([], dtype=np.int64), np.array([1]), "mine").ratings.take(
        [0, 1, 5]
    )
    split = Split(few, np.array([0]), np.array([], dtype=np.int64), np.array([1, 2]), "mine")
    again = read_split(write_split(split, tmp_path / "s"))
    same(again, split)
    assert (again.ratings.n_users, again.ratings.n_items, len(again.ratings)) == (60, 40, 3)


def test_text_ids_that_look_like_integers_stay_text(tmp_path: Path) -> None:
    ratings = ratings_from_arrays(["1", "2", "2"], ["10", "10", "11"], [1, 2, 3], scale="1:5:1")
    split = Split(ratings, np.array([0, 1]), np.array([], dtype=np.int64), np.array([2]), "mine")
    same(read_split(write_split(split, tmp_path / "s")), split)


@pytest.mark.filterwarnings("ignore:.*which is taken for one")
@pytest.mark.filterwarnings("ignore:.*how a number is written")  # 1 beside 01: told, and kept apart
@given(st.data())
def test_any_split_comes_back_exactly(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5)
    ids = st.one_of(text, st.sampled_from(["1", "01", "NA", "nan", "null", "", "True", "1.0"]).filter(bool))
    pairs = data.draw(st.lists(st.tuples(ids, ids), min_size=3, max_size=10, unique=True).filter(
        lambda rows: len({u for u, _ in rows}) > 1 and len({i for _, i in rows}) > 1
    ))  # fmt: skip
    values = data.draw(st.lists(st.floats(-9, 9), min_size=len(pairs), max_size=len(pairs)))
    times = data.draw(
        st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=len(pairs), max_size=len(pairs))
    )
    titles = data.draw(st.none() | st.dictionaries(ids, text, max_size=4))
    ratings = ratings_from_arrays(
        [u for u, _ in pairs], [i for _, i in pairs], values, times if times is None else np.array(times),
        scale="-9:9", item_titles=titles,
    )  # fmt: skip
    label = data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)))
    label[0], label[1] = 0, 2
    rows = [np.flatnonzero(np.array(label) == code) for code in range(3)]  # label 3: in no part
    taken = ratings.take(np.concatenate(rows))
    position = np.full(len(ratings), -1)
    position[np.sort(np.concatenate(rows))] = np.arange(len(taken))
    split = Split(taken, *(position[part] for part in rows), "mine")
    folder = tmp_path_factory.mktemp("fuzz") / "s"
    same(read_split(write_split(split, folder)), split)


def test_writing_does_not_destroy(small: Ratings, tmp_path: Path) -> None:
    first, second = random_split(small, seed=0), random_split(small, seed=1)
    folder = write_split(first, tmp_path / "s")
    write_split(first, folder)  # the very same: nothing to do
    with pytest.raises(DataError, match="holds another split"):
        write_split(second, folder)
    same(read_split(folder), first)
    same(read_split(write_split(second, folder, overwrite=True)), second)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="holds no split"):
            write_split(first, tmp_path / "mine", overwrite=overwrite)
    with pytest.raises(DataError, match="is a file"):
        write_split(first, tmp_path / "mine/thesis.txt")
    (tmp_path / "empty").mkdir()
    write_split(first, tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "empty",
        "mine",
        "s",
    ]  # no temporary folder is left


def test_a_failed_write_leaves_nothing(
    small: Ratings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyro_bmf.data.split_files._write_ids", full)
    with pytest.raises(DataError, match=r"the split .* cannot be written: No space .* Make room"):
        write_split(random_split(small), tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_split_is_refused(small: Ratings, tmp_path: Path) -> None:
    def damaged(name: str, change: Callable[[str], str]) -> Path:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        write_split(random_split(small), folder)
        path = folder / name
        path.write_text(change(path.read_text()))
        return folder

    def drop_last_line(text: str) -> str:
        return text[: text.rstrip("\n").rindex("\n") + 1]

    cases: list[tuple[str, Callable[[str], str], str]] = [
        ("train.csv", drop_last_line, "559 ratings instead of 560"),
        ("test.csv", lambda text: text.replace(",5,", ",4,", 1), "hash"),
        ("users.csv", drop_last_line, "damaged"),
        ("items.csv", lambda text: text + '"new"\n', "hash"),
        ("split.json", lambda text: text.replace('"version": 1', '"version": 2'), "version 2"),
        ("split.json", lambda text: text.replace("pyro-bmf split", "something"), "does not describe"),
        ("split.json", lambda text: text[:-20], "damaged"),
        ("split.json", lambda text: text.replace('"scale"', '"skale"'), "damaged"),
        ("valid.csv", lambda text: text.replace("rating", "stars", 1), "damaged"),
    ]
    for name, change, message in cases:
        with pytest.raises(SavedFileError, match=message):
            read_split(damaged(name, change))
    folder = tmp_path / "gone"
    write_split(random_split(small), folder)
    (folder / "valid.csv").unlink()
    with pytest.raises(SavedFileError, match="damaged"):
        read_split(folder)
    with pytest.raises(SavedFileError, match="holds no split"):
        read_split(tmp_path / "nowhere")


@pytest.mark.filterwarnings("ignore:.*without a training rating")
def test_given_files(write: Write) -> None:
    train = write("a.csv", "u1,i1,5\nu2,i2,3\nu1,i3,2\n")
    test = write("b.csv", "user,item,rating\nu2,i1,4\nu3,i4,1\n")
    valid = write("c.csv", "u1,i2,1\n")
    split = given_split(train, valid, test, scale="1:5:1")
    assert (split.scheme, split.settings["files"]) == (
        "given",
        {"train": "a.csv", "valid": "c.csv", "test": "b.csv"},
    )
    assert split.train.ratings.tolist() == [5, 2, 3]
    assert split.valid.ratings.tolist() == [1]
    assert split.test.ratings.tolist() == [4, 1]
    assert (split.ratings.n_users, split.ratings.n_items) == (3, 4)
    without = given_split(train, None, test, scale="1:5:1")
    assert len(without.valid) == 0
    some = given_split(train, None, test, scale="1:5:1", valid_fraction=0.34, seed=1)
    assert (len(some.train), len(some.valid)) == (2, 1)
    assert some.hash == given_split(train, None, test, scale="1:5:1", valid_fraction=0.34, seed=1).hash
    with pytest.raises(DataError, match="valid_fraction"):
        given_split(train, valid, test, valid_fraction=0.1)


@pytest.mark.filterwarnings("ignore:.*without a training rating")
@pytest.mark.filterwarnings("ignore:.*how a number is written")
def test_given_files_keep_ids_of_one_type(write: Write) -> None:
    # The train ids alone look like integers; the test file's "01" makes text of all.
    train, test = write("a.csv", "1,10,5\n2,20,3\n"), write("b.csv", "01,10,4\n")
    split = given_split(train, None, test, scale="1:5:1")
    assert split.ratings.user_vocabulary.ids.tolist() == ["01", "1", "2"]
    assert split.ratings.item_vocabulary.ids.tolist() == [10, 20]
    typed = write("c.jsonl", '{"user": 1, "item": 10, "rating": 2}\n')
    with pytest.raises(DataError, match="integers in one file and text in another"):
        given_split(write("d.csv", "a,10,5\nb,20,3\n"), None, typed, scale="1:5:1")


def test_a_rating_in_two_given_files_is_refused(write: Write) -> None:
    train, test = write("a.csv", "1,1,5\n2,2,3\n"), write("b.csv", "2,1,4\n1,1,5\n")
    with pytest.raises(DataError, match=r"user 1 and item 1 in line 1 of a.csv and line 2 of b.csv"):
        given_split(train, None, test, scale="1:5:1")


def test_written_parts_are_given_files(small: Ratings, tmp_path: Path) -> None:
    split = random_split(small)
    folder = write_split(split, tmp_path / "s")
    again = given_split(folder / "train.csv", folder / "valid.csv", folder / "test.csv", scale="1:5:1")
    assert again.hash == split.hash
    assert load_ratings(folder / "train.csv", scale="1:5:1").ratings.tolist() == split.train.ratings.tolist()
