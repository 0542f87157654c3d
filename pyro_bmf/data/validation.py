"""The border: raw columns are checked here once, vectorised, and become canonical `Ratings`."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from .duplicates import DUPLICATES, SortedColumns
from .notices import notice, warn
from .ratings import Ratings
from .raw_columns import RawColumns
from .reading import times
from .reading.counts import ReadCounts
from .scale import RatingScale
from .suspicions import warn_of_slips
from .vocabulary import Vocabulary, id_array

#: What pandas calls columns of objects that are all numbers.
_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty")


def ratings_from_arrays(
    user_ids: ArrayLike,
    item_ids: ArrayLike,
    ratings: ArrayLike,
    timestamps: ArrayLike | None = None,
    *,
    scale: RatingScale | str | None = None,
    duplicates: str = "error",
    item_titles: dict[Any, str] | None = None,
    name: str = "ratings",
) -> Ratings:
    """Make `Ratings` from columns of raw ids, for instance those of a data frame.

    Parameters
    ----------
    user_ids, item_ids
        Raw ids, shape (n,): whole numbers or text, kept exactly.
    ratings
        Numbers, shape (n,).
    timestamps
        Seconds (or whatever you count in), shape (n,): whole numbers, floats or dates; or None. Fractions
        are kept.
    scale
        A `RatingScale`, text as ``"1:5:1"``, or None to infer it.
    duplicates
        What to do with a (user, item) pair that stands twice: see `load_ratings`.
    item_titles
        Title by raw item id.
    name
        What to call the data in tables.

    Raises
    ------
    DataError
        For columns that cannot be used; the message names the row.
    """
    for values_of, what in ((user_ids, "user ids"), (item_ids, "item ids"), (timestamps, "timestamps")):
        refuse_masked(values_of, what)
    user_codes, users = _factorize(user_ids, "user")
    item_codes, items = _factorize(item_ids, "item")
    values = rating_array(ratings)

    def place(row: int) -> str:
        return f"row {row} (counted from 0)"

    seconds, ticks = (None, 1) if timestamps is None else times.of_array(timestamps, place)
    lengths = {len(user_codes), len(item_codes), len(values)} | (
        {len(seconds)} if seconds is not None else set()
    )
    if len(lengths) != 1:
        raise DataError(f"user_ids, item_ids, ratings and timestamps differ in length: {sorted(lengths)}")
    raw = RawColumns(user_codes, users, item_codes, items, values, seconds, place, ticks)
    result, _ = canonical(raw, scale=as_scale(scale), duplicates=duplicates, name=name)
    if item_titles is not None:
        titles = np.array(
            [str(item_titles.get(raw_id, "")) for raw_id in result.item_vocabulary.ids.tolist()], object
        )
        result = with_titles(result, titles)
    return result


def rating_array(ratings: ArrayLike, what: str = "ratings") -> NDArray[np.float64]:
    """Return ratings as float64, shape (n,); what is missing becomes NaN.

    Raises
    ------
    DataError
        For anything but a column of numbers: text, dates, complex numbers; and for masked values.
    """
    refuse_masked(ratings, what)
    try:
        array = np.asarray(ratings)
        if array.dtype.kind == "O":
            # Text that looks like a number is text: float() would take "1_0" for ten.
            kind = pd.api.types.infer_dtype(array.ravel(), skipna=True)
            kind = "" if kind in _NUMBERS else kind
        else:
            kind = "" if array.dtype.kind in "fiub" else str(array.dtype)
        if not kind:
            array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{what} must be numbers: {error}") from None
    if kind:
        raise DataError(f"{what} must be numbers, not {kind}: convert them first")
    if array.ndim != 1:
        raise DataError(f"{what} must be one column, not an array of shape {array.shape}")
    return array


def refuse_masked(values: object, what: str) -> None:
    """Raise for a masked array of which something is masked: NumPy would give what lies below the mask."""
    if isinstance(values, np.ma.MaskedArray) and bool(np.ma.getmaskarray(values).any()):
        row = int(np.argmax(np.ma.getmaskarray(values).ravel()))
        raise DataError(f"{what}: row {row} (counted from 0) is masked: leave such rows out (compressed())")


def as_scale(scale: RatingScale | str | None) -> RatingScale | None:
    """Return a scale given as an object or as text, or None."""
    return RatingScale.parse(scale) if isinstance(scale, str) else scale


def with_titles(ratings: Ratings, titles: NDArray[Any] | None) -> Ratings:
    """Return the same ratings with `titles`, one an item of the vocabulary."""
    return replace(ratings, item_titles=titles)


def canonical(
    raw: RawColumns,
    *,
    scale: RatingScale | None,
    duplicates: str = "error",
    min_ratings: int = 0,
    name: str = "ratings",
    several: bool = False,
) -> tuple[Ratings, NDArray[np.int64]]:
    """Check raw columns and bring them into canonical order.

    `several`: the rows are those of more than one file, each a part of a split.

    Returns
    -------
    ratings
        The canonical table.
    rows
        For each of its rows, the raw row it came from, int64, shape (len(ratings),); of merged duplicates
        the last one.

    Raises
    ------
    DataError
        Naming the first offending row and value: no rows, a missing or non-finite rating, a rating off a
        declared or given scale, duplicate pairs under ``duplicates="error"``, fewer than two users or items.
    """
    if duplicates not in DUPLICATES:
        raise DataError(f"duplicates={duplicates!r}: use one of {', '.join(DUPLICATES)}")
    if min_ratings < 0:
        raise DataError(f"min_ratings={min_ratings}: a number of ratings, 0 for all users and items")
    if len(raw) == 0:
        raise DataError(f"{name} holds no ratings: check the file and its format")
    _check_finite(raw)
    warn_of_slips(raw, name, inferred=scale is None)
    origin: NDArray[np.int64] | None = None
    if min_ratings > 0:
        raw, origin = _filter(raw, min_ratings)
    if scale is None:
        scale = RatingScale.infer(raw.ratings)
        kind = "continuous" if scale.step is None else "levels"
        notice(
            f"{name}: rating scale inferred as {scale} ({kind}); give another as low:high:step if it is "
            "not so"
        )
    else:
        _check_scale(raw, scale)
    user_rank, user_vocabulary = _ranks(raw.user_codes, raw.user_ids, "user")
    item_rank, item_vocabulary = _ranks(raw.item_codes, raw.item_ids, "item")
    for vocabulary in (user_vocabulary, item_vocabulary):
        if len(vocabulary) < 2:
            raise DataError(
                f"{name} holds one {vocabulary.kind} only ({vocabulary.ids.tolist()[0]!r}): factorization "
                "needs at "
                "least "
                "two users and two items; check the columns"
            )
    for vocabulary in (user_vocabulary, item_vocabulary):
        _note_likenesses(vocabulary, name)
    n_items = len(item_vocabulary)
    # One number for each pair: its order is the canonical one.
    key = (user_rank * n_items)[raw.user_codes]
    key += item_rank[raw.item_codes]
    ratings, timestamps = raw.ratings, raw.timestamps
    rows: NDArray[np.int64] | None = None
    if not bool((key[1:] > key[:-1]).all()):
        rows = _stable_order(key)
        key, ratings = key[rows], ratings[rows]
        timestamps = None if timestamps is None else timestamps[rows]
        columns = SortedColumns(key, ratings, timestamps, rows)
        if bool(columns.repeated.any()):
            if duplicates == "error":
                columns.refuse(raw, user_vocabulary, item_vocabulary, name, several=several)
            columns = columns.merged(duplicates, scale, name)
            key, ratings, timestamps, rows = columns.key, columns.ratings, columns.timestamps, columns.rows
    users = key // n_items
    key -= users * n_items
    ticks = raw.ticks_per_second
    if timestamps is not None:
        # Rows were left out, perhaps: the unit is a matter of those that stay, as when they are read again.
        timestamps, ticks = times.coarsest(timestamps, ticks)
    result = Ratings(
        users,
        key,
        ratings + 0.0,  # -0.0 becomes 0.0, so that equal data have equal hashes
        timestamps,
        user_vocabulary,
        item_vocabulary,
        scale,
        None,
        name,
        ticks,
        (raw.counts or ReadCounts.of_rows(len(raw))).less(merged=len(raw) - len(key)),
    )
    if rows is None:
        rows = np.arange(len(result), dtype=np.int64)
    return result, rows if origin is None else origin[rows]


def _note_likenesses(vocabulary: Vocabulary, name: str) -> None:
    """Say which ids a person would take for one: they differ in blanks, case, forms or zeros."""
    if vocabulary.is_integer:
        return
    try:
        texts = pa.array(vocabulary.ids, pa.string())
    except (pa.ArrowInvalid, UnicodeEncodeError):
        return  # half a surrogate pair: nothing can be said about its form
    plain = pc.utf8_normalize(texts, form="NFKC")
    # Blanks, and characters that show nothing: joiners, marks of direction, soft hyphens.
    plain = pc.replace_substring_regex(plain, r"[\s\p{Z}\p{Cf}\x{85}]+", "")
    # By way of capitals: a final sigma has the same one as any other. Sharp s has two letters for its own.
    plain = pc.replace_substring(pc.utf8_lower(pc.utf8_upper(plain)), "\u00df", "ss")
    plain = pc.utf8_normalize(plain, form="NFKC")  # lower case may leave accents apart
    plain = pc.replace_substring_regex(plain, r"^\+?(-?)0*([0-9]+?)(\.0*)?$", r"\1\2")  # 1.0, 01, +1
    if pc.count_distinct(plain).as_py() == len(texts):
        return
    codes = plain.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    several = np.flatnonzero(np.bincount(codes)[codes] > 1)
    first = several[0]
    examples = [repr(text) for text in vocabulary.ids[np.flatnonzero(codes == codes[first])[:3]]]
    if len({unicodedata.normalize("NFKC", text) for text in examples}) < len(examples):
        # Two of them would look the same.
        examples = [ascii(text) for text in vocabulary.ids[np.flatnonzero(codes == codes[first])[:3]]]
    warn(
        f"{name}: {len(several):,} {vocabulary.kind} ids differ from another only in blanks, letter case, "
        f"the form of their characters or how a number is written, as {' and '.join(examples)}: they are "
        f"kept as different {vocabulary.kind}s"
    )


def _stable_order(key: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the stable sorting order of keys >= 0, 16 bits at a time.

    NumPy sorts 16-bit integers by radix, in linear time: 20 million keys take half as long as in one go.
    """
    order = np.argsort((key & 0xFFFF).astype(np.uint16), kind="stable")
    for shift in range(16, int(key.max()).bit_length(), 16):
        digit = ((key >> shift) & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def _factorize(ids: ArrayLike, kind: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    codes, distinct = pd.factorize(id_array(ids, kind))
    return np.asarray(codes, dtype=np.int64), np.asarray(distinct)


def _check_finite(raw: RawColumns) -> None:
    bad = np.flatnonzero(~np.isfinite(raw.ratings))
    if len(bad):
        value = raw.ratings[bad[0]]
        what = "is missing (or not a number)" if np.isnan(value) else f"is {value}"
        raise DataError(
            f"the rating in {raw.place(int(bad[0]))} {what}{_more(len(bad))}: every rating must be a "
            "finite number"
        )


def _check_scale(raw: RawColumns, scale: RatingScale) -> None:
    # The distinct values first: they are few, and all is well as a rule.
    if bool(scale.off_scale(pd.unique(raw.ratings)).any()):
        bad = np.flatnonzero(scale.off_scale(raw.ratings))
        raise DataError(
            f"the rating {raw.ratings[bad[0]]:.10g} in {raw.place(int(bad[0]))} is not on the "
            f"{scale.source} scale "
            f"{scale}{_more(len(bad))}: give the scale that the ratings are on (low:high:step, or low:high)"
        )


def _more(count: int) -> str:
    return f" (and {count - 1:,} more)" if count > 1 else ""


def _filter(raw: RawColumns, min_ratings: int) -> tuple[RawColumns, NDArray[np.int64]]:
    """Keep users and items with enough ratings: one pass, both counted on the full file."""
    user_counts = np.bincount(raw.user_codes, minlength=len(raw.user_ids))
    item_counts = np.bincount(raw.item_codes, minlength=len(raw.item_ids))
    kept = (user_counts[raw.user_codes] >= min_ratings) & (item_counts[raw.item_codes] >= min_ratings)
    rows = np.flatnonzero(kept)
    if len(rows) == 0:
        raise DataError(
            f"no rating is left: no user and item with at least {min_ratings} ratings each meet; lower "
            "that number (--min-ratings, in Python min_ratings=)"
        )
    notice(
        f"{len(rows):,} of {len(raw):,} ratings are of users and items with at least {min_ratings} "
        "ratings each (one pass, both counted on the full file); the others are left out"
    )
    return raw.keep(rows), rows


def _ranks(codes: NDArray[Any], ids: NDArray[Any], kind: str) -> tuple[NDArray[np.int64], Vocabulary]:
    """Return the place of each raw id in a sorted vocabulary that holds only the ids in use."""
    used = np.bincount(codes, minlength=len(ids)) > 0
    present = np.flatnonzero(used)
    order = present[np.argsort(ids[present], kind="stable")]
    rank = np.full(len(ids), -1, dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank, Vocabulary(ids[order], kind)
