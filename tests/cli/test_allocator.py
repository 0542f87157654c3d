"""Freed memory: what the command keeps of it, and where it leaves the allocator alone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
from pyro_bmf.cli.allocator import keep_freed_memory
from pyro_bmf.cli.main import main
import numpy as np
kept = keep_freed_memory() if "keep" in sys.argv else False
if "command" in sys.argv:
    try:
        main(["data", "--help"])
    except SystemExit:
        pass
np.ones(5_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(5_000_000)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str, **variables: str) -> tuple[bool, int]:
    """Return whether freed memory was kept, and the page faults of twenty arrays of 40 MB."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    plain.pop("LD_PRELOAD", None)
    plain.pop("GLIBC_TUNABLES", None)
    command = [sys.executable, "-c", _FAULTS, *arguments]
    found = subprocess.run(command, env=plain | variables, capture_output=True, text=True, check=True)
    kept, n = found.stdout.splitlines()[-1].split()
    return bool(int(kept)), int(n)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_arrays_come_from_memory_that_was_freed() -> None:
    kept, n = faults("keep")
    assert kept
    _, without = faults()
    assert n < without / 10
    _, after_the_command = faults("command")
    assert after_the_command < without / 10


def test_the_environment_has_the_last_word() -> None:
    assert faults("keep", MALLOC_MMAP_THRESHOLD_="131072")[0] is False


_HELD = """
import sys
import numpy as np
from pyro_bmf.numerics.room import hand_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

arrays = [np.ones(8_192) for _ in range(2_000)]
arrays = arrays[-1:]  # which stands behind all that is free now
before = resident()
hand_back(int(sys.argv[1]))
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_what_lies_between_arrays_is_handed_back_where_ratings_are_many() -> None:
    def handed_back(n_ratings: int) -> int:
        command = [sys.executable, "-c", _HELD, str(n_ratings)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert handed_back(20_000_000) > 100_000_000
    assert handed_back(1_000_000) < 10_000_000
