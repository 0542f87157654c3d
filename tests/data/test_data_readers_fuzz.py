"""Readers under hypothesis: what was written is read exactly; what cannot be read is one of our errors.

Rows that are known before the file is damaged are in test_data_known_rows.
"""

import csv
import io
import json
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_bmf.data import DataNotice, DataWarning, Ratings, load_ratings
from pyro_bmf.errors import DataError, PyroBmfError

LETTERS = st.characters(exclude_categories=["Cs"])
ANY_ID = st.text(LETTERS, min_size=1, max_size=6)
#: Ids that text may hold: a line end in one is refused, NULs in a row are damage.
TEXT_ID = ANY_ID.filter(lambda text: not {"\r", "\n", "\0"} & set(text))
LIKE_NUMBERS = st.sampled_from(
    [
        "1",
        "01",
        "1.0",
        "1e0",
        "+1",
        "-1",
        "-0",
        "0",
        "10",
        "010",
        "9" * 18,
        "9" * 19,
        "nan",
        "NA",
        "null",
        "True",
    ]
)
INTEGER = st.integers(-(2**63), 2**63 - 1).map(str)
PLAIN_ID = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6)
RATING = st.floats(-1e6, 1e6, allow_subnormal=False)


def tables(ids: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[str, str, float, int]]]:
    """Rows of distinct pairs, at least two users and two items among them."""
    row = st.tuples(ids, ids, RATING, st.integers(-(2**53), 2**53))
    return st.lists(row, min_size=2, max_size=12, unique_by=lambda r: r[:2]).filter(
        lambda rows: len({r[0] for r in rows}) > 1 and len({r[1] for r in rows}) > 1
    )


def expected(rows: list[tuple[Any, ...]], convert: bool) -> list[tuple[Any, ...]]:
    def exact(ids: list[Any]) -> list[Any]:
        # The rule, stated independently: integers if every id is what str(int(id)) gives and fits 64 bits.
        if convert and all(re.fullmatch("0|-?[1-9][0-9]*", text, re.ASCII) for text in ids):
            numbers = [int(text) for text in ids]
            if all(-(2**63) <= number < 2**63 for number in numbers):
                return numbers
        return ids

    columns = [list(column) for column in zip(*rows, strict=True)]
    return sorted(zip(exact(columns[0]), exact(columns[1]), *columns[2:], strict=True))


def found(ratings: Ratings) -> list[tuple[Any, ...]]:
    assert ratings.timestamps is not None
    users = ratings.user_vocabulary.raw(ratings.users).tolist()
    items = ratings.item_vocabulary.raw(ratings.items).tolist()
    return list(zip(users, items, ratings.ratings.tolist(), ratings.timestamps.tolist(), strict=True))


def load(content: bytes, name: str, **options: Any) -> Ratings:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        path = Path(folder) / name
        path.write_bytes(content)
        return load_ratings(path, **options)


MIXED = st.one_of(
    tables(ANY_ID), tables(LIKE_NUMBERS), tables(INTEGER), tables(st.one_of(ANY_ID, LIKE_NUMBERS))
)


@given(
    st.one_of(
        tables(TEXT_ID), tables(LIKE_NUMBERS), tables(INTEGER), tables(st.one_of(TEXT_ID, LIKE_NUMBERS))
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([",", "\t", ";", "|"]),
)
def test_delimited_text(rows: list[tuple[str, str, float, int]], end: str, delimiter: str) -> None:
    text = io.StringIO(newline="")
    # All quoted: blanks around an id are its own, then.
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(["user_id", "item_id", "rating", "timestamp"])
    writer.writerows((user, item, repr(rating), time) for user, item, rating, time in rows)
    made = load(
        text.getvalue().encode(), "r.txt", scale="-1e6:1e6", columns="user_id,item_id,rating,timestamp",
        format={",": "csv", "\t": "tsv", ";": "semicolon", "|": "pipe"}[delimiter], quoting="csv",
    )  # fmt: skip
    assert found(made) == expected(rows, True)


@given(
    st.one_of(tables(PLAIN_ID), tables(INTEGER), tables(LIKE_NUMBERS)),
    st.booleans(),
    st.sampled_from(["::", ",", "\t"]),
)
def test_plain_text_is_told_by_itself(
    rows: list[tuple[str, str, float, int]], header: bool, delimiter: str
) -> None:
    lines = [delimiter.join((user, item, repr(rating), str(time))) for user, item, rating, time in rows]
    if header:
        lines.insert(0, delimiter.join(("userId", "movieId", "rating", "timestamp")))
    made = load("\n".join(lines).encode(), "r.txt", scale="-1e6:1e6", header=header)
    assert found(made) == expected(rows, True)


@given(MIXED)
def test_json_lines(rows: list[tuple[str, str, float, int]]) -> None:
    names = ("user_id", "item_id", "rating", "timestamp")
    text = "".join(
        json.dumps(dict(zip(names, row, strict=True)) | {"extra": [1, {"a": None}]}) + "\n" for row in rows
    )
    made = load(text.encode(), "r.jsonl", scale="-1e6:1e6")
    assert found(made) == expected(rows, False)


@given(MIXED, st.booleans())
def test_parquet(rows: list[tuple[str, str, float, int]], dictionary: bool) -> None:
    columns = dict(zip(("user", "item", "rating", "time"), map(list, zip(*rows, strict=True)), strict=True))
    table = pa.table(columns)
    if dictionary:
        table = table.set_column(0, "user", table.column("user").dictionary_encode())
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    made = load(sink.getvalue().to_pybytes(), "r.parquet", scale="-1e6:1e6")
    assert found(made) == expected(rows, False)


@given(tables(TEXT_ID), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[tuple[str, str, float, int]], random: Any) -> None:
    def made(rows: list[tuple[str, str, float, int]]) -> str:
        text = io.StringIO(newline="")
        csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("user", "item", "rating", "time"), *rows])
        return load(text.getvalue().encode(), "r.csv", scale="-1e6:1e6", format="csv", header=True).data_hash

    shuffled = random.sample(rows, len(rows))
    assert made(shuffled) == made(rows)


@given(
    st.integers(0, 29),
    st.sampled_from(["", "x", "nan", "inf", "-inf", "NA", "4,5", "1_0", "0x4", "--3", "5 5", "٣"]),
    st.booleans(),
    st.sampled_from(["csv", "::"]),
    st.integers(0, 30),
)
def test_the_line_of_a_bad_rating(position: int, bad: str, header: bool, format: str, blanks: int) -> None:
    delimiter = "," if format == "csv" else "::"
    if bad == "4,5" and format == "::":
        bad = "4,5,6"  # with one comma it is a number there
    lines = [delimiter.join((f"u{k % 7}", f"i{k}", str(k % 5 + 1))) for k in range(30)]
    value = f'"{bad}"' if "," in bad and format == "csv" else bad
    lines[position] = delimiter.join((f"u{position % 7}", f"i{position}", value))
    if header:
        lines.insert(0, delimiter.join(("user", "item", "rating")))
    lines.insert(min(blanks, len(lines)), "")
    number = lines.index(delimiter.join((f"u{position % 7}", f"i{position}", value))) + 1
    with pytest.raises(DataError, match=rf"the rating in line {number} of r\.txt"):
        load("\n".join(lines).encode(), "r.txt", scale="1:5:1", header=header, format=format)


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(st.sampled_from(list('0123456789ab,;:|\t\n\r". -{}[]')), max_size=120).map(str.encode),
        st.lists(
            st.lists(st.sampled_from(["1", "2", "a", "", '"', "3.5", "::", "nan"]), max_size=5).map(",".join),
            max_size=8,
        )
        .map("\n".join)
        .map(str.encode),
    ),
    st.sampled_from(["r.csv", "r.tsv", "r.dat", "r.json", "r.parquet", "r.csv.gz", "r"]),
    st.sampled_from([None, "csv", "::", "parquet", "jsonl", "space"]),
    st.sampled_from([None, True, False]),
)
def test_any_bytes_give_ratings_or_our_error(
    content: bytes, name: str, format: str | None, header: bool | None
) -> None:
    try:
        made = load(content, name, format=format, header=header, duplicates="last")
    except PyroBmfError:
        return
    assert len(made) >= 2
    assert np.isfinite(made.ratings).all()


def test_notices_are_warnings_of_one_family() -> None:
    assert issubclass(DataNotice, DataWarning)
    assert issubclass(DataWarning, UserWarning)
