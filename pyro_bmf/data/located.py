"""Finding the files of a named set on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pooch

from ..errors import DataError
from ..files import sha256_file
from .notices import warn
from .reading.archives import unpack
from .reading.containers import open_source
from .reading.layout import fields_in, head_of
from .sources import Member, Source, Wheel

ENVIRONMENT = "PYRO_BMF_DATA_DIR"


@dataclass(frozen=True)
class Located:
    """The files of a named set on this machine, and how to read them."""

    ratings: Path
    titles: Path | None
    format: str
    header: bool
    timestamps: bool
    titles_format: str


def cache_dir() -> Path:
    """Return the user's cache folder for data sets (it need not exist)."""
    return Path(pooch.os_cache("pyro-bmf"))


def search_folders(data_dir: str | Path | None = None) -> list[Path]:
    """Return the folders where named sets are looked for: the data folder, if any, then the cache."""
    given = data_dir or os.environ.get(ENVIRONMENT) or None
    folders = [] if given is None else [Path(given).expanduser()]
    if folders and folders[0].exists() and not folders[0].is_dir():
        raise DataError(f"data folder {folders[0]} is a file: name a folder (--data-dir or {ENVIRONMENT})")
    return [*folders, cache_dir()]


def is_here(source: Source, data_dir: str | Path | None = None) -> Path | None:
    """Return where a set lies on this machine, or None; reads no file and asks no network."""
    if source.ratings is None:
        return None
    folders = search_folders(data_dir)
    for folder in folders:
        for path in (archive_in(source, folder), extracted_in(source.ratings, folder)):
            if path is not None:
                return path
    if source.wheel is not None:
        unpacked = unpacked_folder(source.wheel.sha256) / source.wheel.ratings.path
        if unpacked.is_file():
            return unpacked
    return None


def archive_in(source: Source, folder: Path) -> Path | None:
    """Return the official file (archive or plain) lying in `folder`."""
    stem = source.file_name.rsplit(".", 1)[0]
    for path in (
        folder / source.file_name,
        folder / stem / source.file_name,
        folder / source.name / source.file_name,
    ):
        if path.is_file():
            return path
    return None


def extracted_in(member: Member, folder: Path) -> Path | None:
    """Return an extracted file in `folder`, which may be the set's own folder or the one above."""
    parent, _, name = member.path.rpartition("/")
    for path in (folder / member.path, folder / name if parent and folder.name == parent else None):
        if path is not None and path.is_file():
            return path
    return None


def matches_checksum(path: Path, checksum: str | None) -> bool | None:
    """Tell whether a file has a checksum; None where none is known."""
    if checksum is None:
        return None
    algorithm, _, digest = checksum.partition(":")
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest() == digest
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def from_file(source: Source, path: Path) -> Located:
    """Return the files of a set whose official file is at `path`; an archive is unpacked in the cache."""
    assert source.ratings is not None
    if not source.archive:
        return _located(source, path, None)
    folder = unpacked_folder(sha256_file(path))
    names = {member.path for member in (source.ratings, source.titles) if member is not None}
    if not all((folder / name).is_file() for name in names):
        shutil.rmtree(folder, ignore_errors=True)  # someone took files out of the cache
        unpack(
            path, folder, lambda name: name in names or name.rsplit("/", 1)[-1].lower().startswith("readme")
        )
    if not (folder / source.ratings.path).is_file():
        raise DataError(
            f"{path} does not hold {source.ratings.path}: it is not the archive of {source.title}"
        )
    titles = None if source.titles is None else folder / source.titles.path
    return _located(source, folder / source.ratings.path, titles if titles and titles.is_file() else None)


def unpacked_folder(digest: str) -> Path:
    """Return where an archive is unpacked: by its content, so that one that is replaced is unpacked anew."""
    return cache_dir() / "unpacked" / digest[:16]


def from_extracted(source: Source, ratings: Path, folder: Path) -> Located:
    """Return the files of a set that lie extracted in `folder`; what they are not is warned of."""
    assert source.ratings is not None
    titles = None if source.titles is None else extracted_in(source.titles, folder)
    files = _located(source, ratings, titles)
    _verify(source.ratings, ratings, source, files.timestamps)
    if titles is not None and source.titles is not None and source.titles.sha256 is not None:
        _verify(source.titles, titles, source, True)
    return files


def _verify(member: Member, path: Path, source: Source, timestamps: bool) -> None:
    if member.sha256 is not None:
        if not matches_checksum(path, f"sha256:{member.sha256}"):
            warn(
                f"{path} is not the official file: its sha256 is {sha256_file(path)}, the official one "
                f"{member.sha256}; used as it is"
            )
    elif source.timestamps and not timestamps:
        warn(
            f"{path} is not the official file: it lacks the timestamps, so its checksum (sha256 "
            f"{sha256_file(path)}) is not the official one; used as it is"
        )
    else:
        warn(
            f"{path}: no official checksum of the extracted file is known, so it could not be verified (only "
            f"{source.file_name} can be); used as it is"
        )


def _located(source: Source, ratings: Path, titles: Path | None) -> Located:
    fields = fields_in(head_of(open_source(ratings)), source.format)
    return Located(
        ratings, titles, source.format, source.header, fields > max(source.columns), source.titles_format
    )


def from_wheel_folder(source: Source, wheel: Wheel) -> Located | None:
    """Return the files of a wheel that was unpacked before; None where there is none."""
    folder = unpacked_folder(wheel.sha256)
    ratings, titles = folder / wheel.ratings.path, folder / wheel.titles.path
    if not (ratings.is_file() and titles.is_file()):
        return None
    for member, path in ((wheel.ratings, ratings), (wheel.titles, titles)):
        if not matches_checksum(path, f"sha256:{member.sha256}"):
            warn(
                f"{path} was changed after it was unpacked: its checksum is not the official one; used as "
                "it is"
            )
    return Located(ratings, titles, "tsv", True, True, "recbole")
