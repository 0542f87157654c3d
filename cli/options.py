"""Options that several commands share: how ratings are read and how they are split.

`data_options` gives a command the argument `reading`, `split_options` the argument `splitting`, and
`ratings_options` both with the option ``--data``; `pyro_bmf.cli.splitting` acts on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import click

from .printing.option_groups import SEED, option

FORMATS = ("csv", "tsv", "::", "semicolon", "pipe", "space", "parquet", "jsonl")
#: The newest of `pyro_bmf.data.reading.layout.READERS`.
READER = 2
SCHEMES = ("random", "users", "leave-last", "time", "k-fold", "subsample", "given")
_READING, _SPLIT = "Reading ratings", "Splitting them"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Reading:
    """How ratings are read: the arguments of `load_ratings`, None where the user said nothing."""

    data_dir: Path | None = None
    format: str | None = None
    columns: str | None = None
    header: bool | None = None
    scale: str | None = None
    duplicates: str | None = None
    min_ratings: int | None = None
    quoting: str | None = None
    titles: Path | None = None
    #: Which way of reading files; no option, but written down with a run, so that it finds its ratings again.
    reader: int = READER


@dataclass(frozen=True)
class Splitting:
    """How ratings are split: the scheme and its settings, None where the user said nothing."""

    scheme: str | None = None
    seed: int | None = None
    fractions: tuple[float, float, float] | None = None
    points: tuple[float, float] | None = None
    n: int | None = None
    percent: float | None = None
    k: int | None = None
    fold: int | None = None
    valid_fraction: float | None = None
    train: Path | None = None
    valid: Path | None = None
    test: Path | None = None


class Asked(NamedTuple):
    """Which ratings are meant: where they are, how they are read, and how they are split."""

    data: str | None
    reading: Reading
    splitting: Splitting

    @property
    def is_empty(self) -> bool:
        """Whether no ratings are named."""
        return self.data is None and self.splitting.train is None


def ratings_options(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a click command ``--data``, the options of reading and splitting, and one argument `asked`.

    The split's seed is ``--split-seed``.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("--data", metavar="NAME|FILE", help=help)
        @data_options
        @split_options(seed="--split-seed")
        @wraps(function)
        def with_ratings(
            *args: Any, data: str | None, reading: Reading, splitting: Splitting, **kwargs: Any
        ) -> Any:
            return function(*args, asked=Asked(data, reading, splitting), **kwargs)

        decorated: Callable[..., Any] = with_ratings
        return decorated

    return decorate


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options of reading ratings, and one argument `reading`, a `Reading`."""

    @option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        group=_READING,
        help="Folder that holds named sets, or takes them when fetched. "
        "[default: $PYRO_BMF_DATA_DIR, else the user's cache folder]",
    )
    @option(
        "--format",
        type=click.Choice(FORMATS),
        group=_READING,
        help="Format of a ratings file. [default: told from the file]",
    )
    @option(
        "--columns",
        metavar="U,I,R[,T]",
        group=_READING,
        common=True,
        help="User, item, rating and timestamp column, by header name or by position counted from 0, "
        "as in userId,movieId,rating or 1,0,2,3. [default: told from the file]",
    )
    @option(
        "--header/--no-header",
        default=None,
        group=_READING,
        help="Whether the first line names the columns. [default: told from the file]",
    )
    @option(
        "--scale",
        metavar="LOW:HIGH[:STEP]",
        group=_READING,
        common=True,
        help="Rating scale, as in 1:5:1; without a step it is continuous. "
        "[default: the set's own, or inferred]",
    )
    @option(
        "--duplicates",
        type=click.Choice(("error", "last", "mean")),
        group=_READING,
        help="What to do with a (user, item) pair that stands twice. "
        "[default: the set's own rule, else error]",
    )
    @option(
        "--min-ratings",
        type=click.IntRange(min=0),
        metavar="N",
        group=_READING,
        help="Keep users and items with at least N ratings, both counted on the full file. [default: the "
        "set's own filter, else all]",
    )
    @option(
        "--quoting",
        type=click.Choice(("csv", "none")),
        group=_READING,
        help="Whether a quotation mark in a text file quotes a field, as RFC 4180 says, or is a character. "
        "[default: csv for CSV, none for other text]",
    )
    @option(
        "--titles",
        type=_FILE,
        metavar="FILE",
        group=_READING,
        help="Titles of items: an item id and a title in each line. [default: the set's own, or none]",
    )
    @wraps(function)
    def with_reading(*args: Any, **kwargs: Any) -> Any:
        taken = {field.name: kwargs.pop(field.name) for field in fields(Reading) if field.name != "reader"}
        return function(*args, reading=Reading(**taken), **kwargs)

    return with_reading


def split_options(seed: str = "--seed") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a click command the options of splitting, and one argument `splitting`, a `Splitting`.

    A command that has another ``--seed`` names the split's otherwise.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        return _with_split_options(function, seed)

    return decorate


def _with_split_options(function: Callable[..., Any], seed: str) -> Callable[..., Any]:
    parameter = seed.removeprefix("--").replace("-", "_")

    @option(
        "--scheme",
        type=click.Choice(SCHEMES),
        metavar="WORD",
        group=_SPLIT,
        common=True,
        help="random, users (whole ones), leave-last (each user's, in time), time (one point for all), "
        "k-fold, subsample (a small train part) or given (files). [default: random]",
    )
    @option(
        seed,
        parameter,
        type=SEED,
        metavar="S",
        group=_SPLIT,
        help="Seed of a random split, of users, k folds or a subsample. [default: 0]",
    )
    @option(
        "--fractions",
        callback=_three_fractions,
        metavar="A,B,C",
        group=_SPLIT,
        common=True,
        help="Shares of train, validation and test (random, time, users). "
        "[default: 0.7,0.15,0.15; users 0.8,0.1,0.1]",
    )
    @option(
        "--points",
        callback=_two_points,
        metavar="T1,T2",
        group=_SPLIT,
        help="First timestamp of validation and of test in seconds, instead of shares (time).",
    )
    @option(
        "--n",
        type=click.IntRange(min=1),
        metavar="N",
        group=_SPLIT,
        help="Test ratings of each user, and as many for validation (leave-last). [default: 1]",
    )
    @option(
        "--percent",
        type=click.FloatRange(0, 100, min_open=True, max_open=True),
        metavar="P",
        group=_SPLIT,
        help="Share of train in percent, the rest is halved (subsample). [default: 10]",
    )
    @option(
        "--k",
        type=click.IntRange(min=2),
        metavar="K",
        group=_SPLIT,
        help="Number of folds (k-fold). [default: 5]",
    )
    @option(
        "--fold",
        type=click.IntRange(min=0),
        metavar="F",
        group=_SPLIT,
        help="Which fold is the test part, from 0 (k-fold).",
    )
    @option(
        "--valid-fraction",
        type=click.FloatRange(0, 1, max_open=True),
        metavar="V",
        group=_SPLIT,
        help="Validation's share of what is not test (k-fold: 0.15; given without --valid: 0).",
    )
    @option("--train", type=_FILE, metavar="FILE", group=_SPLIT, help="Train ratings (given).")
    @option("--valid", type=_FILE, metavar="FILE", group=_SPLIT, help="Validation ratings (given).")
    @option("--test", type=_FILE, metavar="FILE", group=_SPLIT, help="Test ratings (given).")
    @wraps(function)
    def with_splitting(*args: Any, **kwargs: Any) -> Any:
        taken = {
            field.name: kwargs.pop(parameter if field.name == "seed" else field.name)
            for field in fields(Splitting)
        }
        return function(*args, splitting=Splitting(**taken), **kwargs)

    return with_splitting


def _numbers(text: str, count: int, kind: type, parameter: click.Parameter) -> tuple[Any, ...]:
    try:
        numbers = tuple(kind(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        what = "whole numbers" if kind is int else "numbers"
        raise click.BadParameter(f"{text!r}: write {count} {what} with commas between", param=parameter)
    return numbers


def _three_fractions(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[Any, ...] | None:
    return None if value is None else _numbers(value, 3, float, parameter)


def _two_points(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[Any, ...] | None:
    if value is None:
        return None
    # Whole seconds stay whole; fractions count too.
    points = _numbers(value, 2, float, parameter)
    exact = tuple(part.strip() for part in value.split(","))
    return tuple(
        int(part) if part.lstrip("+-").isdecimal() else point
        for part, point in zip(exact, points, strict=True)
    )
