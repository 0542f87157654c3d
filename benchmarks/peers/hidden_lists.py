r"""Lists for hidden users by implicit's ALS, for `benchmarks/hidden_users.py`; in the environment `ranking`.

    python benchmarks/peers/hidden_lists.py --folder hidden --seeds 0 1 2

reads FOLDER/parts-SEED.npz and writes FOLDER/als-INPUT-SEED.npz. Settings are drawn at random as
`ranking_lists.py` draws them, and those with the best NDCG@20 for the users hidden for choosing are taken.
A hidden user's factors are the library's own, recalculated from the half of the ratings that is given.
"""

from __future__ import annotations

import argparse
import json
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ranking_fits import als_model, draw_als
from scipy import sparse

N, ABOVE = 20, 3.0
INPUTS = ("rated", "above 3", "graded")


def matrix(parts: Any, name: str, what: str, mean: float) -> Any:
    """Return (n_users, n_items) weights of one part of the ratings."""
    ratings = parts[f"{name}_ratings"]
    keep = ratings > ABOVE if what == "above 3" else np.ones(len(ratings), dtype=bool)
    weights = ratings / mean if what == "graded" else np.ones(len(ratings))
    pairs = parts[f"{name}_users"][keep], parts[f"{name}_items"][keep]
    return sparse.csr_matrix((weights[keep], pairs), shape=tuple(parts["shape"]), dtype=np.float32)


def lists_of(model: Any, weights: Any, given: Any, users: Any) -> Any:
    """Return the best 20 items of hidden users that were not given."""
    factors = model.recalculate_user(np.arange(len(users)), weights[users])
    scores = np.asarray(factors @ model.item_factors.T, dtype=np.float64)
    entries = given[users].tocoo()
    scores[entries.row, entries.col] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :N]


def ndcg(lists: Any, wanted: Any) -> float:
    """Return the mean NDCG@20 of the users that want something."""
    hits = np.take_along_axis(wanted, lists, 1)
    totals = wanted.sum(1)
    some = totals > 0
    discounts = 1.0 / np.log2(np.arange(2, N + 2))
    ideal = np.cumsum(discounts)[np.minimum(totals[some], N) - 1]
    return float(np.mean(hits[some] @ discounts / ideal))


def main() -> None:
    """Choose settings for each input and seed, and write the test users' lists."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=20)
    options = parser.parse_args()
    rng = np.random.default_rng(zlib.crc32(b"implicit ALS"))
    draws = [draw_als(rng) for _ in range(options.trials)]
    for seed in options.seeds:
        with np.load(options.folder / f"parts-{seed}.npz", allow_pickle=False) as content:
            parts = dict(content)
        mean = float(parts["fitted_ratings"].mean())
        wanted = matrix(parts, "wanted", "above 3", mean)[parts["chosen_by"]].toarray() > 0
        for what in INPUTS:
            weights = {name: matrix(parts, name, what, mean) for name in ("fitted", "given", "test")}
            tried: list[tuple[float, Any, Any]] = []
            for settings in draws:
                model = als_model(weights["fitted"], settings, seed)
                everything = matrix(parts, "given", "rated", mean)
                own = lists_of(model, weights["given"], everything, parts["chosen_by"])
                everything = matrix(parts, "test", "rated", mean)
                test = lists_of(model, weights["test"], everything, parts["test"])
                tried.append((ndcg(own, wanted), settings, test))
            value, settings, lists = max(tried, key=lambda one: one[0])
            chosen = {"settings": settings, "valid_ndcg": value, "trials": len(tried)}
            chosen |= {"package": f"implicit {version('implicit')}"}
            file = options.folder / f"als-{what.replace(' ', '-')}-{seed}.npz"
            np.savez(file, lists=lists, chosen=np.array(json.dumps(chosen)))
            print(
                f"seed {seed}, {what}: NDCG@{N} {value:.4f} of those hidden for choosing, {settings}",
                flush=True,
            )


if __name__ == "__main__":
    main()
