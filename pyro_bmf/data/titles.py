"""Item titles, from the file that a named set keeps them in."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .vocabulary import Vocabulary


def read_titles(path: Path, format: str, vocabulary: Vocabulary) -> NDArray[Any]:
    """Read titles of the vocabulary's items.

    Parameters
    ----------
    path
        The titles file, UTF-8 or latin-1.
    format
        ``"csv"`` (movieId,title,... with a header, quoted), ``"::"`` (id::title::...), ``"pipe"``
        (id|title|...), or ``"recbole"`` (tab-separated with a header; the year is a field of its own).
    vocabulary
        The items whose titles are wanted.

    Returns
    -------
    titles
        Object array of ``str``, shape (n_items,); "" for an item that the file does not name.

    Raises
    ------
    DataError
        When a line has no title.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if format == "csv":
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row][1:]
    else:
        delimiter = {"::": "::", "pipe": "|", "recbole": "\t"}[format]
        rows = [line.split(delimiter) for line in text.replace("\r\n", "\n").split("\n") if line]
        rows = rows[1:] if format == "recbole" else rows
    if any(len(row) < 2 for row in rows):
        short = next(number for number, row in enumerate(rows, 1) if len(row) < 2)
        raise DataError(
            f"entry {short} of {path.name} has no title: the file is damaged or of another format"
        )
    by_id = {row[0]: _title(row, format) for row in rows}
    titles = np.empty(len(vocabulary), dtype=object)
    titles[:] = [by_id.get(str(raw_id), "") for raw_id in vocabulary.ids.tolist()]
    return titles


def _title(row: list[str], format: str) -> str:
    title = row[1].strip()
    if format == "recbole" and len(row) > 2 and row[2].strip():
        return f"{title} ({row[2].strip()})"
    return title
