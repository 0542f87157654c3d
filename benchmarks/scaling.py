"""Seconds and peak memory of one iteration of every way to fit, over ratings and factors.

    python benchmarks/scaling.py --sizes 1e5 1e6 --out benchmarks/results/scaling.json
    python benchmarks/scaling.py --sizes 2e7 --guides gibbs conjugate amortized --threads 2 \
        --out benchmarks/results/scaling.json
    python benchmarks/scaling.py --sizes 2e7 --guides default --factors 24 --threads 2 \
        --out benchmarks/results/scaling.json
    python benchmarks/scaling.py --sizes 2e7 --guides whole --factors 24 --threads 2 \
        --out benchmarks/results/scaling.json

Ratings are generated: 2e7 has MovieLens 20M's shape (138,493 users, 26,744 items) with heavy-tailed counts,
smaller ones keep the ratio of users to items and the mean number of ratings a user. Each cell (size, guide,
factors) runs in a process of its own, so its peak memory is its own; a finished one is kept in the file. An
iteration is a sweep for gibbs, an update of everything for conjugate, and a pass over at most 50 blocks for
amortized (K' = 50) and paper (M = 50, K' = 25). The time given is that of the last of two iterations (paper:
of one; sweeps: of the last of ten, when implicit weights are drawn from a settled state). For default, whose
two stages are both run, three iterations of the guide and then three sweeps, it is the last of either, and
there is the memory that the kept draws of the whole chain would take beside those that were kept. `whole` is
the default to its end, all draws kept: hours at 2e7. Freed memory is kept as the command keeps it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pyro_bmf.files import write_json

CHANGES: dict[str, dict[str, Any]] = {
    "default": {
        **{"max_iterations": 3, "plain_iterations": 1},
        **{"sweeps": 3, "burn_in": 2, "kept_draws": 1},
    },
    "whole": {},
    "gibbs": {"sweeps": 11, "burn_in": 10, "kept_draws": 1, "plain_sweeps": 2},
    "conjugate": {"max_iterations": 2, "patience": None},
    "amortized": {"max_iterations": 2, "patience": None},
    "paper": {"max_iterations": 1, "patience": None, "n_tower_layers": 1, "n_tower_outputs": 25},
}
PRESETS = {
    "default": "default",
    "whole": "default",
    "gibbs": "default",
    "conjugate": "conjugate",
    "amortized": "amortized",
    "paper": "paper",
}
#: Fitted over a grid of seven by seven blocks.
ENCODERS = ("amortized", "paper")


def one(n_ratings: int, guide: str, n_factors: int, threads: int) -> dict[str, Any]:
    """Fit a few iterations here, and return seconds and this process's peak memory."""
    import numpy as np

    from pyro_bmf.cli.allocator import keep_freed_memory
    from pyro_bmf.data import Split, synthetic_ratings
    from pyro_bmf.estimate import kept_dtype, kept_numbers
    from pyro_bmf.fitting import fit
    from pyro_bmf.methods.settings import preset

    keep_freed_memory()
    share = n_ratings / 2e7
    n_users, n_items = max(round(138_493 * share), 200), max(round(26_744 * share**0.5), 150)
    ratings = synthetic_ratings(n_users, n_items, n_ratings, n_factors=8, scale="1:5:0.5", seed=0).ratings
    rows = np.arange(len(ratings))
    split = Split(ratings, rows[:-2], rows[-2:-1], rows[-1:], "given")
    changes = dict(CHANGES[guide])
    if guide == "gibbs" and n_ratings > 5_000_000:
        changes |= {"sweeps": 3, "burn_in": 2}  # eleven would take the best part of an hour
    if guide in ENCODERS:
        changes |= {"user_batch_size": -(-n_users // 7), "item_batch_size": -(-n_items // 7)}
    usual = preset(PRESETS[guide])
    settings = usual.replace(n_factors=n_factors, **changes)
    started = time.perf_counter()
    result = fit(split, settings, threads=threads, device="cpu", progress=guide == "whole")
    more: dict[str, Any] = {}
    if guide == "default":
        assert usual.then is not None
        kept = [
            kept_numbers(n_users + n_items, n_factors + 1, n, implicit=True)
            * kept_dtype(n_users + n_items, n_factors + 1, n, implicit=True).itemsize
            for n in (usual.then.kept_draws, 1)
        ]
        guided = [one["seconds"] for one in result.history if one.get("stage") != "gibbs"]
        more = {"seconds_an_iteration_of_the_guide": guided[-1], "more_draws_gb": (kept[0] - kept[1]) / 1e9}
    return {
        "n_users": n_users,
        "n_items": n_items,
        "n_ratings": len(rows) - 2,
        "guide": guide,
        "n_factors": n_factors,
        "seconds_an_iteration": result.history[-1]["seconds"]
        if guide not in ("gibbs", "default", "whole")
        else result.history[-2]["seconds"],
        "fit_seconds": time.perf_counter() - started,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "threads": threads,
        **more,
    }


def main() -> None:
    """Run the cells that are missing, and print all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6])
    parser.add_argument("--guides", nargs="+", choices=tuple(PRESETS), default=[*PRESETS][2:])
    parser.add_argument("--factors", type=int, nargs="+", default=[10])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(one(*json.loads(options.one))))
        return
    done = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for size in options.sizes:
        for guide in options.guides:
            for n_factors in options.factors:
                key = f"{size:g} {guide} {n_factors} {options.threads}"
                if key in done:
                    continue
                asked = json.dumps([int(size), guide, n_factors, options.threads])
                command = [sys.executable, __file__, "--one", asked, "--out", str(options.out)]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                done[key] = json.loads(output.splitlines()[-1])
                write_json(options.out, done)
                print(key, done[key], flush=True)
    print("| ratings | users | items | guide | K | seconds an iteration | peak memory (GB) | threads |")
    print("|---|---|---|---|---|---|---|---|")
    for row in done.values():
        print(
            f"| {row['n_ratings']:,} | {row['n_users']:,} | {row['n_items']:,} | {row['guide']} | "
            f"{row['n_factors']} | {row['seconds_an_iteration']:.2f} | {row['peak_gb']:.2f} | "
            f"{row['threads']} |"
        )


if __name__ == "__main__":
    main()
