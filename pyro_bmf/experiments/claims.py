"""Who works on what, among processes and machines that share a folder: locks of the operating system.

A lock ends with its process, so the claim of a process that was killed is free at once, and what it left half
done can be told from what is being done.
"""

from __future__ import annotations

import errno
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyro_bmf.files import make_folder, write_error

_PAUSE = 0.02  # seconds between two tries of a lock that is waited for


class Claims:
    """Claims by name, each a file in one folder.

    Parameters
    ----------
    folder : Path
        It is made. Machines may share it where its file system hands on locks, as NFS 4 does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def tried(self, name: str) -> Iterator[bool]:
        """Hold a claim within the block and give True; where somebody else holds it, give False at once."""
        from filelock import FileLock, Timeout

        path = self._path(name)
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise write_error(path, error.errno or errno.EACCES) from error
        try:
            with suppress(OSError):
                path.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
            yield True
        finally:
            # Removed while it is held: who opened it before finds that it has no name, and tries again.
            path.unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def waited_for(self, name: str) -> Iterator[None]:
        """Hold a claim within the block, as soon as nobody else does."""
        from filelock import FileLock

        path = self._path(name)
        lock = FileLock(path, poll_interval=_PAUSE)
        try:
            lock.acquire()
        except OSError as error:
            raise write_error(path, error.errno or errno.EACCES) from error
        try:
            yield
        finally:
            lock.release()

    def is_free(self, name: str) -> bool:
        """Return whether nobody holds a claim: it was given back, or its process is no more."""
        with self.tried(name) as mine:
            return mine

    def _path(self, name: str) -> Path:
        make_folder(self.folder)
        return self.folder / f"{name}.lock"
