"""Likely slips in ratings that can be used as they are: a column that counts rows, values for "missing"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .notices import warn

if TYPE_CHECKING:
    from .raw_columns import RawColumns

#: Values that surveys and exports write for "not rated".
_STAND_INS = (-1.0, -9.0, -99.0, -999.0, -9999.0, 0.0, 9.0, 98.0, 99.0, 999.0, 9999.0, 99999.0)
#: What exports write for a missing id, in small letters.
_NO_ID = ("nan", "null", "none", "na", "n/a", "<na>", "#n/a", "nil", "undefined")
_FEW_ROWS = 5  # fewer count nothing
_FEW_RATINGS = 20


def warn_of_slips(raw: RawColumns, name: str, *, inferred: bool) -> None:
    """Warn of columns that are probably not what they were read as, and of ratings that may be none.

    Parameters
    ----------
    raw
        Columns whose ratings are finite.
    name
        Of the data.
    inferred
        Whether the scale is taken from the ratings, so that a stand-in value would become one of its ends.
    """
    _warn_of_single_ratings(raw, name)
    _warn_of_missing_ids(raw, name)
    if inferred:
        for value, count, low, high in stand_ins(raw.ratings):
            are = "is" if count == 1 else "are"
            warn(
                f"{name}: {count:,} of {len(raw):,} ratings {are} {value:g}, far from the others ({low:g} to "
                f"{high:g}): if it stands for 'not rated', leave these rows out; a scale that is given (as "
                f"in {low:g}:{high:g}) has them refused with their line"
            )


def _warn_of_single_ratings(raw: RawColumns, name: str) -> None:
    """Warn where each user, or each item, has one rating: as a rule another column was meant."""
    n = len(raw)
    for kind in ("user", "item"):
        codes, ids = getattr(raw, f"{kind}_codes"), getattr(raw, f"{kind}_ids")
        if len(ids) < n or n < _FEW_ROWS:
            continue
        counts = np.bincount(codes, minlength=len(ids))
        if int(counts.max()) > 1:
            continue
        remedy = "name the columns as user,item,rating (--columns, in Python columns=)"
        if ids.dtype.kind in "iu":
            column = ids[codes]
            if bool((column == np.arange(n) + column[0]).all()) and int(column[0]) in (0, 1):
                warn(
                    f"{name}: the {kind} column counts the rows ({column[0]}, {column[1]}, {column[2]}, "
                    f"...), so every {kind} has one rating: check the columns; {remedy}"
                )
                continue
        if n >= _FEW_RATINGS:
            warn(
                f"{name}: every {kind} has one rating, of which nothing can be learned: check the columns; "
                f"{remedy}"
            )


def _warn_of_missing_ids(raw: RawColumns, name: str) -> None:
    """Warn where an id is a word that exports write where there is none."""
    for kind in ("user", "item"):
        codes, ids = getattr(raw, f"{kind}_codes"), getattr(raw, f"{kind}_ids")
        if ids.dtype.kind in "iu":
            continue
        for place in np.flatnonzero(pd.Series(ids, dtype=object).str.casefold().isin(_NO_ID)):
            count = int((codes == place).sum())
            have = "rating has" if count == 1 else "ratings have"
            warn(
                f"{name}: {count:,} {have} the {kind} id {ids[place]!r}, which is taken for one {kind} like "
                f"any other: if it stands for a {kind} that is not known, leave these rows out"
            )


def stand_ins(ratings: NDArray[np.float64]) -> list[tuple[float, int, float, float]]:
    """Find values at either end that probably stand for "not rated".

    A value at the end is one when it lies further from the others than they spread, and occurs more than
    once or is a usual stand-in; a usual one also when the gap is wider than any between the others, or when
    it is the only one below zero.

    Returns
    -------
    list
        For each: the value, how often it stands, and the lowest and highest of the others.
    """
    levels = np.sort(pd.unique(ratings))
    found: list[tuple[float, int]] = []
    while len(levels) >= 3:
        for at, rest in ((-1, levels[:-1]), (0, levels[1:])):
            value, count = float(levels[at]), int((ratings == levels[at]).sum())
            gap = float(abs(rest[at] - value))
            usual = value in _STAND_INS
            far = gap > rest[-1] - rest[0] and (usual or count > 1)
            apart = usual and len(rest) >= 3 and gap > 2.5 * float(np.diff(rest).max())
            below = value == -1.0 and len(rest) >= 3 and rest[0] >= 0 and gap > 0.5
            if far or apart or below:
                found.append((value, count))
                levels = rest
                break
        else:
            break
    return [(value, count, float(levels[0]), float(levels[-1])) for value, count in found]
