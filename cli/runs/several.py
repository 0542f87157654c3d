"""Several runs at once: what they are called, and the split that they share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyro_bmf.errors import SettingsError

from .folder import RunFolder

if TYPE_CHECKING:
    from pyro_bmf.data import Split


def names_of(paths: tuple[Path, ...]) -> list[str]:
    """Return what tables call runs: their folders' names, or paths where two have one name.

    Raises
    ------
    UsageError
        If there are not two, or one is named twice.
    """
    if len(paths) < 2:
        raise click.UsageError("Give two runs or more.")
    if len({path.resolve() for path in paths}) < len(paths):
        raise click.UsageError("A run is named twice.")
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def common_split(
    folders: list[RunFolder], names: list[str], data_dir: Path | None, data: str | None
) -> Split:
    """Load the split of the first run, after making sure that it is that of all.

    Raises
    ------
    SettingsError
        Naming two runs of different splits.
    """
    hashes = [folder.split_hash() for folder in folders]
    for name, own in zip(names, hashes, strict=True):
        if own != hashes[0]:
            raise SettingsError(
                f"{names[0]} and {name} have different splits ({hashes[0][:12]}, {own[:12]}): figures of "
                "different ratings cannot be compared. Fit both with the same data and split options."
            )
    return folders[0].load_split(data_dir, data)
