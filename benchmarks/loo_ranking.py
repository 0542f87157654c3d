"""Does PSIS-LOO rank models as held-out ratings do? Pairs of the leaderboard's rows, both ways.

    python benchmarks/loo_ranking.py --data ml100k --out benchmarks/results/loo_ranking.json

Every row is fitted once to the training ratings of one split. Held out: ELPD of the test ratings. Left out:
PSIS-LOO of the same number of training ratings for all rows, drawn at random (`--ratings`). Of each pair of
rows the file has both differences in nats a rating with their paired standard errors by user, whether both
have the same sign, and whether either is clear (more than two standard errors). What is left out has the
row's share of bad k-hats beside it. Fits and their terms are kept in a folder, and a run that was interrupted
goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from leaderboard import ROWS
from numpy.typing import NDArray

from pyro_bmf.checking.loo import psis_loo
from pyro_bmf.data import Split, load_ratings, random_split
from pyro_bmf.data.scale import level_positions
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.numerics.psis import good_k

Floats = NDArray[np.float64]
#: Rows that are fitted where none are named: two of each method, and those next to each other.
USUAL = (
    *("default/normal/auto", "default/normal/normal", "conjugate/normal/ordered-probit"),
    *("conjugate/normal/normal", "amortized/normal/normal", "amortized/normal/ordered-logistic"),
)


def terms(split: Split, name: str, n_ratings: int) -> dict[str, Any]:
    """Fit a row and return what it says of test ratings, and of training ratings without themselves."""
    preset_name, prior, likelihood = name.split("/")
    settings = preset(preset_name).replace(seed=0, prior=prior, likelihood=likelihood)
    started = time.perf_counter()
    posterior = fit(split, settings, threads=1, progress=False).posterior
    fitted = time.perf_counter()
    test, levels = split.test, np.array(split.ratings.scale.levels)
    pmf = posterior.predict_pmf(test.users, test.items, levels)
    held = np.log(pmf[np.arange(len(test)), level_positions(test.ratings, levels)])
    left = psis_loo(posterior, subset=n_ratings)
    return {
        "held": held,
        "left": left.elpd,
        "users": left.users,
        "share_high_k": left.share_high_k,
        "k_limit": good_k(left.n_draws),
        "n_draws": left.n_draws,
        "efficiency": left.efficiency,
        "integrated": left.integrated,
        "p_loo": float(left.p_loo.mean()),
        "fit_seconds": fitted - started,
        "loo_seconds": time.perf_counter() - fitted,
    }


def kept(folder: Path, split: Split, name: str, n_ratings: int) -> dict[str, Any]:
    """Return a row's terms from the folder, made if they are not there."""
    path = folder / f"{name.replace('/', '-').replace(':', '-').replace('=', '-')}.npz"
    if not path.exists():
        print(name, flush=True)
        found = terms(split, name, n_ratings)
        temporary = path.with_suffix(".part.npz")
        np.savez(temporary, **found)
        temporary.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def difference(a: Floats, b: Floats, users: NDArray[np.int64]) -> tuple[float, float]:
    """Return the mean difference a rating and its standard error, ratings of a user taken together."""
    gap = a - b
    _, place = np.unique(users, return_inverse=True)
    total = np.bincount(place, gap - gap.mean())
    return float(gap.mean()), float(np.sqrt((total**2).sum()) / len(gap))


def main() -> None:
    """Fit the rows, and write and print what both ways say of each pair."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="ml100k")
    parser.add_argument("--ratings", type=int, default=5_000)
    parser.add_argument("--rows", nargs="+", metavar="PRESET/PRIOR/LIKELIHOOD", default=list(USUAL))
    parser.add_argument("--work", type=Path, default=Path("loo-ranking"), help="Folder of finished rows.")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    unknown = set(options.rows) - {"/".join(row) for row in ROWS}
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}.")
    split = random_split(load_ratings(options.data), seed=0)
    options.work.mkdir(parents=True, exist_ok=True)
    found = {name: kept(options.work, split, name, options.ratings) for name in options.rows}
    pairs = []
    for a, b in combinations(options.rows, 2):
        held, held_se = difference(found[a]["held"], found[b]["held"], split.test.users)
        left, left_se = difference(found[a]["left"], found[b]["left"], found[a]["users"])
        pairs.append(
            {
                "rows": [a, b],
                "held_out": held,
                "held_out_se": held_se,
                "left_out": left,
                "left_out_se": left_se,
                "agree": held * left > 0.0,
                "clear": [abs(held) > 2 * held_se, abs(left) > 2 * left_se],
            }
        )
    scalars = ("share_high_k", "k_limit", "n_draws", "efficiency", "integrated", "p_loo")
    rows = {
        name: {
            "held_out": float(one["held"].mean()),
            "left_out": float(one["left"].mean()),
            **{key: one[key].item() for key in (*scalars, "fit_seconds", "loo_seconds")},
        }
        for name, one in found.items()
    }
    content = {
        "data": options.data,
        "ratings": options.ratings,
        "rows": rows,
        "pairs": pairs,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    write_json(options.out, content)
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
