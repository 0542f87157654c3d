"""The one list of what libraries and the system raise over a bad file, and its translation into our error.

A block that reads somebody's file stands in `located`: what is listed here becomes a `DataError` with the
place and a remedy; anything else is a slip of this software and goes on as it is.
"""

from __future__ import annotations

import csv
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from ...errors import DataError

#: Of files in general: the operating system's, the unpackers', the decoders' and Arrow's own.
FOREIGN: tuple[type[Exception], ...] = (
    OSError,  # gzip.BadGzipFile and Arrow's input errors are among them
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    UnicodeError,
    RecursionError,  # JSON nested deeper than the parser goes
    json.JSONDecodeError,
    csv.Error,
    pa.ArrowException,  # ArrowInvalid, ArrowMemoryError and the rest
)
#: Of zip archives beside those: what `zipfile` raises over headers that make no sense.
FOREIGN_ZIP: tuple[type[Exception], ...] = (
    *FOREIGN,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    NotImplementedError,  # a version or a compression that zipfile does not know
    RuntimeError,  # an encrypted member
    OverflowError,  # sizes and places beyond what a file can have
    ValueError,  # a place before the file's begin; DataError, a ValueError too, is let through
)
#: Of parquet files beside those: Arrow's Python layer meets types and names that make no sense.
FOREIGN_PARQUET: tuple[type[Exception], ...] = (*FOREIGN, OverflowError, TypeError, KeyError, ValueError)


def reason(error: BaseException) -> str:
    """Return one short line of what an error says."""
    text = (getattr(error, "strerror", None) or str(error)).strip()
    first = text.splitlines()[0].strip().rstrip(".:") if text else type(error).__name__
    return first if len(first) <= 200 else f"{first[:200]}..."


@contextmanager
def located(what: str, remedy: str, foreign: tuple[type[Exception], ...] = FOREIGN) -> Iterator[None]:
    """Turn what a bad file makes others raise into a DataError: ``WHAT (reason): REMEDY``.

    Parameters
    ----------
    what
        The file and what is wrong with it, as ``"r.csv.gz is damaged"``.
    remedy
        What to do.
    foreign
        The classes that are translated.
    """
    try:
        yield
    except DataError:
        raise
    except foreign as error:
        raise DataError(f"{what} ({reason(error)}): {remedy}") from error
