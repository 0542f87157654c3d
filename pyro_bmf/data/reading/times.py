"""Timestamps as exact whole numbers: seconds, or thousandths, millionths or billionths of them.

A time never passes through floating point: decimals are read as decimals and dates as dates, so two ratings
a nanosecond apart keep their order. The unit is the coarsest in which all are whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from ...errors import DataError
from ..notices import notice

#: How many parts of a second a timestamp may count.
TICKS = (1, 1_000, 1_000_000, 1_000_000_000)
_DECIMAL = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"
_BEGINS_AS_DATE = r"^[-+]?[0-9]{4}"
_FINER = r"\.[0-9]{9}[0-9]*[1-9]"
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
#: Seconds since 1970 that are read as dates: what counts from elsewhere is rarely among them.
_SINCE_1980, _UNTIL_2100 = 315_532_800, 4_102_444_800
_REMEDY = "use numbers or ISO dates throughout, or name only the user, item and rating columns"

Stamps = tuple[NDArray[np.int64], int]


def coarsest(stamps: NDArray[np.int64], ticks: int) -> Stamps:
    """Return the same times in the coarsest unit in which all are whole.

    Parameters
    ----------
    stamps
        Times, int64, shape (n,).
    ticks
        In how many parts of a second they count; one of `TICKS`.
    """
    for coarse in TICKS:
        step = ticks // coarse
        if coarse < ticks and not bool((stamps % step).any()):
            return stamps // step, coarse
    return stamps, ticks


def alike(times: list[Stamps]) -> tuple[list[NDArray[np.int64]], int]:
    """Bring times of several files to the finest of their units.

    Raises
    ------
    DataError
        When one does not fit 64 bits in that unit.
    """
    finest = max(ticks for _, ticks in times)
    result = []
    for stamps, ticks in times:
        factor = finest // ticks
        if len(stamps) and int(np.abs(stamps).max()) > np.iinfo(np.int64).max // factor:
            raise DataError(
                f"timestamps of one file count in 1/{finest:,} of a second and those of another lie too far "
                "from 1970 for that: write them in one unit"
            )
        result.append(stamps * factor)
    return result, finest


def first_at(point: float | Fraction, ticks: int) -> int:
    """Return the first whole timestamp that does not lie before `point`, which is in seconds."""
    exact = point if isinstance(point, (int, Fraction)) else Fraction(repr(float(point)))
    return math.ceil(exact * ticks)


def in_seconds(stamp: int, ticks: int) -> int | str:
    """Return a timestamp in seconds, exactly: a whole number, or its decimals as text."""
    whole, part = divmod(stamp, ticks)
    if part == 0:
        return whole
    # Exact: a float has no room for nanoseconds since 1970.
    digits = len(str(ticks)) - 1
    sign, size = ("-", -stamp) if stamp < 0 else ("", stamp)
    return f"{sign}{size // ticks}.{size % ticks:0{digits}d}".rstrip("0")


def of_texts(
    values: pa.Array, codes: NDArray[Any], place: Callable[[int], str], shown: pa.Array | None = None
) -> Stamps | None:
    """Read times written as numbers or as ISO dates (UTC where they name no zone).

    Parameters
    ----------
    values
        Distinct texts without blanks around them.
    codes
        Which of them each row holds, shape (n,).
    place
        Tells where a row stands.

    Returns
    -------
    stamps, ticks
        Or None when every one is empty.

    Raises
    ------
    DataError
        Naming the first that is no time.
    """
    values = values.cast(pa.string()).fill_null("")
    used = np.bincount(codes, minlength=len(values)) > 0
    empty = pc.equal(values, "").to_numpy(zero_copy_only=False)
    if bool(empty[used].all()):
        return None
    number = pc.match_substring_regex(values, _DECIMAL).to_numpy(zero_copy_only=False)
    if bool(number[used].all()):
        stamps, ticks = _decimals(values, codes, place)
        return coarsest(stamps[codes], ticks)
    dates = pd.to_datetime(
        pd.Series(values.to_numpy(zero_copy_only=False), dtype=object), errors="coerce", utc=True,
        format="ISO8601",
    )  # fmt: skip
    # pandas takes "now" and "today" for times as well.
    spelled = pc.match_substring_regex(values, _BEGINS_AS_DATE).to_numpy(zero_copy_only=False)
    no_date = dates.isna().to_numpy() | number | ~spelled
    if not bool(no_date[used].any()):
        if pc.any(pc.match_substring_regex(values, _FINER)).as_py():
            notice(f"timestamps are finer than the {10**9:,}th part of a second: the rest is cut")
        ticks = _UNITS[str(dates.dt.unit)]
        return coarsest(np.asarray(dates.astype("int64"), dtype=np.int64)[codes], ticks)
    bad_number, bad_date = ~number[codes], no_date[codes]
    row = int(np.argmax(bad_number if bad_number.sum() <= bad_date.sum() else bad_date))  # the rarer slips
    raise DataError(f"the timestamp in {place(row)} is {values[codes[row]].as_py()!r}: {_REMEDY}")


def of_column(column: pa.ChunkedArray, place: Callable[[int], str]) -> Stamps | None:
    """Read a typed column: integers and dates as they are, other numbers by their shortest decimals.

    Raises
    ------
    DataError
        Naming a row without a time, or whose time is none.
    """
    if column.null_count == len(column):
        return None
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise DataError(f"the timestamp in {place(row)} is missing: {_REMEDY}")
    kind = column.type
    if pa.types.is_integer(kind):
        try:
            return np.array(column.cast(pa.int64()).to_numpy(), dtype=np.int64), 1
        except pa.ArrowInvalid:
            row = int(np.argmax(column.to_numpy()))
            raise DataError(
                f"the timestamp in {place(row)} is {column[row]}, more than 64 bits hold"
            ) from None
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(kind) else "ms"))
    if pa.types.is_timestamp(column.type):
        return coarsest(np.array(column.cast(pa.int64()).to_numpy()), _UNITS[column.type.unit])
    if pa.types.is_floating(kind):
        return _floats(column.cast(pa.float64()).to_numpy(), place)
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or is_decimal(column.type):
        coded = column.cast(pa.string()).combine_chunks().dictionary_encode()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.chunk(0)
        trimmed = pc.utf8_trim_whitespace(coded.dictionary)
        return of_texts(trimmed, coded.indices.to_numpy(zero_copy_only=False), place)
    raise DataError(f"timestamps are of type {kind}: they must be numbers, dates or ISO dates; {_REMEDY}")


def of_array(values: ArrayLike, place: Callable[[int], str]) -> Stamps:
    """Read times of Python: whole numbers, floats (by their shortest decimals), dates.

    Raises
    ------
    DataError
        For anything else, and for a time that is missing or infinite.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"timestamps must be one column, not an array of shape {array.shape}")
    if array.dtype.kind == "O":
        array = np.asarray(with_nanoseconds(pd.Series(array, dtype=object)))
    if array.dtype.kind == "M":
        unit = np.datetime_data(array.dtype)[0]
        if unit in ("ps", "fs", "as"):
            notice(f"timestamps are finer than the {10**9:,}th part of a second: the rest is cut")
            unit = "ns"
        array = array.astype(f"datetime64[{unit if unit in _UNITS else 's'}]")
        missing = np.isnat(array)
        if bool(missing.any()):
            raise DataError(f"the timestamp in {place(int(np.argmax(missing)))} is missing: {_REMEDY}")
        return coarsest(array.astype(np.int64), _UNITS[np.datetime_data(array.dtype)[0]])
    if array.dtype.kind == "f":
        return _floats(array.astype(np.float64), place)
    if array.dtype.kind in "iu" and not (array.dtype == np.uint64 and bool((array >= 2**63).any())):
        return array.astype(np.int64), 1
    if array.dtype.kind == "O":
        try:
            column = pa.chunked_array([pa.array(array, from_pandas=True)])
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            column = None
        found = None if column is None else of_column(column, place)
        if found is not None:
            return found
    raise DataError(f"timestamps must be numbers of at most 64 bits or dates, not {array.dtype}")


def with_nanoseconds(column: pd.Series[Any]) -> pd.Series[Any]:
    """Make a column of single time stamps one of times in UTC, none of them cut; leave others as they are.

    Arrow takes such objects for microseconds.
    """
    if pd.api.types.infer_dtype(column, skipna=True) not in ("datetime", "datetime64"):
        return column
    return pd.to_datetime(column, utc=True, errors="coerce").dt.tz_localize(None)


def is_decimal(kind: pa.DataType) -> bool:
    """Tell whether an Arrow type holds decimals."""
    return bool(pa.types.is_decimal(kind))


def _floats(numbers: NDArray[np.float64], place: Callable[[int], str]) -> Stamps:
    bad = ~np.isfinite(numbers)
    if bool(bad.any()):
        row = int(np.argmax(bad))
        raise DataError(f"the timestamp in {place(row)} is {numbers[row]}: {_REMEDY}")
    if bool((np.abs(numbers) < 2.0**63).all()) and bool((np.floor(numbers) == numbers).all()):
        return numbers.astype(np.int64), 1
    stamps, ticks = _decimals(pc.cast(pa.array(numbers), pa.string()), np.arange(len(numbers)), place)
    return coarsest(stamps, ticks)


def _decimals(values: pa.Array, codes: NDArray[Any], place: Callable[[int], str]) -> Stamps:
    """Read decimal numbers exactly, as whole billionths, or whatever coarser unit 64 bits hold."""
    try:
        exact = values.cast(pa.decimal128(38, 9))
        cut = False
    except pa.ArrowInvalid:
        sizes = np.abs(pd.to_numeric(pd.Series(values.to_pandas()), errors="coerce").to_numpy(np.float64))
        too_large = ~(sizes < 2.0**63)
        if bool(too_large[codes].any()):
            row = int(np.argmax(too_large[codes]))
            raise DataError(
                f"the timestamp in {place(row)} is {values[codes[row]].as_py()!r}, more than 64 bits hold"
            ) from None
        short = pc.replace_substring_regex(values, r"^([^eE]*\.[0-9]{30})[0-9]+", r"\1")
        try:
            exact = short.cast(pa.decimal256(76, 38)).cast(pa.decimal128(38, 9), safe=False)
        except pa.ArrowInvalid as error:
            raise DataError(f"timestamps cannot be read as numbers ({error}): {_REMEDY}") from None
        cut = True
    for digits in (9, 6, 3, 0):
        part = exact if digits == 9 else exact.cast(pa.decimal128(38, digits), safe=False)
        words = np.frombuffer(part.buffers()[1], dtype="<i8").reshape(-1, 2)
        words = words[part.offset : part.offset + len(part)]
        if bool((words[:, 1] == words[:, 0] >> 63).all()):
            same = pc.all(pc.equal(part.cast(pa.decimal128(38, 9), safe=False), exact)).as_py()
            cut = cut or not bool(same)
            if cut:
                notice(f"timestamps are finer than the {10**digits:,}th part of a second: the rest is cut")
            return words[:, 0].copy(), 10**digits
    row = int(np.argmax((words[:, 1] != words[:, 0] >> 63)[codes]))
    raise DataError(
        f"the timestamp in {place(row)} is {values[codes[row]].as_py()!r}, more than 64 bits hold"
    )


def period_words(first: int, last: int, ticks_per_second: int) -> str:
    """Return the time from one instant to another in words.

    Days in UTC where both lie in a year from 1980 to 2100 as seconds since 1970, else the numbers in seconds.
    """
    instants = first, last
    seconds = [instant // ticks_per_second for instant in instants]
    if all(_SINCE_1980 <= instant < _UNTIL_2100 for instant in seconds):
        days = [f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%d}" for instant in seconds]
        return f"of {days[0]}" if days[0] == days[1] else f"from {days[0]} to {days[1]}"
    begin, end = (in_seconds(instant, ticks_per_second) for instant in instants)
    return f"of time {begin}" if first == last else f"from time {begin} to {end}"
