"""Quotes, blanks, line ends and encodings: every line is read, counted or refused by its number."""

import json
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_bmf.data import (
    DataNotice,
    DataWarning,
    Ratings,
    load_ratings,
    random_split,
    read_split,
    write_split,
)
from pyro_bmf.data.reading import text as text_module
from pyro_bmf.data.reading.dialect import Dialect
from pyro_bmf.errors import DataError

Write = Callable[[str, str | bytes], Path]
SWALLOWED = 'user{0}item{0}rating\nu1{0}"Heroes{0}5\nu2{0}B{0}4\nu3{0}C"{0}3\nu4{0}B{0}1\nu4{0}D{0}2\n'


def items(ratings: Ratings) -> list[object]:
    return ratings.item_vocabulary.ids.tolist()


def test_a_stray_quote_swallows_no_ratings(write: Write) -> None:
    with pytest.raises(
        DataError, match=r"line 2 of r.csv holds the following 2 line\(s\), of which 2 look like"
    ):
        load_ratings(write("r.csv", SWALLOWED.format(",")), scale="1:5:1")
    for path, options in (
        (write("r.tsv", SWALLOWED.format("\t")), {}),
        (write("r.dat", SWALLOWED.format("::")), {}),
        (write("r.txt", SWALLOWED.format("|")), {}),
        (write("s.csv", SWALLOWED.format(";")), {}),
        (write("r.csv", SWALLOWED.format(",")), {"quoting": "none"}),
    ):
        made = load_ratings(path, scale="1:5:1", **options)  # type: ignore[arg-type]
        assert len(made) == 5
        assert items(made) == ['"Heroes', "B", 'C"', "D"]
    with pytest.raises(DataError, match=r"line 2 of r.tsv holds the following"):
        load_ratings(write("r.tsv", SWALLOWED.format("\t")), scale="1:5:1", quoting="csv")


def test_thousands_of_lines_between_two_quotes(write: Write) -> None:
    lines = [
        f"u{k % 50}\t{chr(34) if k in (150, 4900) else ''}Artist {k // 50}\t{k % 5 + 1}\n"
        for k in range(5000)
    ]
    made = load_ratings(write("r.tsv", "user\titem\trating\n" + "".join(lines)), scale="1:5:1")
    assert len(made) == 5000
    assert made.counts is not None
    assert (made.counts.lines, made.counts.header, made.counts.rows) == (5001, 1, 5000)
    weird = write("w.tsv", 'u1\t"Weird" X\t5\nu1\tWeird X\t4\nu2\tWeird X\t3\n')
    assert items(load_ratings(weird, scale="1:5:1")) == ['"Weird" X', "Weird X"]


REFUSED = {
    "text behind a quote": ('u,"a" b,5', "line 3 of r.csv has text after a closing quote"),
    "text behind an empty quote": ('u,""b,5', "line 3 of r.csv has text after a closing quote"),
    "a line end in an item": ('u,"a\nb",5', "item in line 3 of r.csv holds a line end"),
    "a line end in a user": ('"u\r\nv",a,5', "user in line 3 of r.csv holds a line end"),
    "a line end in a rating": ('u,a,"5\n"', "rating in line 3 of r.csv holds a line end"),
    "an open quote": ('u,"a,5', "a quote opens in line 3 of r.csv and never closes"),
    "blanks in quotes alone": ('u,"",5', "item id in line 3 of r.csv is empty"),
    "blanks alone": ("u,  ,5", "item id in line 3 of r.csv is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_quotes_that_are_refused(write: Write, case: str) -> None:
    line, message = REFUSED[case]
    end = "" if case == "an open quote" else "\nw,x,1\n"
    with pytest.raises(DataError, match=message):
        load_ratings(write("r.csv", f"user,item,rating\nv,x,4\n{line}{end}"), scale="1:5:1")


def test_quotes_of_rfc_4180(write: Write) -> None:
    text = (
        'user,item,"rating",review\n"a, b","x ""y""",5,"two\nlines, and ""quotes"""\n'
        'c , "z" ,"4", 5" pipe \n" d ",z,"3",""\n'
    )
    made = load_ratings(write("r.csv", text), scale="1:5:1")
    assert made.user_vocabulary.ids.tolist() == [" d ", "a, b", "c"]
    assert items(made) == ['x "y"', "z"]
    assert made.counts is not None
    assert vars(made.counts) == {
        "lines": 5, "header": 1, "blank": 0, "quoted": 1, "rows": 3, "filtered": 0, "merged": 0,
    }  # fmt: skip


def test_a_review_that_swallows_ratings_is_refused(write: Write) -> None:
    text = 'user,item,rating,review\na,x,5,"good\nb,y,4,fine\nc,x,3,bad"\nd,y,2,so\n'
    with pytest.raises(DataError, match=r"line 2 of r.csv holds the following 2"):
        load_ratings(write("r.csv", text), scale="1:5:1")
    assert len(load_ratings(write("r.csv", text), scale="1:5:1", quoting="none")) == 4


def _reference(text: str, delimiter: str) -> list[list[str]] | None:
    """Cut RFC 4180 text character by character; None where it is not that."""
    rows: list[list[str]] = [[]]
    position = 0
    while position < len(text):
        if text[position] == '"':
            value, position = "", position + 1
            while True:
                if position >= len(text):
                    return None
                if text[position] == '"':
                    if text[position + 1 : position + 2] != '"':
                        break
                    position += 1
                value += text[position]
                position += 1
            position += 1
            if text[position] not in (delimiter, "\n"):
                return None
        else:
            stop = min(at for at in (text.find(delimiter, position), text.find("\n", position)) if at >= 0)
            value, position = text[position:stop], stop
        rows[-1].append(value)
        if text[position] == "\n":
            rows.append([])
        position += 1
        if position < len(text) and text[position - 1] == delimiter:
            continue
    return rows[:-1]


@given(st.text(st.sampled_from('ab",\n'), max_size=40), st.integers(1, 9))
def test_runs_of_quotes_agree_with_reading_by_characters(text: str, block: int) -> None:
    # Blocks of a few bytes: fields and runs of quotes lie across their ends.
    content = text + "\n"
    dialect = Dialect(",", True, padded=False)
    before = text_module._BLOCK
    text_module._BLOCK = block
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "r"
            path.write_bytes(content.encode())
            source = text_module.TextSource(lambda: path.open("rb"), "r", dialect)
            try:
                clean = source.read().decode("latin-1")
            except DataError:
                found = None
            else:
                found = [
                    [
                        re.sub('""', '"', part[1:-1]) if part.startswith('"') else part
                        for part in line.split(",")
                    ]
                    for line in clean.split("\n")[:-1]
                ]
                found = [[part.replace("\xfe", ",").replace("\xff", "\n") for part in line] for line in found]
    finally:
        text_module._BLOCK = before
    assert found == _reference(content, ",")


BLANKS = {
    "a space after the comma": "userId, movieId, rating\n1, 10, 4.5\n1, 11, 3.0\n2, 10, 2.5\n2, 12, 5.0\n",
    "tabs": "userId,movieId,rating\n1,10\t,4.5\n1,\t11,3.0\n2,10,2.5\n2,12,5.0\n",
    "no-break spaces": "userId,movieId,rating\n1,10\u00a0,4.5\n1,11,3.0\n2,10,2.5\n2,12,5.0\u00a0\n",
    "ideographic spaces": "userId,movieId,rating\n1,\u300010,4.5\n1,11,3.0\n2,10,2.5\n2,12,5.0\n",
    "a mark within": "userId,movieId,rating\n1,10,4.5\n1,11,3.0\n\ufeff2,10,2.5\n2,12,5.0\n",
    "beside quotes": 'userId,movieId,rating\n1, "10" ,4.5\n1,11,3.0\n2,10,2.5\n2,"12", 5.0\n',
    "in a TSV": "1\t10 \t4.5\n1\t11\t3.0\n2\t10\t2.5\n2\t12\t5.0\n",
    "beside colons": "1:: 10 ::4.5\n1::11::3.0\n2::10::2.5\n2::12::5.0\n",
}


@pytest.mark.parametrize("case", BLANKS)
def test_blanks_beside_ids_go(write: Write, case: str) -> None:
    made = load_ratings(write("r.txt", BLANKS[case]), scale="0.5:5:0.5")
    assert (made.user_vocabulary.ids.tolist(), items(made)) == ([1, 2], [10, 11, 12])
    assert made.ratings.tolist() == [4.5, 3.0, 2.5, 5.0]


@pytest.mark.parametrize(
    ("ids", "likely"),
    [
        (["Heat", "heat", "Up"], "'Heat' and 'heat'"),
        (["Il Sorpasso", "IlSorpasso", "Up"], "'Il Sorpasso' and 'IlSorpasso'"),
        (["caf\u00e9", "cafe\u0301", "Up"], "differ"),
        (["\ufb01lm", "film", "Up"], "differ"),
    ],
)
def test_ids_that_look_alike_are_noted_and_kept(write: Write, ids: list[str], likely: str) -> None:
    text = "".join(f"{user},{item},3\n" for user in ("u", "v") for item in ids)
    with pytest.warns(DataWarning, match=rf"2 item ids differ .*{likely}.* kept as different items|{likely}"):
        made = load_ratings(write("r.csv", text), scale="1:5:1")
    assert made.n_items == 3


def test_an_older_reading_keeps_blanks_and_seconds(write: Write) -> None:
    text = "user,item,rating,time\n1, 10,4, 1.9\n1,10, 3,1.2\n2,10,2,5\n"
    with pytest.warns(DataWarning, match="differ from another only in blanks"):
        old = load_ratings(write("r.csv", text), scale="1:5:1", reader=1)
    assert items(old) == [" 10", "10"]
    assert old.timestamps is not None
    assert (old.timestamps.tolist(), old.ticks_per_second) == ([1, 1, 5], 1)
    quoted = load_ratings(write("q.tsv", 'u\t"a"\t4\nv\tb\t3\n'), scale="1:5:1", reader=1)
    assert items(quoted) == ["a", "b"]
    with pytest.raises(DataError, match="reader 3: this software knows 1, 2"):
        load_ratings(write("r.csv", text), reader=3)


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_encodings_of_unicode(write: Write, encoding: str, suffix: str) -> None:
    if suffix == "csv":
        text = "user,item,rating\nJosé,é,4\nAnn,\u4e2d,3\n"
    else:
        text = '{"user": "José", "item": "é", "rating": 4}\n{"user": "Ann", "item": "\u4e2d", "rating": 3}\n'
    made = load_ratings(write(f"r.{suffix}", text.encode(encoding)), scale="1:5:1")
    assert made.user_vocabulary.ids.tolist() == ["Ann", "José"]
    assert items(made) == ["é", "\u4e2d"]


def test_damaged_utf_16_is_refused(write: Write) -> None:
    content = "user,item,rating\n1,2,3\n2,3,4\n".encode("utf-16") + b"\x00"
    with pytest.raises(DataError, match=r"r.csv is UTF-16-LE by its first bytes, and not so in line 4"):
        load_ratings(write("r.csv", content), scale="1:5:1")


def test_separator_lines(write: Write) -> None:
    for mark, name in ((";", "r.csv"), ("\t", "r.csv"), (",", "x.tsv"), ("|", "r")):
        text = f"sep={mark}\r\nuser{mark}item{mark}rating\r\n1{mark}10{mark}4\r\n2{mark}11{mark}3\r\n"
        made = load_ratings(write(name, text), scale="1:5:1")
        assert made.counts is not None
        assert (items(made), made.counts.header) == ([10, 11], 2)
    with pytest.raises(DataError, match=r"line 1 of r.csv names the separator '\^'"):
        load_ratings(write("r.csv", "sep=^\n1^2^3\n"))


@pytest.mark.parametrize("header", ["user;item;rating\n", ""])
@pytest.mark.parametrize("name", ["r.csv", "r.txt"])
def test_decimal_commas(write: Write, header: str, name: str) -> None:
    text = header + "u1;i1;3,5\nu1;i2;4\nu2;i1;,5\n"
    with pytest.warns(DataNotice, match="decimal commas, as '3,5'"):
        made = load_ratings(write(name, text), scale="0.5:5:0.5")
    assert made.ratings.tolist() == [3.5, 4.0, 0.5]
    with pytest.raises(DataError, match=r"rating in line . of r.csv is '3,5'.* all with a decimal comma"):
        load_ratings(write("r.csv", header + "u1;i1;3,5\nu1;i2;4.5\n"), scale="0.5:5:0.5")


def test_two_columns_with_decimal_commas(write: Write) -> None:
    # Three fields between commas in every line, as well.
    with pytest.warns(DataNotice, match="decimal commas"):
        made = load_ratings(write("r.csv", "1;10;3,5;2,5\n1;11;4,0;1,5\n2;10;1,5;0,5\n"), scale="0.5:5:0.5",
                            columns=(0, 1, 2))  # fmt: skip
    assert made.ratings.tolist() == [3.5, 4.0, 1.5]


def test_a_long_line(write: Write) -> None:
    # Longer than the first bytes that are looked at, and than a block of the parser.
    for size in (70_000, 6_000_000):
        lines = [f'{{"user": {k}, "item": {k % 3}, "rating": 4, "text": "{"x" * size}"}}\n' for k in range(3)]
        assert len(load_ratings(write("r.json", "".join(lines)), scale="1:5:1")) == 3
        text = "user,item,rating,text\n" + "".join(f"{k},{k % 3},4,{'x' * size}\n" for k in range(3))
        assert len(load_ratings(write("r.csv", text), scale="1:5:1")) == 3


def test_a_huge_field_is_shown_in_part(write: Write) -> None:
    text = f"user,item,rating\nu1,i1,3\nu1,{'x' * 200_000},4\nu2,i1,five\n"
    with pytest.raises(DataError, match=r"line 4 of r.csv is 'five'"):
        load_ratings(write("r.csv", text), scale="1:5:1")
    with pytest.raises(DataError, match=r"line 2 of r.csv is 'y{49}\.\.\. \(200,000 characters\)") as caught:
        load_ratings(write("r.csv", f"user,item,rating\nu1,i1,{'y' * 200_000}\nu2,i1,5\n"), scale="1:5:1")
    assert len(str(caught.value)) < 300


def test_whole_numbers_beyond_64_bits(write: Write) -> None:
    path = write("r.csv", f"1,{2**64},4\n2,{2**64 + 1},3\n2,7,3\n")
    assert items(load_ratings(path, scale="1:5:1")) == [str(2**64), str(2**64 + 1), "7"]
    with pytest.raises(
        DataError, match=f"user in line 2 of r.jsonl is {2**64 - 1}, which does not fit 64 bits"
    ):
        load_ratings(write("r.jsonl", '{"user": 1, "item": 1, "rating": 5}\n'
                           f'{{"user": {2**64 - 1}, "item": 1, "rating": 5}}\n'))  # fmt: skip


JSON = {
    "deep": (
        '{"user": 1, "item": 2, "rating": ' + "[" * 90000 + "]" * 90000 + "}",
        "line 1 .* nested too deeply",
    ),
    "deep elsewhere": (
        '{"user": 1, "item": 2, "rating": 3, "x": ' + "[" * 90000,
        "line 1 .*(deeply|not a JSON)",
    ),
    "half a pair": ('{"user": "\\ud800", "item": 2, "rating": 3}', "user in line 1 .* surrogates"),
    "no UTF-8": (b'{"user": "a\xe6", "item": 2, "rating": 3}', "line 1 .* not UTF-8"),
    "an array": ('[{"user": 1, "item": 2, "rating": 3}]', "line 1 .* one object a line"),
    "an array over lines": ('[\n{"user": 1, "item": 2, "rating": 3}]', "line 1 .* one object a line"),
    "a key twice": ('{"user": 1, "user": 2, "item": 2, "rating": 3}', "line 1 .* names a key twice"),
    "two objects": (
        '{"user": 1, "item": 2, "rating": 3}{"user": 1, "item": 3, "rating": 3}',
        "line 1 .* object",
    ),
    "one over lines": ('{"user": 1, "item": 2,\n"rating": 3}', "line 1 .* object"),
    "too large": ('{"user": 1, "item": 2, "rating": 1e400}', "line 1|cannot be read"),
}


@pytest.mark.parametrize("case", JSON)
def test_json_that_is_refused(write: Write, case: str) -> None:
    line, message = JSON[case]
    content = line if isinstance(line, bytes) else line.encode()
    with pytest.raises(DataError, match=message) as caught:
        load_ratings(write("r.jsonl", content + b'\n{"user": 2, "item": 3, "rating": 4}\n'), scale="1:5:1")
    assert len(str(caught.value)) < 400


def test_rows_of_nul_are_damage(write: Write) -> None:
    with pytest.raises(DataError, match=r"line 3 of r.csv holds a row of NUL bytes"):
        load_ratings(write("r.csv", b"user,item,rating\n1,2,3\n2,\0\0\0\0,3\n"), scale="1:5:1")
    made = load_ratings(write("r.csv", b"user,item,rating\n1,a\0b,3\n2,c,3\n"), scale="1:5:1")
    assert items(made) == ["a\0b", "c"]


def test_blank_lines_and_old_line_ends_are_counted(write: Write) -> None:
    for end in ("\n", "\r\n", "\r"):
        text = end.join(["", "user,item,rating", "", "1,2,3", "   ", "\t", "2,3,4", "", ""])
        made = load_ratings(write("r.csv", text), scale="1:5:1")
        assert made.counts is not None
        assert (made.counts.lines, made.counts.blank, made.counts.rows) == (8, 5, 2)
        assert str(made.counts) == "2 rows of data in 8 lines (1 of a header, 5 blank)"
        with pytest.raises(DataError, match=r"line 7 of r.csv"):
            load_ratings(write("r.csv", text.replace("2,3,4", "2,3,x")), scale="1:5:1")


def test_ids_with_line_ends_come_back_from_a_written_split(tmp_path: Path) -> None:
    rng = random.Random(3)
    path = tmp_path / "r.jsonl"
    ids = ["a\nb", "a\r\nb", " a", "a ", 'q"', '"', "\u00a0", "x,y"]
    pairs = [(user, item) for user in ids for item in ids]
    rng.shuffle(pairs)
    path.write_text("".join(json.dumps({"user": u, "item": i, "rating": 3}) + "\n" for u, i in pairs))
    with pytest.warns(DataWarning, match="differ from another only in blanks"):
        split = random_split(load_ratings(path, scale="1:5:1"))
    assert read_split(write_split(split, tmp_path / "s")).hash == split.hash
