"""What the options of reading and splitting ask for: ratings, and their splits.

Nothing here imports NumPy before one of the functions is called.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import Reading, Splitting
from .printing.output import note

if TYPE_CHECKING:
    from pyro_bmf.data import Ratings, Split

# Which settings each scheme reads; another one given beside it is an error, not silently dropped.
_SETTINGS = {
    "random": ("seed", "fractions"),
    "users": ("seed", "fractions"),
    "leave-last": ("n",),
    "time": ("fractions", "points"),
    "k-fold": ("k", "fold", "seed", "valid_fraction"),
    "subsample": ("percent", "seed"),
    "given": ("train", "valid", "test", "valid_fraction", "seed"),
}


def check_data_dir(data: str | None, data_dir: Path | None) -> None:
    """Refuse a folder of named sets beside ratings that are no named set: it would not be read.

    Raises
    ------
    UsageError
        If both are given.
    """
    from pyro_bmf.data.sources import find_source

    if data_dir is not None and (data is None or find_source(data) is None):
        what = "given files" if data is None else data
        raise click.UsageError(
            f"--data-dir is where named sets are, and {what} is none of them: leave it out."
        )


def load(data: str, reading: Reading) -> Ratings:
    """Load a named set or a file as the options say, with a progress bar for downloads."""
    from pyro_bmf.data import load_ratings

    taken = {field.name: getattr(reading, field.name) for field in fields(Reading)}
    ratings = load_ratings(data, progress=True, **taken)
    _tell_counts(ratings)
    return ratings


def _tell_counts(ratings: Ratings) -> None:
    """Say how many lines were read, and where those went that are no ratings."""
    if ratings.counts is not None:
        note(f"{ratings.name}: {ratings.counts}")


def make_split(data: str | None, reading: Reading, splitting: Splitting) -> Split:
    """Load `data` and split it as the options say.

    `data` may also be a folder that ``pyro-bmf data split`` wrote, which is then read as it is; it is None
    for the scheme ``given``.
    """
    splits = make_splits(data, reading, splitting)
    if len(splits) > 1:
        raise click.UsageError(f"Say which of the {len(splits)} folds is meant, with --fold.")
    return splits[0]


def make_splits(data: str | None, reading: Reading, splitting: Splitting) -> tuple[Split, ...]:
    """Do as `make_split`; k-fold without a fold gives all of them."""
    scheme = _scheme(splitting)
    settings = {name: value for name in _SETTINGS[scheme] if (value := getattr(splitting, name)) is not None}
    if scheme == "given":
        return (_given(data, reading, settings),)
    if data is None:
        raise click.UsageError(
            "Say which ratings are meant: a named set or a file (--scheme given takes files)."
        )
    if (Path(data) / "split.json").is_file():
        return (_written(data, reading, splitting),)
    from pyro_bmf import data as package

    ratings = load(data, reading)
    if scheme == "k-fold":
        fold = settings.pop("fold", None)
        folds = package.kfold_splits(ratings, **settings)
        if fold is not None and fold >= len(folds):
            raise click.UsageError(f"Fold {fold} does not exist: {len(folds)} folds count from 0.")
        return folds if fold is None else (folds[fold],)
    if scheme == "subsample":
        return (package.subsample_split(ratings, settings.pop("percent", 10.0), **settings),)
    if scheme == "users":
        return (package.users_split(ratings, **settings),)
    if scheme == "leave-last":
        return (package.leave_last_split(ratings, **settings),)
    if scheme == "time":
        return (package.time_split(ratings, **settings),)
    return (package.random_split(ratings, **settings),)


def _scheme(splitting: Splitting) -> str:
    """Return the scheme, and refuse settings that it does not read."""
    files = splitting.train is not None or splitting.test is not None
    scheme = splitting.scheme or ("given" if files else "random")
    for field in fields(Splitting):
        if field.name not in ("scheme", *_SETTINGS[scheme]) and getattr(splitting, field.name) is not None:
            option = _seed_option() if field.name == "seed" else f"--{field.name.replace('_', '-')}"
            users = ", ".join(name for name, read in _SETTINGS.items() if field.name in read)
            raise click.UsageError(f"{option} does not go with the {scheme} split (it is for: {users}).")
    if splitting.fractions is not None and splitting.points is not None:
        raise click.UsageError("Give --fractions or --points, not both.")
    return scheme


def _seed_option() -> str:
    """Return what the command calls the split's seed."""
    context = click.get_current_context(silent=True)
    names = {parameter.name for parameter in context.command.params} if context is not None else set()
    return "--split-seed" if "split_seed" in names else "--seed"


def _given(data: str | None, reading: Reading, settings: dict[str, Any]) -> Split:
    from pyro_bmf.data import given_split
    from pyro_bmf.data.titles import titles_of
    from pyro_bmf.data.validation import with_titles

    if data is not None or "train" not in settings or "test" not in settings:
        raise click.UsageError(
            "The given split takes --train FILE and --test FILE, and no data set beside them."
        )
    for name in ("duplicates", "min_ratings"):
        if getattr(reading, name) is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} does not go with given files.")
    split = given_split(
        settings.pop("train"),
        settings.pop("valid", None),
        settings.pop("test"),
        format=reading.format,
        columns=reading.columns,
        header=reading.header,
        scale=reading.scale,
        quoting=reading.quoting,
        reader=reading.reader,
        **settings,
    )
    _tell_counts(split.ratings)
    if reading.titles is None:
        return split
    found = titles_of(reading.titles, split.ratings.item_vocabulary, split.ratings.name)
    return replace(split, ratings=with_titles(split.ratings, found))


def _written(data: str, reading: Reading, splitting: Splitting) -> Split:
    from pyro_bmf.data import read_split

    check_written(data, reading, splitting)
    return read_split(data)


def check_written(data: str, *chosen: Reading | Splitting) -> None:
    """Refuse options of reading or splitting beside a written split, which is read as it is."""
    if any(
        getattr(options, field.name) is not None
        for options in chosen
        for field in fields(options)
        if field.name not in ("data_dir", "reader")
    ):
        raise click.UsageError(f"{data} is a written split: it takes no options of reading or splitting.")
