r"""Is a guide worth its time before sweeps? Fits of about equal time, side by side.

    python benchmarks/starts.py --data ml1m --seeds 0 1 2 --out benchmarks/results/starts_ml1m.json

a guide
    Cross feedback with an exact head alone, with the default's number of factors.
b default
    The guide, then sweeps from a draw of it: the preset `default`.
c prior
    Sweeps from the prior, as many more as the guide takes: the preset `gibbs`.
d shuffled
    As b, but each side's rows, weights and noise are dealt to other rows before the first sweep: what is left
    of the guide is its hyperparameters.
and `guide` as it ships, with more factors.

One split a seed, one thread, the processor's seconds of the fit; validation RMSE, and the test part once.
What is finished is kept in the file. Differences between two rows are paired, and bootstrapped by user.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from pyro_bmf.data import load_ratings, random_split
from pyro_bmf.evaluation import evaluate
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.exact_head import run
from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.settings import Settings, preset

FIGURES = ("rmse", "nll", "rps", "pit_coverage_90")


def settings_of(name: str) -> Settings:
    """Return the settings of a row."""
    default = preset("default")
    return {
        "a guide": Settings(default.model, dataclasses.replace(default.method, max_iterations=20)),
        "b default": default,
        "c prior": preset("gibbs"),
        "d shuffled": default,
        "guide": preset("guide"),
    }[name]


@contextmanager
def shuffled(chain_state: Callable[[Any], ChainState] = run.chain_state) -> Iterator[None]:
    """Deal what the guide found of each row to another row."""

    def deal(guide: Any) -> ChainState:
        state = chain_state(guide)
        for side in (state.user, state.item):
            order = torch.randperm(len(side.rows))
            side.rows, side.row_precision = side.rows[order], side.row_precision[order]
            side.weights = side.weights[torch.randperm(len(side.weights))]
        return state

    with mock.patch.object(run, "chain_state", deal):
        yield


def row(data: str, seed: int, name: str) -> dict[str, Any]:
    """Fit and measure one row on one split."""
    split = random_split(load_ratings(data), seed=seed)
    settings = settings_of(name).replace(seed=seed)
    started = time.process_time()
    if name == "d shuffled":
        with shuffled():
            result = fit(split, settings, threads=1, progress=False)
    else:
        result = fit(split, settings, threads=1, progress=False)
    seconds = time.process_time() - started
    test = split.test
    measured = evaluate(result.posterior, split, protocols=("rated",)).row()
    mean = result.posterior.predict_mean(test.users, test.items)
    errors = np.bincount(test.users, (mean - test.ratings) ** 2, minlength=split.ratings.n_users)
    return {
        "valid_rmse": result.history[-1]["valid_rmse"],
        **{figure: measured[figure] for figure in FIGURES},
        "seconds": seconds,
        "split_hash": split.hash,
        "squares_by_user": [round(float(square), 3) for square in errors],
        "counts_by_user": np.bincount(test.users, minlength=split.ratings.n_users).tolist(),
    }


def interval(rows: dict[str, Any], one: str, other: str, seeds: list[int]) -> tuple[float, float, float]:
    """Return the mean difference of RMSE over seeds and its 95 % interval, bootstrapped by user."""
    rng = np.random.default_rng(0)

    def rmse(found: dict[str, Any], weights: np.ndarray) -> float:
        squares, counts = (np.asarray(found[f"{part}_by_user"]) for part in ("squares", "counts"))
        return float(np.sqrt((squares * weights).sum() / (counts * weights).sum()))

    differences = []
    for draw in range(1001):
        each = []
        for seed in seeds:
            left, right = rows[f"{one} {seed}"], rows[f"{other} {seed}"]
            n = len(left["counts_by_user"])
            weights = rng.multinomial(n, np.full(n, 1 / n)) if draw else np.ones(n)
            each.append(rmse(left, weights) - rmse(right, weights))
        differences.append(float(np.mean(each)))
    low, high = np.quantile(differences[1:], [0.025, 0.975])
    return differences[0], float(low), float(high)


def main() -> None:
    """Run the rows that are missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ("a guide", "b default", "c prior", "d shuffled", "guide")
    parser.add_argument("--data", default="ml100k")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", default=list(names), choices=names)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    content: dict[str, Any] = {"data": options.data, "rows": {}}
    if options.out.exists():
        content = json.loads(options.out.read_text(encoding="utf-8"))
    for seed in options.seeds:
        for name in options.rows:
            key = f"{name} {seed}"
            if key in content["rows"]:
                continue
            found = row(options.data, seed, name)
            if options.out.exists():  # another process may have written its own rows
                content = json.loads(options.out.read_text(encoding="utf-8"))
            content["rows"][key] = found
            content |= {
                "torch": torch.__version__,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            }
            write_json(options.out, content)
            told = "  ".join(f"{figure} {found[figure]:.4f}" for figure in ("valid_rmse", *FIGURES))
            print(f"{key:14s}  {told}  {found['seconds']:.0f} s", flush=True)
    rows = content["rows"]
    pairs = [(name, "c prior") for name in ("a guide", "b default", "d shuffled", "guide")]
    for one, other in (*pairs, ("b default", "a guide"), ("b default", "d shuffled")):
        if all(f"{name} {seed}" in rows for name in (one, other) for seed in options.seeds):
            mean, low, high = interval(rows, one, other, options.seeds)
            content.setdefault("paired", {})[f"{one} less {other}"] = {"mean": mean, "low": low, "high": high}
            write_json(options.out, content)
            print(f"{one} less {other}: {mean:+.5f}, 95 % from {low:+.5f} to {high:+.5f}")


if __name__ == "__main__":
    main()
