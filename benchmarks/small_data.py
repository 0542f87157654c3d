"""Ten small sets of 30 to 6,000 ratings: the default preset against the best of five trivial references.

    python benchmarks/small_data.py --out benchmarks/results/small_data.json
    python benchmarks/small_data.py --sets noise-800 --parts --out benchmarks/results/small_data_parts.json

The sets and their seeds were fixed before anything was fitted. A generated set is drawn anew for every seed;
one that is cut out of MovieLens, and left out where the data folder does not have it, is drawn again by the
seed too. Each is split 70/15/15 by the same seed. The references are the global mean, means of users and of
items and both together (shrunk, by learned variances), and the frequencies of the levels (continuous ratings
have none). On a discrete scale NLL is of the rating's level, with a Normal reference's cells for levels, and
on a continuous one that of a Normal density. A figure is no worse than the best reference's if its mean over
the seeds is not above the lowest mean of a reference; the interval is that of the paired difference from it,
2.1 standard errors over the seeds wide on either side. Beside them stands, for generated sets, what the
distribution that they were drawn from says of the test part, effects and products known: no system can be
expected to do better. With `--parts` the default is fitted without one part of the model after the other too,
which tells what each of them loses where there is nothing for it to find.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from pyro_bmf.baselines.effects import Effects, fit_effects
from pyro_bmf.data import Ratings, Split, load_ratings, random_split
from pyro_bmf.data.notices import DataWarning
from pyro_bmf.data.scale import level_positions
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.data.vocabulary import Vocabulary
from pyro_bmf.errors import DataError, PyroBmfError
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset

Floats = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Drawn:
    """Ratings, and, of a generated set, the mean (n_users, n_items) of each pair's value and its noise."""

    ratings: Ratings
    means: Floats | None = None
    noise: float = 0.0

    def truth(self, test: Ratings) -> dict[str, float] | None:
        """Return the figures of the distribution that the test part was drawn from."""
        if self.means is None:
            return None
        users = test.user_vocabulary.raw(test.users).astype(int)
        items = test.item_vocabulary.raw(test.items).astype(int)
        at, noise = self.means[users, items], np.full(len(test), self.noise)
        mean = at
        if test.scale.levels is not None:
            mean = level_shares(test, at, noise) @ np.array(test.scale.levels)
        return {"rmse": rmse(test, mean), "nll": float(normal_nll(test, at, noise**2).mean())}


def pairs(rng: Rng, n_users: int, n_items: int, n: int, tail: float = 0.0) -> tuple[Any, Any]:
    """Return n different pairs; rows of both sides are drawn by the power -`tail` of their rank."""
    shares = [np.arange(1, size + 1) ** -tail for size in (n_users, n_items)]
    weights = np.outer(shares[0] / shares[0].sum(), shares[1] / shares[1].sum()).ravel()
    chosen = rng.choice(n_users * n_items, size=n, replace=False, p=weights)
    return chosen // n_items, chosen % n_items


def generated(
    n_users: int,
    n_items: int,
    n: int,
    scale: tuple[float, float, float] | None,
    *,
    rank: int = 0,
    effect: float = 0.0,
    product: float = 0.0,
    noise: float = 1.0,
    mean: float = 3.5,
    tail: float = 0.0,
) -> Callable[[Rng], Drawn]:
    """Return how to draw a set: effects and products of these standard deviations, put on a scale."""

    def make(rng: Rng) -> Drawn:
        users, items = pairs(rng, n_users, n_items, n, tail)
        value = mean + noise * rng.normal(size=n)
        by_user, by_item = effect * rng.normal(size=n_users), effect * rng.normal(size=n_items)
        value += by_user[users] + by_item[items]
        means = mean + by_user[:, None] + by_item
        if rank:
            u, v = rng.normal(size=(n_users, rank)), rng.normal(size=(n_items, rank))
            value += product / np.sqrt(rank) * (u[users] * v[items]).sum(1)
            means += product / np.sqrt(rank) * u @ v.T
        said = f"{value.min()}:{value.max()}"
        if scale is not None:
            low, high, step = scale
            value = np.clip(low + step * np.round((value - low) / step), low, high)
            said = f"{low:g}:{high:g}:{step:g}"
        return Drawn(ratings_from_arrays(users, items, value, scale=said), means, noise)

    return make


def cut_out(
    name: str, n: int | None = None, n_users: int | None = None, n_items: int | None = None
) -> Callable[[Rng], Drawn]:
    """Return how to draw ratings of a data set: some at random, or those of some users with some items."""

    def make(rng: Rng) -> Drawn:
        whole = load_ratings(name)
        rows = np.arange(len(whole))
        if n_users is not None:
            rows = rows[np.isin(whole.users, rng.permutation(whole.n_users)[:n_users])]
        if n_items is not None:
            popular = np.argsort(-whole.item_counts, kind="stable")[: 4 * n_items]
            rows = rows[np.isin(whole.items[rows], rng.permutation(popular)[:n_items])]
        if n is not None:
            rows = rng.permutation(rows)[:n]
        part = whole.take(np.sort(rows))
        ids = whole.user_vocabulary.raw(part.users), whole.item_vocabulary.raw(part.items)
        return Drawn(replace(ratings_from_arrays(*ids, part.ratings, scale=whole.scale), name=name))

    return make


#: Each set: how it is drawn, and its seeds (more where a test part is short).
SETS: Mapping[str, tuple[Callable[[Rng], Drawn], int]] = {
    "thirty": (generated(10, 8, 30, (1, 5, 1), effect=0.4, noise=0.9), 20),
    "ml100k-120": (cut_out("ml100k", n=120), 20),
    "half-stars-300": (generated(40, 30, 300, (0.5, 5, 0.5), effect=0.4, noise=0.8), 10),
    "continuous-400": (
        generated(40, 40, 400, None, rank=2, effect=30.0, product=30.0, noise=40.0, mean=500.0),
        10,
    ),
    "near-constant-500": (generated(60, 40, 500, (1, 5, 1), effect=0.2, noise=0.7, mean=5.8), 10),
    "noise-800": (generated(80, 60, 800, (1, 5, 1), noise=1.1), 10),
    "heavy-tails-1500": (
        generated(400, 200, 1500, (1, 10, 1), effect=0.8, noise=1.6, mean=6.5, tail=1.0),
        5,
    ),
    "ml100k-block-2500": (cut_out("ml100k", n_users=100, n_items=100), 5),
    "planted-4000": (generated(120, 100, 4000, (1, 5, 1), rank=3, effect=0.4, product=0.6, noise=0.7), 5),
    "latest-small-6000": (cut_out("ml-latest-small", n=6000), 5),
}


#: Parts of the model that the default is fitted without: spreads that are next to nothing.
PARTS: Mapping[str, dict[str, Any]] = {
    "as it is": {},
    "without factors": {"prior_scale": 0.001},
    "without effects": {"bias_scale": 0.001},
    "rows of the same noise": {"row_noise": "none"},
    "cut points alone": {"prior_scale": 0.001, "bias_scale": 0.001, "row_noise": "none"},
}


class Normals:
    """A reference whose ratings are Normal about effects; none, of one side or of both."""

    def __init__(self, train: Ratings, sides: str) -> None:
        self.scale = train.scale
        self.effects: Effects | None = None
        self.swapped = sides == "user"
        if sides == "none":
            self.mean, n = float(train.ratings.mean()), len(train)
            self.variance = max(float(train.ratings.var(ddof=1)) * (1 + 1 / n), 1e-6)
            return
        if self.swapped:
            order = np.lexsort((train.users, train.items))
            train = replace(
                train, users=train.items[order], items=train.users[order], ratings=train.ratings[order],
                user_vocabulary=Vocabulary(train.item_vocabulary.ids, "user"), timestamps=None,
                item_vocabulary=Vocabulary(train.user_vocabulary.ids, "item"), item_titles=None,
            )  # fmt: skip
        self.effects = fit_effects(train, user_effects=sides == "both")

    def moments(self, test: Ratings) -> tuple[Floats, Floats]:
        """Return mean and variance of each test rating."""
        if self.effects is None:
            return np.full(len(test), self.mean), np.full(len(test), self.variance)
        e = self.effects
        users, items = (test.items, test.users) if self.swapped else (test.users, test.items)
        mean = e.centre + e.user_loc[users] + e.item_loc[items]
        return mean, e.noise_variance + e.user_variance[users] + e.item_variance[items]


def normal_nll(test: Ratings, mean: Floats, variance: Floats) -> Floats:
    """Return what a Normal says of each rating: of its cell on a discrete scale, its density otherwise."""
    sd = np.sqrt(variance)
    if test.scale.levels is None:
        found: Floats = 0.5 * np.log(2 * np.pi * variance) + (test.ratings - mean) ** 2 / (2 * variance)
        return found
    return level_nll(test, level_shares(test, mean, sd))


def level_shares(test: Ratings, mean: Floats, sd: Floats) -> Floats:
    """Return the probabilities of the levels, (n, n_levels), of Normals."""
    levels = np.array(test.scale.levels)
    middles = (levels[1:] + levels[:-1]) / 2
    below = ndtr((middles - mean[:, None]) / sd[:, None])
    edges = np.column_stack([np.zeros(len(mean)), below, np.ones(len(mean))])
    found: Floats = np.diff(edges, axis=1)
    return found


def level_nll(test: Ratings, pmf: Floats) -> Floats:
    """Return what probabilities of the levels say of each rating."""
    assert test.scale.levels is not None
    at = level_positions(test.ratings, test.scale.levels)
    found: Floats = -np.log(np.maximum(pmf[np.arange(len(at)), at], 1e-300))
    return found


def references(split: Split) -> dict[str, dict[str, float]]:
    """Return the references' figures."""
    train, test = split.train, split.test
    found = {}
    for name, sides in (
        ("global mean", "none"), ("user means", "user"), ("item means", "item"), ("biases", "both"),
    ):  # fmt: skip
        mean, variance = Normals(train, sides).moments(test)
        found[name] = {"rmse": rmse(test, mean), "nll": float(normal_nll(test, mean, variance).mean())}
    if train.scale.levels is not None:
        n_levels = len(train.scale.levels)
        counts = np.bincount(level_positions(train.ratings, train.scale.levels), minlength=n_levels)
        share = (counts + 0.5) / (len(train) + 0.5 * n_levels)
        mean = np.full(len(test), float(share @ np.array(train.scale.levels)))
        nll = level_nll(test, np.tile(share, (len(test), 1)))
        found["level frequencies"] = {"rmse": rmse(test, mean), "nll": float(nll.mean())}
    return found


def rmse(test: Ratings, mean: Floats) -> float:
    """Return the root mean squared error."""
    return float(np.sqrt(np.mean((test.ratings - mean) ** 2)))


def one(make: Callable[[Rng], Drawn], place: int, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Draw a set, fit it, and return the figures of all systems."""
    drawn = make(np.random.default_rng([place, seed]))
    split = random_split(drawn.ratings, seed=seed)
    begun = time.perf_counter()
    posterior = fit(split, preset().replace(seed=seed, **changes), progress=False).posterior
    test, seconds = split.test, time.perf_counter() - begun
    mean, sd = posterior.pairs.rating_moments(test.users, test.items)
    levels = test.scale.levels
    if levels is None:
        nll = normal_nll(test, mean, sd**2)
    else:
        nll = level_nll(test, posterior.pairs.pmf(test.users, test.items, np.array(levels)))
    model = {"rmse": rmse(test, mean), "nll": float(nll.mean())}
    return {
        "seed": seed, "n_test": len(test), "seconds": seconds, "model": model,
        "truth": drawn.truth(test), "references": references(split), "split_hash": split.hash,
    }  # fmt: skip


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over the seeds, and the difference from the best reference."""
    found: dict[str, Any] = {}
    for figure in ("nll", "rmse"):
        own = np.array([cell["model"][figure] for cell in cells])
        by_name = {
            name: np.array([cell["references"][name][figure] for cell in cells])
            for name in cells[0]["references"]
        }
        best = min(by_name, key=lambda name: float(by_name[name].mean()))
        difference = own - by_name[best]
        reach = 2.1 * float(difference.std(ddof=1)) / np.sqrt(len(cells)) if len(cells) > 1 else float("nan")
        found[figure] = {
            "model": float(own.mean()), "best": best, "reference": float(by_name[best].mean()),
            "difference": float(difference.mean()), "reach": reach,
            "no_worse": bool(difference.mean() <= 0.0),
        }  # fmt: skip
        if cells[0]["truth"] is not None:
            found[figure]["truth"] = float(np.mean([cell["truth"][figure] for cell in cells]))
    return found


def main() -> None:
    """Measure the sets that are asked for, write the figures and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--seeds", type=int, help="Only so many seeds of each.")
    parser.add_argument("--first-seed", type=int, default=0, help="Seeds that nothing was chosen on.")
    parser.add_argument("--parts", action="store_true", help="Without one part of the model after another.")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="Settings to change.")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    changes = {name: json.loads(value) for name, value in (pair.split("=", 1) for pair in options.set)}
    warnings.simplefilter("ignore", DataWarning)
    if options.parts:
        parts = {}
        for part, without in PARTS.items():
            print(part, flush=True)
            parts[part] = measured(options, {**without, **changes})
        if options.out is not None:
            write_json(options.out, {"changes": changes, "parts": parts})
        return
    sets = measured(options, changes)
    if options.out is not None:
        write_json(options.out, {"changes": changes, "sets": sets})


def measured(options: argparse.Namespace, changes: dict[str, Any]) -> dict[str, Any]:
    """Fit the sets that are asked for, and print and return the figures of each."""
    sets: dict[str, Any] = {}
    for place, (name, (make, n_seeds)) in enumerate(SETS.items()):
        if name not in options.sets:
            continue
        try:
            first, n = options.first_seed, min(n_seeds, options.seeds or n_seeds)
            cells = [one(make, place, seed, changes) for seed in range(first, first + n)]
        except DataError as error:
            print(f"{name}: left out, {error}", flush=True)
            continue
        except PyroBmfError as error:
            sets[name] = {"failed": str(error)}
            print(f"{name}: failed, {error}", flush=True)
            continue
        sets[name] = {"summary": summary(cells), "cells": cells}
        for figure, row in sets[name]["summary"].items():
            print(
                f"{name:20s} {figure:5s} {row['model']:9.4f}  {row['best']:18s} {row['reference']:9.4f}  "
                f"{row['difference']:+.4f} +- {row['reach']:.4f}{'' if row['no_worse'] else '  WORSE'}",
                flush=True,
            )
    return sets


if __name__ == "__main__":
    main()
