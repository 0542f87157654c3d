"""Writing files so that a reader sees the old content or the new, never a part of it.

What is written lies in a temporary folder beside its target until it is whole. The writer holds a lock on
that folder for as long as it lives, so that what a killed process left behind can be told from what is being
written: the next writer of the same target removes it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import PyroBmfError, WriteError

_LONGEST = 255  # bytes of a name, on nearly every file system
_LOCK = "lock"
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|\d+))/fd/(\d+)")
_NUMBER = re.compile(r"(?:os error|errno(?: =)?) (\d+)", re.IGNORECASE)
#: What to do about a failure to write.
_REMEDIES = {
    errno.ENOSPC: "Make room on the disk, or give another place.",
    errno.EDQUOT: "Make room within your quota, or give another place.",
    errno.EFBIG: "The limit on the size of a file is too low (see 'ulimit -f'), or the file system's own is.",
    errno.EACCES: "Give a place that you may write to.",
    errno.EPERM: "Give a place that you may write to.",
    errno.EROFS: "Give a place that can be written to.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.ENOTDIR: "A part of the path is a file: give another place.",
    errno.EISDIR: "It is a folder: give the name of a file.",
    errno.EPIPE: "Its reader has closed it.",
}


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary path; on success flush it to disk and rename it to `path`.

    A crash at any moment leaves `path` as it was. On an error inside the block the temporary file is removed
    and the error goes on. Only a regular file is replaced: through a link its target is, and to a device, a
    pipe or standard output the content is copied once it is whole.

    Raises
    ------
    WriteError
        If the system refuses: no room, no permission, a name that is too long.
    """
    target = Path(path)
    inside: Path | None = None
    try:
        if is_stream(target):
            with tempfile.TemporaryDirectory() as folder:
                inside = Path(folder)
                yield inside / "content"
                _copy(inside / "content", target)
            return
        final = Path(os.path.realpath(target))  # through links: they stay
        if final.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        make_folder(final.parent)
        with temporary_folder(final) as inside:
            temporary = inside / "content"
            temporary.touch()
            yield temporary
            _sync(temporary)
            temporary.chmod(_mode(final))
            os.replace(temporary, final)
            _sync(final.parent)
    except PyroBmfError:
        raise
    except Exception as error:
        number = _system_number(error)
        named = "" if (name := getattr(error, "filename", None)) is None else os.fsdecode(name)
        foreign = bool(named) and inside is not None and inside not in Path(named).parents
        if number is None or (foreign and named != str(target)):
            raise  # of something else: a file that was read in the block, say, which its own error names
        raise write_error(target, number) from error


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target`, removed at the end; those of killed processes are removed too."""
    from filelock import FileLock

    clean_leftovers(target)
    while True:
        folder = target.with_name(f"{_stem(target)}{secrets.token_hex(4)}.tmp")
        folder.mkdir(mode=0o700)
        lock = FileLock(folder / _LOCK)
        if _try(lock):
            break
        # Another process took it for a leftover in the moment before it was locked.
        shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def clean_leftovers(target: Path) -> None:
    """Remove what killed processes left behind of writing `target`; what is being written stays."""
    from filelock import FileLock

    stem = _stem(target)
    with suppress(OSError):
        for entry in list(os.scandir(target.parent)):
            rest = entry.name.removeprefix(stem)
            if rest == entry.name or not re.fullmatch(r"[0-9a-f]{8}\.tmp", rest):
                continue
            if not entry.is_dir(follow_symlinks=False):
                continue
            lock = FileLock(Path(entry.path) / _LOCK)
            if _try(lock):
                shutil.rmtree(entry.path, ignore_errors=True)
                lock.release()


def is_stream(path: Path | str) -> bool:
    """Tell whether a path is a device, a pipe or standard output: written to, never replaced."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def open_stream(path: Path | str) -> IO[bytes]:
    """Open what `is_stream` tells for writing, where it stands; of a pipe this waits for its reader."""
    number = _descriptor(path)
    if number is not None:
        return os.fdopen(os.dup(number), "wb")
    return os.fdopen(os.open(path, os.O_WRONLY), "wb")


def reserve(path: Path, n_bytes: int) -> None:
    """Make sure that a file may grow to so many bytes, where the system can tell; it is empty afterwards.

    Raises
    ------
    OSError
        If the disk, a quota or a limit on the size of files does not let it.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise
        file.truncate(0)


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as indented JSON, atomically; NaN is refused, as JSON has none."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        data = text.encode()
    except UnicodeEncodeError:  # a path that is no UTF-8: JSON's own escapes bring it back
        data = (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError
        If it is not JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_error(target: Path | str, number: int) -> WriteError:
    """Return the error that says that the system refused to write `target`."""
    remedy = _REMEDIES.get(number, "Give another place.")
    name = str(target)
    name = name if len(name) <= 120 else f"{name[:60]}…{name[-40:]}"
    return WriteError(number, f"{name} cannot be written: {os.strerror(number)}. {remedy}")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises
    ------
    WriteError
        If the system refuses, or one of them is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise write_error(folder, errno.ENOTDIR) from error
    except OSError as error:
        raise write_error(folder, error.errno or errno.EACCES) from error


def _copy(content: Path, target: Path) -> None:
    with open(content, "rb") as file, open_stream(target) as stream:
        shutil.copyfileobj(file, stream, 1 << 20)


def _system_number(error: Exception) -> int | None:
    """Return the system's number of an error in writing.

    Libraries that write files wrap the system's error in their own, and tell its number in the text.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if type(error).__module__ == "builtins" and not isinstance(error, (OSError, RuntimeError)):
        return None
    found = _NUMBER.search(str(error))
    return None if found is None else int(found[1])


def _descriptor(path: Path | str) -> int | None:
    """Return the number of the open file that a path such as /dev/stdout or /dev/fd/3 stands for."""
    text = os.path.normpath(os.fspath(path))
    if text in _STREAMS:
        return _STREAMS[text]
    found = _DESCRIPTOR.fullmatch(text)
    return None if found is None else int(found[1])


def _stem(target: Path) -> str:
    """Return how the names of a target's temporary folders begin; a long name is shortened."""
    name = os.fsencode(target.name)
    if len(name) <= _LONGEST - 14:
        return f".{target.name}."
    if len(name) > _LONGEST:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return f".{hashlib.sha256(name).hexdigest()[:32]}."


def _mode(target: Path) -> int:
    """Return the permissions of the file that is replaced, else those of a new file."""
    with suppress(OSError):
        return stat.S_IMODE(target.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk; some systems cannot open or sync folders."""
    folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    except OSError:
        if folder:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not folder or error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
    finally:
        os.close(descriptor)


def _try(lock: Any) -> bool:
    """Take a lock if nobody holds it."""
    from filelock import Timeout

    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        return False
    return True
