"""Reading ratings from text (CSV, TSV, ``::`` ...), parquet and JSON lines, ids kept exactly.

Ids never pass through floating point: text is dictionary-encoded as it is read, and only a column whose
distinct ids are *all* canonical integers (no sign or zero in front, no fraction) becomes int64. Parquet and
JSON carry types, which are kept: integers stay integers, text stays text.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.json as pjson
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import DataError
from . import times
from .border import RawColumns
from .containers import RatingsFile, open_source
from .foreign import FOREIGN_PARQUET, located, reason
from .layout import (
    DELIMITERS,
    ROLES,
    Columns,
    Layout,
    detect,
    head_of,
    records,
    table_layout,
    text_lines,
)
from .notices import notice

_CANONICAL = r"^(0|-?[1-9][0-9]{0,18})$"
_ID = pa.dictionary(pa.int32(), pa.string())


def read_raw(
    path: Path | str | RatingsFile,
    *,
    format: str | None = None,
    columns: Columns | None = None,
    header: bool | None = None,
    text_ids: tuple[bool | None, bool | None] = (None, None),
) -> RawColumns:
    """Read the rating columns of a file.

    Parameters
    ----------
    path
        The file, or what `open_source` made of it; gzip, bzip2, xz and Zstandard are unpacked on the way.
    format
        One of `layout.FORMATS`; None tells it from the name and the first lines.
    columns
        User, item, rating and perhaps timestamp, by header name or by position counted from 0.
    header
        Whether the first line names the columns; None tells it from the first lines.
    text_ids
        For user and item: True keeps ids as text even when all are integers, None decides by the ids.

    Raises
    ------
    DataError
        Naming the line and value that cannot be used.
    """
    path = open_source(path)
    layout = detect(path, format, columns, header)
    if layout.format == "parquet":
        return _read_parquet(path, layout)
    if layout.format == "jsonl":
        return _read_json(path, layout)
    return _read_text(path, layout, text_ids)


# --- text ---------------------------------------------------------------------------------------------------


def _read_text(path: RatingsFile, layout: Layout, text_ids: tuple[bool | None, bool | None]) -> RawColumns:
    place = _text_place(path, layout)
    timestamp = _timestamp_type(path, layout)
    types: dict[str, pa.DataType] = {"user": _ID, "item": _ID, "rating": pa.float64()}
    if timestamp is not None:
        types["timestamp"] = timestamp
    try:
        table = _parse(path, layout, types)
    except pa.ArrowInvalid:
        # Something is not a number: read those columns as text, to find it and say where it stands.
        types = {role: _ID if role in ("user", "item") else pa.string() for role in types}
        try:
            table = _parse(path, layout, types)
        except pa.ArrowInvalid as error:
            raise _shape_error(path, layout, error) from None
    ids = []
    for role, as_text in zip(("user", "item"), text_ids, strict=True):
        codes, values = _codes(table.column(role))
        blank = pc.index(values, "").as_py()
        if blank >= 0:
            raise DataError(f"the {role} id in {place(int(np.argmax(codes == blank)))} is empty")
        ids.append((codes, _distinct_ids(values, bool(as_text))))
    ratings = _rating_numbers(table.column("rating"), place)
    stamps = times.of_column(table.column("timestamp"), place) if "timestamp" in types else None
    timestamps, ticks = stamps or (None, 1)
    return RawColumns(*ids[0], *ids[1], ratings, timestamps, place, ticks)


def _parse(path: RatingsFile, layout: Layout, types: dict[str, pa.DataType]) -> pa.Table:
    """Parse the wanted columns; text that is not UTF-8 is read as latin-1."""
    delimiter = DELIMITERS[layout.format]
    data: bytes | None = None
    if layout.format == "::":
        with path.open() as file:
            data = file.read()
        # One byte that the file does not use stands for the two colons: the fast parser wants one.
        delimiter = next((mark for mark in "\t\x1f\x1e\x01\x02" if mark.encode() not in data), "")
        if not delimiter:
            raise DataError(f"{path} holds control characters: it cannot be read as a '::' file")
        data = data.replace(b"::", delimiter.encode())
    quoted = layout.format != "::" and _holds_quote(path)
    names = [f"column{position}" for position in range(layout.n_columns)]
    for role, position in zip(ROLES, layout.positions, strict=False):
        names[position] = role
    convert = pcsv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=False
    )
    encoding, across_lines = "utf8", False
    while True:
        # A quoted field may run over line ends, but parsing for that is slower: it is tried second.
        parse = pcsv.ParseOptions(
            delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=across_lines
        )
        read = pcsv.ReadOptions(
            column_names=names, skip_rows=layout.skip, encoding=encoding, block_size=1 << 22
        )
        try:
            if data is not None:
                return pcsv.read_csv(pa.BufferReader(data), read, parse, convert)
            return pcsv.read_csv(path.arrow(), read, parse, convert)
        except pa.ArrowInvalid as error:
            if "UTF8" in str(error) and encoding == "utf8":
                notice(f"{path.name} is not UTF-8: read as latin-1")
                encoding = "latin1"
            elif quoted and not across_lines:
                across_lines = True
            else:
                raise
        except OSError as error:
            raise DataError(f"{path} cannot be read ({reason(error)}): see that it is whole") from None


def _holds_quote(path: RatingsFile) -> bool:
    with path.open() as file:
        return any(b'"' in chunk for chunk in iter(lambda: file.read(1 << 24), b""))


def _timestamp_type(path: RatingsFile, layout: Layout) -> pa.DataType | None:
    """Guess how timestamps are written from the first lines; a wrong guess is mended later."""
    if len(layout.positions) < 4:
        return None
    rows = records(text_lines(head_of(path))[1 if layout.header else 0 : 50], layout.format)
    fields = [row[layout.positions[3]] for row in rows if len(row) > layout.positions[3]]
    if all(field.strip().lstrip("-").isdecimal() for field in fields):
        return pa.int64()
    return pa.string()


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.Array]:
    """Return each row's position among the distinct values, and those values."""
    if column.num_chunks == 0:
        return np.zeros(0, dtype=np.int32), pa.array([], pa.string())
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    combined = column.unify_dictionaries().combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        combined = combined.chunk(0) if combined.num_chunks else pa.array([], _ID)
    return combined.indices.to_numpy(zero_copy_only=False), combined.dictionary


def _distinct_ids(values: pa.Array, as_text: bool) -> NDArray[Any]:
    if not as_text and len(values) and pc.all(pc.match_substring_regex(values, _CANONICAL)).as_py():
        try:
            return np.asarray(values.cast(pa.int64()).to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid:
            pass  # 19 digits may be more than 64 bits hold: then they stay text
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=object)


def _rating_numbers(column: pa.ChunkedArray, place: Callable[[int], str]) -> NDArray[np.float64]:
    if pa.types.is_floating(column.type):
        numbers = column.to_numpy()
    else:
        numbers = pd.to_numeric(pd.Series(column.to_numpy(), dtype=object), errors="coerce").to_numpy(
            np.float64
        )
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        row = int(bad[0])
        value = column[row].as_py()
        what = "is missing" if value in (None, "") else f"is {value!r}, not a finite number"
        more = f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""
        raise DataError(f"the rating in {place(row)} {what}{more}: correct or remove it")
    return np.asarray(numbers, dtype=np.float64)


def _text_place(path: RatingsFile, layout: Layout) -> Callable[[int], str]:
    """Return a function that tells the line of a row; it walks the file, so only an error calls it."""

    def place(row: int) -> str:
        wanted = row + (1 if layout.header else 0)
        with path.open() as file:
            text = io.TextIOWrapper(file, encoding="latin-1", newline="")
            found = next(itertools.islice(_field_counts(text, layout), wanted, None), None)
        return f"line {found[0] if found else '?'} of {path.name}"

    return place


def _shape_error(path: RatingsFile, layout: Layout, error: Exception) -> DataError:
    """Find the first line with another number of fields; only an error gets here."""
    with path.open() as file:
        text = io.TextIOWrapper(file, encoding="latin-1", newline="")
        try:
            for number, found in _field_counts(text, layout):
                if found != layout.n_columns:
                    return DataError(
                        f"line {number} of {path.name} has {found} fields where the "
                        f"first line has {layout.n_columns}: correct the line, or give the format "
                        f"({layout.format} was used)"
                    )
        except csv.Error as problem:
            return DataError(f"{path.name} cannot be read as {layout.format}: {problem}")
    return DataError(f"{path.name} cannot be read as {layout.format}: {error}")


def _field_counts(text: io.TextIOWrapper, layout: Layout) -> Iterator[tuple[int, int]]:
    """Give the line number and the number of fields of each filled line."""
    if layout.format == "::":
        for number, line in enumerate(text, 1):
            if line.strip("\r\n"):
                yield number, line.rstrip("\r\n").count("::") + 1
    else:
        reader = csv.reader(text, delimiter=DELIMITERS[layout.format])
        for record in reader:
            if record:
                yield reader.line_num, len(record)


# --- parquet and JSON lines: columns carry types --------------------------------------------------


def _read_parquet(path: RatingsFile, layout: Layout) -> RawColumns:
    with located(f"{path} is damaged, or cannot be read as parquet", "write it again", FOREIGN_PARQUET):
        # Pages that carry a checksum are compared with it.
        file = pq.ParquetFile(path.arrow(), page_checksum_verification=True)
        table = file.read(columns=list(layout.names))
    return _from_table(table, layout, lambda row: f"row {row} (counted from 0) of {path.name}")


def _read_json(path: RatingsFile, layout: Layout) -> RawColumns:
    lines = head_of(path).removeprefix(b"\xef\xbb\xbf").splitlines()
    first = json.loads(next(line for line in lines if line.strip()))
    types = [_json_type(first.get(name)) for name in layout.names]
    types[2] = pa.float64()
    schema = pa.schema(list(zip(layout.names, types, strict=True)))
    parse = pjson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    place = _json_place(path)
    try:
        table = pjson.read_json(path.arrow(), pjson.ReadOptions(block_size=1 << 24), parse)
    except pa.ArrowInvalid as error:
        raise _json_error(path, layout, types, error) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({reason(error)}): see that it is whole") from None
    return _from_table(table, layout, place)


def _json_type(value: object) -> pa.DataType:
    if isinstance(value, bool) or value is None:
        return pa.string()
    if isinstance(value, int):
        return pa.int64()
    return pa.float64() if isinstance(value, float) else pa.string()


def _json_place(path: RatingsFile) -> Callable[[int], str]:
    def place(row: int) -> str:
        with path.open() as file:
            filled = (number for number, line in enumerate(file, 1) if line.strip())
            return f"line {next(itertools.islice(filled, row, None), None)} of {path.name}"

    return place


def _json_error(path: RatingsFile, layout: Layout, types: list[pa.DataType], error: Exception) -> DataError:
    """Find the first line that is no object, or whose fields are of another type than the first line's."""
    with path.open() as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            except ValueError as problem:
                return DataError(f"line {number} of {path.name} is not a JSON object: {problem}")
            if not isinstance(record, dict):
                return DataError(f"line {number} of {path.name} is not a JSON object")
            for name, expected in zip(layout.names, types, strict=True):
                value = record.get(name)
                kind = _json_type(value)
                fits = kind == expected or (expected == pa.float64() and kind == pa.int64())
                if value is not None and (not fits or isinstance(value, (bool, list, dict))):
                    return DataError(
                        f"{name} in line {number} of {path.name} is {value!r}, where {expected} is "
                        "expected: ids keep the type of the first line, ratings are numbers"
                    )
    return DataError(f"{path.name} cannot be read as JSON lines: {error}")


def raw_of_table(table: pa.Table, columns: Columns | None, name: str) -> RawColumns:
    """Take the rating columns of a table in memory; see `read_raw`."""
    layout = table_layout(table.column_names, columns, name)
    return _from_table(table.select(list(layout.names)), layout, lambda row: f"row {row} (counted from 0)")


def _from_table(table: pa.Table, layout: Layout, place: Callable[[int], str]) -> RawColumns:
    table = table.rename_columns(list(ROLES[: len(layout.names)]))
    ids = [_typed_ids(table.column(role), role, place) for role in ("user", "item")]
    rating = table.column("rating")
    if not (
        pa.types.is_integer(rating.type)
        or pa.types.is_floating(rating.type)
        or pa.types.is_decimal(rating.type)
    ):
        raise DataError(f"ratings are of type {rating.type}: they must be numbers; convert the column first")
    ratings = _rating_numbers(rating.cast(pa.float64()), place)
    stamps = times.of_column(table.column("timestamp"), place) if len(layout.names) > 3 else None
    timestamps, ticks = stamps or (None, 1)
    return RawColumns(*ids[0], *ids[1], ratings, timestamps, place, ticks)


def _typed_ids(
    column: pa.ChunkedArray, role: str, place: Callable[[int], str]
) -> tuple[NDArray[Any], NDArray[Any]]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise DataError(f"the {role} id in {place(row)} is missing")
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(
            f"{role} ids are of type {kind}: they must be integers or text; convert the column first, so "
            "that no id changes on the way"
        )
    codes, values = _codes(column)
    if pa.types.is_integer(kind):
        try:
            return codes, np.asarray(values.cast(pa.int64()).to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid:
            raise DataError(f"a {role} id does not fit 64 bits with a sign: give the ids as text") from None
    blank = pc.index(values, "").as_py() if len(values) else -1
    if blank >= 0:
        raise DataError(f"the {role} id in {place(int(np.argmax(codes == blank)))} is empty")
    return codes, np.asarray(values.to_numpy(zero_copy_only=False), dtype=object)
