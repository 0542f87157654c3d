"""Encoders on rows of thousands of ratings, K 50 and M 100: where a fit diverges, and that it does not.

    python benchmarks/heavy_rows.py --out benchmarks/results/heavy_rows.json

Ratings are planted: 5,000 users by 150 items, 400,000 ratings: an item has 1,900 for training, the most rated
one 3,500. `HEAVY` is what
`pyro_bmf.methods.cross_feedback.optimizer` makes of the learning rate of first layers: infinity leaves it
alone. Validation RMSE after each iteration, in standard deviations of the ratings; one seed.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from pyro_bmf.data import random_split, synthetic_ratings
from pyro_bmf.errors import PyroBmfError
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.cross_feedback import optimizer
from pyro_bmf.methods.settings import preset


def one(heavy: float, options: argparse.Namespace) -> dict[str, Any]:
    """Fit with one value of `HEAVY`."""
    optimizer.HEAVY = heavy
    shape = (options.users, options.items, options.ratings)
    split = random_split(synthetic_ratings(*shape, n_factors=8, scale="1:5:0.5", seed=0).ratings, seed=0)
    settings = preset("amortized").replace(
        n_factors=options.factors,
        n_tower_layers=1,
        n_units=options.units,
        n_tower_outputs=50,
        user_batch_size=-(-options.users // options.batches),
        item_batch_size=-(-options.items // options.batches),
        max_iterations=40,
        stop_after=options.iterations,
        patience=None,
    )
    started = time.perf_counter()
    spread = float(np.std(split.train.ratings))
    record: dict[str, Any] = {"heavy": heavy if math.isfinite(heavy) else None}
    try:
        history = fit(split, settings, threads=1, device="cpu", progress=False).history
        record["rmse"] = [row["valid_rmse"] / spread for row in history]
    except PyroBmfError as error:
        record["diverged"] = str(error).split(". ")[0]
    counts = split.train.item_counts
    record |= {"mean_count": float(counts.mean()), "largest_count": int(counts.max())}
    return record | {"seconds": time.perf_counter() - started}


def main() -> None:
    """Fit with each value, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--items", type=int, default=150)
    parser.add_argument("--ratings", type=int, default=400_000)
    parser.add_argument("--factors", type=int, default=50)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--batches", type=int, default=7)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--heavy", type=float, nargs="+", default=[math.inf, 4000, 1000])
    parser.add_argument("--out", type=Path, help="adds to what the file has")
    options = parser.parse_args()
    found = []
    if options.out is not None and options.out.exists():
        found = json.loads(options.out.read_text("utf-8"))
    for heavy in options.heavy:
        found.append(one(heavy, options))
        print(found[-1], flush=True)
        if options.out is not None:
            write_json(options.out, found)


if __name__ == "__main__":
    main()
