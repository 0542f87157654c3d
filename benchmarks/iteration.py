"""Time and peak memory of one iteration of Algorithm 1 at ML-1M's shape, or on ML-1M itself.

    python benchmarks/iteration.py                    # generated ratings of ML-1M's shape
    python benchmarks/iteration.py --data ml1m        # the real ones

K = 10, M = 50, blocks of 500 x 500, cross feedback and attention on: the encoder of the preset `amortized`,
and the one with a hidden layer in each tower. Each fit runs in a process of its own, so its peak memory is
its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pyro_bmf.files import write_json

ENCODERS = {
    "no hidden layer (L' = 0, K' = 50)": {"n_tower_layers": 0, "n_tower_outputs": 50},
    "hidden layer (L' = 1, M = 50, K' = 25)": {"n_tower_layers": 1, "n_tower_outputs": 25},
}


def one(data: str | None, changes: dict[str, Any], iterations: int, threads: int) -> dict[str, Any]:
    """Fit a few iterations here, and return seconds and this process's peak memory."""
    from pyro_bmf.data import load_ratings, random_split, synthetic_ratings
    from pyro_bmf.fitting import fit
    from pyro_bmf.methods.settings import preset

    if data is None:
        ratings = synthetic_ratings(
            n_users=6040, n_items=3706, n_ratings=1_000_209, n_factors=10, seed=0
        ).ratings
    else:
        ratings = load_ratings(data)
    split = random_split(ratings, seed=0)
    settings = preset("amortized").replace(
        n_factors=10,
        user_batch_size=500,
        item_batch_size=500,
        max_iterations=iterations,
        **changes,
    )
    result = fit(split, settings, threads=threads, device="cpu", progress=False)
    seconds = [record["seconds"] for record in result.history]
    return {
        "train_ratings": len(split.train_rows),
        "first_s": seconds[0],
        "median_s": float(np.median(seconds[1:])),
        "max_s": max(seconds),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "threads": threads,
    }


def main() -> None:
    """Run each encoder in a process of its own and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a named set or a file; generated ratings when not given")
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a file that gets the figures as JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(one(options.data, json.loads(options.one), options.iterations, options.threads)))
        return
    rows = []
    for name, changes in ENCODERS.items():
        command = [sys.executable, __file__, "--one", json.dumps(changes)]
        command += ["--iterations", str(options.iterations), "--threads", str(options.threads)]
        command += [] if options.data is None else ["--data", options.data]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append({"encoder": name, **json.loads(output.splitlines()[-1])})
    print(
        "| encoder | training ratings | first (s) | median (s) | slowest (s) | peak memory (GB) | threads |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['encoder']} | {row['train_ratings']:,} | {row['first_s']:.2f} | {row['median_s']:.2f} "
            f"| {row['max_s']:.2f} | {row['peak_gb']:.2f} | {row['threads']} |"
        )
    if options.out is not None:
        write_json(options.out, rows)


if __name__ == "__main__":
    main()
