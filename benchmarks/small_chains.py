"""Effective draws per hundred sweeps of what mixes slowly, on small simulated sets: noise, its spreads, cuts.

    python benchmarks/small_chains.py --seeds 0 1 --out benchmarks/results/small_chains.json
    python benchmarks/small_chains.py --data ml100k --users 150 --items 120 --seeds 0 1 --out ...

Truths are drawn from the priors of the preset `default` with two factors, and ratings of the set's own pairs
from them: a Normal likelihood on a continuous scale ("synthetic"), ordered probit on stars. The chain follows
the guide, and every sweep after a tenth of them is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pyro_bmf import Gibbs, fit, load_ratings, preset, random_split
from pyro_bmf.checking.calibration.from_prior import AS_GIVEN, seed_of, simulate_like, subsample
from pyro_bmf.files import write_json
from pyro_bmf.numerics.convergence import bulk_ess
from pyro_bmf.posterior.hyperparameters import identified_draws


def main() -> None:
    """Measure the seeds that are asked for, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--sweeps", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    split = subsample(random_split(load_ratings(given.data), seed=0), given.users, given.items, 0)
    kept = given.sweeps - given.sweeps // 10
    chain = Gibbs(sweeps=given.sweeps, burn_in=given.sweeps // 10, kept_draws=kept)
    asked = preset("default").replace(n_factors=2, then=chain)
    cells = {}
    for seed in given.seeds:
        simulated, settings, _ = simulate_like(split, asked, seed)
        settings = settings.replace(seed=seed_of(seed, 1))
        posterior = fit(simulated, settings, threads=1, progress=False, units=AS_GIVEN).posterior
        draws = {name: one for name, one in identified_draws(posterior).items() if one.std() > 0}
        cells[seed] = {
            name: round(100 * float(bulk_ess(one[None])[0]) / kept, 1) for name, one in draws.items()
        }
        print(seed, cells[seed], flush=True)
    mean = {name: round(float(np.mean([cell[name] for cell in cells.values()])), 1) for name in draws}
    print("mean", mean)
    rows = {"users": given.users, "items": given.items, "ratings": len(split.ratings)}
    write_json(given.out, {"data": given.data, **rows, "sweeps": given.sweeps, "mean": mean, "cells": cells})


if __name__ == "__main__":
    main()
