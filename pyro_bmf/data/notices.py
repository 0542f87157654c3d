"""What a user should be told about the ratings that were read, without being stopped.

One mechanism: ``warnings.warn``. Python users see a warning; the command line catches the same warnings and
prints one line each.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).resolve().parents[1])


class DataWarning(UserWarning):
    """The data are used but deserve care, for instance for a checksum that is not the official one."""


class DataNotice(DataWarning):
    """Something decided on the user's behalf, said for the record: an inferred scale, merged duplicates."""


def warn(message: str) -> None:
    """Say that the data deserve care."""
    warnings.warn(message, DataWarning, stacklevel=_callers_level())


def notice(message: str) -> None:
    """Say what was decided about the data."""
    warnings.warn(message, DataNotice, stacklevel=_callers_level())


def _callers_level() -> int:
    """Return the stack level of the first frame outside this package: the user's own line."""
    level, frame = 2, sys._getframe(2)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    return level
