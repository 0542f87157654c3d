"""Ratings from JSON lines: one object a line, whose types are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import IO, Any, NoReturn

import pyarrow as pa
import pyarrow.json as pjson

from ...errors import DataError
from ..notices import notice
from .dialect import Dialect, LineCounts
from .fields import shortened
from .text import TextSource

_WHOLE = Dialect("")
_EXACT = pa.decimal128(38, 9)
_LARGEST = (1 << 31) - 1
Opener = Callable[[], IO[bytes]]


def first_object(opener: Opener, name: str) -> dict[str, Any]:
    """Return the object in the first filled line, however long that is.

    Raises
    ------
    DataError
        When it is none.
    """
    for number, line in _lines(TextSource(opener, name, _WHOLE)):
        return _object(line, number, name)
    raise DataError(f"{name} is empty: a ratings file has a line for each rating")


def read_table(
    opener: Opener, name: str, columns: tuple[str, ...], watched: tuple[str, ...] = ()
) -> tuple[pa.Table, Callable[[int], str], LineCounts]:
    """Read the user, item, rating and perhaps time of each line.

    Parameters
    ----------
    opener
        Opens the file's bytes.
    name
        What to call the file.
    columns
        Keys of user, item, rating and perhaps timestamp.
    watched
        Keys of times, which the first line lacks: where a later line holds one, a notice says that it is
        not read.

    Returns
    -------
    table
        A row for each filled line.
    place
        Tells the line of a row.
    counts
        How the lines were used.

    Raises
    ------
    DataError
        Naming the line that is no object, or whose value is of another type than the first line's.
    """
    first = first_object(opener, name)
    types = [_type(first.get(key)) for key in columns]
    types[2] = pa.float64()
    # Times may have decimals in some lines only: exact ones, if they can be.
    ladder = {pa.int64(): (pa.int64(), _EXACT, pa.float64()), pa.float64(): (_EXACT, pa.float64())}
    choices = ladder.get(types[3], (types[3],)) if len(columns) > 3 else (None,)
    error: Exception | None = None
    for choice in choices:
        tried = types if choice is None else [*types[:3], choice]
        try:
            table, source = _parse(opener, name, columns, tried, watched)
        except pa.ArrowInvalid as problem:
            error = error or problem
            continue
        if table.num_rows != source.counts.records:
            break  # an object over two lines, or two in one
        return table, source.place, source.counts
    _refuse(opener, name, columns, types, error)


def _parse(
    opener: Opener,
    name: str,
    columns: tuple[str, ...],
    types: list[pa.DataType],
    watched: tuple[str, ...] = (),
) -> tuple[pa.Table, TextSource]:
    """Parse all lines; columns of `watched` keys are to be empty, else they are told and left out."""
    if watched:
        nothing = [pa.null()] * len(watched)
        try:
            table, source = _parse(opener, name, (*columns, *watched), [*types, *nothing])
        except pa.ArrowInvalid:
            table, source = _parse(opener, name, columns, types)  # a file that is wrong otherwise ends here
            _tell_times(opener, name, watched)
        return table.select(columns), source
    schema = pa.schema(list(zip(columns, types, strict=True)))
    parse = pjson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    size = 1 << 24
    while True:
        source = TextSource(opener, name, _WHOLE)
        try:
            return pjson.read_json(source, pjson.ReadOptions(block_size=size), parse), source
        except pa.ArrowInvalid as error:
            if "straddl" not in str(error) or size >= _LARGEST:
                raise
            size = min(size * 16, _LARGEST)


def _tell_times(opener: Opener, name: str, watched: tuple[str, ...]) -> None:
    for number, line in _lines(TextSource(opener, name, _WHOLE)):
        record = _object(line, number, name)
        for key in watched:
            if record.get(key) is not None:
                notice(
                    f"{name}: line {number} has {key}, and the first line has not, so times are not read: "
                    "give each line one (or name three columns, which says that none are wanted)"
                )
                return


def _type(value: object) -> pa.DataType:
    if isinstance(value, bool) or value is None:
        return pa.string()
    if isinstance(value, int):
        return pa.int64()
    return pa.float64() if isinstance(value, float) else pa.string()


def _lines(source: TextSource) -> Iterator[tuple[int, bytes]]:
    number = 0
    for block in source.blocks():
        for line in block[:-1].split(b"\n"):
            number += 1
            if line.strip():
                yield number, line


def _object(line: bytes, number: int, name: str) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start + 1} is 0x{line[error.start]:02x}"
        raise DataError(
            f"line {number} of {name} is not UTF-8 ({byte}), as JSON must be: write the file again as UTF-8"
        ) from None
    try:
        record = json.loads(text)
    except RecursionError:
        raise DataError(
            f"line {number} of {name} is nested too deeply: write one flat object a line"
        ) from None
    except ValueError as problem:
        if not isinstance(problem, json.JSONDecodeError):  # Python reads no whole number of 4,301 digits
            raise DataError(
                f"line {number} of {name} holds a whole number of thousands of digits, which does not fit 64 "
                "bits: give the ids as text"
            ) from None
        if text.lstrip().startswith("["):
            what = "not a JSON object but the beginning of an array: write one object a line"
        else:
            what = f"not a JSON object ({_problem(problem)}): write one object a line"
        raise DataError(f"line {number} of {name} is {what}") from None
    if not isinstance(record, dict):
        raise DataError(
            f"line {number} of {name} is not a JSON object: write one object a line, not one array"
        )
    return record


def _problem(problem: ValueError) -> str:
    """Show what a JSON parser says, without the lines that it quotes."""
    return str(problem).splitlines()[0][:120]


def _refuse(
    opener: Opener, name: str, columns: tuple[str, ...], types: list[pa.DataType], error: Exception | None
) -> NoReturn:
    """Find the first line that is no object, or whose fields are of another type than the first line's."""
    timeless: str | None = None  # the first line without a time
    for number, line in _lines(TextSource(opener, name, _WHOLE)):
        record = _object(line, number, name)
        where = f"line {number} of {name}"
        for role, (key, expected) in enumerate(zip(columns, types, strict=True)):
            value = record.get(key)
            if value is None:
                if role < 3:
                    raise DataError(
                        f"{key} in {where} is missing: a rating needs a user, an item and a number"
                    )
                timeless = timeless or where
                continue
            if timeless is not None and role == 3:
                raise DataError(
                    f"{key} in {timeless} is missing, and {where} has one: give each line one, or name only "
                    "the user, item and rating columns"
                )
            kind = _type(value)
            number_wanted = role >= 2 and expected in (pa.int64(), pa.float64())
            fits = kind == expected or (number_wanted and kind in (pa.int64(), pa.float64()))
            if not fits or isinstance(value, (bool, list, dict)):
                what = "a number" if number_wanted else "a whole number" if expected == pa.int64() else "text"
                if kind == expected:  # the first line's own value is of no kind that is read
                    what = "a number or text" if role == 3 else "a whole number or text"
                raise DataError(
                    f"{key} in {where} is {shortened(value)}, where {what} is expected: ids keep the type of "
                    "the first line, ratings are numbers"
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise DataError(
                    f"{key} in {where} is {shortened(value)}, not a finite number: correct or remove it"
                )
            if isinstance(value, int) and role != 2 and not -(2**63) <= value < 2**63:
                remedy = "give the ids as text" if role < 2 else "count in a coarser unit"
                raise DataError(f"{key} in {where} is {value}, which does not fit 64 bits: {remedy}")
            if isinstance(value, str):
                try:
                    value.encode("utf-8")
                except UnicodeEncodeError:
                    raise DataError(
                        f"{key} in {where} is {shortened(value)}: half of a pair of surrogates, which is not "
                        "a character; write the whole one"
                    ) from None
        if len(set(pairs := _keys(line))) < len(pairs):
            raise DataError(f"{where} names a key twice: write each once")
    raise DataError(f"{name} cannot be read as JSON lines: {str(error).splitlines()[0][:200]}")


def _keys(line: bytes) -> list[str]:
    """Return the keys of the object itself, repeated ones too."""
    found: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # Called for inner objects first: the last call is the line's own.
        found[:] = [key for key, _ in pairs]
        return dict(pairs)

    json.loads(line, object_pairs_hook=collect)
    return found
