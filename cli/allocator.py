"""What the C library does with memory that is freed: it keeps some for the next step of a fit."""

from __future__ import annotations

import ctypes
import os
import sys

#: glibc's numbers of parameters, from <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: Bytes. Larger arrays are handed back as before; so is what lies free beyond the second.
_LARGEST, _KEPT = 1 << 26, 1 << 30
_OF_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory of up to 1 GiB, in arrays of up to 64 MiB, and tell whether it does.

    By default it hands an array of more than 32 MiB back to the system as soon as it is freed, and every page
    of the next one is a fault (docs/results.md has what that costs). Under another C library, and where the
    environment says what the allocator shall do, nothing is changed.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _OF_THE_USER):
        return False
    try:
        set_parameter = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # a C library without it
        return False
    return all(
        set_parameter(name, size) == 1
        for name, size in ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _KEPT))
    )
