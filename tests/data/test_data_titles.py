"""Titles of items: a column of the ratings, a file, a frame or a mapping; counted, refused and kept."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from pyro_bmf.data import DataNotice, Ratings, load_ratings
from pyro_bmf.errors import DataError

ROWS = [(1, 10, 4), (1, 30, 2), (2, 10, 5), (2, 20, 1), (3, 30, 3)]
FRAME = pd.DataFrame(ROWS, columns=["user_id", "item_id", "rating"])
WANTED = ["Heat, The", "", "Élan"]


def load(ratings: Any, titles: Any, words: str, **options: Any) -> Ratings:
    with pytest.warns(DataNotice) as told:
        found = load_ratings(ratings, titles=titles, scale="1:5:1", **options)
    assert any(words in str(one.message) for one in told), [str(one.message) for one in told]
    return found


def titles_of(ratings: Ratings) -> list[str]:
    assert ratings.item_titles is not None
    return [str(title) for title in ratings.item_titles]


FILES = {
    "t.csv": 'movieId,title,genres\n10,"Heat, The",Crime\n30,Élan,None\n99,Unseen,None\n',
    "plain.csv": '10,"Heat, The"\n30,Élan\n99,Unseen\n',
    "years.tsv": "item_id:token\tmovie_title:token\tyear\n10\tHeat, The\t1995\n30\tÉlan\t2\n99\tU\t3\n",
    "t.dat": "10::Heat, The::Crime\n30::Élan::x\n99::Unseen::y\n",
    "u.item": "10|Heat, The|01-Jan-1995\n30|Élan|x\n99|Unseen|y\n",
    "swapped.csv": 'title,item_id\n"Heat, The",10\nÉlan,30\nUnseen,99\n',
}


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_file_of_titles(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(FILES[name].encode(encoding))
    words = (
        f"3 titles read from {tmp_path / name}; 1 are of items that have no rating and are left out; 1 items"
    )
    assert titles_of(load(FRAME, tmp_path / name, words)) == WANTED
    assert titles_of(load(FRAME, str(tmp_path / name), words)) == WANTED


def test_a_packed_file_and_parquet_for_ratings_in_a_file(tmp_path: Path) -> None:
    ratings = tmp_path / "r.csv"
    FRAME.to_csv(ratings, index=False)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(FILES["t.csv"].encode()))
    plain = load(ratings, tmp_path / "t.csv.gz", "3 titles read")
    assert titles_of(plain) == WANTED
    pd.DataFrame({"item_id": [10, 30], "title": ["Heat, The", "Élan"]}).to_parquet(tmp_path / "t.parquet")
    assert titles_of(load(ratings, tmp_path / "t.parquet", "1 items have no title")) == WANTED
    # Titles are words beside the data: they are in no hash.
    assert plain.data_hash == load_ratings(ratings, scale="1:5:1").data_hash


def test_a_column_of_the_frame() -> None:
    beside = FRAME.assign(name=["Heat, The", "Élan", None, np.nan, " Élan "])
    assert titles_of(load(beside, "name", "the column 'name': 1 of 3 items have no title")) == WANTED
    text = beside.assign(item_id=["b", "c", "b", "a", "c"])
    assert titles_of(load(text, "name", "1 of 3 items")) == ["", "Heat, The", "Élan"]
    import pyarrow as pa

    assert titles_of(load(pa.Table.from_pandas(beside), "name", "1 of 3 items")) == WANTED
    kept = load(beside, "name", "left out", min_ratings=2)
    assert titles_of(kept) == ["Heat, The", "Élan"]


def test_a_frame_a_series_or_a_mapping_also_for_a_sparse_matrix() -> None:
    users, items, values = (FRAME[name].to_numpy() for name in FRAME)
    matrix = sparse.csr_matrix((values, (users, items)))
    for given in (
        {10: "Heat, The", 30: "Élan"},
        pd.Series({10: "Heat, The", 30: "Élan"}),
        pd.DataFrame({"title": ["Heat, The", "Élan"], "id": [10, 30]}),
    ):
        assert titles_of(load(matrix, given, "2 titles read")) == WANTED


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("10,Heat\n10,Cold\n", "gives two titles of the item 10, 'Heat' and 'Cold': leave one"),
        ("10,Heat\n20\n", "line 2 of .*t.csv has no title"),
        ('10,"Heat\n20,Cold\n', "begins in line 1 of .*t.csv cannot be read .*close its quotes"),
        ('10,Heat\n20,"Cold" one\n', "begins in line 2 of .*double those within a quoted title"),
        ('10,"Heat\n20,Cold"\n', "title of the item '10' .* holds the line '20,Cold'.*close the quote"),
        (
            '{"item": 10, "title": "Heat"}\n',
            "is JSON, of which titles are not read: give CSV, TSV or parquet",
        ),
        ("a,Heat\nb,Cold\n", "none of the 2 titles in .*: ids there are such as 'a', here '10'"),
        (f"10,{'x' * 200_000}\n", "begins in line 1 of .*field larger than field limit"),
        ("\n", "is empty: a file of titles has an item id and a title in each line"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        load_ratings(FRAME, titles=tmp_path / "t.csv", scale="1:5:1")


def test_damaged_parquet_titles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(DataError, match=r"t\.parquet is damaged, or cannot be read as parquet"):
        load_ratings(FRAME, titles=tmp_path / "t.parquet", scale="1:5:1")


def test_a_title_may_hold_line_ends(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('10,"Heat,\n The"\n30,Élan\n', encoding="utf-8")
    with pytest.warns(DataNotice, match="2 titles read"):
        made = load_ratings(FRAME, titles=tmp_path / "t.csv", scale="1:5:1")
    assert made.item_titles is not None
    assert made.item_titles.tolist()[0] == "Heat,\n The"


def test_misuse_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="titles 'film' is neither a column of the ratings nor a file"):
        load_ratings(FRAME, titles="film", scale="1:5:1")
    with pytest.raises(DataError, match="two titles of the item 10, 'A' and 'B'"):
        load_ratings(FRAME.assign(t=["A", "", "B", "", ""]), titles="t", scale="1:5:1")
    with pytest.raises(DataError, match="has the columns id, year: item_id and title are needed"):
        load_ratings(FRAME, titles=pd.DataFrame({"id": [1], "year": [2]}), scale="1:5:1")
    with pytest.raises(DataError, match="no-such"):
        load_ratings(FRAME, titles=tmp_path / "no-such.csv", scale="1:5:1")
    with pytest.raises(DataError, match=r"titles .* is for a file: synthetic is generated"):
        load_ratings("synthetic", titles={1: "x"})
