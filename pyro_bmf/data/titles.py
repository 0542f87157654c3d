"""Item titles: from the file that a named set keeps them in, a file of one's own, a table, or a column."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from .notices import notice
from .reading.column_names import known_columns
from .reading.containers import open_source
from .reading.foreign import FOREIGN_PARQUET, located
from .reading.head_lines import decoded
from .vocabulary import Vocabulary

#: What titles are given as: a file of item ids and titles, the same as a frame, or by raw id.
Titles: TypeAlias = str | Path | pd.DataFrame | pd.Series | Mapping[Any, str]
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".data": "\t", ".dat": "::"}
_TITLES = ("title", "name", "itemtitle", "movietitle", "itemname", "booktitle", "productname")


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


def titles_of(given: Titles, vocabulary: Vocabulary, name: str) -> NDArray[Any]:
    """Return the titles of the items of a vocabulary; what had no use or has no title is counted and said.

    Parameters
    ----------
    given
        The path of a text file (CSV, TSV, ``::`` or ``|``; a header is told by its words) or of parquet, with
        an item id and a title in a line, more columns being left aside; a data frame with such columns; or
        titles by raw item id, as a mapping or a series. Ids are compared as text.
    vocabulary
        The items whose titles are wanted.
    name
        What the ratings are called in messages.

    Returns
    -------
    titles
        Object array of ``str``, shape (n_items,); "" for an item without a title.

    Raises
    ------
    DataError
        When the file cannot be read, a line has no title, or an item has two.
    """
    what, ids, texts = _columns_of(given)
    keys = pd.Series(ids, dtype=object).astype(str).str.strip()
    known = pd.Index(vocabulary.ids.astype(str).astype(object))
    places = known.get_indexer(pd.Index(keys.to_numpy(dtype=object)))
    there = places >= 0
    if len(places) and not there.any():
        raise DataError(
            f"none of the {len(places):,} titles in {what} is of an item of {name}: ids there are such as "
            f"{str(ids[0])[:40]!r}, here {str(vocabulary.ids[0])[:40]!r}; give a file whose columns "
            "are called item and title, or come first"
        )
    _check_lines(keys[there], np.array(texts, dtype=object)[there], known, what)
    titles = _one_each(places[there], np.array(texts, dtype=object)[there], vocabulary, what)
    parts = [f"{len(places):,} titles read from {what}"]
    if not there.all():
        parts.append(f"{np.count_nonzero(~there):,} are of items that have no rating and are left out")
    if without := int((titles == "").sum()):
        parts.append(f"{without:,} items have no title")
    notice(f"{name}: {'; '.join(parts)}")
    return titles


def _check_lines(keys: pd.Series[str], texts: NDArray[Any], known: pd.Index[Any], what: str) -> None:
    """Refuse a title that holds the line of another item: a quote that opens it was not closed."""
    several = pd.Series(texts, dtype=object).str.contains("\n", regex=False).to_numpy() == True  # noqa: E712
    for key, text in zip(keys[several], texts[several], strict=True):
        for line in text.split("\n")[1:]:
            if re.split("[,;]", line)[0].strip().strip('"') in known:
                raise DataError(
                    f"the title of the item {key!r} in {what} holds the line {line[:40]!r}, which is another "
                    "item's: close the quote before it"
                )


def column_titles(
    ids: NDArray[Any], codes: NDArray[Any], texts: NDArray[Any], vocabulary: Vocabulary, what: str
) -> NDArray[Any]:
    """Return the titles that stand beside the ratings of a frame.

    Parameters
    ----------
    ids, codes
        Distinct raw item ids, and which of them each row has, shape (n,).
    texts
        The title in each row, shape (n,); what is missing is no title.
    vocabulary
        The items whose titles are wanted, all among `ids`.
    what
        What the column is called in messages.

    Raises
    ------
    DataError
        When an item has two titles.
    """
    places = pd.Index(vocabulary.ids).get_indexer(pd.Index(ids))[codes]
    there = places >= 0  # a filter may have left items out
    titles = _one_each(places[there], texts[there], vocabulary, what)
    if without := int((titles == "").sum()):
        notice(f"{what}: {without:,} of {len(titles):,} items have no title")
    return titles


def _one_each(
    places: NDArray[np.int64], texts: NDArray[Any], vocabulary: Vocabulary, what: str
) -> NDArray[Any]:
    """Return one title an item, "" where there is none."""
    there = ~pd.isna(texts)
    words = pd.Series(texts[there], dtype=object).astype(str).str.strip()
    pairs = pd.DataFrame({"place": places[there], "title": words.to_numpy(dtype=object)})
    pairs = pairs[pairs["title"] != ""].drop_duplicates()
    twice = pairs["place"].duplicated()
    if bool(twice.any()):
        place = int(pairs.loc[twice, "place"].iloc[0])
        both = pairs.loc[pairs["place"] == place, "title"].tolist()
        item = vocabulary.raw([place]).tolist()[0]
        raise DataError(
            f"{what} gives two titles of the item {item!r}, {both[0]!r} and {both[1]!r}: leave one"
        )
    titles = np.full(len(vocabulary), "", dtype=object)
    titles[pairs["place"].to_numpy()] = pairs["title"].to_numpy()
    return titles


def _columns_of(given: Titles) -> tuple[str, list[Any], list[Any]]:
    """Return what titles came from, the item ids, and the titles."""
    if isinstance(given, Mapping):
        return "the titles given", list(given), list(given.values())
    if isinstance(given, pd.Series):
        return "the series of titles", given.index.tolist(), given.tolist()
    if isinstance(given, pd.DataFrame):
        return _of_table(given, "the frame of titles")
    file = open_source(given)
    with file.open() as stream:
        data = stream.read()
    if ".parquet" in file.suffixes or data.startswith(b"PAR1"):
        with located(f"{file} is damaged, or cannot be read as parquet", "write it again", FOREIGN_PARQUET):
            return _of_table(pd.read_parquet(io.BytesIO(data)), str(file))
    if data.lstrip()[:1] in (b"{", b"["):
        raise DataError(f"{file} is JSON, of which titles are not read: give CSV, TSV or parquet")
    rows = _rows_of(decoded(data), file.suffixes[-1] if file.suffixes else "", str(file))
    if not rows:
        raise DataError(f"{file} is empty: a file of titles has an item id and a title in each line")
    places = _places(rows[0][1])
    first = 0 if places is None else 1
    item, title = places or (0, 1)
    for line, row in rows[first:]:
        if len(row) <= max(item, title):
            raise DataError(
                f"line {line} of {file} has no title: an item id and a title are needed in each line"
            )
    return str(file), [row[item] for _, row in rows[first:]], [row[title] for _, row in rows[first:]]


def _of_table(table: pd.DataFrame, what: str) -> tuple[str, list[Any], list[Any]]:
    places = _places([str(column) for column in table.columns])
    if places is None:
        raise DataError(
            f"{what} has the columns {', '.join(map(str, table.columns)) or 'none'}: item_id and title are "
            "needed"
        )
    item, title = places
    return what, table.iloc[:, item].tolist(), table.iloc[:, title].tolist()


def _places(names: list[str]) -> tuple[int, int] | None:
    """Return where item ids and titles stand by the names of columns; None where these are no names."""
    plain = ["".join(filter(str.isalnum, name.split(":")[0].lower())) for name in names]
    title = next((plain.index(word) for word in _TITLES if word in plain), None)
    if title is None:
        return None
    others = [name if place != title else "" for place, name in enumerate(names)]
    item = known_columns(others).get("item")
    if item is None and "id" in plain:
        item = plain.index("id")
    return None if item is None else (item, title)


def _rows_of(text: str, suffix: str, name: str) -> list[tuple[int, list[str]]]:
    """Cut text into rows, each with the line that it ends in."""
    clean = text.replace("\r\n", "\n").replace("\r", "\n")
    head = clean.lstrip("\n").split("\n", 1)[0]
    delimiter = _DELIMITERS.get(suffix, "")
    if delimiter not in head or not delimiter:
        delimiter = next((mark for mark in ("::", "\t", "|", ";", ",") if mark in head), ",")
    if delimiter in (",", ";"):
        reader = csv.reader(io.StringIO(clean, newline=""), delimiter=delimiter, strict=True)
        rows: list[tuple[int, list[str]]] = []
        try:
            rows.extend((reader.line_num, row) for row in reader)
        except csv.Error as error:
            begun = rows[-1][0] + 1 if rows else 1
            raise DataError(
                f"the entry that begins in line {begun} of {name} cannot be read ({error}): close its "
                "quotes, and double those within a quoted title"
            ) from None
        return [(number, row) for number, row in rows if any(map(str.strip, row))]
    lines = enumerate(clean.split("\n"), 1)
    return [(number, line.split(delimiter)) for number, line in lines if line.strip()]
