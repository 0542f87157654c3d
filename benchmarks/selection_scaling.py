"""Seconds and peak memory of fitting the selection model, and of lists for everybody, over ratings.

    python benchmarks/selection_scaling.py --sizes 1e5 1e6 --out benchmarks/results/selection_scaling.json
    python benchmarks/selection_scaling.py --sizes 2e7 --threads 2 \
        --out benchmarks/results/selection_scaling.json

Ratings are generated as those of `scaling.py`: 2e7 has MovieLens 20M's shape (138,493 users, 26,744 items).
Lists are each user's 20 best by liked of all items that are not in train or validation, by the model of the
default preset: 24 factors and 100 draws. The draws are copies of two, which a short chain gave, as lists
cost the same whatever the chain's length. The posterior, the fit of the selection model and the lists each
run in a process of their own, so that a peak is of one of them. A finished stage is kept in the file, and its
model in the cache: the same command goes on. Exponents are of the last two sizes: the logarithm of the ratio
of their seconds by that of their ratings.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pyro_bmf.files import write_json

N, ABOVE, DRAWS = 20, 3.0, 100
STAGES = ("posterior", "fit", "lists")
RESULTS = Path(__file__).parent / "results"


def split_of(n_ratings: int) -> Any:
    """Return the generated ratings: 70 % to train, the rest halved."""
    from pyro_bmf.data import random_split, synthetic_ratings

    share = n_ratings / 2e7
    n_users, n_items = max(round(138_493 * share), 200), max(round(26_744 * share**0.5), 150)
    found = synthetic_ratings(n_users, n_items, n_ratings, n_factors=8, scale="1:5:0.5", seed=0)
    return random_split(found.ratings, seed=0)


def write_posterior(split: Any, threads: int, path: Path) -> None:
    """Keep a posterior of as many draws as the default has, which are copies of two."""
    from dataclasses import replace

    import torch

    from pyro_bmf.estimate import kept_dtype
    from pyro_bmf.fitting import fit
    from pyro_bmf.methods.gibbs.guide import ChainGuide
    from pyro_bmf.methods.settings import preset
    from pyro_bmf.posterior import Posterior

    usual = preset("default")
    assert usual.then is not None
    assert usual.then.kept_draws == DRAWS
    short = usual.replace(
        n_factors=24, max_iterations=2, plain_iterations=1, sweeps=4, burn_in=2, kept_draws=2
    )
    found = fit(split, short, threads=threads, device="cpu", progress=False).posterior
    times = DRAWS // 2
    # In the precision that a chain of so many draws keeps.
    numbers = split.train.n_users + split.train.n_items, found.model.n_factors + found.model.biases, DRAWS
    dtype = kept_dtype(*numbers, implicit=True)

    def copies(value: torch.Tensor, axis: int) -> torch.Tensor:
        size = [1] * value.ndim
        size[axis] = times
        return value.repeat(size)

    rows = [
        replace(own, draws=copies(own.draws.to(dtype), 1), means=copies(own.means.to(dtype), 1))
        for own in (found.user_rows, found.item_rows)
    ]
    guide = ChainGuide.from_settings({**found.guide.settings(), "n_draws": DRAWS})
    state = {
        name: copies(value, 0) if value.ndim else value for name, value in found.guide.state_dict().items()
    }
    state = {name: value.to(dtype) if name.endswith("weights") else value for name, value in state.items()}
    guide.load_state_dict(state, assign=True)
    Posterior(found.model, guide, rows[0], rows[1], found.train, found.info).save(path)


def kept_in(cache: Path, n_ratings: int, stage: str) -> Path:
    """Return the file of what a stage fits."""
    return cache / f"{n_ratings}-{stage}.safetensors"


def one(stage: str, n_ratings: int, threads: int, cache: Path) -> dict[str, Any]:
    """Run one stage here, and return its seconds and this process's peak memory."""
    import torch

    from pyro_bmf.posterior import Posterior
    from pyro_bmf.selection import ProductRanker, Recommender, Selection, fit_selection

    torch.set_num_threads(threads)
    posterior_file, selection_file = (kept_in(cache, n_ratings, name) for name in ("posterior", "fit"))
    split = split_of(n_ratings)
    found: dict[str, Any] = {"n_users": split.train.n_users, "n_items": split.train.n_items}
    found["n_ratings"] = len(split.ratings)
    started = time.perf_counter()
    if stage == "posterior":
        write_posterior(split, threads, posterior_file)
    elif stage == "fit":
        posterior = Posterior.load(posterior_file)
        started = time.perf_counter()
        selection = fit_selection(split, posterior=posterior)
        found["seconds"] = time.perf_counter() - started
        found["head"] = selection.head.word
        selection.save(selection_file)
    else:
        from pyro_bmf.numerics.ranked_lists import Exclusion

        posterior = Posterior.load(posterior_file)
        recommender = Recommender(posterior, Selection.load(selection_file, posterior.train), ABOVE)
        known = split.train_valid
        exclusion = Exclusion.of_pairs(known.users, known.items, known.n_users)
        users = np.arange(known.n_users)
        started = time.perf_counter()
        lists = ProductRanker(recommender).best_items(users, N, exclusion)
        found["seconds"] = time.perf_counter() - started
        found["n_lists"] = int((lists[:, 0] >= 0).sum())
    found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return found


def exponents(found: dict[str, Any]) -> dict[str, float]:
    """Return the growth of seconds with ratings, from the last two sizes."""
    sizes = sorted(found.values(), key=lambda row: row["fit"]["n_ratings"])[-2:]
    if len(sizes) < 2:
        return {}
    by = math.log(sizes[1]["fit"]["n_ratings"] / sizes[0]["fit"]["n_ratings"])
    return {
        stage: math.log(sizes[1][stage]["seconds"] / sizes[0][stage]["seconds"]) / by
        for stage in ("fit", "lists")
    }


def main() -> None:
    """Run the sizes that are missing, and print all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "selection_scaling.json")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "pyro-bmf-selection-scaling")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        stage, size = json.loads(options.one)
        print(json.dumps(one(stage, size, options.threads, options.cache)))
        return
    options.cache.mkdir(parents=True, exist_ok=True)
    done = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    sizes = done.setdefault("sizes", {})
    done["threads"] = options.threads
    env = {**os.environ, **{f"{name}_NUM_THREADS": str(options.threads) for name in ("OMP", "OPENBLAS")}}
    for size in options.sizes:
        cells = sizes.setdefault(f"{size:g}", {})
        for stage in STAGES:
            # What the lists are made of is needed as long as there are none.
            there = stage == "lists" or "lists" in cells or kept_in(options.cache, int(size), stage).exists()
            if stage in cells and there:
                continue
            command = [sys.executable, __file__, "--one", json.dumps([stage, int(size)])]
            command += ["--threads", str(options.threads), "--cache", str(options.cache)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout
            cells[stage] = json.loads(output.splitlines()[-1])
            print(f"{size:g} {stage}", cells[stage], flush=True)
            write_json(options.out, done)
    done["exponents"] = exponents({name: cells for name, cells in sizes.items() if "lists" in cells})
    write_json(options.out, done)
    print("exponents", done["exponents"])


if __name__ == "__main__":
    main()
