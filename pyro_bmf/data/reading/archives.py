"""Unpacking zip archives so that nothing lands outside the folder meant for it."""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

from ...errors import DataError
from ...files import temporary_folder
from .foreign import FOREIGN_ZIP, reason

MAX_BYTES = 8 << 30  # unpacked, per archive: far above every named set, far below a zip bomb
_DRIVE = re.compile(r"[A-Za-z]:")


def unpack(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> Path:
    """Unpack the wanted members of a zip archive into `folder`: all of them, or nothing.

    Every member's name is checked before the first byte is written, the unwanted ones too: an archive that
    tries to escape is refused as a whole.

    Parameters
    ----------
    archive
        The zip file.
    folder
        Where to; must not exist yet. It is made under a temporary name beside it and renamed.
    wanted
        Tells by name which members to unpack.

    Returns
    -------
    folder
        The folder.

    Raises
    ------
    DataError
        For a file that is no zip archive, is damaged or encrypted, is too large, or holds absolute paths,
        ``..``, links, special files or one name twice.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            _check(archive, opened.infolist())
            chosen = [
                member for member in opened.infolist() if not member.is_dir() and wanted(member.filename)
            ]
            folder.parent.mkdir(parents=True, exist_ok=True)
            with temporary_folder(folder) as inside:
                temporary = inside / "content"
                temporary.mkdir()
                for member in chosen:
                    target = temporary.joinpath(*member.filename.split("/"))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    # "xb": a file that stands there already, a link among them, is never written through.
                    with opened.open(member) as source, open(target, "xb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
                        file.flush()
                        os.fsync(file.fileno())
                temporary.chmod(0o755)
                _place(temporary, folder)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot unpack {archive} into {folder.parent}: {error.strerror or error}") from None
    except FOREIGN_ZIP as error:
        raise DataError(
            f"{archive} is not a usable zip archive ({reason(error)}): remove it and fetch it again"
        ) from error
    return folder


def _place(temporary: Path, folder: Path) -> None:
    try:
        os.rename(temporary, folder)
    except OSError:
        # Another process was first: its folder holds the same.
        if not folder.is_dir():
            raise


def _check(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    total = 0
    for member in members:
        # orig_filename: what the archive says, before zipfile cuts it at a NUL or turns separators.
        name = member.orig_filename
        parts = name.removesuffix("/").split("/")
        mode = stat.S_IFMT(member.external_attr >> 16)
        if (
            "\0" in name
            or "\\" in name
            or _DRIVE.match(name)
            or any(part in ("", ".", "..") for part in parts)
            or mode not in (0, stat.S_IFREG, stat.S_IFDIR)
        ):
            raise DataError(
                f"{archive} holds {name!r}, a path or link that could lead outside the folder: nothing "
                "was unpacked; take the archive from its official address"
            )
        if member.flag_bits & 1:
            raise DataError(f"{archive} is encrypted: a data set's archive is not")
        if name in seen:
            raise DataError(f"{archive} holds {name!r} twice: nothing was unpacked")
        seen.add(name)
        total += member.file_size
    if total > MAX_BYTES:
        raise DataError(f"{archive} would unpack to {total:,} bytes, over the limit of {MAX_BYTES:,}")
