"""Fields of text as they come from the parser, made into ids, ratings and times on their distinct values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...errors import DataError
from ..notices import notice
from .dialect import BLANKS, INNER_DELIMITER, INNER_END, INNER_RETURN, Dialect, NotUtf8Error

_CANONICAL = r"^(0|-?[1-9][0-9]{0,18})$"
_COMMA = r"^[-+]?([0-9]+,[0-9]*|,[0-9]+)([eE][-+]?[0-9]+)?$"
_POINT = r"\."

Coded = tuple[NDArray[Any], pa.Array]


def coded(column: pa.ChunkedArray) -> Coded:
    """Return each row's position among the distinct values, and those values."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if column.num_chunks == 0:
        return np.zeros(0, dtype=np.int32), pa.array([], column.type.value_type)
    combined = column.unify_dictionaries().combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        combined = combined.chunk(0) if combined.num_chunks else pa.array([], column.type)
    indices = combined.indices
    return (indices.fill_null(-1) if indices.null_count else indices).to_numpy(
        zero_copy_only=False
    ), combined.dictionary


def texts(
    column: pa.ChunkedArray,
    dialect: Dialect,
    role: str,
    place: Callable[[int], str],
    *,
    line_ends: bool = False,
    blanks: str = BLANKS,
) -> Coded:
    """Return a column's fields as texts: blanks around them gone, quotes taken off.

    Raises
    ------
    DataError
        For a line end within a quoted field, unless `line_ends` allows it.
    NotUtf8Error
        When the bytes are no UTF-8.
    """
    codes, values = coded(column)
    if dialect.quoting:
        ends = pc.match_substring(values, bytes([INNER_END]))
        if pc.any(ends).as_py():
            if not line_ends:
                row = int(np.argmax(ends.to_numpy(zero_copy_only=False)[codes]))
                raise DataError(
                    f"the quoted {role} in {place(row)} holds a line end: close the quote, take the line "
                    "end out, or say quoting none (--quoting none) if quotes are characters there"
                )
            values = pc.replace_substring(values, bytes([INNER_END]), b"\n")
        if line_ends:
            values = pc.replace_substring(values, bytes([INNER_RETURN]), b"\r")
        values = pc.replace_substring(values, bytes([INNER_DELIMITER]), dialect.delimiter.encode())
    try:
        values = values.cast(pa.string())
        values.validate(full=True)
    except pa.ArrowInvalid:
        raise NotUtf8Error from None
    # The first way of reading kept blanks around ids, but never around numbers.
    trimmed = dialect.padded or role not in ("user", "item")
    clean = pc.utf8_trim(values, blanks) if trimmed else values
    if dialect.quoting:
        within = pc.utf8_trim(values, " \t") if dialect.padded else values
        quoted = pc.starts_with(within, '"')
        inner = pc.replace_substring(pc.utf8_slice_codeunits(within, 1, -1), '""', '"')
        clean = pc.if_else(quoted, inner, clean)
    return _merged(codes, values, clean)


def all_quoted(found: Coded) -> bool:
    """Tell whether every one of the texts begins and ends with a quote."""
    values = found[1]
    return len(values) > 0 and bool(pc.all(pc.match_substring_regex(values, r'(?s)^".*"$')).as_py())


def _merged(codes: NDArray[Any], values: pa.Array, clean: pa.Array) -> Coded:
    """Give values that became equal one code."""
    if clean.equals(values):
        return codes, values
    encoded = clean.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False)[codes], encoded.dictionary


def ids(found: Coded, role: str, as_text: bool, place: Callable[[int], str]) -> tuple[Any, NDArray[Any]]:
    """Return codes and distinct ids: integers if all are written as such and fit 64 bits, else text.

    Raises
    ------
    DataError
        For an empty id.
    """
    codes, values = found
    blank = pc.index(values, "").as_py() if len(values) else -1
    if blank >= 0:
        raise DataError(f"the {role} id in {place(int(np.argmax(codes == blank)))} is empty")
    if not as_text and len(values) and pc.all(pc.match_substring_regex(values, _CANONICAL)).as_py():
        try:
            return codes, np.asarray(values.cast(pa.int64()).to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid:
            pass  # 19 digits may be more than 64 bits hold: then they stay text
    return codes, np.asarray(values.to_numpy(zero_copy_only=False), dtype=object)


def numbers(
    found: Coded, place: Callable[[int], str], name: str, *, commas: bool, quoting: bool, header: bool
) -> NDArray[np.float64]:
    """Return ratings as numbers; decimal commas count where the delimiter is none.

    `header`: the first line names the columns, so that it is none of these.

    Raises
    ------
    DataError
        Naming the first that is none.
    """
    codes, values = found
    plain = values
    if commas and len(values):
        with_comma = pc.match_substring_regex(values, _COMMA)
        with_point = pc.match_substring_regex(values, _POINT)
        if pc.any(with_comma).as_py() and not pc.any(with_point).as_py():
            plain = pc.replace_substring(values, ",", ".")
            notice(f"{name}: ratings are written with decimal commas, as {_first(values, with_comma)!r}")
    parsed = pd.to_numeric(
        pd.Series(plain.to_numpy(zero_copy_only=False), dtype=object), errors="coerce"
    ).to_numpy(np.float64)
    ratings = np.asarray(parsed[codes] if len(parsed) else np.zeros(0), dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(ratings))
    if len(bad):
        row = int(bad[0])
        value = values[codes[row]].as_py()
        remedy = "correct or remove it"
        if 1 < len(bad) == len(ratings):
            remedy = "name the columns by position, counted from 0, if this is not the rating's"
        if value in (None, ""):
            what = "is missing"
        else:
            what = f"is {shortened(value)}, not a finite number"
            if value.startswith('"') and not quoting:
                remedy = "say quoting csv (--quoting csv) if the quotes are not part of it, or correct it"
            elif "," in value and not commas:
                remedy = "write ratings with a decimal point, or part fields by something else than a comma"
            elif "," in value:
                remedy = "write all ratings with a decimal point, or all with a decimal comma"
            elif row == 0 and len(bad) == 1 < len(ratings) and not header and value[:1].isalpha():
                remedy = "leave out --no-header (header=False) if that line names the columns, or correct it"
        more = f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""
        raise DataError(f"the rating in {place(row)} {what}{more}: {remedy}")
    return ratings


def finite(ratings: NDArray[np.float64], place: Callable[[int], str]) -> NDArray[np.float64]:
    """Return ratings that the parser took for numbers, if all are finite.

    Raises
    ------
    DataError
        Naming the first that is not.
    """
    bad = np.flatnonzero(~np.isfinite(ratings))
    if len(bad):
        row = int(bad[0])
        value = ratings[row]
        what = "is missing (or NaN)" if np.isnan(value) else f"is {value}, not a finite number"
        more = f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""
        raise DataError(f"the rating in {place(row)} {what}{more}: correct or remove it")
    return ratings


def shortened(value: object) -> str:
    """Show a value, at most 60 characters of it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text) - 2:,} characters)"


def _first(values: pa.Array, which: pa.Array) -> str:
    return str(values.filter(which)[0].as_py())
