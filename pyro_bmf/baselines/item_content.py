"""What is known of items beside their ratings: words of their titles, and genres."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.data import Ratings
from pyro_bmf.data.vocabulary import Vocabulary
from pyro_bmf.errors import DataError, SettingsError

_WORD = re.compile(r"[^\W\d_]{2,}")
#: Where MovieLens 100K's flags of genres begin in a line of `u.item`.
_FLAGS = 5
_NO_GENRES = "(no genres listed)"


@dataclass(frozen=True, eq=False)
class ItemContent:
    """Features that items have or have not, compressed by item.

    Attributes
    ----------
    indptr, indices : ndarray, shapes (n_items + 1,) and (n_entries,), int64
        Item j has the features ``indices[indptr[j]:indptr[j + 1]]``, ascending.
    features : tuple of str
        Their names: genres as ``genre:Drama``, words of titles as ``word:star``.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    features: tuple[str, ...]

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.indptr) - 1

    @classmethod
    def of_features(cls, by_item: Sequence[Iterable[str]], *, min_count: int = 2) -> ItemContent:
        """Compress the names of each item's features; those of fewer than `min_count` items are left out.

        Raises
        ------
        DataError
            If none is left.
        """
        sets = [frozenset(names) for names in by_item]
        counts = Counter(name for names in sets for name in names)
        features = tuple(sorted(name for name, count in counts.items() if count >= min_count))
        if not features:
            raise DataError(
                f"No feature is of {min_count} items or more: there is nothing to learn from. Give genres or "
                "titles with words in common, or a smaller min_count."
            )
        place = {name: at for at, name in enumerate(features)}
        rows = [sorted(place[name] for name in names if name in place) for names in sets]
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return cls(indptr, np.array([at for row in rows for at in row], dtype=np.int64), features)

    @classmethod
    def of_titles(cls, ratings: Ratings, *, min_count: int = 2) -> ItemContent:
        """Take the words of the items' titles.

        Raises
        ------
        SettingsError
            If the ratings have no titles.
        """
        if ratings.item_titles is None:
            raise SettingsError(
                "There is no item content, and the ratings have no titles to take words from: give content=, "
                "as ItemContent.read(path, ratings.item_vocabulary), or load the ratings with titles."
            )
        return cls.of_features([words(title) for title in ratings.item_titles], min_count=min_count)

    @classmethod
    def read(cls, path: Path | str, items: Vocabulary, *, min_count: int = 2) -> ItemContent:
        """Read titles and genres from a file of MovieLens.

        Parameters
        ----------
        path
            ``u.item`` (beside ``u.genre``), ``movies.dat`` or ``movies.csv``.
        items
            Whose content is wanted; what the file does not name has none.
        min_count
            Features of fewer items are left out.

        Raises
        ------
        DataError
            If a line is not of that form, or nothing is left.
        """
        source = Path(path)
        readers = {".item": _flagged, ".dat": _separated, ".csv": _quoted}
        if source.suffix not in readers:
            raise DataError(
                f"{source}: the end of its name tells its form, and may be {', '.join(readers)}, as in "
                "MovieLens's u.item, movies.dat and movies.csv."
            )
        found = readers[source.suffix](source)
        return cls.of_features([found.get(str(one), []) for one in items.ids.tolist()], min_count=min_count)


def words(title: str) -> list[str]:
    """Return the words of a title as features: letters alone, in lower case, of two and more."""
    return [f"word:{word}" for word in _WORD.findall(title.lower())]


def _flagged(path: Path) -> dict[str, list[str]]:
    """Read MovieLens 100K's form: fields and flags between bars, the genres' names in a file beside it."""
    genres = [line.split("|")[0] for line in _lines(path.with_name("u.genre"))]
    found = {}
    for number, line in enumerate(_lines(path), 1):
        fields = line.split("|")
        if len(fields) != _FLAGS + len(genres):
            raise DataError(
                f"{path}, line {number}: {len(fields)} fields, and {_FLAGS} with a flag for each of the "
                f"{len(genres)} genres of u.genre were expected."
            )
        named = [name for name, flag in zip(genres, fields[_FLAGS:], strict=True) if flag == "1"]
        found[fields[0]] = [*words(fields[1]), *(f"genre:{name}" for name in named)]
    return found


def _separated(path: Path) -> dict[str, list[str]]:
    """Read MovieLens 1M's form: id::title::Genre|Genre."""
    return _of_rows(path, (line.split("::") for line in _lines(path)))


def _quoted(path: Path) -> dict[str, list[str]]:
    """Read the later sets' form: movieId,title,genres with a header and quotes."""
    return _of_rows(path, list(csv.reader(_lines(path)))[1:])


def _of_rows(path: Path, rows: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    found = {}
    for number, row in enumerate(rows, 1):
        if len(row) != 3:
            raise DataError(
                f"{path}, row {number}: {len(row)} fields, and 3 were expected: id, title, genres."
            )
        genres = [name for name in row[2].split("|") if name and name != _NO_GENRES]
        found[row[0]] = [*words(row[1]), *(f"genre:{name}" for name in genres)]
    return found


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give a file of MovieLens.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return [line for line in text.splitlines() if line]
