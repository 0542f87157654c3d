"""What a ratings file looks like: its format, whether it has a header, and which column is which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...errors import DataError
from .column_names import ROLES, TIME_KEYS, Columns, known_columns
from .containers import RatingsFile
from .dialect import BLANKS, Dialect
from .foreign import FOREIGN_PARQUET, located
from .head_lines import decoded, is_number, split_head
from .json_lines import first_object

DELIMITERS = {"csv": ",", "tsv": "\t", "::": "::", "semicolon": ";", "pipe": "|", "space": " "}
FORMATS = (*DELIMITERS, "parquet", "jsonl")
_ALIASES = {"dat": "::", "json": "jsonl", "ndjson": "jsonl", "parq": "parquet", "tab": "tsv"}
_SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".data": "tsv", ".inter": "tsv", ".dat": "::",
    ".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
_HEAD = 1 << 16
#: Readings of files: 1 kept blanks around ids, took quotes for such in every format but ``::``, and cut
#: times to seconds; 2 is described in the documentation.
READERS = (1, 2)
_SEPARATOR = re.compile(r'"?sep=(.{1,2}?)"? *(?:[\r\n]|\Z)', re.IGNORECASE)


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
        Records before the data: a header, a line that names the separator.
    n_columns
        Fields in a line (text formats).
    positions
        Position of user, item, rating and (if any) timestamp, counted from 0 (text formats).
    names
        The same columns by name (parquet and JSON lines).
    quoting
        Whether ``"`` quotes fields (text formats).
    padded
        Whether blanks around unquoted fields are dropped.
    whole_seconds
        Whether times are cut to seconds.
    watched
        Names of times of which the first line holds none, and later ones may (JSON lines).
    """

    format: str
    header: bool
    skip: int
    n_columns: int
    positions: tuple[int, ...]
    names: tuple[str, ...]
    quoting: bool = False
    padded: bool = True
    whole_seconds: bool = False
    watched: tuple[str, ...] = ()


def head_of(path: RatingsFile) -> bytes:
    """Return the first 64 KiB of a file (unpacked)."""
    with located(f"{path} cannot be read", "see that it is whole and may be read"), path.open() as file:
        return file.read(_HEAD)


@dataclass(frozen=True)
class Given:
    """What a user says of how a file is written; None is read off the file.

    Attributes
    ----------
    format
        One of `FORMATS`.
    columns
        User, item, rating and perhaps timestamp, by header name or by position counted from 0.
    header
        Whether the first line names the columns.
    quoting
        ``"csv"``: ``"`` quotes fields as RFC 4180 says; ``"none"``: it is a character; None is the former for
        CSV and the latter for other text.
    reader
        One of `READERS`.
    """

    format: str | None = None
    columns: Columns | None = None
    header: bool | None = None
    quoting: str | None = None
    reader: int = READERS[-1]


def detect(path: RatingsFile, given: Given) -> Layout:
    """Find out how to read `path`; what is given is obeyed, the rest is read off the file's first lines.

    Raises
    ------
    DataError
        When the file is empty, the format or the columns cannot be told, or given columns do not exist.
    """
    quoting, reader = given.quoting, given.reader
    if quoting not in (None, "csv", "none"):
        raise DataError(f"quoting {quoting!r}: use 'csv' (quotes as RFC 4180 says) or 'none' (characters)")
    if reader not in READERS:
        raise DataError(f"reader {reader!r}: this software knows {', '.join(map(str, READERS))}")
    head = head_of(path)
    text = decoded(head)
    if not text.strip(BLANKS):
        raise DataError(f"{path} is empty: a ratings file has a line for each rating")
    wanted = _columns(given.columns)
    reading = _Reading(quoting, reader, len(head) < _HEAD)
    known, separator = _format(path, given.format, head, text, reading)
    if known in ("parquet", "jsonl"):
        if quoting is not None:
            raise DataError(f"quoting {quoting!r} goes with text such as CSV: {path.name} is {known}")
        if known == "jsonl":
            names = list(first_object(path.open, path.name))
        else:
            import pyarrow.parquet as pq

            with located(f"{path} cannot be read as parquet", "get it again", FOREIGN_PARQUET):
                names = list(pq.read_schema(path.arrow()).names)
        return replace(_by_name(path, known, names, wanted), whole_seconds=reader == 1)
    return _text_layout(path, known, head, wanted, given.header, separator, reading)


@dataclass(frozen=True)
class _Reading:
    """What was asked for, and whether the head is the whole file."""

    quoting: str | None
    reader: int
    whole: bool

    def dialect(self, format: str) -> Dialect:
        """Return how a format's lines are cut."""
        if self.quoting is not None:
            quoted = self.quoting == "csv"
        else:
            quoted = format == "csv" if self.reader > 1 else format != "::"
        return Dialect(DELIMITERS[format], quoted, padded=self.reader > 1)


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


def _format(
    path: RatingsFile, format: str | None, head: bytes, text: str, reading: _Reading
) -> tuple[str, bool]:
    """Return the format, and whether the first line names the separator, as Excel's ``sep=;`` does."""
    named = _SEPARATOR.match(text.lstrip(BLANKS))
    if format is not None:
        known = _ALIASES.get(format.lower(), format.lower())
        if known not in FORMATS:
            raise DataError(f"format {format!r}: use one of {', '.join(FORMATS)}")
        return known, named is not None and known in DELIMITERS
    if head.startswith(b"PAR1"):
        return "parquet", False
    if text.lstrip(BLANKS).startswith(("{", "[")):
        return "jsonl", False
    if named is not None:
        by_mark = {mark: name for name, mark in DELIMITERS.items()}
        if named[1] not in by_mark:
            raise DataError(
                f"line 1 of {path.name} names the separator {named[1]!r}, which is not read: use one of "
                f"{', '.join(map(repr, by_mark))}"
            )
        return by_mark[named[1]], True
    likely = _SUFFIXES.get(path.suffixes[-1]) if path.suffixes else None
    candidates = [name for name in ("::", "tsv", "csv", "semicolon", "pipe", "space") if name != likely]
    if likely in DELIMITERS:
        candidates.insert(0, likely)
    fitting = [
        name for name in candidates if _fits(split_head(head, reading.dialect(name), reading.whole, 50))
    ]
    if fitting[:1] == ["csv"]:
        # 1;10;3,5;2,5 has three fields between commas in every line, too.
        for name in ("semicolon", "tsv", "pipe"):
            if name in fitting and not re.search(r"(?<![0-9]),|,(?![0-9])", _body(text)):
                return name, False
    if fitting:
        return fitting[0], False
    if likely in DELIMITERS:
        return str(likely), False
    first = next(line for line in text.split("\n") if line.strip(BLANKS))
    quoted = [
        name
        for name in candidates
        if reading.quoting is None
        and _fits(split_head(head, Dialect(DELIMITERS[name], True), reading.whole, 50))
    ]
    if quoted:
        raise DataError(
            f"the first lines of {path} ({first[:60]!r}) are {quoted[0]} if quotes enclose fields "
            f"there: say quoting csv (--quoting csv), or give the format as one of {', '.join(FORMATS)}"
        )
    raise DataError(
        f"cannot tell the format of {path} from its first lines ({first[:60]!r}): give it as one of "
        f"{', '.join(FORMATS)}"
    )


def _fits(rows: list[list[str]]) -> bool:
    counts = {len(row) for row in rows}
    return len(counts) == 1 and counts.pop() >= 3


def _body(text: str) -> str:
    """Return a head without its first line, which may be a header."""
    first, _, rest = text.partition("\n")
    return rest or first


def fields_in(head: bytes, format: str) -> int:
    """Return the number of fields in the first line of delimited text, 0 for none."""
    if format not in DELIMITERS:
        return 0
    rows = split_head(head, Dialect(DELIMITERS[format], format == "csv"), len(head) < _HEAD, 1)
    return len(rows[0]) if rows else 0


def _text_layout(
    path: RatingsFile,
    format: str,
    head: bytes,
    wanted: tuple[str | int, ...] | None,
    header: bool | None,
    separator: bool,
    reading: _Reading,
) -> Layout:
    dialect = reading.dialect(format)
    rows = split_head(head, dialect, reading.whole)[int(separator) :]
    if not rows:
        raise DataError(f"{path} holds no ratings: a ratings file has a line for each rating")
    first = rows[0]
    matched = known_columns(first)
    if header is None:
        named = _names_first_line(path, wanted or (), first)
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
                "give the columns as user,item,rating[,timestamp] by name or position (--columns, in Python "
                "columns=), or say there is no header (--no-header, header=False)"
            )
        positions = tuple(matched[role] for role in ROLES if role in matched)
    else:
        if len(first) < 3:
            raise DataError(_too_few(path, format, decoded(head), len(first), separator, dialect.quoting))
        timed = len(first) > 3 and all(len(row) > 3 and is_number(row[3]) for row in rows)
        positions = (0, 1, 2, 3) if timed else (0, 1, 2)
    by_name = wanted if wanted is not None else tuple(first[place] for place in positions) if header else ()
    for one in by_name:
        if header and first.count(str(one)) > 1 and isinstance(one, str):
            raise DataError(
                f"the header of {path} has {first.count(one)} columns called {one!r}: give the columns by "
                "position, counted from 0"
            )
    return Layout(
        format,
        header,
        int(header) + int(separator),
        len(first),
        positions,
        (),
        dialect.quoting,
        dialect.padded,
        reading.reader == 1,
    )


def _names_first_line(path: RatingsFile, wanted: tuple[str | int, ...], first: list[str]) -> bool:
    """Tell whether columns that were given are named in the first line.

    Digits are positions: that a field of the first rating is one of them does not make it a header.
    """
    texts = [part for part in wanted if isinstance(part, str)]
    if any(part in first and not part.isdecimal() for part in texts):
        return True
    if texts and all(part.isdecimal() and first[int(part) : int(part) + 1] == [part] for part in texts):
        raise DataError(
            f"line 1 of {path} holds {', '.join(first)[:60]}, the very positions that were given as columns: "
            "say whether it is a header (--header or --no-header)"
        )
    return False


def _too_few(path: RatingsFile, format: str, text: str, n_fields: int, separator: bool, quoting: bool) -> str:
    """Say that the first line of data has fewer than three fields, and what may be the reason."""
    if "\0" in text:
        return f"{path} holds NUL bytes: it is damaged, or no text; give CSV, TSV, JSON lines or parquet"
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    filled = [number for number, line in enumerate(lines) if line.strip(BLANKS)]
    number = filled[min(int(separator), len(filled) - 1)]
    remedy = "give the format"
    if quoting and '"' in lines[number]:
        remedy = (
            "close the quote, say quoting none (--quoting none) if quotes are characters there, or give "
            "the format"
        )
    elif separator:
        remedy = "the line before it names the separator; correct that, or remove it"
    return (
        f"line {number + 1} of {path} has {n_fields} field{'s' if n_fields != 1 else ''} read as {format}: "
        f"at least user, item and rating are needed; {remedy}"
    )


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
        matched = known_columns(names)
        missing = [role for role in ROLES[:3] if role not in matched]
        if missing:
            raise DataError(
                f"cannot tell which column of {path} is the {missing[0]}: it has {', '.join(names)}; "
                "give the columns as user,item,rating[,timestamp]"
            )
        chosen = tuple(names[matched[role]] for role in ROLES if role in matched)
    for one in chosen:
        if names.count(one) > 1:
            raise DataError(
                f"{path} has {names.count(one)} columns called {one!r}, which can only be told apart by "
                "name: rename all but one"
            )
    watched = TIME_KEYS if format == "jsonl" and wanted is None and len(chosen) < len(ROLES) else ()
    return Layout(format, True, 0, len(names), (), chosen, watched=watched)
