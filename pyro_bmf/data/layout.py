"""What a ratings file looks like: its format, whether it has a header, and which column is which."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DataError
from .containers import RatingsFile
from .foreign import FOREIGN_PARQUET, located

DELIMITERS = {"csv": ",", "tsv": "\t", "::": "::", "semicolon": ";", "pipe": "|", "space": " "}
FORMATS = (*DELIMITERS, "parquet", "jsonl")
_ALIASES = {"dat": "::", "json": "jsonl", "ndjson": "jsonl", "parq": "parquet", "tab": "tsv"}
_SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".data": "tsv", ".inter": "tsv", ".dat": "::",
    ".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
ROLES = ("user", "item", "rating", "timestamp")
# Known names, best first, compared without case and punctuation; what follows a colon is recbole's type.
_NAMES = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid", "memberid", "useridx", "username"),
    "item": (
        "itemid", "item", "iid", "movieid", "movie", "asin", "parentasin", "productid", "product", "bookid",
        "book", "isbn", "businessid", "artistid", "trackid", "songid", "animeid", "gameid", "title",
    ),
    "rating": ("rating", "ratings", "overall", "score", "stars", "bookrating", "value"),
    "timestamp": (
        "timestamp", "unixreviewtime", "time", "ts", "unixtime", "ratingtime", "datetime", "date",
        "createdat",
    ),
}  # fmt: skip
_NUMBER = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*\Z", re.ASCII)
_HEAD = 1 << 16
_MARK = b"\xef\xbb\xbf"  # the byte order mark of UTF-8

Columns = str | Sequence[str | int]


@dataclass(frozen=True)
class Layout:
    """How to read one file.

    Attributes
    ----------
    format
        One of `FORMATS`.
    header
        Whether the first line names the columns (text formats).
    skip
        Lines up to the end of the header, blank ones before it too; 0 without a header.
    n_columns
        Fields in a line (text formats).
    positions
        Position of user, item, rating and (if any) timestamp, counted from 0 (text formats).
    names
        The same columns by name (parquet and JSON lines).
    """

    format: str
    header: bool
    skip: int
    n_columns: int
    positions: tuple[int, ...]
    names: tuple[str, ...]


def head_of(path: RatingsFile) -> bytes:
    """Return the first 64 KiB of a file (unpacked)."""
    with located(f"{path} cannot be read", "see that it is whole and may be read"), path.open() as file:
        return file.read(_HEAD)


def detect(path: RatingsFile, format: str | None, columns: Columns | None, header: bool | None) -> Layout:
    """Find out how to read `path`; what is given is obeyed, the rest is read off the file's first lines.

    Raises
    ------
    DataError
        When the file is empty, the format or the columns cannot be told, or given columns do not exist.
    """
    head = head_of(path)
    if not head.removeprefix(_MARK).strip():
        raise DataError(f"{path} is empty: a ratings file has a line for each rating")
    wanted = _columns(columns)
    known = _format(path, format, head)
    if known == "parquet":
        import pyarrow.parquet as pq

        with located(f"{path} cannot be read as parquet", "get it again", FOREIGN_PARQUET):
            names = list(pq.read_schema(path.arrow()).names)
        return _by_name(path, known, names, wanted)
    if known == "jsonl":
        return _by_name(path, known, _json_keys(path, head), wanted)
    return _text_layout(path, known, head, wanted, header)


def _columns(columns: Columns | None) -> tuple[str | int, ...] | None:
    if columns is None:
        return None
    parts: tuple[str | int, ...]
    parts = tuple(part.strip() for part in columns.split(",")) if isinstance(columns, str) else tuple(columns)
    if len(parts) not in (3, 4) or len(set(parts)) != len(parts):
        raise DataError(
            f"columns {columns!r}: name three or four different ones, in the order user, item, rating[, "
            "timestamp], by header name or by position counted from 0"
        )
    return parts


def _format(path: RatingsFile, format: str | None, head: bytes) -> str:
    if format is not None:
        known = _ALIASES.get(format.lower(), format.lower())
        if known not in FORMATS:
            raise DataError(f"format {format!r}: use one of {', '.join(FORMATS)}")
        return known
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.removeprefix(_MARK).lstrip().startswith((b"{", b"[")):
        return "jsonl"
    lines = text_lines(head)[:50]
    likely = _SUFFIXES.get(path.suffixes[-1]) if path.suffixes else None
    candidates = [name for name in ("::", "tsv", "csv", "semicolon", "pipe", "space") if name != likely]
    if likely in DELIMITERS:
        candidates.insert(0, likely)
    for name in candidates:
        counts = {len(record) for record in records(lines, name)}
        if len(counts) == 1 and counts.pop() >= 3:
            return name
    if likely in DELIMITERS:
        return likely
    raise DataError(
        f"cannot tell the format of {path} from its first lines ({lines[0][:60]!r}): give it as one of "
        f"{', '.join(FORMATS)}"
    )


def text_lines(head: bytes) -> list[str]:
    """Return the filled lines of a file's head; the last one may be cut and is left out then."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = head.decode("latin-1").removeprefix("\xef\xbb\xbf")
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line]
    return lines[:-1] if len(head) >= _HEAD and len(lines) > 1 else lines


def records(lines: Sequence[str], format: str) -> list[list[str]]:
    """Split text lines into fields."""
    if format == "::":
        return [line.split("::") for line in lines]
    reader = csv.reader(io.StringIO("\n".join(lines) + "\n", newline=""), delimiter=DELIMITERS[format])
    return [record for record in reader if record]


def is_number(text: str) -> bool:
    """Tell whether a field is a plain decimal number."""
    return _NUMBER.match(text) is not None


def _match(names: Sequence[str]) -> dict[str, int]:
    """Find the columns with known names: role -> position."""
    plain = [re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower()) for name in names]
    return {
        role: plain.index(next(known for known in _NAMES[role] if known in plain))
        for role in ROLES
        if any(known in plain for known in _NAMES[role])
    }


def _text_layout(
    path: RatingsFile, format: str, head: bytes, wanted: tuple[str | int, ...] | None, header: bool | None
) -> Layout:
    rows = records(text_lines(head)[:100], format)
    first = rows[0]
    matched = _match(first)
    named = wanted is not None and any(isinstance(part, str) and part in first for part in wanted)
    if header is None:
        header = (
            named
            or {"user", "item", "rating"} <= set(matched)
            or (not any(map(is_number, first)) and len(rows) > 1 and any(map(is_number, rows[1])))
        )
    if wanted is not None:
        positions = tuple(_position(path, part, first if header else [], len(first)) for part in wanted)
        if len(set(positions)) != len(positions):
            raise DataError(f"columns {wanted!r} of {path} name one column twice")
    elif header:
        missing = [role for role in ROLES[:3] if role not in matched]
        if missing:
            raise DataError(
                f"cannot tell which column of {path} is the {missing[0]}: the header holds "
                f"{', '.join(first)}; "
                "give the columns as user,item,rating[,timestamp] by name or position, or say there is no "
                "header"
            )
        positions = tuple(matched[role] for role in ROLES if role in matched)
    else:
        if len(first) < 3:
            raise DataError(
                f"line 1 of {path} has {len(first)} field(s) read as {format}: at least user, item and "
                "rating are needed; give the format"
            )
        timed = len(first) > 3 and all(len(row) > 3 and is_number(row[3]) for row in rows)
        positions = (0, 1, 2, 3) if timed else (0, 1, 2)
    return Layout(format, header, _header_end(head, format) if header else 0, len(first), positions, ())


def _header_end(head: bytes, format: str) -> int:
    """Return the number of lines up to the end of the first record, which may run over several."""
    text = io.TextIOWrapper(io.BytesIO(head), encoding="latin-1", newline="")
    if format == "::":
        return next(number for number, line in enumerate(text, 1) if line.strip("\r\n"))
    reader = csv.reader(text, delimiter=DELIMITERS[format])
    next(record for record in reader if record)
    return reader.line_num


def _position(path: RatingsFile | str, part: str | int, header: Sequence[str], n_columns: int) -> int:
    if isinstance(part, str) and part in header:
        return list(header).index(part)
    if isinstance(part, int) or part.isdecimal():
        position = int(part)
        if 0 <= position < n_columns:
            return position
        raise DataError(
            f"column {position} of {path} does not exist: it has {n_columns} columns, counted from 0"
        )
    names = ", ".join(header) if header else "no header"
    raise DataError(f"column {part!r} of {path} does not exist: it has {names}; positions count from 0")


def table_layout(names: list[str], columns: Columns | None, name: str) -> Layout:
    """Find the rating columns of a table in memory."""
    return _by_name(name, "table", names, _columns(columns))


def _by_name(
    path: RatingsFile | str, format: str, names: list[str], wanted: tuple[str | int, ...] | None
) -> Layout:
    if wanted is not None:
        chosen = tuple(names[_position(path, part, names, len(names))] for part in wanted)
    else:
        matched = _match(names)
        missing = [role for role in ROLES[:3] if role not in matched]
        if missing:
            raise DataError(
                f"cannot tell which column of {path} is the {missing[0]}: it has {', '.join(names)}; "
                "give the columns as user,item,rating[,timestamp]"
            )
        chosen = tuple(names[matched[role]] for role in ROLES if role in matched)
    return Layout(format, True, 0, len(names), (), chosen)


def _json_keys(path: RatingsFile, head: bytes) -> list[str]:
    first = next((line for line in head.removeprefix(_MARK).splitlines() if line.strip()), b"")
    try:
        record = json.loads(first)
    except ValueError as error:
        raise DataError(f"line 1 of {path} is not a JSON object ({error}): write one object a line") from None
    if not isinstance(record, dict):
        raise DataError(f"line 1 of {path} is not a JSON object: write one object a line, not one array")
    return list(record)
