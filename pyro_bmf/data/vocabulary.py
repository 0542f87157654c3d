"""Raw ids and their index: one frozen table for users, one for items."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError, UnknownIdError

_CANONICAL_INTEGER = re.compile(r"(0|-?[1-9][0-9]*)\Z", re.ASCII)


class Vocabulary:
    """Raw id <-> index of one side; ids are sorted ascending and never change.

    Parameters
    ----------
    ids
        Distinct raw ids, shape (n,): integers, or text (``str``); never mixed.
    kind
        ``"user"`` or ``"item"``: the word used in messages.

    Raises
    ------
    DataError
        When ids repeat, are mixed, or are neither integers nor text.
    """

    def __init__(self, ids: ArrayLike, kind: str) -> None:
        self.kind = kind
        array = id_array(ids, kind)
        if len(array) > 1 and not bool(np.all(array[:-1] < array[1:])):
            array = np.sort(array)
            if not bool(np.all(array[:-1] < array[1:])):
                raise DataError(f"{kind} ids repeat: each id may stand in a vocabulary once")
        elif not isinstance(ids, np.ndarray) or array is ids:
            array = array.copy()
        array.flags.writeable = False
        self._ids = array

    @property
    def ids(self) -> NDArray[Any]:
        """All raw ids, shape (n,), ascending: int64, or an object array of ``str``."""
        return self._ids

    @property
    def is_integer(self) -> bool:
        """Whether the raw ids are integers (else they are text)."""
        return self._ids.dtype == np.int64

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, raw_id: object) -> bool:
        if isinstance(raw_id, bool) or not isinstance(raw_id, (int, np.integer, str)):
            return False
        if isinstance(raw_id, str) == self.is_integer:
            return False
        return bool(self._find(_one(raw_id))[0] >= 0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self.kind == other.kind and self.digest == other.digest

    def __hash__(self) -> int:
        return hash((self.kind, self.digest))

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} {self.kind}s, {'integer' if self.is_integer else 'text'} ids)"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the ids and their type, as hexadecimal digits."""
        state = hashlib.sha256(b"int64\n" if self.is_integer else b"text\n")
        if self.is_integer:
            state.update(np.ascontiguousarray(self._ids, dtype="<i8").data)
        else:
            # Lengths first: ("ab", "c") and ("a", "bc") must not agree.
            encoded = [text.encode("utf-8", "surrogatepass") for text in self._ids]
            state.update(np.array([len(text) for text in encoded], dtype="<i8").tobytes())
            state.update(b"".join(encoded))
        return state.hexdigest()

    @cached_property
    def _table(self) -> pd.Index[Any]:
        return pd.Index(self._ids, dtype=self._ids.dtype)

    def _find(self, raw_ids: NDArray[Any]) -> NDArray[np.int64]:
        """Return each id's index, -1 where the id is unknown."""
        if not self.is_integer:
            return np.asarray(self._table.get_indexer(pd.Index(raw_ids, dtype=object)), dtype=np.int64)
        if len(self._ids) == 0:
            return np.full(len(raw_ids), -1, dtype=np.int64)
        found = np.searchsorted(self._ids, raw_ids)
        clipped = np.minimum(found, len(self._ids) - 1)
        return np.where(self._ids[clipped] == raw_ids, clipped, -1).astype(np.int64)

    def index(self, raw_ids: ArrayLike) -> NDArray[np.int64]:
        """Return the index of each raw id, shape (n,); a single id gives shape (1,).

        Raises
        ------
        UnknownIdError
            Naming the unknown ids, or telling that ids of this side are integers (or text).
        """
        if np.ndim(raw_ids) == 0:
            array = _one(raw_ids)
        elif isinstance(raw_ids, (list, tuple)):
            # np.asarray([1, "1"]) would silently turn everything to text.
            array = np.empty(len(raw_ids), dtype=object)
            array[:] = raw_ids
        else:
            array = np.asarray(raw_ids)
        if len(array) == 0:
            return np.zeros(0, dtype=np.int64)
        self._check_type(array)
        if self.is_integer:
            try:
                array = array.astype(np.int64)
            except OverflowError:
                raise UnknownIdError(f"unknown {self.kind} id: a number beyond 64 bits") from None
        found = self._find(array)
        if bool((found < 0).any()):
            unknown = array[found < 0]
            shown = ", ".join(repr(_plain(value)) for value in pd.unique(unknown)[:5])
            raise UnknownIdError(
                f"unknown {self.kind} id{'s' if len(unknown) > 1 else ''} {shown}"
                f"{' ...' if len(unknown) > 5 else ''}: not among the {len(self):,} {self.kind}s of the data "
                f"(ids are {self._examples()})"
            )
        return found

    def _check_type(self, array: NDArray[Any]) -> None:
        if array.dtype.kind in "iu":
            wrong = array[:0] if self.is_integer else array
        elif array.dtype.kind == "U":
            wrong = array if self.is_integer else array[:0]
        elif array.dtype.kind == "O":
            known = np.fromiter((self._fits(value) for value in array), dtype=bool, count=len(array))
            wrong = array[~known]
        else:
            wrong = array
        if len(wrong):
            expected = "integers" if self.is_integer else "text"
            raise UnknownIdError(
                f"{self.kind} id {_plain(wrong[0])!r} is {_type_name(_plain(wrong[0]))}, but {self.kind} "
                f"ids of this data are {expected}: {self._examples()}"
            )

    def _fits(self, value: object) -> bool:
        if self.is_integer:
            return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        return isinstance(value, str)

    def _examples(self) -> str:
        shown = ", ".join(repr(_plain(value)) for value in self._ids[:3])
        kind = "integers" if self.is_integer else "text"
        return f"{kind} such as {shown}" if shown else kind

    def raw(self, indices: ArrayLike) -> NDArray[Any]:
        """Return the raw ids at `indices`, same shape; raises DataError outside 0..n-1."""
        positions = np.asarray(indices)
        if positions.dtype.kind not in "iu" and positions.size:
            raise DataError(f"{self.kind} indices must be whole numbers, not {positions.dtype}")
        positions = positions.astype(np.int64)
        outside = (positions < 0) | (positions >= len(self))
        if bool(outside.any()):
            raise DataError(
                f"{self.kind} index {positions[outside].ravel()[0]} lies outside 0..{len(self) - 1}"
            )
        result: NDArray[Any] = self._ids[positions]
        return result

    def parse(self, text: str) -> int | str:
        """Turn what was typed on a command line into a raw id of this vocabulary's own type.

        Raises
        ------
        UnknownIdError
            When ids are integers and `text` is none, or no such id exists.
        """
        if self.is_integer:
            if not _CANONICAL_INTEGER.match(text):
                raise UnknownIdError(
                    f"unknown {self.kind} id {text!r}: {self.kind} ids of this data are {self._examples()}"
                )
            raw: int | str = int(text)
        else:
            raw = text
        self.index([raw])
        return raw


def id_array(ids: ArrayLike, kind: str) -> NDArray[Any]:
    """Return raw ids as int64 or as an object array of ``str``; no id changes its value.

    Raises
    ------
    DataError
        For numbers with a fraction, missing ids, empty text, booleans, or text mixed with numbers.
    """
    if isinstance(ids, (list, tuple)):
        array = np.empty(len(ids), dtype=object)
        array[:] = ids
    else:
        array = np.asarray(ids)
    if array.ndim != 1:
        raise DataError(f"{kind} ids must be one column, not an array of shape {array.shape}")
    if array.dtype.kind in "iu":
        if array.dtype == np.uint64 and len(array) and int(array.max()) > np.iinfo(np.int64).max:
            raise DataError(f"{kind} id {array.max()} does not fit 64 bits with a sign: give the ids as text")
        return array.astype(np.int64, copy=False)
    if array.dtype.kind == "U":
        array = array.astype(object)
    if array.dtype.kind != "O":
        raise DataError(f"{kind} ids must be whole numbers or text, not {array.dtype}: convert them first")
    if len(array) == 0:
        return array.astype(np.int64)
    inferred = pd.api.types.infer_dtype(array, skipna=False)
    if inferred == "string":
        if bool((array == "").any()):
            raise DataError(f"a {kind} id is empty (row {int(np.argmax(array == '')) + 1})")
        return array
    if inferred == "integer":
        try:
            return array.astype(np.int64)
        except OverflowError:
            raise DataError(f"a {kind} id does not fit 64 bits: give the ids as text") from None
    raise DataError(
        f"{kind} ids are of mixed or unfit types ({inferred}): they must be all whole numbers or all text, "
        "none missing"
    )


def _one(raw_id: Any) -> NDArray[Any]:
    array = np.empty(1, dtype=object)
    array[0] = raw_id.item() if isinstance(raw_id, np.ndarray) else raw_id
    return array


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _type_name(value: object) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int):
        return "an integer"
    return "a number with a fraction" if isinstance(value, float) else f"a {type(value).__name__}"
