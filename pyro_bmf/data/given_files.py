"""Splits made from files that are split already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from .raw_columns import RawColumns
from .reading import times
from .reading.column_names import Columns
from .reading.containers import open_source
from .reading.counts import ReadCounts
from .reading.layout import READERS, Given
from .reading.readers import read_raw
from .scale import RatingScale
from .splits import PARTS, Split, seeded
from .validation import as_scale, canonical


def given_split(
    train: str | Path,
    valid: str | Path | None,
    test: str | Path,
    *,
    format: str | None = None,
    columns: Columns | None = None,
    header: bool | None = None,
    scale: RatingScale | str | None = None,
    valid_fraction: float = 0.0,
    seed: int = 0,
    quoting: str | None = None,
    reader: int = READERS[-1],
) -> Split:
    """Make a split of files that are split already.

    Parameters
    ----------
    train, valid, test
        The files; `valid` may be None.
    format, columns, header, scale, quoting, reader
        How to read them, as in `load_ratings`.
    valid_fraction, seed
        Without a `valid` file: this share of the train file, drawn at random, becomes validation.

    Raises
    ------
    DataError
        As `load_ratings` does; also when a (user, item) pair stands in two files, naming both lines.
    """
    if not 0 <= valid_fraction < 1 or (valid is not None and valid_fraction):
        raise DataError(
            f"valid_fraction={valid_fraction}: must lie in [0, 1), and is for a split without a "
            "validation file"
        )

    given = Given(format, columns, header, quoting, reader)
    # Opened once: a pipe cannot be read again, and the ids may have to be.
    paths = {
        part: open_source(path)
        for part, path in zip(PARTS, (train, valid, test), strict=True)
        if path is not None
    }

    def read(text_ids: tuple[bool | None, bool | None]) -> list[RawColumns]:
        return [read_raw(path, given, text_ids=text_ids) for path in paths.values()]

    raws = read((None, None))
    mixed = (_mixed([raw.user_ids for raw in raws]), _mixed([raw.item_ids for raw in raws]))
    if any(mixed):
        # One file's ids look like integers, another's do not: then they are text in all of them.
        raws = read((mixed[0] or None, mixed[1] or None))
    joined = _join(raws)
    ratings, rows = canonical(joined, scale=as_scale(scale), name=paths["train"].name, several=True)
    labels = np.repeat([PARTS.index(part) for part in paths], [len(raw) for raw in raws])[rows]
    part_rows = [np.flatnonzero(labels == code) for code in range(len(PARTS))]
    if valid_fraction:
        shuffled = seeded(seed).permutation(part_rows[0])
        n_valid = round(len(shuffled) * valid_fraction)
        part_rows[0], part_rows[1] = shuffled[n_valid:], shuffled[:n_valid]
    settings: dict[str, Any] = {"files": {part: path.name for part, path in paths.items()}}
    if valid_fraction:
        settings |= {"valid_fraction": float(valid_fraction), "seed": int(seed)}
    split = Split(ratings, part_rows[0], part_rows[1], part_rows[2], "given", settings)
    split.warn_of_unknown()
    return split


def _mixed(tables: list[NDArray[Any]]) -> bool:
    return len({table.dtype for table in tables if len(table)}) > 1


def _join(raws: list[RawColumns]) -> RawColumns:
    columns: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for kind in ("user", "item"):
        tables = [getattr(raw, f"{kind}_ids") for raw in raws]
        if _mixed(tables):
            raise DataError(f"{kind} ids are integers in one file and text in another: write them alike")
        position, distinct = pd.factorize(np.concatenate(tables))
        starts = np.cumsum([0, *(len(table) for table in tables)])
        codes = [
            position[start + getattr(raw, f"{kind}_codes").astype(np.int64)]
            for start, raw in zip(starts, raws, strict=False)
        ]
        columns.append((np.concatenate(codes), np.asarray(distinct)))
    timed = [(raw.timestamps, raw.ticks_per_second) for raw in raws if raw.timestamps is not None]
    stamps, ticks = times.alike(timed) if len(timed) == len(raws) else ([], 1)
    edges = np.cumsum([len(raw) for raw in raws])

    def place(row: int) -> str:
        which = int(np.searchsorted(edges, row, side="right"))
        return raws[which].place(row - (int(edges[which - 1]) if which else 0))

    return RawColumns(
        *columns[0],
        *columns[1],
        np.concatenate([raw.ratings for raw in raws]),
        np.concatenate(stamps) if stamps else None,
        place,
        ticks,
        ReadCounts.total([raw.counts or ReadCounts.of_rows(len(raw)) for raw in raws]),
    )
