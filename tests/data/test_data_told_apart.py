"""Names, ids and values that are hard to tell apart, or come later than expected: told, or refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pyro_bmf.data import DataNotice, DataWarning, load_ratings
from pyro_bmf.errors import DataError

Write = Callable[[str, str | bytes], Path]
USERS, ITEMS, STARS = ["a", "b", "a"], ["x", "y", "y"], [1, 2, 5]


def json_lines(*more: dict[str, Any]) -> str:
    rows = [
        {"user": user, "item": item, "rating": stars}
        for user, item, stars in zip(USERS, ITEMS, STARS, strict=True)
    ]
    return "".join(json.dumps(row) + "\n" for row in (*rows, *more))


def test_of_two_parquet_columns_of_one_name_neither_is_taken(tmp_path: Path) -> None:
    table = pa.table([USERS, ITEMS, STARS, ["p", "q", "r"]], names=["user", "item", "rating", "user"])
    pq.write_table(table, tmp_path / "r.parquet")
    with pytest.raises(DataError, match=r"2 columns called 'user'.*rename all but one"):
        load_ratings(tmp_path / "r.parquet")
    with pytest.raises(DataError, match="2 columns called 'user'"):
        load_ratings(table)
    # Another column's name may stand twice.
    table = pa.table([USERS, ITEMS, STARS, [0] * 3, [1] * 3], names=["user", "item", "rating", "n", "n"])
    assert load_ratings(table, scale="1:5:1").ratings.tolist() == [1.0, 5.0, 2.0]


def test_of_two_csv_columns_of_one_name_neither_is_taken(write: Write) -> None:
    path = write("r.csv", "user,item,rating,user\na,x,1,p\nb,y,2,q\na,y,5,r\n")
    for columns in (None, "user,item,rating"):
        with pytest.raises(DataError, match=r"2 columns called 'user'.*by position"):
            load_ratings(path, columns=columns)
    made = load_ratings(path, columns="3,1,2", scale="1:5:1")
    assert made.user_vocabulary.ids.tolist() == ["p", "q", "r"]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.decimal128(30, 0)], ids=str)
def test_whole_ratings_beyond_doubles_take_the_nearest(kind: pa.DataType, tmp_path: Path) -> None:
    large = 2**53 + 1
    table = pa.table({"user": USERS, "item": ITEMS, "rating": pa.array([large, 2, 5], pa.int64()).cast(kind)})
    pq.write_table(table, tmp_path / "r.parquet")
    text = tmp_path / "r.csv"
    text.write_text(f"user,item,rating\na,x,{large}\nb,y,2\na,y,5\n", encoding="utf-8")
    for source in (table, tmp_path / "r.parquet", text):
        assert load_ratings(source, scale="0:1e17").ratings.tolist() == [2.0**53, 5.0, 2.0]


def test_times_that_begin_after_the_first_line_are_told(write: Write) -> None:
    path = write("r.jsonl", json_lines({"user": "c", "item": "x", "rating": 4, "time": 1_000}))
    with pytest.warns(DataNotice, match="line 4 has time, and the first line has not, so times are not read"):
        made = load_ratings(path, scale="1:5:1")
    assert made.timestamps is None
    assert len(made) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_ratings(path, scale="1:5:1", columns="user,item,rating")) == 4
        # A key of no meaning, and one that is null throughout, are nothing to tell.
        odd = json_lines({"user": "c", "item": "x", "rating": 4, "daytime": "noon", "time": None})
        assert len(load_ratings(write("s.jsonl", odd), scale="1:5:1")) == 4


def test_other_faults_are_told_as_before_where_times_begin_late(write: Write) -> None:
    late = {"user": "c", "item": "x", "rating": 4, "time": 1_000}
    path = write("r.jsonl", json_lines(late, {"user": "d", "item": "x", "rating": "four"}))
    with pytest.raises(DataError, match=r"rating in line 5 of r.jsonl is 'four', where a number is expected"):
        load_ratings(path)


MISSING = {
    "user": ('{"user": null, "item": "x", "rating": 4}', "user in line 1 of r.jsonl is missing"),
    "item": ('{"user": 1, "item": null, "rating": 4}', "item in line 1 of r.jsonl is missing"),
    "time": (
        '{"user": 1, "item": 5, "rating": 4, "time": null}',
        "time in line 1 of r.jsonl is missing, and line 2 of r.jsonl has one",
    ),
}


@pytest.mark.parametrize("role", MISSING)
def test_what_the_first_json_line_lacks_is_named_there(role: str, write: Write) -> None:
    first, message = MISSING[role]
    rest = '{"user": 1, "item": 6, "rating": 4, "time": 7}\n{"user": 2, "item": 5, "rating": 3, "time": 8}\n'
    with pytest.raises(DataError, match=message):
        load_ratings(write("r.jsonl", f"{first}\n{rest}"))


@pytest.mark.parametrize("cut", [1, 3, 21])
def test_the_line_in_which_utf_16_ends_is_named(cut: int, write: Write) -> None:
    text = "user,item,rating\na,x,1\nb,y,2\na,y,5\n"
    with pytest.raises(DataError, match=f"and not so in line {4 - (cut > 14)} "):
        load_ratings(write("r.csv", text.encode("utf-16")[:-cut]))


def test_a_column_that_holds_no_number_is_not_the_rating(write: Write) -> None:
    path = write("r.csv", "0,a,x,1\n1,b,y,2\n2,a,y,5\n")
    with pytest.raises(DataError, match=r"'x', not a finite number .*name the columns by position"):
        load_ratings(path)
    made = load_ratings(path, columns="1,2,3", scale="1:5:1")
    assert made.ratings.tolist() == [1.0, 5.0, 2.0]
    with pytest.raises(DataError, match=r"line 2 of r.csv is 'y', not a finite number: correct or remove it"):
        load_ratings(write("r.csv", "a,x,1\nb,y,y\na,y,5\n"))


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (["1", "1.0", "2"], True),
        (["7", "007", "2"], True),
        (["+3", "3", "x"], True),
        (["0", "00", "2"], True),
        (["1", "-1", "1.5"], False),
        (["10", "100", "1.10"], False),
        (["a1", "a01", "2"], False),
    ],
)
def test_numbers_written_in_two_ways_in_one_file_are_told(ids: list[str], told: bool, write: Write) -> None:
    lines = "".join(
        f"{user},{item},{stars}\n" for user, item, stars in zip(ids, "xyx", (1, 2, 5), strict=True)
    )
    path = write("r.csv", f"user,item,rating\n{lines}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = load_ratings(path, scale="1:5:1")
    said = [str(entry.message) for entry in caught if issubclass(entry.category, DataWarning)]
    assert any("or how a number is written" in text for text in said) == told
    assert sorted(map(str, made.user_vocabulary.ids)) == sorted(ids)
    assert np.array_equal(np.sort(made.ratings), [1.0, 2.0, 5.0])


POSITIONS = {
    "a digit of the first rating": ("2,0,1\n3,4,5\n6,7,4\n", "0,1,2", [(2, 0, 1), (3, 4, 5), (6, 7, 4)]),
    "all digits, in another order": ("1,2,0\n3,4,5\n6,7,4\n", "0,1,2", [(1, 2, 0), (3, 4, 5), (6, 7, 4)]),
    "the user's position": ("0,9,8,3\n1,9,7,4\n2,8,8,5\n", "1,2,3", [(8, 8, 5), (9, 7, 4), (9, 8, 3)]),
}  # fmt: skip


@pytest.mark.parametrize("case", POSITIONS)
def test_positions_are_not_looked_for_in_the_first_rating(case: str, write: Write) -> None:
    text, columns, rows = POSITIONS[case]
    made = load_ratings(write("r.csv", text), columns=columns, scale="0:5:1")
    users, items = made.user_vocabulary.ids[made.users], made.item_vocabulary.ids[made.items]
    assert list(zip(users, items, made.ratings, strict=True)) == rows


def test_a_first_line_of_the_positions_themselves_is_asked_about(write: Write) -> None:
    path = write("r.csv", "0,1,2\n3,4,5\n6,7,4\n3,7,2\n")
    with pytest.raises(DataError, match=r"line 1 of .*r.csv holds 0, 1, 2.*--header or --no-header"):
        load_ratings(path, columns="0,1,2")
    assert len(load_ratings(path, columns="0,1,2", header=True, scale="0:5:1")) == 3
    assert len(load_ratings(path, columns="0,1,2", header=False, scale="0:5:1")) == 4
