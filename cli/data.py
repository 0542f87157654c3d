"""`pyro-bmf data`: list, inspect, fetch and split ratings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyro_bmf.errors import SettingsError

from .options import Reading, Splitting, data_options, split_options
from .printing.option_groups import GroupedCommand
from .printing.output import Row, TableWriter, note, table_options
from .splitting import check_data_dir, check_written, load, make_splits

if TYPE_CHECKING:
    from pyro_bmf.data import Ratings, Source, Split


# In the docstrings below \b is the character that tells click to leave the paragraph's lines as they are.


@click.group()
def group() -> None:
    """List, fetch, inspect and split ratings.

    \b
    Example:
      pyro-bmf data list
      pyro-bmf data info ml100k
      pyro-bmf data split ml100k --out splits/ml100k
    """


_DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder that holds named sets. [default: $PYRO_BMF_DATA_DIR, else the user's cache folder]",
)


@group.command("list")
@_DATA_DIR
@table_options
def list_sets(data_dir: Path | None, tables: TableWriter) -> None:
    """List the named data sets, and which of them are on this machine.

    \b
    Example:
      pyro-bmf data list --json
    """
    from pyro_bmf.data.located import is_here
    from pyro_bmf.data.sources import SOURCES

    rows: list[Row] = []
    for source in SOURCES.values():
        users, items, ratings = source.counts
        here = "generated" if source.ratings is None else is_here(source, data_dir)
        rows.append(
            {
                "name": source.name,
                "title": source.title,
                "users": users,
                "items": items,
                "ratings": ratings,
                "scale": source.scale or "continuous",
                "here": None if here is None else str(here),
            }
        )
    tables.show("Named data sets", rows)


@group.command()
@click.argument("name")
@data_options
@table_options
def info(name: str, reading: Reading, tables: TableWriter) -> None:
    """Describe a named set or a ratings file.

    NAME is a named set, a file, or a folder that `data split` wrote. A set that is not on this machine is
    described from the table of sources; nothing is downloaded.

    \b
    Example:
      pyro-bmf data info ml1m
      pyro-bmf data info my_ratings.csv --columns user,film,stars
    """
    from pyro_bmf.data import read_split
    from pyro_bmf.data.located import is_here
    from pyro_bmf.data.sources import find_source

    source = find_source(name)
    check_data_dir(name, reading.data_dir)
    if source is None:
        if (Path(name) / "split.json").is_file():
            check_written(name, reading)
            split = read_split(name)
            tables.show(f"{name}: {split.scheme} split", _split_rows(split))
            tables.show(f"{name}: ratings", _pairs(_statistics(split.ratings)), name="ratings")
        else:
            tables.show(name, _pairs(_statistics(load(name, reading))))
        return
    here = source.ratings is None or is_here(source, reading.data_dir) is not None
    facts = _facts(source, reading.data_dir)
    if here:
        facts |= _statistics(load(name, reading))
    tables.show(f"{source.name}: {source.title}", _pairs(facts))


@group.command()
@click.argument("name")
@_DATA_DIR
@table_options
def fetch(name: str, data_dir: Path | None, tables: TableWriter) -> None:
    """Download a named set, check it and unpack it; a set that is here already is only checked.

    \b
    Example:
      pyro-bmf data fetch ml1m
    """
    from pyro_bmf.data.download import locate
    from pyro_bmf.data.sources import get_source

    source = get_source(name)
    if source.ratings is None:
        tables.say(f"{source.name}: nothing to fetch, it is generated.")
        return
    files = locate(source, data_dir=data_dir, progress=True)
    found = {"ratings": files.ratings, "titles": files.titles}
    rows: list[Row] = [
        {"what": what, "path": str(path), "bytes": path.stat().st_size}
        for what, path in found.items()
        if path is not None
    ]
    tables.show(f"{source.name}: {source.title}", rows)


@group.command(cls=GroupedCommand)
@click.argument("name", required=False)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder for train.csv, valid.csv, test.csv, users.csv, items.csv and split.json; it is made.",
)
@click.option("--overwrite", is_flag=True, help="Replace a split that lies in DIR, or folds.")
@data_options
@split_options()
@table_options
def split(
    name: str | None,
    out: Path,
    overwrite: bool,
    reading: Reading,
    splitting: Splitting,
    tables: TableWriter,
) -> None:
    """Split a named set or a ratings file into train, validation and test files that anyone can read.

    k-fold without --fold writes every fold, to DIR/fold-0, DIR/fold-1 and so on.

    \b
    Example:
      pyro-bmf data split ml100k --out splits/ml100k
      pyro-bmf data split my.csv --scheme leave-last --n 2 --out splits/mine
      pyro-bmf data split --train u1.base --test u1.test --out splits/u1
    """
    from pyro_bmf.data import write_split
    from pyro_bmf.data.synthetic import default_synthetic

    check_data_dir(name, reading.data_dir)
    splits = make_splits(name, reading, splitting)
    several = len(splits) > 1
    left = _folds_left(out, len(splits), overwrite) if several else []
    for fold, made in enumerate(splits):
        folder = write_split(made, out / f"fold-{fold}" if several else out, overwrite=overwrite)
        if name == "synthetic":
            default_synthetic().truth.save(folder / "truth.npz")
        tables.show(f"{made.ratings.name}: {made.scheme} split in {folder}", _split_rows(made))
    for folder in left:
        shutil.rmtree(folder)
    if left:
        note(f"Removed folds of an earlier split: {_named(left)}.")


def _folds_left(out: Path, k: int, overwrite: bool) -> list[Path]:
    """Return folds of an earlier split that are none of k new ones; refuse those that are to stay."""
    from pyro_bmf.data.split_files import holds_split_alone

    if (out / "split.json").is_file():
        raise SettingsError(f"{out} holds a split, and folds would lie inside it: give another --out.")
    found = [(int(path.name[5:]), path) for path in out.glob("fold-*") if path.name[5:].isdecimal()]
    left = [path for number, path in sorted(found) if number >= k]
    foreign = [path for path in left if path.is_symlink() or not holds_split_alone(path)]
    if foreign:
        raise SettingsError(
            f"{_named(foreign)} would lie beside the {k} folds, and what is in there was not written by this "
            "command alone: move it, or give another --out."
        )
    if left and not overwrite:
        raise SettingsError(
            f"{_named(left)} would lie beside the {k} folds: give another --out, or --overwrite, which "
            "removes folds of an earlier split."
        )
    return left


def _named(folders: list[Path]) -> str:
    return ", ".join(map(str, folders))


def _facts(source: Source, data_dir: Path | None) -> dict[str, object]:
    """Return what the table of sources knows."""
    from pyro_bmf.data.located import is_here

    users, items, ratings = source.counts
    here = "generated on demand" if source.ratings is None else is_here(source, data_dir)
    kind = "checked on the official file" if source.counts_verified else "as published"
    if source.ratings is None:
        kind = "as generated"
    minimum = source.min_ratings
    facts: dict[str, object] = {
        "here": str(here) if here is not None else f"no: pyro-bmf data fetch {source.name}",
        "counts": f"{users} users, {items} items, {ratings} ratings ({kind})",
        "declared scale": source.scale or "continuous",
        "filter": f"users and items with at least {minimum} ratings, one pass" if minimum else "none",
        "duplicates": source.duplicates,
        "licence": source.licence,
    }
    if source.address is not None:
        facts |= {
            "address": source.address,
            "checksum": source.checksum or "none known: a download cannot be verified",
            "citation": source.citation,
        }
    return facts


def _statistics(ratings: Ratings) -> dict[str, object]:
    """Return what the ratings themselves tell."""
    import numpy as np

    facts: dict[str, object] = {
        "users": ratings.n_users,
        "items": ratings.n_items,
        "ratings": len(ratings),
        "density": len(ratings) / (ratings.n_users * ratings.n_items),
        "mean rating": float(ratings.ratings.mean()),
        "sd of ratings": float(ratings.ratings.std()),
        "scale": f"{ratings.scale} ({ratings.scale.source})",
    }
    for kind, counts in (("user", ratings.user_counts), ("item", ratings.item_counts)):
        low, middle, high = np.quantile(counts, (0, 0.5, 1))
        facts[f"ratings per {kind}"] = f"{low:.0f} least, {middle:.0f} median, {high:.0f} most"
    for kind, vocabulary in (("user", ratings.user_vocabulary), ("item", ratings.item_vocabulary)):
        facts[f"{kind} ids"] = "integers" if vocabulary.is_integer else "text"
    facts["timestamps"] = ratings.timestamps is not None
    facts["titles"] = ratings.item_titles is not None
    facts["data hash"] = ratings.data_hash
    return facts


def _pairs(facts: dict[str, object]) -> list[Row]:
    return [{"property": name, "value": value} for name, value in facts.items()]


def _split_rows(split: Split) -> list[Row]:
    import numpy as np

    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    return [
        {
            "part": name,
            "ratings": len(part),
            "users": int(np.count_nonzero(part.user_counts)),
            "items": int(np.count_nonzero(part.item_counts)),
            "mean rating": float(part.ratings.mean()) if len(part) else None,
            "split hash": split.hash,
        }
        for name, part in parts.items()
    ]
