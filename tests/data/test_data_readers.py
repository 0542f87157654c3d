import gzip
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pyro_bmf.data import DataNotice, Ratings, generated_pairs, load_ratings
from pyro_bmf.errors import DataError, PyroBmfError

Write = Callable[[str, str | bytes], Path]


def triples(ratings: Ratings) -> list[tuple[Any, ...]]:
    users = ratings.user_vocabulary.raw(ratings.users).tolist()
    items = ratings.item_vocabulary.raw(ratings.items).tolist()
    columns = [users, items, ratings.ratings.tolist()]
    if ratings.timestamps is not None:
        columns.append(ratings.timestamps.tolist())
    return list(zip(*columns, strict=True))


PLAIN = [(1, 10, 4.0), (1, 20, 3.5), (2, 10, 5.0)]
TIMED = [(1, 10, 4.0, 100), (1, 20, 3.5, 200), (2, 10, 5.0, 300)]

FILES: dict[str, tuple[str, str, list[Any]]] = {
    "csv with a header": (
        "r.csv", "userId,movieId,rating,timestamp\n1,10,4.0,100\n1,20,3.5,200\n2,10,5,300\n", TIMED,
    ),
    "csv without": ("r.csv", "1,10,4.0,100\n1,20,3.5,200\n2,10,5,300\n", TIMED),
    "csv in another order": ("r.csv", "rating,item_id,x,user_id\n4,10,a,1\n3.5,20,b,1\n5,10,c,2\n", PLAIN),
    "CRLF": ("r.csv", "user,item,rating\r\n1,10,4.0\r\n1,20,3.5\r\n2,10,5\r\n", PLAIN),
    "no line end at the end": ("r.csv", "1,10,4.0\n1,20,3.5\n2,10,5", PLAIN),
    "a byte order mark": ("r.csv", "\ufeffuser,item,rating\n1,10,4.0\n1,20,3.5\n2,10,5\n", PLAIN),
    "a byte order mark, no header": ("r.csv", "\ufeff1,10,4.0\n1,20,3.5\n2,10,5\n", PLAIN),
    "blank lines": ("r.csv", "1,10,4.0\n\n1,20,3.5\n2,10,5\n\n\n", PLAIN),
    "quoted titles with commas": (
        "r.csv", 'user,title,item,rating\n1,"Heat, The",10,4.0\n1,"a ""b"", c",20,3.5\n2,"Heat, The",10,5\n',
        PLAIN,
    ),
    "tsv": ("r.tsv", "1\t10\t4.0\t100\n1\t20\t3.5\t200\n2\t10\t5\t300\n", TIMED),
    "recbole": (
        "r.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "1\t10\t4\t100.0\n1\t20\t3.5\t200.0\n2\t10\t5\t300\n",
        TIMED,
    ),
    "double colons": ("r.dat", "1::10::4.0::100\n1::20::3.5::200\n2::10::5::300\n", TIMED),
    "double colons by another name": ("r.txt", "1::10::4.0\n1::20::3.5\n2::10::5\n", PLAIN),
    "double colons and CRLF": ("r.dat", "1::10::4.0\r\n1::20::3.5\r\n2::10::5\r\n", PLAIN),
    "double colons beside tabs": ("r.dat", "1::10::4.0::a\tb\n1::20::3.5::c\n2::10::5::d\n", PLAIN),
    "semicolons": ("r.csv", "user;item;rating\n1;10;4.0\n1;20;3.5\n2;10;5\n", PLAIN),
    "pipes": ("r.txt", "1|10|4.0\n1|20|3.5\n2|10|5\n", PLAIN),
    "spaces": ("r.txt", "1 10 4.0\n1 20 3.5\n2 10 5\n", PLAIN),
    "tabs called csv": ("r.csv", "1\t10\t4.0\n1\t20\t3.5\n2\t10\t5\n", PLAIN),
    "ISO dates": (
        "r.csv",
        "user,item,rating,date\n"
        "1,10,4.0,1970-01-01T00:01:40\n1,20,3.5,1970-01-01 00:03:20\n2,10,5,1970-01-01T00:05:00Z\n",
        TIMED,
    ),
    "an unknown fourth column": ("r.csv", "1,10,4.0,good\n1,20,3.5,bad\n2,10,5,ugly\n", PLAIN),
    "exponents": ("r.csv", "1,10,4e0\n1,20,35e-1\n2,10,+5.0\n", PLAIN),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_text_files(write: Write, case: str, packed: bool) -> None:
    name, content, expected = FILES[case]
    data = content.encode()
    path = write(f"{name}.gz", gzip.compress(data)) if packed else write(name, data)
    assert triples(load_ratings(path, scale="0:5")) == expected


def test_columns_by_name_and_position(write: Write) -> None:
    path = write("r.csv", "stars,who,what,when\n4,1,10,100\n3.5,1,20,200\n5,2,10,300\n")
    with pytest.raises(
        DataError, match=r"which column .* is the user: the header holds stars, who, what, when"
    ):
        load_ratings(path, scale="0:5")
    for columns in ("who,what,stars", ("who", "what", "stars"), (1, 2, 0), "1,2,0", ("who", 2, "stars")):
        assert triples(load_ratings(path, columns=columns, scale="0:5")) == PLAIN
    assert triples(load_ratings(path, columns="who,what,stars,when", scale="0:5")) == TIMED
    for columns, words in (
        ("who,what,score", "'score' .*does not exist.*stars, who"),
        ((0, 1, 7), "column 7"),
        ("who,what", "three or four"),
        ("who,who,stars", "different"),
        (("who", 1, "stars"), "one column twice"),
    ):
        with pytest.raises(DataError, match=words):
            load_ratings(path, columns=columns, scale="0:5")


def test_header_can_be_forced(write: Write) -> None:
    path = write("r.csv", "u1,i1,5\nu2,i1,4\nu2,i2,3\n")
    assert len(load_ratings(path, scale="1:5:1")) == 3
    with pytest.raises(DataError, match=r"one item|one user|which column"):
        load_ratings(path, scale="1:5:1", header=True)
    headed = write("h.csv", "7,8,9\n1,10,4.0\n1,20,3.5\n2,10,5\n")
    assert triples(load_ratings(headed, scale="0:5", header=True, columns=(0, 1, 2))) == PLAIN


def test_format_can_be_forced(write: Write) -> None:
    path = write("r.txt", "1,a::b,4\n1,c::d,3\n2,a::b,5\n")
    assert load_ratings(path, format="csv", scale="1:5:1").item_vocabulary.ids.tolist() == ["a::b", "c::d"]
    with pytest.raises(DataError, match="format 'xls': use one of csv, tsv"):
        load_ratings(path, format="xls")
    csv = write("r.csv", "1,a::b,4\n1,c::d,3\n2,a::b,5\n")  # the name tells
    assert load_ratings(csv, scale="1:5:1").item_vocabulary.ids.tolist() == ["a::b", "c::d"]


@pytest.mark.filterwarnings("ignore:.*how a number is written")
@pytest.mark.filterwarnings("ignore:.* has one rating")
def test_ids_are_kept_exactly(write: Write) -> None:
    path = write("r.csv", "user,item,rating\n01,1.0,4\n1,1,3\n1.0,1e0,5\n+1, 1,2\n-0,\t1,1\n")
    made = load_ratings(path, scale="1:5:1")
    assert made.user_vocabulary.ids.tolist() == ["+1", "-0", "01", "1", "1.0"]
    assert made.item_vocabulary.ids.tolist() == ["1", "1.0", "1e0"]
    big = write("b.csv", f"user,item,rating\n{2**63 - 1},9007199254740993,4\n{-(2**63)},9007199254740992,3\n")
    made = load_ratings(big, scale="1:5:1")
    assert made.user_vocabulary.ids.tolist() == [-(2**63), 2**63 - 1]
    assert made.item_vocabulary.ids.tolist() == [9007199254740992, 9007199254740993]
    beyond = write("c.csv", f"user,item,rating\n{2**63},a,4\n1,b,3\n")
    assert load_ratings(beyond, scale="1:5:1").user_vocabulary.ids.tolist() == ["1", str(2**63)]
    late = write("d.csv", "".join(f"{n},{n % 7},3\n" for n in range(1, 5000)) + "x,1,3\n")
    assert load_ratings(late, scale="1:5:1").user_vocabulary.ids[0] == "1"


def test_latin_1(write: Write) -> None:
    path = write("r.csv", "user,item,rating\nJosé,é,4\nAnn,b,3\n".encode("latin-1"))
    with pytest.warns(DataNotice, match="not UTF-8: read as latin-1"):
        made = load_ratings(path, scale="1:5:1")
    assert made.user_vocabulary.ids.tolist() == ["Ann", "José"]
    assert (
        load_ratings(write("u.csv", "user,item,rating\nJosé,é,4\nAnn,b,3\n"), scale="1:5:1").data_hash
        == made.data_hash
    )
    dat = write("r.dat", "José::é::4\nAnn::b::3\n".encode("latin-1"))
    with pytest.warns(DataNotice, match="latin-1"):
        assert load_ratings(dat, scale="1:5:1").data_hash == made.data_hash


@pytest.mark.filterwarnings("ignore:.*how a number is written")
def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    frame = pd.DataFrame(
        {"x": [1, 2, 3], "user_id": ["01", "1", "1"], "item_id": [5, 5, 6], "rating": [4, 3, 2]}
    )
    frame.to_parquet(path)
    made = load_ratings(path, scale="1:5:1")
    assert triples(made) == [("01", 5, 4.0), ("1", 5, 3.0), ("1", 6, 2.0)]
    frame["user_id"] = frame["user_id"].astype("category")
    frame["timestamp"] = pd.to_datetime([100, 200, 300], unit="s")
    frame.to_parquet(path)
    made = load_ratings(path, scale="1:5:1", columns="user_id,item_id,rating,timestamp")
    assert triples(made) == [("01", 5, 4.0, 100), ("1", 5, 3.0, 200), ("1", 6, 2.0, 300)]
    renamed = tmp_path / "noname"  # told by its first bytes
    path.rename(renamed)
    assert len(load_ratings(renamed, scale="1:5:1")) == 3


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user_id", [1.0, 1.0, 2.0], "user id in row 0 .* is 1.0, and the column of type double"),
        ("user_id", [1, None, 2], "user id in row 1 .* missing|type double"),
        ("item_id", ["a", "", "b"], "item id in row 1 .* empty"),
        ("rating", ["4", "3", "2"], "rating in row 0 .* is '4', and the column of type .*string"),
        ("rating", [4.0, None, 2.0], "rating in row 1 .* missing"),
        ("rating", [4.0, float("inf"), 2.0], "row 1 .*inf"),
        ("timestamp", [1, None, 3], "timestamp in row 1"),
    ],
)
def test_parquet_that_cannot_be_used(tmp_path: Path, column: str, values: list[Any], message: str) -> None:
    columns: dict[str, list[Any]] = {
        "user_id": [1, 1, 2],
        "item_id": ["a", "b", "a"],
        "rating": [4.0, 3.0, 2.0],
    }
    pq.write_table(pa.table(columns | {column: values}), tmp_path / "r.parquet")
    with pytest.raises(DataError, match=message):
        load_ratings(tmp_path / "r.parquet", scale="1:5:1")


@pytest.mark.filterwarnings("ignore:.*how a number is written")
def test_json_lines(write: Write) -> None:
    lines = [
        {"reviewerID": "A1", "asin": "0001", "overall": 5.0, "unixReviewTime": 100, "text": "x,\ny"},
        {"overall": 4, "reviewerID": "A1", "asin": "0002", "unixReviewTime": 200},
        {"reviewerID": "A2", "asin": "0001", "overall": 3.0, "unixReviewTime": 300},
    ]  # fmt: skip
    expected = [("A1", "0001", 5.0, 100), ("A1", "0002", 4.0, 200), ("A2", "0001", 3.0, 300)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    for path in (
        write("r.json", text),
        write("r.jsonl", text),
        write("r.json.gz", gzip.compress(text.encode())),
    ):
        assert triples(load_ratings(path, scale="1:5:1")) == expected
    typed = write(
        "t.jsonl", '{"user": 1, "item": "1", "rating": 2}\n{"user": 2, "item": "01", "rating": 3}\n'
    )
    assert triples(load_ratings(typed, scale="1:5:1")) == [(1, "1", 2.0), (2, "01", 3.0)]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('{"user": "2", "item": 2, "rating": 3}', r"user in line 2 of r.jsonl is '2'"),
        ('{"user": 2.0, "item": 2, "rating": 3}', r"user in line 2 of r.jsonl is 2.0"),
        ('{"user": 2, "item": 2, "rating": "3"}', r"rating in line 2 of r.jsonl is '3'"),
        ('{"user": 2, "item": 2}', r"rating in line 2 of r.jsonl is missing"),
        ('{"user": 2, "item": 2, "rating": null}', r"rating in line 2 of r.jsonl is missing"),
        ('{"item": 2, "rating": 3}', r"user id in line 2 of r.jsonl is missing"),
        ("{'user': 2, 'item': 2, 'rating': 3}", r"line 2 of r.jsonl is not a JSON object"),
        ("[1, 2, 3]", r"line 2 of r.jsonl is not a JSON object"),
        ('{"user": 2, "item": 2, "rating": true}', r"rating in line 2 of r.jsonl is True"),
        ('{"user": 2, "item": 2, "rat', r"line 2 of r.jsonl is not a JSON object"),
    ],
)
def test_json_that_cannot_be_used(write: Write, second: str, message: str) -> None:
    path = write(
        "r.jsonl", f'{{"user": 1, "item": 1, "rating": 5}}\n{second}\n{{"user": 3, "item": 3, "rating": 1}}\n'
    )
    with pytest.raises(DataError, match=message):
        load_ratings(path, scale="1:5:1")


def test_one_json_array_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match="one object a line"):
        load_ratings(write("r.json", '[{"user": 1, "item": 1, "rating": 5}]'))


def test_paths_that_cannot_be_used(tmp_path: Path, write: Write) -> None:
    with pytest.raises(DataError, match=r"neither a file nor a data set known by name \(ml100k, ml1m"):
        load_ratings("no-such-thing")
    with pytest.raises(DataError, match="is a folder"):
        load_ratings(tmp_path)
    with pytest.raises(DataError, match="zip archive"):
        load_ratings(write("r.csv", b"PK\x03\x04rest"))
    with pytest.raises(DataError, match="parquet"):
        load_ratings(write("r.parquet", b"PAR1 this is none"))
    with pytest.raises(DataError, match="cannot tell the format"):
        load_ratings(write("r.txt", "one line without any separator\nanother, with\n"))
    with pytest.raises(DataError, match="is damaged, or not a whole gzip file"):
        load_ratings(write("r.csv.gz", gzip.compress(b"1,2,3\n" * 1000)[:-20]))


def test_double_colons_are_fast(tmp_path: Path) -> None:
    users, items = generated_pairs(6_040, 3_706, 1_000_209)
    table = np.column_stack((users, items, users % 5 + 1, users * 7 + items))
    path = tmp_path / "ratings.dat"
    pd.DataFrame(table).to_csv(path, sep="\t", header=False, index=False)
    path.write_bytes(path.read_bytes().replace(b"\t", b"::"))
    started = time.process_time()
    made = load_ratings(path, scale="1:5:1")
    assert time.process_time() - started < 3  # 0.5 s on an idle machine; a Python engine takes 5 s and more
    np.testing.assert_array_equal(made.users, users)
    np.testing.assert_array_equal(made.items, items)


@pytest.mark.filterwarnings("ignore:.* has one rating")
def test_many_blocks_agree_with_pandas(tmp_path: Path) -> None:
    # Over 4 MiB: several blocks, each with a dictionary of its own.
    rng = np.random.default_rng(3)
    n = 150_000
    frame = pd.DataFrame(
        {
            "user": [f"user-{k:06d}" for k in rng.permutation(n)],
            "note": ['a "quoted, one"'] * n,
            "item": rng.integers(0, 500, n) * 3,
            "rating": np.round(rng.normal(size=n), 6),
        }
    )
    path = tmp_path / "r.csv"
    frame.to_csv(path, index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataNotice)
        made = load_ratings(path, scale="-9:9")
    ordered = frame.sort_values(["user", "item"])
    assert made.user_vocabulary.raw(made.users).tolist() == ordered["user"].tolist()
    assert made.item_vocabulary.raw(made.items).tolist() == ordered["item"].tolist()
    np.testing.assert_array_equal(made.ratings, ordered["rating"])


@pytest.mark.filterwarnings("ignore:.* has one rating")
def test_quoted_line_ends_across_blocks(tmp_path: Path) -> None:
    # Line ends inside fields, over several blocks: the fast parser gives up, the other one reads the file.
    n = 60_000
    lines = [f'{k},"{"line end" + chr(10)}{"x" * 90}",{k % 9},{k % 5 + 1}' for k in range(n)]
    path = tmp_path / "r.csv"
    path.write_text("user,note,item,rating\n" + "\n".join(lines) + "\n")
    assert path.stat().st_size > 6_000_000
    made = load_ratings(path, scale="1:5:1")
    assert made.user_vocabulary.ids.tolist() == list(range(n))
    assert made.ratings.tolist() == [float(k % 5 + 1) for k in range(n)]


def test_every_error_is_one_of_ours(write: Write) -> None:
    for content in (
        b"\xff\xfe\x00\x00",
        b"\x00" * 100,
        b"\x1f\x8b broken gzip",
        b"{",
        b"::::::\n",
        b"\x89PNG\r\n\x1a\n",
    ):
        with pytest.raises(PyroBmfError):
            load_ratings(write("x.bin", content))
