"""Fit one peer to one split and write what it predicts; runs in the peers' environment.

    python worker.py --split DIR --data ml1m --system myfm-bmf-10 --seed 0 --out CELL
    python worker.py --split DIR --system cornac-mf --settings '{"factors": 20}' --only-valid

`run.py` and `tune.py` call it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cells
import numpy as np
import split_arrays
import systems
from prediction import Clock, Prediction, normal_cells

PACKAGES = ("myfm", "scikit-surprise", "cornac", "lenskit", "torch", "numpy", "scipy")


def main() -> None:
    """Fit, predict, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--data", help="the data set's name in the cell; that in the split when not given")
    parser.add_argument("--system", choices=sorted(systems.PEERS), required=True)
    parser.add_argument("--settings", default="{}", help="JSON over the system's own settings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-scores", action="store_true", help="no scores of every pair, so no ranking")
    parser.add_argument("--only-valid", action="store_true", help="for tuning: validation RMSE and no files")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    split = split_arrays.read(options.split)
    settings = systems.settings_of(options.system, {}, json.loads(options.settings))
    clock = Clock()
    fit = systems.FITS[systems.PEERS[options.system]["fit"]]
    fitted = fit(split, settings, options.seed, clock)
    fit_memory = peak_memory()
    started = time.perf_counter()
    valid = fitted.predict(split.valid.users, split.valid.items)
    valid_rmse = float(np.sqrt(np.mean((valid.mean - split.valid.ratings) ** 2)))
    print(
        f"{options.system} seed {options.seed}: valid RMSE {valid_rmse:.4f} in {clock.wall:.1f} s", flush=True
    )
    if options.only_valid:
        return
    test = fitted.predict(split.test.users, split.test.items)
    predicting = time.perf_counter() - started
    arrays = part_arrays("valid", valid, split.valid, valid_rmse, split.levels)
    arrays |= part_arrays("test", test, split.test, valid_rmse, split.levels)
    memory = peak_memory()
    started = time.perf_counter()
    scores = None if options.no_scores else fitted.scores()
    description = {
        "request": cells.request(
            options.system, options.data or split.name, split.hash, options.seed, settings
        ),
        "own_distribution": valid.pmf is not None,
        "valid_rmse": valid_rmse,
        "fit_seconds": clock.wall,
        "fit_cpu_seconds": clock.cpu,
        "predict_seconds": predicting,
        "score_seconds": time.perf_counter() - started,
        "fit_memory_gb": fit_memory,
        "peak_memory_gb": memory,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
        "versions": versions(PACKAGES),
    }
    cells.write(options.out, description, arrays, scores)


def part_arrays(name: str, said: Prediction, part: Any, valid_rmse: float, levels: Any) -> dict[str, Any]:
    """Return a part's arrays; without a distribution of its own a Normal as wide as its validation errors."""
    sd, pmf = said.sd, said.pmf
    if pmf is None:
        sd = np.full(len(said.mean), valid_rmse)
        pmf = normal_cells(said.mean, valid_rmse, levels)
    columns = {"users": part.users, "items": part.items, "ratings": part.ratings, "mean": said.mean, "sd": sd}
    columns["pmf"] = np.asarray(pmf, dtype=np.float32)
    return {f"{name}_{key}": values for key, values in columns.items()}


def peak_memory() -> float:
    """Return the largest resident memory so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those of `packages` that this environment has, and Python's."""
    found = {"python": sys.version.split()[0]}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


if __name__ == "__main__":
    main()
