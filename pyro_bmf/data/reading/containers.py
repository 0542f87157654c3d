"""A ratings file as plain bytes: unpacked, checked to its end, and read from its start as often as wanted.

gzip, bzip2, xz and Zstandard are told by their first bytes, not by the name. A compressed file is unpacked
once, whole, into an unnamed temporary file before anybody reads a line of it, so that damage at its end is
met before its first rating is used. What can be read only once (standard input, a pipe) is copied there too.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mmap
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from ...errors import DataError
from ..progress import DownloadBar
from .foreign import FOREIGN, located, reason

#: What `load_ratings` and ``--data`` take for standard input.
STDIN = "-"
MAX_BYTES = 8 << 30  # unpacked: far above every named set, far below a bomb
_SMALL, _MAX_RATIO = 256 << 20, 1000  # a larger file that shrank a thousandfold is no table of ratings
_CHUNK = 1 << 20
_BAR_FROM = 16 << 20  # packed bytes: a second or two
_SUFFIXES = {
    ".gz": "gzip", ".gzip": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "Zstandard", ".zstd": "Zstandard",
}  # fmt: skip
# First bytes. bzip2's own mark, "BZh9", could begin a line of text: that of a block, or of the end, follows.
_MARKS = (
    ("gzip", re.compile(rb"\x1f\x8b")),
    ("bzip2", re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")),
    ("xz", re.compile(rb"\xfd7zXZ\x00")),
    ("Zstandard", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")),
)
_ARCHIVES = (
    ("a zip archive", re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)")),
    ("a 7z archive", re.compile(rb"7z\xbc\xaf\x27\x1c")),
    ("a RAR archive", re.compile(rb"Rar!\x1a\x07")),
    ("a tar archive", re.compile(rb".{257}ustar", re.DOTALL)),
)
# What is sometimes given for a table of ratings, and would be taken for odd text.
_OTHERS = (
    ("an LZ4 file", re.compile(rb"\x04\x22\x4d\x18")),
    ("a file of compress (.Z)", re.compile(rb"\x1f\x9d")),
    ("an LZMA file of old", re.compile(rb"\x5d\x00\x00.{2}\xff{8}", re.DOTALL)),
    ("an HDF5 file", re.compile(rb"\x89HDF\r\n\x1a\n")),
    ("an SQLite database", re.compile(rb"SQLite format 3\x00")),
    ("a pickle", re.compile(rb"\x80[\x02-\x05][\x95}\]c(]")),
    ("an old Excel workbook", re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")),
    ("a PDF document", re.compile(rb"%PDF-")),
    ("an image", re.compile(rb"\x89PNG\r\n|GIF8|\xff\xd8\xff")),
    ("an Arrow (Feather) file", re.compile(rb"ARROW1\x00\x00|FEA1")),
    ("a NumPy file", re.compile(rb"\x93NUMPY")),
)
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")


class RatingsFile:
    """The plain bytes of one ratings file, and the words for it.

    Attributes
    ----------
    name
        The last part of its path, fit to be printed; ``"standard input"`` for that.
    suffixes
        Suffixes of the name in lower case, those of compression left out.
    """

    def __init__(self, shown: str, name: str, content: Path | Content) -> None:
        self._shown = shown
        self.name = name
        self.suffixes = [end for end in map(str.lower, Path(name).suffixes) if end not in _SUFFIXES]
        self._content = content

    def __str__(self) -> str:
        """Return the path as it was given, fit to be printed."""
        return self._shown

    def open(self) -> IO[bytes]:
        """Open the plain bytes for reading, from their start."""
        if isinstance(self._content, Content):
            return io.BufferedReader(_View(self._content.view), _CHUNK)
        with located(f"{self} cannot be read", "see that it lies there and may be read"):
            return open(self._content, "rb")

    def arrow(self) -> pa.NativeFile:
        """Open the same for Arrow, which reads without Python in between."""
        if isinstance(self._content, Content):
            return pa.BufferReader(pa.py_buffer(self._content.view))
        with located(f"{self} cannot be read", "see that it lies there and may be read"):
            # As bytes: a name need not be UTF-8.
            return pa.OSFile(os.fsencode(self._content) if os.name == "posix" else str(self._content))


def open_source(path: str | Path | RatingsFile, *, progress: bool = False) -> RatingsFile:
    """Open a ratings file, or ``"-"`` for standard input; unpack it and check it to its end.

    Parameters
    ----------
    path
        The file: a regular one, or a pipe, which is read once and kept.
    progress
        Show a progress bar on stderr while a large file is unpacked.

    Raises
    ------
    DataError
        When it does not exist, may not be read, is a folder or a device, is damaged, unpacks to more than
        8 GiB, or is an archive of files.
    """
    if isinstance(path, RatingsFile):
        return path
    if str(path) == STDIN:
        if sys.stdin is None:
            raise DataError("standard input is closed: pipe the ratings in, as in 'zcat FILE | ...'")
        if sys.stdin.isatty():
            raise DataError("standard input is a terminal: pipe the ratings in, as in 'zcat FILE | ...'")
        stream = getattr(sys.stdin, "buffer", None) or open(0, "rb", closefd=False)  # noqa: SIM115
        return _of_pipe(stream, "standard input", "standard input", progress)
    path = Path(path)
    shown, name = printable(path), printable(path.name)
    kind = _kind(path, shown)
    if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
        with located(f"{shown} cannot be read", "give a file"), open(path, "rb") as stream:
            return _of_pipe(stream, shown, name, progress)
    with located(f"{shown} cannot be read", "see that it lies there and may be read"):
        raw = open(path, "rb")  # noqa: SIM115
    with raw:
        plain = _unpacked(raw, shown, name, progress)
    return RatingsFile(shown, name, path if plain is None else Content(plain))


def printable(path: str | Path) -> str:
    """Return a path as text to print and save: bytes that are no UTF-8 escaped, a long one cut."""
    text = os.fsencode(str(path)).decode("utf-8", "backslashreplace")
    return text if len(text) <= 240 else f"{text[:120]}...{text[-80:]}"


def _kind(path: Path, shown: str) -> int:
    """Return the file's mode; raise for what cannot be a ratings file."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"ratings file {shown} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"ratings file {shown} cannot be looked at: {reason(error)}") from None
    if stat.S_ISDIR(mode):
        raise DataError(f"ratings file {shown} is a folder, not a file")
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise DataError(f"ratings file {shown} is a device, not a file")
    return mode


# --- unpacking --------------------------------------------------------------------------------------------


class Content:
    """Plain bytes in a temporary file that has no name, mapped into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        size = file.seek(0, os.SEEK_END)
        # The map outlives the file object; an empty file cannot be mapped.
        self.view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")
        file.close()


class _View(io.RawIOBase):
    """Bytes in memory as a file, none of them copied before they are read."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._content[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._content)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at


def _of_pipe(stream: IO[bytes], shown: str, name: str, progress: bool) -> RatingsFile:
    """Keep what a pipe gives, and unpack it."""
    with tempfile.TemporaryFile() as kept:
        with located(f"{shown} cannot be kept", "give a file, or a TMPDIR with more room"):
            size = 0
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if size > MAX_BYTES:
                    raise DataError(f"{shown} gives more than {MAX_BYTES:,} bytes: give a file instead")
                kept.write(chunk)
            kept.seek(0)
        plain = _unpacked(kept, shown, name, progress)
        # Closed or not, the file lasts as long as it is mapped.
        return RatingsFile(shown, name, Content(kept if plain is None else plain))


def _unpacked(raw: IO[bytes], shown: str, name: str, progress: bool) -> IO[bytes] | None:
    """Return the bytes of a compressed file in a temporary one, or None for a file that is plain."""
    with located(f"{shown} cannot be read", "see that it is whole and may be read"):
        head = raw.read(1 << 16)
    kind = _packing(head)
    if kind is None:
        _refuse_archive(head, shown)
        named = _SUFFIXES.get(Path(name).suffix.lower())
        if named is not None and (not head or _BINARY.search(head)):
            what = "is empty" if not head else "is damaged"
            raise DataError(
                f"{shown} {what}: it does not begin as a {named} file does, which its name says it is; get "
                "the file again"
            )
        return None
    raw.seek(0)
    plain = _copy(raw, kind, shown, progress)
    try:
        plain.seek(0)
        head = plain.read(1 << 16)
        if (again := _packing(head)) is not None:
            raise DataError(
                f"{shown} holds a {again} file in a {kind} file: unpack it once and give what comes"
            )
        _refuse_archive(head, shown)
    except BaseException:
        plain.close()
        raise
    return plain


def _packing(head: bytes) -> str | None:
    return next((kind for kind, mark in _MARKS if mark.match(head)), None)


def _refuse_archive(head: bytes, shown: str) -> None:
    for what, mark in _ARCHIVES:
        if mark.match(head):
            raise DataError(f"{shown} is {what}: unpack it and give the ratings file inside")
    for what, mark in _OTHERS:
        if mark.match(head):
            raise DataError(f"{shown} is {what}, which is not read: give CSV, TSV, JSON lines or parquet")


def _copy(raw: IO[bytes], kind: str, shown: str, progress: bool) -> IO[bytes]:
    """Unpack `raw` to its end; every checksum that it holds is compared on the way."""
    total = raw.seek(0, os.SEEK_END)
    raw.seek(0)
    limit = min(MAX_BYTES, max(_SMALL, _MAX_RATIO * total))
    bar = DownloadBar(f"unpacking {Path(shown).name}") if progress and total >= _BAR_FROM else None
    plain = tempfile.TemporaryFile()  # noqa: SIM115
    size = lines = done = 0
    try:
        if bar is not None:
            bar.total = total
        for chunk in _UNPACKERS[kind](raw):
            size += len(chunk)
            if size > limit:
                raise DataError(
                    f"{shown} unpacks to more than {limit:,} bytes from {total:,}, as a table of ratings "
                    "does not; unpack it yourself and give the file, if it is one"
                )
            lines += chunk.count(b"\n")
            with located(f"{shown} cannot be unpacked", "free space, or name a roomier folder in TMPDIR"):
                plain.write(chunk)
            if bar is not None:
                bar.update(raw.tell() - done)
                done = raw.tell()
    except FOREIGN as error:
        plain.close()
        raise DataError(
            f"{shown} is damaged, or not a whole {kind} file ({reason(error)}; up to line {lines + 1} it can "
            "be unpacked): get it again, or unpack it and give what comes"
        ) from error
    except BaseException:
        plain.close()
        raise
    finally:
        if bar is not None:
            bar.close()
    return plain


def _gunzip(raw: IO[bytes]) -> Iterator[bytes]:
    # The standard reader goes on to the next member, and refuses what is none but zeros. read1 gives what
    # came before damage, where read would lose it.
    with gzip.GzipFile(fileobj=raw, mode="rb") as file:
        while chunk := file.read1(_CHUNK):
            yield chunk


def _unzstd(raw: IO[bytes]) -> Iterator[bytes]:
    # Arrow's reader goes on to the next frame, and refuses what is none.
    with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


class _Decompressor(Protocol):
    """What the decompressors of bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def _streams(raw: IO[bytes], fresh: Callable[[], _Decompressor], padding: bool) -> Iterator[bytes]:
    """Unpack one stream after another.

    The standard readers stop without a word at whatever follows the first stream and is none; here it is
    an error. With `padding`, zeros in fours may stand between streams, as xz allows.
    """
    unpacker = fresh()
    data = b""
    while True:
        if unpacker.eof:
            data = unpacker.unused_data + raw.read(_CHUNK)
            while padding and data[:4] == b"\0\0\0\0":
                data = data[4:] or raw.read(_CHUNK)
            if not data:
                return
            unpacker = fresh()
        elif unpacker.needs_input:
            data = raw.read(_CHUNK)
            if not data:
                raise EOFError("it ends before its own end mark")
        else:
            data = b""
        yield unpacker.decompress(data, _CHUNK)


_UNPACKERS: dict[str, Callable[[IO[bytes]], Iterator[bytes]]] = {
    "gzip": _gunzip,
    "bzip2": lambda raw: _streams(raw, bz2.BZ2Decompressor, False),
    "xz": lambda raw: _streams(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << 30), True),
    "Zstandard": _unzstd,
}
