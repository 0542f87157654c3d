"""Effective draws per hundred sweeps of what mixes slowly, on small simulated sets: noise, its spreads, cuts.

    python benchmarks/small_chains.py --seeds 0 1 --out benchmarks/results/small_chains.json
    python benchmarks/small_chains.py --data ml100k --users 150 --items 120 --seeds 0 1 --out ...
    python benchmarks/small_chains.py --every 1 2 --overrelaxation 0 0.8 --seeds 0 1 2 3 --out ...

Truths are drawn from the priors of the preset `default` with two factors, and ratings of the set's own pairs
from them: a Normal likelihood on a continuous scale ("synthetic"), ordered probit on stars. The chain follows
the guide, and every sweep after a tenth of them is kept, or every N-th (`--every N`). Beside the named
quantities stand the medians over users' biases and over products u.v of test pairs.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from pyro_bmf import Gibbs, fit, load_ratings, preset, random_split
from pyro_bmf.checking.calibration.from_prior import AS_GIVEN, seed_of, simulate_like, subsample
from pyro_bmf.data import Split
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
    parser.add_argument("--every", type=int, nargs="+", default=[1], help="sweeps a kept draw")
    parser.add_argument("--overrelaxation", type=float, nargs="+", default=[0.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    split = subsample(random_split(load_ratings(given.data), seed=0), given.users, given.items, 0)
    found = []
    for every, share in product(given.every, given.overrelaxation):
        cells = {seed: measured(split, seed, given.sweeps, every, share) for seed in given.seeds}
        names = next(iter(cells.values()))
        mean = {name: round(float(np.mean([cell[name] for cell in cells.values()])), 1) for name in names}
        print(f"every {every}, overrelaxation {share:g}: {mean}", flush=True)
        found.append({"every": every, "overrelaxation": share, "mean": mean, "cells": cells})
    rows = {"users": given.users, "items": given.items, "ratings": len(split.ratings)}
    write_json(given.out, {"data": given.data, **rows, "sweeps": given.sweeps, "chains": found})


def measured(split: Split, seed: int, sweeps: int, every: int, share: float) -> dict[str, float]:
    """Return effective draws per hundred sweeps of one simulated set."""
    after = sweeps - sweeps // 10
    chain = Gibbs(sweeps=sweeps, burn_in=sweeps // 10, kept_draws=after // every, overrelaxation=share)
    asked = preset("default").replace(n_factors=2, then=chain)
    simulated, settings, _ = simulate_like(split, asked, seed)
    settings = settings.replace(seed=seed_of(seed, 1))
    posterior = fit(simulated, settings, threads=1, progress=False, units=AS_GIVEN).posterior
    named = {name: one[None] for name, one in identified_draws(posterior).items() if one.std() > 0}
    users, items = (rows.draws.double().numpy() for rows in (posterior.user_rows, posterior.item_rows))
    bias, test = users[:, :, -1], simulated.test
    products = (users[test.users, :, :-1] * items[test.items, :, :-1]).sum(-1)
    named |= {"users' biases": bias - bias.mean(0), "products": products}
    return {name: round(100 * float(np.median(bulk_ess(one))) / after, 1) for name, one in named.items()}


if __name__ == "__main__":
    main()
