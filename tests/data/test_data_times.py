"""Times keep their full resolution, however they are written, and everything that sorts by time uses it."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_bmf.data import (
    DataNotice,
    Ratings,
    leave_last_split,
    load_ratings,
    random_split,
    read_split,
    time_split,
    write_split,
)
from pyro_bmf.data.reading.times import first_at, in_seconds
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import DataError

Write = Callable[[str, str | bytes], Path]

# How two times a hair apart may be written: earlier, later, and in which parts of a second they count.
PAIRS = {
    "float seconds": ("100.2", "100.9", 1_000),
    "float seconds, a microsecond": ("1600000000.000001", "1600000000.000002", 1_000_000),
    "float seconds, a nanosecond": ("1600000000.000000001", "1600000000.000000002", 1_000_000_000),
    "before 1970": ("-1.5", "-1.25", 1_000),
    "exponents": ("1.0000000000000000e+09", "1.0000000005000000e+09", 1_000),
    "ISO": ("2020-01-01T00:00:00.200", "2020-01-01T00:00:00.900", 1_000),
    "ISO and zones": ("2020-01-01T02:00:00.2+02:00", "2020-01-01T00:00:00.200001Z", 1_000_000),
    "ISO, a nanosecond": ("2020-01-01 00:00:00.000000100", "2020-01-01 00:00:00.000000101", 1_000_000_000),
    "whole and broken": ("2020-01-01", "2020-01-01T00:00:00.001", 1_000),
    "nanoseconds": ("1600000000000000001", "1600000000000000002", 1),
    "milliseconds beyond 2^53": ("9007199254740992", "9007199254740993", 1),
    "such beside a fraction": ("9007199254740992", "9007199254740992.5", 1_000),
    "the largest": (str(2**63 - 2), str(2**63 - 1), 1),
}


DATES = [case for case, (early, _, _) in PAIRS.items() if "-" in early[1:] and "e" not in early]


@pytest.mark.parametrize("case", PAIRS)
@pytest.mark.parametrize("later_first", [False, True])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_last_is_the_later_one(write: Write, case: str, later_first: bool, kind: str) -> None:
    early, late, ticks = PAIRS[case]
    rows = [(1, 10, 1, early), (1, 10, 4, late), (2, 10, 2, early), (2, 11, 5, early)]
    if later_first:
        rows[:2] = rows[1::-1]
    if kind == "csv":
        text = "user,item,rating,timestamp\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in rows)
    else:
        text = "".join(
            f'{{"user":{u},"item":{i},"rating":{r},"timestamp":{json.dumps(t) if case in DATES else t}}}\n'
            for u, i, r, t in rows
        )
    with pytest.warns(DataNotice, match="the latest of each pair kept"):
        made = load_ratings(write(f"r.{kind}", text), duplicates="last", scale="1:5:1")
    assert made.ratings.tolist() == [4, 2, 5]
    assert made.ticks_per_second == ticks
    assert made.timestamps is not None
    assert made.timestamps[0] > made.timestamps[1]


def test_of_equal_times_the_later_line_wins(write: Write) -> None:
    for first, second in ((4, 1), (1, 4)):
        text = f"user,item,rating,timestamp\n1,10,{first},7.5\n1,10,{second},7.5\n2,10,2,1.0\n2,11,5,3.0\n"
        with pytest.warns(DataNotice, match="the latest of each pair kept"):
            made = load_ratings(write("r.csv", text), duplicates="last", scale="1:5:1")
        assert made.ratings.tolist() == [second, 2, 5]


@pytest.mark.filterwarnings("ignore:.* has one rating")
@given(st.lists(st.decimals(-(10**9), 10**9, places=9, allow_nan=False), min_size=2, max_size=9, unique=True))
def test_decimals_are_exact(times: list[Any]) -> None:
    n = len(times)
    frame = pd.DataFrame({"t": [format(time, "f") for time in times]})
    made = ratings_from_arrays(
        np.arange(n), np.arange(n), np.full(n, 1.0), frame["t"].to_numpy(dtype=object), scale="1:5:1"
    )
    assert made.timestamps is not None
    exact = [Fraction(time) for time in made.timestamps.tolist()]
    assert [time / made.ticks_per_second for time in exact] == [Fraction(time) for time in times]
    # The unit is the coarsest one that does.
    if made.ticks_per_second > 1:
        assert any(Fraction(time) * made.ticks_per_second % 1000 for time in times)


def test_times_of_python() -> None:
    def of(times: Any) -> tuple[list[int], int]:
        made = ratings_from_arrays([1, 2], [1, 2], [1.0, 2.0], times, scale="1:5:1")
        assert made.timestamps is not None
        return made.timestamps.tolist(), made.ticks_per_second

    assert of([1.5, 2.0]) == ([1500, 2000], 1000)
    assert of(np.array([1.0, 2.0**62])) == ([1, 2**62], 1)
    assert of(pd.to_datetime(["1970-01-01T00:00:01.0", "1970-01-01T00:00:02.5"])) == ([1000, 2500], 1000)
    assert of(np.array(["1970-01-01", "1970-01-03"], "datetime64[D]")) == ([0, 172800], 1)
    assert of(pd.Series(["1970-01-01T00:00:01+01:00", "1970-01-01"])) == ([-3599, 0], 1)
    for bad in ([1.0, float("nan")], np.array(["1970-01-01", "NaT"], "datetime64[s]"), ["x", "1"]):
        with pytest.raises(DataError, match="timestamp"):
            of(bad)


def timed(rows: list[tuple[int, int, float]]) -> Ratings:
    users, items, times = zip(*rows, strict=True)
    return ratings_from_arrays(users, items, np.arange(len(rows)) % 5 + 1.0, times, scale="1:5:1")


def test_splits_in_time_see_fractions() -> None:
    # Against the order of items, which decides between equal times.
    made = timed([(1, 3, 10.1), (1, 2, 10.2), (1, 1, 10.3), (2, 1, 5.0), (2, 2, 5.5), (2, 3, 5.25)])
    last = leave_last_split(made)
    item = made.item_vocabulary.raw
    assert item(last.test.items).tolist() == [1, 2]
    assert item(last.valid.items).tolist() == [2, 3]
    cut = time_split(made, points=(5.25, 10.2))
    assert (len(cut.train), len(cut.valid), len(cut.test)) == (1, 3, 2)
    assert cut.settings["points"] == ["5.25", "10.2"]
    shares = time_split(made, fractions=(0.5, 0.25, 0.25))
    assert shares.settings["points"] == ["10.1", "10.2"]
    assert time_split(made, points=(Fraction("5.25"), Fraction("10.2"))).hash == cut.hash


def test_a_written_split_keeps_fractions(tmp_path: Path) -> None:
    made = timed([(k % 4, k % 5, 1_600_000_000 + k / 8) for k in range(20)])
    split = random_split(made, seed=1)
    folder = write_split(split, tmp_path / "s")
    again = read_split(folder)
    assert (again.hash, again.ratings.ticks_per_second) == (split.hash, 1000)
    assert "1600000000.875" in (folder / "train.csv").read_text() + (folder / "test.csv").read_text()


def test_the_unit_is_that_of_the_rows_that_stay(write: Write, tmp_path: Path) -> None:
    rows = "".join(f"{k % 4},{k % 5},3,{k}\n" for k in range(20))
    text = f"user,item,rating,timestamp\n{rows}9,1,4,7.25\n"
    with pytest.warns(DataNotice, match="at least 2"):
        made = load_ratings(write("r.csv", text), min_ratings=2, scale="1:5:1")
    assert made.ticks_per_second == 1
    assert read_split(write_split(random_split(made), tmp_path / "s")).ratings.data_hash == made.data_hash


def test_finer_than_a_nanosecond_is_said(write: Write) -> None:
    text = "user,item,rating,timestamp\n1,10,4,1.12345678912\n2,11,5,3.0\n"
    with pytest.warns(DataNotice, match="finer than"):
        made = load_ratings(write("r.csv", text), scale="1:5:1")
    assert made.timestamps is not None
    assert made.timestamps.tolist() == [1_123_456_789, 3_000_000_000]


@pytest.mark.parametrize("value", ["9223372036854775808", "1e300", "9" * 41])
def test_beyond_64_bits_is_refused_with_its_line(write: Write, value: str) -> None:
    text = f"user,item,rating,timestamp\n1,10,4,1\n2,11,5,{value}\n"
    with pytest.raises(DataError, match=r"timestamp in line 3 of r.csv is .* 64 bits"):
        load_ratings(write("r.csv", text), scale="1:5:1")


@pytest.mark.parametrize(("stamp", "ticks", "text"), [(1500, 1000, "1.5"), (-1, 1000, "-0.001"), (7, 1, 7)])
def test_in_seconds(stamp: int, ticks: int, text: str | int) -> None:
    assert in_seconds(stamp, ticks) == text
    assert first_at(Fraction(text), ticks) == stamp
