"""Neighbours of inputs that once failed: what is odd is read as it stands, or refused with its place."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from pyro_bmf.data import DataNotice, DataWarning, given_split, load_ratings
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import DataError

Write = Callable[[str, str | bytes], Path]
HEAD = "user,item,rating,review\n"

SWALLOWING = {
    "doubled quotes within": 'a,10,4,"good\nb,11,5,ok\nc,12,3,hello ""there"",\nd,13,1,yes"\ne,12,2,y\n',
    "a comma more": 'a,10,4,"good\nb,11,5,ok\nd,12,2,y,z\nc,12,3,x"\nd,12,2,y\n',
    "a blank line": 'a,10,4,"good\nb,11,5,ok\n\nc,12,3,x"\nd,12,2,y\n',
    "all to the end": 'a,10,4,"good\nb,11,5,ok\nc,12,3,x"\n',
    "blanks after commas": 'a, 10, 4, "good\nb, 11, 5, ok\nc, 12, 3, x"\nd, 12, 2, y\n',
}


@pytest.mark.parametrize("case", SWALLOWING)
def test_free_text_swallows_no_ratings(write: Write, case: str) -> None:
    with pytest.raises(DataError, match=r"begins in line 2 of r.csv holds .* look like ratings"):
        load_ratings(write("r.csv", HEAD + SWALLOWING[case]), scale="1:5:1")


def test_text_that_holds_something_like_a_rating_is_told(write: Write) -> None:
    text = HEAD + 'a,10,4,"good\nz,11,5,bad\nw"\nb,11,5,x\n'
    with pytest.warns(DataWarning, match="1 lines within quoted text look like ratings"):
        made = load_ratings(write("r.csv", text), scale="1:5:1")
    assert made.ratings.tolist() == [4.0, 5.0]


PROSE = {
    "text first": 'review,user,item,rating\n"hello\nworld",a,10,4\n"one, two, three\nfour",b,11,5\n',
    "text between": 'user,item,review,rating\na,10,"1, 2, 3, and\n4, 5, 6, more",4\nb,11,"x\ny",5\n',
    "numbers counted": HEAD + 'a,10,4,"good for\nages 1, 2, 3, and 4"\nb,11,5,x\n',
}


@pytest.mark.parametrize("case", PROSE)
def test_free_text_over_lines_is_read(write: Write, case: str) -> None:
    made = load_ratings(write("r.csv", PROSE[case]), scale="1:5:1")
    assert made.ratings.tolist() == [4.0, 5.0]


def test_swallowing_is_seen_across_blocks(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_bmf.data.reading import text as text_module

    monkeypatch.setattr(text_module, "_BLOCK", 64)
    lines = "".join(f"u{k},{k},3,fine\n" for k in range(40))
    with pytest.raises(DataError, match=r"begins in line 2 of r.csv holds .* look like ratings"):
        load_ratings(write("r.csv", f'{HEAD}a,10,4,"good\n{lines}b,11,5,end"\n'), scale="1:5:1")


def test_ids_that_all_stand_in_quotes_are_told(write: Write) -> None:
    text = '"a"\t10\t4\n"b"\t11\t5\n'
    with pytest.warns(DataWarning, match="every user id begins and ends with a quote.*--quoting csv"):
        made = load_ratings(write("r.tsv", text), scale="1:5:1")
    assert made.user_vocabulary.ids.tolist() == ['"a"', '"b"']
    made = load_ratings(write("r.tsv", text), scale="1:5:1", quoting="csv")
    assert made.user_vocabulary.ids.tolist() == ["a", "b"]


REFUSED = {
    "a quote opens in the first line": ("r.csv", '"ux,10,4\nb,11,5\n', "line 1 of .* close the quote"),
    "quoted delimiters elsewhere": ("r.txt", '"a;z";10;4\nb;11;5\n', "semicolon if quotes .*--quoting csv"),
    "a quoted delimiter later": ("r.tsv", '"ab"\t1\t4\n"a\tz"\t1\t4\n', "line 2 .*4 fields.*--quoting csv"),
    "a separator that is not there": ("r.csv", "sep=;\nuser,item,rating\na,1,4\n", "line 2 of .*separator"),
    "a decimal comma in quotes": ("r.csv", 'a,10,"4,5"\nb,11,3\n', "'4,5'.*decimal point"),
    "1e400 in JSON": (
        "r.jsonl",
        '{"user":1,"item":1,"rating":4}\n{"user":2,"item":2,"rating":1e400}\n',
        "rating in line 2 of r.jsonl is inf",
    ),
    "NaN in JSON": (
        "r.jsonl",
        '{"user":1,"item":1,"rating":4}\n{"user":2,"item":2,"rating":NaN}\n',
        r"rating in line 2 of r.jsonl is missing \(or NaN\)",
    ),
    "a number of 5,000 digits": (
        "r.jsonl",
        f'{{"user":1,"item":1,"rating":4}}\n{{"user":{"1" * 5000},"item":2,"rating":3}}\n',
        "line 2 of r.jsonl holds a whole number of thousands of digits",
    ),
    "a list for an id": (
        "r.jsonl",
        '{"user":[1],"item":1,"rating":4}\n',
        "a whole number or text is expected",
    ),
    "a fraction for an id": ("r.jsonl", '{"user":1.5,"item":1,"rating":4}\n', "user id in line 1 .* is 1.5"),
    "an empty gzip": ("r.csv.gz", b"", "is empty: it does not begin as a gzip file does"),
    "HDF5": ("r.csv", b"\x89HDF\r\n\x1a\n" + bytes(50), "is an HDF5 file, which is not read"),
    "LZ4": ("r.csv", b"\x04\x22\x4d\x18" + bytes(50), "is an LZ4 file, which is not read"),
    "NULs": ("r.csv", bytes(100), "holds NUL bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_true_reason_is_told(write: Write, case: str) -> None:
    name, content, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        load_ratings(write(name, content), scale="1:5:1")


def test_words_that_pandas_takes_for_times_are_none(write: Write) -> None:
    text = "user,item,rating,timestamp\na,1,4,2020-01-01\nb,2,5,now\n"
    with pytest.raises(DataError, match=r"timestamp in line 3 of r.csv is 'now'"):
        load_ratings(write("r.csv", text), scale="1:5:1")


def test_decimals_of_dates_beyond_nanoseconds_are_told(write: Write) -> None:
    text = "user,item,rating,timestamp\na,1,4,2020-01-01\nb,2,5,2020-01-01T00:00:00.1234567891\n"
    with pytest.warns(DataNotice, match="the rest is cut"):
        made = load_ratings(write("r.csv", text), scale="1:5:1")
    assert made.timestamps is not None
    assert made.timestamps.tolist() == [1577836800000000000, 1577836800123456789]


def test_two_colons_may_be_named(write: Write) -> None:
    made = load_ratings(
        write("r.csv", "sep=::\r\nuser::item::rating\r\na::1::4\r\nb::2::5\r\n"), scale="1:5:1"
    )
    assert made.ratings.tolist() == [4.0, 5.0]


def test_an_ellipsis_of_windows_is_no_blank(write: Write) -> None:
    text = "user,item,rating\nWait\u2026,1,4\nGo,2,5\n".encode("cp1252")
    with pytest.warns(DataNotice, match="latin-1"):
        made = load_ratings(write("r.csv", text), scale="1:5:1")
    assert made.user_vocabulary.ids.tolist() == ["Go", "Wait\x85"]


@pytest.mark.parametrize("blank", ["\u200b", "\u2060", "\u180e", "\ufeff", "\u2009"])
def test_blanks_of_no_width_go(write: Write, blank: str) -> None:
    text = f"user,item,rating\n{blank}1,10,4\n2{blank},11,{blank}5{blank}\n"
    made = load_ratings(write("r.csv", text), scale="1:5:1")
    assert made.user_vocabulary.ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    "pair", [("10", "10\u200d"), ("10", "\u200f10"), ("Stra\u00dfe", "STRASSE"), ("\u03c3", "\u03c2")]
)
def test_unseen_characters_and_case_are_noted(write: Write, pair: tuple[str, str]) -> None:
    text = "user,item,rating\n" + "".join(f"{user},{k},4\n" for k, user in enumerate([*pair, "other"]))
    with pytest.warns(DataWarning, match="2 user ids differ from another only"):
        assert load_ratings(write("r.csv", text), scale="1:5:1").n_users == 3


@pytest.mark.parametrize("written", ["u{}", "user_{:03d}", "#{}", "{:e}", "\u200c{}"])
def test_ids_of_a_test_file_written_in_another_way_are_named(write: Write, written: str) -> None:
    def lines(form: str, items: range) -> str:
        return "".join(
            f"{form.format(user)},{item},{item % 5 + 1}\n" for user in range(1, 13) for item in items
        )

    train = write("train.csv", lines("{}", range(9)))
    test = write("test.csv", lines(written, range(9)))
    with pytest.warns(DataWarning) as told:
        given_split(train, None, test, scale="1:5:1")
    assert any(
        "108 of 108 test ratings" in str(one.message) and "which has '1'" in str(one.message) for one in told
    )


# --- ratings in memory ------------------------------------------------------------------------------------

FRAME = pd.DataFrame({"user": [1, 2, 3], "item": [10, 11, 12], "rating": [4.0, 5.0, 3.0]})
NANO = pd.Timestamp("2020-01-01 00:00:00.000000001")


def test_frames_that_were_foreign() -> None:
    with pytest.raises(DataError, match="the data frame ratings cannot be read"):
        load_ratings(FRAME.assign(user=pd.Series([1, 2**70, 3], dtype=object)))
    with pytest.raises(DataError, match="cannot be loaded from a Series"):
        load_ratings(FRAME.set_index(["user", "item"])["rating"])
    with pytest.raises(DataError, match="cannot be loaded from a type"):
        load_ratings(pd.DataFrame)
    with pytest.raises(DataError, match="holds no ratings"):
        load_ratings(FRAME[:0])


@pytest.mark.parametrize(
    "frame",
    [
        FRAME.assign(extra=pd.Series([1, "x", b"\xff"], dtype=object)),
        FRAME.astype({"rating": "category"}),
        FRAME.astype({"rating": pd.SparseDtype(float)}),
    ],
)
def test_frames_that_are_read(frame: pd.DataFrame) -> None:
    for columns in (None, (0, 1, 2)):
        made = load_ratings(frame, columns=columns, scale="1:5:1")
        assert made.ratings.tolist() == [4.0, 5.0, 3.0]


@pytest.mark.parametrize("stamps", [[NANO] * 3, [NANO, pd.Timestamp("2020"), datetime.datetime(2020, 1, 1)]])
def test_nanoseconds_of_single_times_are_kept(stamps: list[Any]) -> None:
    made = [
        ratings_from_arrays([1, 2, 3], [1, 2, 3], [4, 5, 3], stamps, scale="1:5:1"),
        load_ratings(FRAME.assign(timestamp=pd.Series(stamps, dtype=object)), scale="1:5:1"),
    ]
    for one in made:
        assert one.timestamps is not None
        assert (one.timestamps[0], one.ticks_per_second) == (NANO.value, 1_000_000_000)


def test_picoseconds_are_not_cut_to_seconds() -> None:
    with pytest.warns(DataNotice, match="the rest is cut"):
        made = ratings_from_arrays(
            [1, 2], [1, 2], [4, 5], np.array([5_000, 7_001], "datetime64[ps]"), scale="1:5:1"
        )
    assert made.timestamps is not None
    assert made.timestamps.tolist() == [5, 7]


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (np.array([1 + 2j, 2]), "not complex128"),
        (np.array(["2020", "2021"], "M8[D]"), "not datetime64"),
        (["1_0", "2"], "not <U3"),
        ([1, "2"], "must be numbers"),
        ([10**400, 2], "too large"),
        (5, "one column"),
        (np.ma.array([1, 2], mask=[False, True]), "row 1 .* is masked"),
    ],
)
def test_columns_that_are_no_ratings(ratings: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ratings_from_arrays([1, 2], [1, 2], ratings)


def test_masked_ids_and_times_and_single_times() -> None:
    masked = np.ma.array([1, 2], mask=[False, True])
    for users, stamps in ((masked, None), ([1, 2], masked)):
        with pytest.raises(DataError, match=r"row 1 .* is masked"):
            ratings_from_arrays(users, [1, 2], [4, 5], stamps)
    with pytest.raises(DataError, match="one column"):
        ratings_from_arrays([1, 2], [1, 2], [4, 5], 7)


@pytest.mark.parametrize("format", ["dia", "bsr"])
def test_matrices_that_fill_up_with_zeros_are_refused(format: str) -> None:
    matrix = sp.coo_matrix(([4.0, 0.0, 3.0], ([0, 1, 2], [0, 1, 2])))
    with pytest.raises(DataError, match=f"'{format}' format fills up with zeros"):
        load_ratings(matrix.asformat(format))


@pytest.mark.parametrize("setting", [{"columns": "a,b,c"}, {"format": "csv"}, {"header": True}])
def test_settings_of_files_are_refused_for_a_named_set(setting: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="is for a file"):
        load_ratings("synthetic", **setting)


def test_empty_words_are_no_defaults() -> None:
    with pytest.raises(DataError, match="duplicates=''"):
        load_ratings(FRAME, duplicates="")
    with pytest.raises(DataError, match="min_ratings=-1"):
        load_ratings(FRAME, min_ratings=-1)
