"""Reading ratings from text (CSV, TSV, ``::`` ...), parquet and JSON lines, ids kept exactly.

Parquet and JSON carry types, which are kept: integers stay integers, text stays text; `delimited` reads text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...errors import DataError
from ..raw_columns import RawColumns
from . import fields, json_lines, times
from .column_names import ROLES, Columns
from .containers import RatingsFile, open_source
from .counts import ReadCounts
from .delimited import read_delimited
from .foreign import FOREIGN_PARQUET, located
from .layout import Given, Layout, detect, table_layout


def read_raw(
    path: Path | str | RatingsFile,
    given: Given,
    *,
    text_ids: tuple[bool | None, bool | None] = (None, None),
    line_ends: bool = False,
) -> RawColumns:
    """Read the rating columns of a file.

    Parameters
    ----------
    path
        The file, or what `open_source` made of it; gzip, bzip2, xz and Zstandard are unpacked on the way.
    given
        How it is written, as far as the user says.
    text_ids
        For user and item: True keeps ids as text even when all are integers, None decides by the ids.
    line_ends
        Whether quoted ids may hold line ends.

    Raises
    ------
    DataError
        Naming the line and value that cannot be used.
    """
    path = open_source(path)
    layout = detect(path, given)
    if layout.format == "parquet":
        return _read_parquet(path, layout)
    if layout.format == "jsonl":
        return _read_json(path, layout)
    return read_delimited(path.open, path.name, layout, text_ids, line_ends=line_ends)


# --- parquet and JSON lines: columns carry types --------------------------------------------------


def _read_parquet(path: RatingsFile, layout: Layout) -> RawColumns:
    with located(f"{path} is damaged, or cannot be read as parquet", "write it again", FOREIGN_PARQUET):
        # Pages that carry a checksum are compared with it.
        file = pq.ParquetFile(path.arrow(), page_checksum_verification=True)
        table = file.read(columns=list(layout.names))
        table.validate(full=True)  # Arrow takes text that is no UTF-8, and places beyond a column's end
    if table.num_rows == 0:
        raise DataError(f"{path} holds no ratings: a ratings file has a row for each rating")
    return _from_table(table, layout, lambda row: f"row {row} (counted from 0) of {path.name}")


def _read_json(path: RatingsFile, layout: Layout) -> RawColumns:
    table, place, counts = json_lines.read_table(path.open, path.name, layout.names, layout.watched)
    raw = _from_table(table, layout, place)
    raw.counts = ReadCounts(counts.lines, 0, counts.blank, 0, table.num_rows)
    return raw


def raw_of_table(table: pa.Table, columns: Columns | None, name: str) -> RawColumns:
    """Take the rating columns of a table in memory; see `read_raw`."""
    layout = table_layout(table.column_names, columns, name)
    table = table.select(list(layout.names))
    if table.num_rows == 0:
        raise DataError(f"{name} holds no ratings: a row for each rating is needed")
    with located(f"{name} cannot be used", "make the text UTF-8", FOREIGN_PARQUET):
        table.validate(full=True)
        # Polars gives text as views, which the rest of Arrow does little with.
        views = [pa.types.is_string_view(field.type) for field in table.schema]
        fields = [
            field.with_type(pa.large_string()) if view else field
            for field, view in zip(table.schema, views, strict=True)
        ]
        table = table.cast(pa.schema(fields)) if any(views) else table
    return _from_table(table, layout, lambda row: f"row {row} (counted from 0)")


def _from_table(table: pa.Table, layout: Layout, place: Callable[[int], str]) -> RawColumns:
    table = table.rename_columns(list(ROLES[: len(layout.names)]))
    ids = [_typed_ids(table.column(role), role, place) for role in ("user", "item")]
    rating = table.column("rating")
    if pa.types.is_dictionary(rating.type):
        rating = rating.cast(rating.type.value_type)
    if not (
        pa.types.is_integer(rating.type)
        or pa.types.is_floating(rating.type)
        or pa.types.is_decimal(rating.type)
    ):
        raise DataError(
            f"the rating in {place(0)} is {fields.shortened(rating[0].as_py())}, and the column of type "
            f"{rating.type}: ratings must be numbers; convert the column first"
        )
    # Not safe: whole numbers beyond 2^53 take the nearest double, as they do from text.
    ratings = fields.finite(np.array(rating.cast(pa.float64(), safe=False).to_numpy(), np.float64), place)
    stamps = times.of_column(table.column("timestamp"), place) if len(layout.names) > 3 else None
    timestamps, ticks = stamps or (None, 1)
    if layout.whole_seconds and timestamps is not None:
        timestamps, ticks = timestamps // ticks, 1
    return RawColumns(*ids[0], *ids[1], ratings, timestamps, place, ticks, ReadCounts.of_rows(len(ratings)))


def _typed_ids(
    column: pa.ChunkedArray, role: str, place: Callable[[int], str]
) -> tuple[NDArray[Any], NDArray[Any]]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise DataError(f"the {role} id in {place(row)} is missing")
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(
            f"the {role} id in {place(0)} is {fields.shortened(column[0].as_py())}, and the column of "
            f"type {kind}: ids must be integers or text; convert the column first, so that no id changes on "
            "the way"
        )
    codes, values = fields.coded(column)
    if pa.types.is_integer(kind):
        try:
            return codes, np.asarray(values.cast(pa.int64()).to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid:
            largest = pc.max(values)
            row = int(np.argmax(codes == pc.index(values, largest).as_py()))
            raise DataError(
                f"the {role} id in {place(row)} is {largest}, which does not fit 64 bits with a sign: give "
                "the ids as text"
            ) from None
    _check_texts(codes, values, role, place)
    blank = pc.index(values, "").as_py() if len(values) else -1
    if blank >= 0:
        raise DataError(f"the {role} id in {place(int(np.argmax(codes == blank)))} is empty")
    return codes, np.asarray(values.to_numpy(zero_copy_only=False), dtype=object)


def _check_texts(codes: NDArray[Any], values: pa.Array, role: str, place: Callable[[int], str]) -> None:
    """Refuse text that is no UTF-8, which JSON and parquet files may hold all the same."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        wrong = next(k for k, value in enumerate(values.cast(pa.binary())) if not _is_utf8(value.as_py()))
        row = int(np.argmax(codes == wrong))
        raise DataError(
            f"the {role} id in {place(row)} is not UTF-8: write the file again as UTF-8"
        ) from None


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
