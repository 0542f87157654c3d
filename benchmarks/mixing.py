"""How well do the sweeps mix: R-hat and effective sample sizes of test pairs, cut points and noise.

    python benchmarks/mixing.py --data ml100k --seeds 0 1 2 --out benchmarks/results/mixing.json
    python benchmarks/mixing.py --data ml100k --seeds 0 --reference 2000 --out mixing.json
    python benchmarks/mixing.py --data ml1m --seeds 0 --overrelaxation 0 0.8 --out mixing_ml1m.json
    python benchmarks/mixing.py --data ml100k --seeds 0 --chains 1 --out benchmarks/results/chains.json
    python benchmarks/mixing.py --data ml100k --chains 6 --sweeps 100 --burn-in 50 --out chains.json

Split seed = fit seed. Each seed is added to the file when it is done, and skipped when it is there already.
With several chains R-hat is over all of them, of which all but the first start from rows, noise and cut
points that are far apart. Pairs are those of the test part, whose ratings are not read. With `--reference N`
four chains of N sweeps, of other seeds, are fitted too, and the predictive means and standard deviations of
the fit are set against theirs, in posterior standard deviations.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf import Split, load_ratings, preset, random_split
from pyro_bmf.data.scale import level_positions
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import Settings
from pyro_bmf.numerics.convergence import bulk_ess, split_r_hat
from pyro_bmf.posterior.hyperparameters import identified_draws
from pyro_bmf.posterior.posterior import Posterior

Floats = NDArray[np.float64]
#: Test pairs looked at, at most, and chains of a reference.
PAIRS, CHAINS = 5_000, 4
#: The R-hat that is asked for, whatever the number of draws.
GOOD_R_HAT = 1.05


def predictors(posterior: Posterior, split: Split) -> Floats:
    """Return the draws of the predictors of some test pairs by chain, (n, chains, draws)."""
    test = split.test
    at = np.random.default_rng(0).permutation(len(test))[:PAIRS]
    draws = np.arange(posterior.sampling.chain_length("There is no chain."))
    found: Floats = posterior.pairs.draw_eta(test.users[at], test.items[at], draws, 0).T.double().numpy()
    return posterior.sampling.by_chain(found)


def mixing(values: Floats) -> dict[str, Any]:
    """Summarise R-hat and ESS of many quantities."""
    r_hat, ess = split_r_hat(values), bulk_ess(values)
    return {
        "share_r_hat_good": float((r_hat <= GOOD_R_HAT).mean()),
        "median_r_hat": float(np.median(r_hat)),
        "median_ess": float(np.median(ess)),
        "share_ess_100": float((ess >= 100.0).mean()),
    }


def against(values: Floats, reference: Floats) -> dict[str, float]:
    """Compare means and standard deviations with a reference's, in its standard deviations."""
    values, reference = (one.reshape(len(one), -1) for one in (values, reference))
    sd = reference.std(1)
    return {
        "median_mean_apart": float(np.median(np.abs(values.mean(1) - reference.mean(1)) / sd)),
        "median_sd_ratio": float(np.median(values.std(1) / sd)),
    }


def cell(data: str, seed: int, settings: Settings, reference: int) -> dict[str, Any]:
    """Fit one split, and the reference where there is one."""
    split = random_split(load_ratings(data), seed=seed)
    started = time.process_time()
    result = fit(split, settings.replace(seed=seed), threads=1, progress=False)
    seconds = time.process_time() - started
    values = predictors(result.posterior, split)
    moving = {n: one[None] for n, one in identified_draws(result.posterior).items() if one.std() > 0}
    by_chain = {name: result.posterior.sampling.by_chain(one) for name, one in moving.items()}
    hyper = {
        name: {"r_hat": float(split_r_hat(one)[0]), "ess": float(bulk_ess(one)[0])}
        for name, one in by_chain.items()
    }
    assert result.settings.gibbs is not None
    valid, levels = split.valid, np.array(split.ratings.scale.levels)
    pmf = result.posterior.predict_pmf(valid.users, valid.items, levels)
    chances = pmf[np.arange(len(valid)), level_positions(valid.ratings, levels)]
    found: dict[str, Any] = {
        "seed": seed,
        "overrelaxation": result.settings.gibbs.overrelaxation,
        "sweeps": result.settings.gibbs.sweeps,
        "kept_draws": values.shape[1] * values.shape[2],
        **({"chains": values.shape[1]} if values.shape[1] > 1 else {}),
        "processor_seconds": round(seconds, 1),
        "valid_rmse": result.history[-1]["valid_rmse"],
        "valid_nll": float(-np.log(chances).mean()),
        "test_pairs": mixing(values),
        "hyperparameters": hyper,
    }
    if reference:
        long = settings.replace(sweeps=reference, burn_in=reference // 4, kept_draws=reference // 4)
        chains = [
            predictors(
                fit(split, long.replace(seed=100 * (c + 1) + seed), threads=1, progress=False).posterior,
                split,
            )
            for c in range(CHAINS)
        ]
        found["reference_sweeps"] = reference
        found["reference_r_hat"] = mixing(np.concatenate(chains, 1))
        found["against_reference"] = against(values, np.concatenate(chains, 1))
    return found


def main() -> None:
    """Measure the seeds that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="ml100k")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sweeps", type=int, default=None, help="not the default's number")
    parser.add_argument("--burn-in", type=int, default=None, help="with --sweeps: all others are kept")
    parser.add_argument("--overrelaxation", type=float, nargs="+", default=None, help="not the default's")
    parser.add_argument("--chains", type=int, default=None, help="not as many as the default's")
    parser.add_argument("--reference", type=int, default=0, help="sweeps of each of four other chains")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    changes = {"sweeps": given.sweeps, "burn_in": given.burn_in, "chains": given.chains}
    if given.burn_in is not None:
        # Every sweep after it is kept.
        changes["kept_draws"] = given.sweeps - given.burn_in
    settings = preset().replace(**{name: value for name, value in changes.items() if value is not None})
    done = json.loads(given.out.read_text()) if given.out.exists() else {"data": given.data, "cells": []}
    # What few ratings leave of the default's.
    train = random_split(load_ratings(given.data), seed=0).train
    usual = settings.suited(len(train), train.n_users + train.n_items).gibbs
    if given.burn_in is not None and given.sweeps is None:
        parser.error("--burn-in goes with --sweeps")
    for seed, share in product(given.seeds, given.overrelaxation or [usual.overrelaxation]):
        known = {
            (one["seed"], one["overrelaxation"], one.get("chains", 1), one["sweeps"]) for one in done["cells"]
        }
        if (seed, share, usual.chains, given.sweeps or usual.sweeps) in known:
            continue
        asked = settings if share == usual.overrelaxation else settings.replace(overrelaxation=share)
        done["cells"].append(cell(given.data, seed, asked, given.reference))
        write_json(given.out, done)
        print(json.dumps(done["cells"][-1], indent=1))


if __name__ == "__main__":
    main()
