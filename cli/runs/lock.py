"""One writer a run folder: a lock of the operating system, which ends with its process."""

from __future__ import annotations

import errno
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyro_bmf.errors import SettingsError
from pyro_bmf.files import make_folder, read_json, write_error

NAME = ".lock"
_TRIES = 3  # as the file may vanish while it is being opened, when its holder ends


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder for as long as the block lasts; readers need none.

    The lock of a process that was killed is free: its file may lie there still.

    Raises
    ------
    SettingsError
        If another fit holds it: at once, naming the folder and, where known, the process.
    """
    from filelock import FileLock, Timeout

    path = folder / NAME
    lock = FileLock(path)
    for attempt in range(_TRIES):
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            if attempt == _TRIES - 1:
                raise _held(folder) from None
        except OSError as error:
            raise write_error(folder, error.errno or errno.EACCES) from error
    try:
        with suppress(OSError):
            path.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
        yield
    finally:
        # Removed while it is held: who opened it before finds that it has no name, and tries again.
        path.unlink(missing_ok=True)
        lock.release()


def check_unlocked(folder: Path) -> None:
    """Refuse a run folder that a fit is writing.

    Raises
    ------
    SettingsError
        As `locked` does; nothing is made or removed.
    """
    from filelock import FileLock, Timeout

    path = folder / NAME
    if not path.is_file():
        return
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise _held(folder) from None
    except OSError:  # a folder that may only be read
        return
    lock.release()


def _held(folder: Path) -> SettingsError:
    return SettingsError(
        f"{folder} is being written by another fit{_holder(folder / NAME)}: wait for its end, or give "
        "another --out."
    )


def _holder(path: Path) -> str:
    """Return which process holds a lock, in brackets, if its file tells."""
    try:
        content = read_json(path)
        return f" (process {int(content['pid'])} on {str(content['host'])[:80]})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def first_free(stem: Path) -> Path:
    """Make and return the first folder of NAME, NAME-2 and so on that nobody else has made."""
    number = 1
    while True:
        out = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        try:
            make_folder(out.parent)
            out.mkdir()
            return out
        except FileExistsError:
            number += 1
        except OSError as error:
            raise write_error(out, error.errno or errno.EACCES) from error
