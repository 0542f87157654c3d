"""What pays from how many ratings a row on? The default preset with implicit feedback, without, and as it is.

    python benchmarks/ratings_a_row.py --out benchmarks/results/ratings_a_row.json

Sets are random shares of MovieLens 100K, whose rest is halved into validation and test ratings; squares cut
out of MovieLens 1M (so many users, as many of the popular items), and the Amazon sets of `table3_sets.toml`,
both split 70/15/15. With implicit feedback and without there are 24 factors; `as it is`, the preset leaves it
out where rows have few ratings, and has no more factors than they have ratings. Figures are of validation
ratings; test ratings are not read. A finished fit is kept in the file.
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


#: What each fit changes of the default preset.
FITS: dict[str, dict[str, Any]] = {
    "with": {"implicit": True, "n_factors": 24},
    "without": {"implicit": False, "n_factors": 24},
    "as it is": {},
}


def measured(split: Split, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Fit, and return validation figures."""
    valid, started = split.valid, time.process_time()
    assert valid.scale.levels is not None
    found = fit(split, preset().replace(seed=seed, **changes), threads=1, progress=False)
    pairs, levels = found.posterior.pairs, np.array(valid.scale.levels)
    return {
        "n_factors": found.settings.model.n_factors,
        "rmse": rmse(valid, pairs.rating_moments(valid.users, valid.items)[0]),
        "nll": float(np.mean(level_nll(valid, pairs.pmf(valid.users, valid.items, levels)))),
        "seconds": time.process_time() - started,
    }


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
            cell = done.setdefault(name, {}).setdefault(str(seed), {})
            left = {how: changes for how, changes in FITS.items() if how not in cell}
            if not left:
                continue
            split = make(seed)
            train = split.train
            cell |= {"n_train": len(train), "n_valid": len(split.valid)}
            cell |= {"users": train.n_users, "items": train.n_items}
            for how, changes in left.items():
                cell[how] = measured(split, seed, changes)
                write_json(options.out, done)
                print(name, seed, how, cell[how], flush=True)


if __name__ == "__main__":
    main()
