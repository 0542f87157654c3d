"""`load_ratings`: a named set or any file becomes canonical `Ratings`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .notices import warn
from .ratings import Ratings
from .reading.column_names import Columns
from .reading.containers import STDIN, open_source, printable
from .reading.frames import is_table, raw_of_frame, text_column
from .reading.layout import READERS, Given
from .reading.readers import read_raw
from .scale import RatingScale
from .sources import SOURCES, Source, find_source, meant
from .synthetic import default_synthetic
from .titles import Titles, column_titles, read_titles, titles_of
from .validation import as_scale, canonical, with_titles

if TYPE_CHECKING:
    from .located import Located


def load_ratings(
    name_or_path: Any,
    *,
    data_dir: str | Path | None = None,
    format: str | None = None,
    columns: Columns | None = None,
    header: bool | None = None,
    scale: RatingScale | str | None = None,
    duplicates: str | None = None,
    min_ratings: int | None = None,
    download: bool = True,
    progress: bool = False,
    quoting: str | None = None,
    reader: int = READERS[-1],
    titles: Titles | None = None,
) -> Ratings:
    """Load ratings from a named set or from a file.

    Parameters
    ----------
    name_or_path
        One of `SOURCES` (``"ml100k"``, ``"ml1m"``, ..., ``"synthetic"``), or the path of a file: CSV, TSV,
        ``::``, parquet or JSON lines, perhaps packed by gzip, bzip2, xz or Zstandard. ``"-"`` is standard
        input; a pipe is read once. Or ratings in memory: a data frame of pandas or Polars, an Arrow table
        (columns found by name, the index not read), or a sparse matrix of SciPy (rows are users, columns
        items, every stored entry a rating).
    data_dir
        Folder where named sets are looked for and downloaded to; None takes the environment variable
        ``PYRO_BMF_DATA_DIR``, else the user's cache folder.
    format, columns, header
        How to read a file, not a named set; None reads it off the file. Columns are user, item, rating and
        perhaps timestamp, by header name or by position counted from 0: ``"userId,movieId,rating"`` or
        ``(1, 0, 2, 3)``.
    scale
        The rating scale, as ``"1:5:1"`` (low:high:step) or ``"0:10"`` (continuous); None takes the set's
        declared scale, or infers it and says so.
    duplicates
        For a (user, item) pair that stands more than once: ``"error"``; ``"last"`` keeps the rating with the
        latest timestamp, or without timestamps the last in the file; ``"mean"`` takes the mean, rounded to
        the scale where that has steps (half goes up), and the latest timestamp. None takes the set's own
        rule, for files ``"error"``.
    min_ratings
        Keep users and items with at least so many ratings (one pass, both counted on the full file); None
        takes the set's own filter, for files 0.
    download
        Whether a named set that is not on this machine may be downloaded.
    progress
        Show a progress bar on stderr while downloading or unpacking a large file.
    quoting
        ``"csv"``: in text, ``"`` quotes a field as RFC 4180 says; ``"none"``: it is a character as any other.
        None is the former for CSV, the latter for TSV, ``::`` and other text. For files only.
    reader
        How files are read: 2, or 1 as before blanks around ids were dropped, quotes told apart by format and
        times kept to fractions of a second. For ratings that an older run was fitted to.
    titles
        Titles of items: the name of a column of a data frame of ratings; or, for ratings of any kind, a file
        of item ids and titles, a data frame of them, or titles by raw id (`pyro_bmf.data.titles.titles_of`).
        None takes those of a named set. They change no hash.

    Returns
    -------
    ratings
        Canonical: independent of the file's row order, ids exact.

    Raises
    ------
    DataError
        Naming what is wrong, where, and what to do.

    Warns
    -----
    DataWarning
        For a file whose checksum is not the official one, or cannot be verified.
    DataNotice
        For what was decided: the scale inferred, duplicates merged, a filter, the licence at first use.
    """
    if is_table(name_or_path):
        for_files = {"format": format, "header": header, "quoting": quoting}
        checks = scale, duplicates, min_ratings
        return _load_frame(name_or_path, for_files, columns, checks, titles)
    if not isinstance(name_or_path, (str, Path)):
        raise DataError(
            f"ratings cannot be loaded from a {type(name_or_path).__name__}: give a name, a path, a data "
            "frame or a sparse matrix (ratings_from_arrays takes columns)"
        )
    source = find_source(name_or_path) if isinstance(name_or_path, str) else None
    if source is None:
        read = Given(format, columns, header, quoting, reader)
        return _titled(_load_path(name_or_path, read, scale, duplicates, min_ratings, progress), titles)
    unread: dict[str, object] = {"format": format, "columns": columns, "header": header, "quoting": quoting}
    known = f"how {source.name} is written is known"
    if source.name == "synthetic":
        unread |= {"scale": scale, "duplicates": duplicates, "min_ratings": min_ratings, "titles": titles}
        known = "synthetic is generated"
    given = [f"{name} {value!r}" for name, value in unread.items() if value is not None]
    if given:
        several = len(given) > 1
        raise DataError(
            f"{' and '.join(given)} {'are' if several else 'is'} for a file: {known}. Leave "
            f"{'them' if several else 'it'} out (for a file of that name write ./{source.name})"
        )
    if source.name == "synthetic":
        return default_synthetic().ratings
    from .download import locate  # brings pooch and requests, which a file on disk does not need

    files = locate(source, data_dir=data_dir, download=download, progress=progress)
    return _titled(_load_source(source, files, scale, duplicates, min_ratings), titles)


def _load_path(
    path_or_name: str | Path,
    read: Given,
    scale: RatingScale | str | None,
    duplicates: str | None,
    min_ratings: int | None,
    progress: bool,
) -> Ratings:
    file = open_source(_existing(path_or_name), progress=progress)
    raw = read_raw(file, read)
    ratings, _ = canonical(
        raw,
        scale=as_scale(scale),
        duplicates="error" if duplicates is None else duplicates,
        min_ratings=min_ratings or 0,
        name=file.name,
    )
    return ratings


def _load_frame(
    frame: Any,
    for_files: dict[str, Any],
    columns: Columns | None,
    checks: tuple[RatingScale | str | None, str | None, int | None],
    titles: Titles | None,
) -> Ratings:
    for name, value in for_files.items():
        if value is not None:
            raise DataError(f"{name} is for files: a {type(frame).__name__} has none")
    scale, duplicates, min_ratings = checks
    raw = raw_of_frame(frame, columns, "ratings")
    ratings, _ = canonical(
        raw,
        scale=as_scale(scale),
        duplicates="error" if duplicates is None else duplicates,
        min_ratings=min_ratings or 0,
    )
    beside = text_column(frame, titles) if isinstance(titles, str) else None
    if beside is None:
        if isinstance(titles, str) and not Path(titles).exists():
            raise DataError(f"titles {titles!r} is neither a column of the ratings nor a file: name one")
        return _titled(ratings, titles)
    what = f"the column {titles!r}"
    return with_titles(
        ratings, column_titles(raw.item_ids, raw.item_codes, beside, ratings.item_vocabulary, what)
    )


def _titled(ratings: Ratings, titles: Titles | None) -> Ratings:
    """Return the ratings with the titles that were given for them."""
    if titles is None:
        return ratings
    return with_titles(ratings, titles_of(titles, ratings.item_vocabulary, ratings.name))


def _existing(path_or_name: str | Path) -> str | Path:
    """Return the path of a file; raise for text that names neither a file nor a set."""
    if str(path_or_name) == STDIN:
        return STDIN
    path = Path(path_or_name)
    try:
        path = path.expanduser()
        os.lstat(path)
        there = True
    except (FileNotFoundError, NotADirectoryError):
        there = False
    except (OSError, RuntimeError, ValueError):  # a name too long; no such user; a NUL in it
        there = True  # opening it says what is wrong
    if not there and not isinstance(path_or_name, Path):
        raise DataError(
            f"{printable(path_or_name)!r} is neither a file nor a data set known by name "
            f"({', '.join(SOURCES)}){meant(path_or_name)}"
        )
    return path


def _load_source(
    source: Source,
    files: Located,
    scale: RatingScale | str | None,
    duplicates: str | None,
    min_ratings: int | None,
) -> Ratings:
    columns = source.columns if files.timestamps else source.columns[:3]
    raw = read_raw(files.ratings, Given(files.format, columns, files.header))
    filtered = source.min_ratings if min_ratings is None else min_ratings
    ratings, _ = canonical(
        raw,
        scale=as_scale(scale) or RatingScale.parse(source.scale, "declared"),
        duplicates=source.duplicates if duplicates is None else duplicates,
        min_ratings=filtered,
        name=source.name,
    )
    found = (ratings.n_users, ratings.n_items, len(ratings))
    if found != source.counts and filtered == source.min_ratings:
        expected = " / ".join(f"{count:,}" for count in source.counts)
        kind = "official" if source.counts_verified else "published"
        warn(
            f"{source.name}: {' / '.join(f'{count:,}' for count in found)} users / items / ratings were "
            f"read, where the {kind} counts are {expected}"
        )
    if files.titles is not None:
        ratings = with_titles(
            ratings, read_titles(files.titles, files.titles_format, ratings.item_vocabulary)
        )
    return ratings
