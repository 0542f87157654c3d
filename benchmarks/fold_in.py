"""Rows folded in against a refit: a tenth of the users (or items) hidden, and half of their ratings given.

    python benchmarks/fold_in.py --data ml100k --seeds 0 1 2 --out benchmarks/results/fold_in.json

The other half is scored twice: by a fit of all other rows in which the hidden ones are folded in, and by a
fit whose training ratings include the half that was given. `squares` is the mean squared error in units of
the predictive standard deviation, and `coverage` that of the central 90 % by randomised PIT. With `--keep`
the posteriors are saved and used again, so that ways of folding in can be compared without new fits.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pyro_bmf.data import Ratings, Split, load_ratings
from pyro_bmf.data.scale import level_positions
from pyro_bmf.evaluation.calibration import normal_pit, pit_uniforms, randomized_pit
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import Settings, preset
from pyro_bmf.posterior import Posterior
from pyro_bmf.posterior.predictive import PairPredictive

Side = Literal["user", "item"]


def halves(ratings: Ratings, side: Side, seed: int, share: float) -> tuple[Split, Split]:
    """Return the split without the hidden rows and that with half of their ratings, of one test part."""
    rng = np.random.default_rng([seed, 0xF01D])
    own = ratings.users if side == "user" else ratings.items
    n = ratings.n_users if side == "user" else ratings.n_items
    hidden = np.zeros(n, dtype=bool)
    hidden[rng.permutation(n)[: round(share * n)]] = True
    out = hidden[own]
    rest = np.flatnonzero(~out)
    order = rng.permutation(np.flatnonzero(out))
    order = order[np.argsort(own[order], kind="stable")]
    first = np.concatenate([[0], np.cumsum(np.bincount(own[order], minlength=n))])
    place = np.arange(len(order)) - first[own[order]]
    size = np.bincount(own[order], minlength=n)[own[order]]
    given, asked = order[place < size // 2], order[place >= size // 2]
    # What is scored is of rows of the other side that the fit knows.
    other = ratings.items if side == "user" else ratings.users
    known = np.bincount(other[rest], minlength=len(other)) > 0
    given, asked = given[known[other[given]]], asked[known[other[asked]]]
    nothing = np.zeros(0, dtype=np.int64)
    alone = Split(ratings, rest, nothing, asked, f"hidden {side}s", {"seed": seed})
    joined = Split(
        ratings, np.concatenate([rest, given]), nothing, asked, f"hidden {side}s, half given", {"seed": seed}
    )
    return alone, joined


def figures(pairs: PairPredictive, users: Any, items: Any, test: Ratings) -> dict[str, float]:
    """Return how well the predictions of the test ratings by these pairs of rows are."""
    mean, sd = pairs.rating_moments(users, items)
    error = test.ratings - mean
    levels = test.scale.levels
    found = {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "squares": float(np.mean((error / sd) ** 2)),
        "sd": float(np.mean(sd)),
    }
    if levels is None:
        pit = normal_pit(test.ratings, mean, sd)
    else:
        at = level_positions(test.ratings, levels)
        pmf = pairs.pmf(users, items, np.array(levels))
        pit = randomized_pit(pmf, at, pit_uniforms(len(test), 0))
        found["nll"] = float(-np.log(np.maximum(pmf[np.arange(len(test)), at], 1e-300)).mean())
    found["coverage"] = float((np.abs(pit - 0.5) <= 0.45).mean())
    return found


def folded(posterior: Posterior, joined: Split, alone: Split, side: Side) -> tuple[dict[str, float], float]:
    """Fold the hidden rows in, and return figures and seconds."""
    own = set(alone.train_rows.tolist())
    given = joined.ratings.take(np.array([row for row in joined.train_rows.tolist() if row not in own]))
    test = alone.test
    new = pd.DataFrame(
        {
            "user_id": posterior.user_vocabulary.raw(given.users),
            "item_id": posterior.item_vocabulary.raw(given.items),
            "rating": given.ratings,
        }
    )
    begun = time.perf_counter()
    rows = (posterior.fold_in_users if side == "user" else posterior.fold_in_items)(new)
    seconds = time.perf_counter() - begun
    users, items = test.users, test.items
    if side == "user":
        known = np.isin(users, given.users)
        users = rows.vocabulary.index(posterior.user_vocabulary.raw(users[known]))
        items = items[known]
    else:
        known = np.isin(items, given.items)
        items = rows.vocabulary.index(posterior.item_vocabulary.raw(items[known]))
        users = users[known]
    return figures(rows.pairs, users, items, test.take(np.flatnonzero(known))), seconds


def refitted(posterior: Posterior, joined: Split, side: Side) -> dict[str, float]:
    """Return the figures of a fit that has seen the given half, of the rows that have one."""
    test, train = joined.test, joined.train
    known = (train.user_counts[test.users] if side == "user" else train.item_counts[test.items]) > 0
    test = test.take(np.flatnonzero(known))
    return figures(posterior.pairs, test.users, test.items, test)


def fitted(split: Split, settings: Settings, kept: Path | None, progress: Callable[[str], None]) -> Posterior:
    """Fit, or open what an earlier call has kept."""
    if kept is not None and kept.exists():
        return Posterior.load(kept)
    begun = time.perf_counter()
    posterior = fit(split, settings, progress=False).posterior
    progress(f"fitted in {time.perf_counter() - begun:.0f} s")
    if kept is not None:
        posterior.save(kept)
    return posterior


def main() -> None:
    """Measure what is asked for, write it and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="ml100k")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sides", nargs="+", choices=["user", "item"], default=["user", "item"])
    parser.add_argument("--share", type=float, default=0.1, help="Of the rows, that are hidden.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="Folder of the posteriors.")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    ratings = load_ratings(options.data)
    cells: list[dict[str, Any]] = []
    for seed in options.seeds:
        settings = preset(options.preset).replace(seed=seed)
        for side in options.sides:
            alone, joined = halves(ratings, side, seed, options.share)
            names = [f"{options.data}-{options.preset}-{side}-{seed}-{of}" for of in ("alone", "joined")]
            kept = [None if options.keep is None else options.keep / f"{n}.safetensors" for n in names]
            rows, seconds = folded(fitted(alone, settings, kept[0], print), joined, alone, side)
            refit = refitted(fitted(joined, settings, kept[1], print), joined, side)
            cell = {"seed": seed, "side": side, "n": len(alone.test_rows), "folded": rows, "refit": refit}
            cells.append({**cell, "seconds": seconds, "split_hash": joined.hash})
            print(json.dumps(cells[-1]), flush=True)
    summary = {
        side: {
            of: {
                name: float(np.mean([cell[of][name] for cell in cells if cell["side"] == side]))
                for name in cells[0][of]
            }
            for of in ("folded", "refit")
        }
        for side in options.sides
    }
    print(json.dumps(summary, indent=2))
    if options.out is not None:
        content = {"data": options.data, "preset": options.preset, "share": options.share}
        write_json(options.out, {**content, "mean": summary, "cells": cells})


if __name__ == "__main__":
    main()
