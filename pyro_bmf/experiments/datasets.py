"""The data sets of the paper's tables, others that may stand beside them, and where each is."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pyro_bmf.data import Ratings, Split, load_ratings, random_split
from pyro_bmf.data.located import is_here
from pyro_bmf.data.sources import SOURCES
from pyro_bmf.errors import DataError, SettingsError

#: The paper's five sets, in its order, by our names, with the columns of its Table 3.
PAPERS_SETS: Mapping[str, str] = {
    "ml1m": "ML-1M",
    "ml10m": "ML-10M",
    "ml20m": "ML-20M",
    "amazon-pet": "Amazon-Pet",
    "amazon-kindle": "Amazon-Kindle",
}
_READING = ("format", "columns", "header", "scale", "duplicates", "min_ratings", "quoting")


@dataclass(frozen=True, eq=False)
class DataSet:
    """A column of a table.

    Attributes
    ----------
    name : str
    title : str
        In tables.
    source : str
        A named set or a file.
    reading : mapping
        Arguments of `load_ratings`.
    """

    name: str
    title: str
    source: str
    reading: Mapping[str, Any] = field(default_factory=dict)
    _hashes: dict[int, str] = field(default_factory=dict, repr=False)
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False)
    _last: list[tuple[int, Split]] = field(default_factory=list, repr=False)

    @property
    def papers(self) -> str | None:
        """What the paper's Table 3 calls the set; None of one that is not the paper's."""
        return PAPERS_SETS.get(self.name)

    @property
    def missing(self) -> str | None:
        """Why the set cannot be had here; None where it can."""
        if self.source not in SOURCES:
            return None if Path(self.source).is_file() else f"there is no file {Path(self.source).name}"
        source = SOURCES[self.source]
        if source.ratings is None or is_here(source, self.reading.get("data_dir")) is not None:
            return None
        return f"not on this machine ('pyro-bmf data fetch {self.source}' where there is a network)"

    @property
    def base(self) -> str:
        """The name of the set that settings go with: its own, also of a part of it."""
        return self.name

    @cached_property
    def ratings(self) -> Ratings:
        """The ratings, loaded once."""
        return load_ratings(self.source, download=False, **self.reading)

    def split(self, seed: int) -> Split:
        """Return the paper's random split, 70 % train, 15 % validation, 15 % test; the last one is kept."""
        if not self._last or self._last[0][0] != seed:
            made = self._split(seed)
            self._last[:] = [(seed, made)]
            self._hashes[seed] = made.hash
            self._sizes[seed] = len(made.train_rows), made.ratings.n_users + made.ratings.n_items
        return self._last[0][1]

    def _split(self, seed: int) -> Split:
        return random_split(self.ratings, seed=seed)

    def split_hash(self, seed: int) -> str:
        """Return the hash of `split`, without making the split again."""
        return self._hashes[seed] if seed in self._hashes else self.split(seed).hash

    def train_size(self, seed: int) -> tuple[int, int]:
        """Return how many ratings a split trains on, and how many users and items there are together."""
        if seed not in self._sizes:
            self.split(seed)
        return self._sizes[seed]


def named_set(name: str, data_dir: Path | None = None) -> DataSet:
    """Return one of the named sets.

    Raises
    ------
    DataError
        If there is none of that name.
    """
    if name not in SOURCES:
        raise DataError(
            f"There is no named set {name!r}: choose from {', '.join(SOURCES)}, or describe a file in a file "
            "of sets (--sets), which are all run and are not named with --data."
        )
    title = PAPERS_SETS.get(name, SOURCES[name].title)
    return DataSet(name, title, name, {} if data_dir is None else {"data_dir": data_dir})


def sets_of_file(path: Path) -> tuple[DataSet, ...]:
    """Read a TOML file of data sets: a table each, with ``file`` and what `load_ratings` needs to read it.

    A file's path may have environment variables; one that is not absolute is from the TOML file's folder.

    Raises
    ------
    SettingsError
        If it is no TOML, or a table lacks its file, or has a key that is not read.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f'{path} cannot be read as TOML ({error}): write [name] and file = "…".'
        ) from error
    found = []
    for name, table in content.items():
        if not isinstance(table, dict) or not isinstance(table.get("file"), str):
            raise SettingsError(f'{path}: [{name}] names no file: write file = "ratings.csv".')
        unknown = [key for key in table if key not in ("file", "title", *_READING)]
        if unknown:
            raise SettingsError(
                f"{path}: [{name}] has {unknown[0]!r}, which is not read: there are file, title, "
                f"{', '.join(_READING)}."
            )
        if name in SOURCES:
            raise SettingsError(f"{path}: [{name}] is the name of a named set: give another.")
        file = (path.parent / os.path.expandvars(table["file"])).resolve()
        reading = {key: value for key, value in table.items() if key in _READING}
        found.append(DataSet(name, str(table.get("title", name)), str(file), reading))
    return tuple(found)
