"""Sweeps with and without the memory that the command keeps when it is freed, in turn.

    python benchmarks/allocator.py --data ml1m --pairs 3 --out benchmarks/results/allocator.json

Each fit is a process of its own, of one thread: seconds on the wall and of the system, page faults, and the
most memory that it held.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from pyro_bmf.files import write_json

_FIT = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
from pyro_bmf.cli.allocator import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit("This allocator is not glibc's, or the environment says what it shall do.")
from pyro_bmf.data import load_ratings, random_split
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
split = random_split(load_ratings(sys.argv[2]), seed=0)
sweeps = int(sys.argv[3])
settings = preset("gibbs").replace(sweeps=sweeps, burn_in=sweeps // 2, kept_draws=sweeps // 2, plain_sweeps=2)
before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
fit(split, settings, threads=1, progress=False)
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "seconds": time.perf_counter() - begun,
    "system_s": after.ru_stime - before.ru_stime,
    "faults": after.ru_minflt - before.ru_minflt,
    "peak_mb": after.ru_maxrss / 1024,
}))
"""


def main() -> None:
    """Fit in turn, and print medians of both kinds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="ml1m")
    parser.add_argument("--sweeps", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"handed back": [], "kept": []}
    for _ in range(options.pairs):
        for kind, fits in found.items():
            command = [sys.executable, "-c", _FIT, kind, options.data, str(options.sweeps)]
            fits.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    medians = {
        kind: {name: statistics.median(fit[name] for fit in fits) for name in fits[0]}
        for kind, fits in found.items()
    }
    for kind, row in medians.items():
        print(
            f"{kind:12s} {row['seconds']:6.1f} s ({row['system_s']:.1f} s of the system), "
            f"{row['faults']:,.0f} page faults, {row['peak_mb']:,.0f} MB at most"
        )
    if options.out is not None:
        what = {"data": options.data, "sweeps": options.sweeps, "pairs": options.pairs}
        write_json(options.out, what | {"medians": medians, "fits": found})


if __name__ == "__main__":
    main()
