"""From how many ratings a row on does implicit feedback pay? The default preset with it and without.

    python benchmarks/ratings_a_row.py --out benchmarks/results/ratings_a_row.json

Sets are random shares of MovieLens 100K, whose rest is halved into validation and test ratings; squares cut
out of MovieLens 1M (so many users, as many of the popular items), and the Amazon sets of `table3_sets.toml`,
both split 70/15/15. Figures are of validation ratings; test ratings are not read. A finished set is kept in
the file.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from small_data import cut_out, level_nll, rmse

from pyro_bmf.data import Split, load_ratings, random_split
from pyro_bmf.data.notices import DataWarning
from pyro_bmf.data.splits import subsample_split
from pyro_bmf.experiments.datasets import sets_of_file
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset

PERCENTS, SIDES = (1, 2, 4, 8, 16), (50, 100, 200, 400)


def share(percent: int, seed: int) -> Split:
    """Return a share of MovieLens 100K to train on."""
    return subsample_split(load_ratings("ml100k"), percent, seed)


def square(side: int, seed: int) -> Split:
    """Return the ratings of some users of MovieLens 1M with as many items."""
    rng = np.random.default_rng([7, side, seed])
    return random_split(cut_out("ml1m", n_users=side, n_items=side)(rng), seed=seed)


def splits() -> Iterator[tuple[str, Callable[[int], Split]]]:
    """Yield how each set is made, by its name."""
    for percent in PERCENTS:
        yield f"MovieLens 100K, {percent} %", lambda seed, percent=percent: share(percent, seed)
    for side in SIDES:
        yield f"MovieLens 1M, {side} × {side}", lambda seed, side=side: square(side, seed)
    for data in sets_of_file(Path(__file__).with_name("table3_sets.toml")):
        yield data.title, data.split


def measured(split: Split, seed: int) -> dict[str, Any]:
    """Fit with implicit feedback and without, and return validation figures."""
    train, valid = split.train, split.valid
    assert valid.scale.levels is not None
    rows = {"users": train.n_users, "items": train.n_items}
    found: dict[str, Any] = {"n_train": len(train), "n_valid": len(valid), **rows}
    for name, implicit in (("with", True), ("without", False)):
        started = time.process_time()
        fitted = fit(
            split, preset().replace(seed=seed, implicit=implicit), threads=1, progress=False
        ).posterior
        pairs, levels = fitted.pairs, np.array(valid.scale.levels)
        found[name] = {
            "rmse": rmse(valid, pairs.rating_moments(valid.users, valid.items)[0]),
            "nll": float(np.mean(level_nll(valid, pairs.pmf(valid.users, valid.items, levels)))),
            "seconds": time.process_time() - started,
        }
    return found


def main() -> None:
    """Measure the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    done = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for name, make in splits():
        for seed in range(options.seeds):
            cells = done.setdefault(name, {})
            if str(seed) in cells:
                continue
            cells[str(seed)] = measured(make(seed), seed)
            write_json(options.out, done)
            print(name, seed, cells[str(seed)], flush=True)


if __name__ == "__main__":
    main()
