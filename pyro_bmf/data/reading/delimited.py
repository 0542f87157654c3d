"""Ratings from delimited text (CSV, TSV, ``::`` ...), ids kept exactly.

Ids never pass through floating point: text is dictionary-encoded as it is read, and only a column whose
distinct ids are *all* canonical integers (no sign or zero in front, no fraction) becomes int64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from ...errors import DataError
from ..notices import notice, warn
from ..raw_columns import RawColumns
from . import fields, times
from .column_names import ROLES
from .counts import ReadCounts
from .dialect import BLANKS, Dialect, MarkTakenError, NotUtf8Error
from .layout import DELIMITERS, Layout
from .text import TextSource

_CODED = pa.dictionary(pa.int32(), pa.string())
_CODED_BYTES = pa.dictionary(pa.int32(), pa.binary())
_MARKS = "\x1f\x1e\x1c\x1d\x01\x02"
_LARGEST = (1 << 31) - 1
Opener = Callable[[], IO[bytes]]


def read_delimited(
    opener: Opener,
    name: str,
    layout: Layout,
    text_ids: tuple[bool | None, bool | None],
    *,
    line_ends: bool = False,
) -> RawColumns:
    """Read the rating columns of delimited text.

    Parameters
    ----------
    opener
        Opens the file's bytes.
    name
        What to call the file.
    layout
        How to read it.
    text_ids
        For user and item: True keeps ids as text even when all are integers.
    line_ends
        Whether quoted ids may hold line ends; a file of this software's own may.

    Raises
    ------
    DataError
        Naming the line and value that cannot be used.
    """
    encoding: str | None = None
    marks = iter(_MARKS)
    mark = next(marks)
    while True:
        dialect = Dialect(DELIMITERS[layout.format], layout.quoting, mark, layout.padded, not line_ends)
        try:
            return _read(opener, name, layout, dialect, encoding, text_ids, line_ends)
        except NotUtf8Error:
            if encoding is not None:
                raise DataError(f"{name} is neither UTF-8 nor latin-1: write it again as UTF-8") from None
            notice(f"{name} is not UTF-8: read as latin-1")
            encoding = "latin-1"
        except MarkTakenError:
            # One byte that the file does not use stands for the two colons: the fast parser wants one.
            mark = next(marks, "")
            if not mark:
                raise DataError(
                    f"{name} holds control characters: it cannot be read as a '{layout.format}' file"
                ) from None


def _read(
    opener: Opener,
    name: str,
    layout: Layout,
    dialect: Dialect,
    encoding: str | None,
    text_ids: tuple[bool | None, bool | None],
    line_ends: bool,
) -> RawColumns:
    kind = _CODED_BYTES if dialect.quoting else _CODED
    roles = ROLES[: len(layout.positions)]
    plain: dict[str, pa.DataType] = dict.fromkeys(roles, kind)
    typed = plain | {"rating": pa.float64()} | ({"timestamp": pa.int64()} if "timestamp" in plain else {})
    # Most files hold plain numbers, which is the fast way; others say where they do not.
    for types in (typed, plain):
        source = TextSource(
            opener,
            name,
            dialect,
            encoding=encoding,
            skip=layout.skip,
            shape=(layout.n_columns, layout.positions[2]),
        )
        try:
            table = _parse(source, layout, types)
            if types is plain or bool(np.isfinite(table.column("rating").to_numpy()).all()):
                break
        except pa.ArrowInvalid as error:
            if "UTF8" in str(error) or "UTF-8" in str(error):
                raise NotUtf8Error from None
            wrong = source.other_shape(layout.n_columns)
            if wrong is not None:
                line, n_fields, quotes = wrong
                other = "none" if dialect.quoting else "csv"
                quoting = f", or say quoting {other} (--quoting {other}) for its quotes" if quotes else ""
                raise DataError(
                    f"line {line} of {name} has {n_fields} field{'s' if n_fields != 1 else ''} where the "
                    f"first line has {layout.n_columns}: correct the line, or give the format "
                    f"({layout.format} was used){quoting}"
                ) from None
            if types is plain:
                raise DataError(f"{name} cannot be read as {layout.format}: {error}") from None
    place = source.place
    counts = source.counts
    if table.num_rows + layout.skip != counts.records:
        raise DataError(
            f"{name}: {counts.records - layout.skip:,} lines of data gave {table.num_rows:,} rows: give the "
            f"format ({layout.format} was used)"
        )
    if counts.doubtful and not line_ends:
        warn(
            f"{name}: {counts.doubtful:,} lines within quoted text look like ratings, and were taken for "
            "text: if the quotes are characters there, say quoting none (--quoting none)"
        )
    # What was read as latin-1 may be Windows-1252, where NEL's byte is an ellipsis.
    blanks = BLANKS if encoding is None else BLANKS.replace("\x85", "")
    found = {
        role: fields.texts(
            table.column(role), dialect, role, place, line_ends=line_ends and role in ROLES[:2], blanks=blanks
        )
        for role in roles
        if types[role] is kind
    }
    if not dialect.quoting:
        for role in ROLES[:2]:
            if fields.all_quoted(found[role]):
                warn(
                    f"{name}: every {role} id begins and ends with a quote, which is taken for a part of it: "
                    "if it is not, say quoting csv (--quoting csv)"
                )
    columns = [
        fields.ids(found[role], role, bool(as_text), place)
        for role, as_text in zip(ROLES[:2], text_ids, strict=True)
    ]
    ratings = (
        fields.numbers(
            found["rating"],
            place,
            name,
            commas=layout.format != "csv",
            quoting=layout.quoting,
            header=layout.header,
        )
        if "rating" in found
        else np.array(table.column("rating").to_numpy(), dtype=np.float64)
    )
    stamps: times.Stamps | None = None
    if "timestamp" in found:
        stamps = times.of_texts(found["timestamp"][1], found["timestamp"][0], place)
    elif "timestamp" in types:
        stamps = times.of_column(table.column("timestamp"), place)
    seconds, ticks = stamps or (None, 1)
    if layout.whole_seconds and seconds is not None:
        seconds, ticks = seconds // ticks, 1
    used = ReadCounts(counts.lines, layout.skip, counts.blank, counts.quoted, table.num_rows)
    return RawColumns(*columns[0], *columns[1], ratings, seconds, place, ticks, used)


def _parse(source: TextSource, layout: Layout, types: dict[str, pa.DataType]) -> pa.Table:
    names = [f"column{position}" for position in range(layout.n_columns)]
    for role, position in zip(ROLES, layout.positions, strict=False):
        names[position] = role
    convert = pcsv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=False
    )
    parse = pcsv.ParseOptions(delimiter=source.dialect.byte, quote_char=False)
    size = 1 << 22
    while True:
        again = TextSource(
            source.opener, source.name, source.dialect, encoding=source.encoding, skip=source.skip,
            shape=source.shape,
        )  # fmt: skip
        try:
            table = pcsv.read_csv(
                again, pcsv.ReadOptions(column_names=names, block_size=size), parse, convert
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):
                raise DataError(
                    f"{source.name} holds no ratings, only a header: a ratings file has a line for each"
                ) from None
            if "straddl" not in str(error) or size >= _LARGEST:
                raise
            size = min(size * 16, _LARGEST)
            continue
        source.counts = again.counts
        return table
