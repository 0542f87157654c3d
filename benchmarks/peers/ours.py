"""Fit pyro-bmf to one split and write what it predicts, in the same files as a peer; runs in its environment.

    python ours.py --split DIR --data ml1m --system pyro-bmf --seed 0 --out CELL
    python ours.py --split DIR --system pyro-bmf-k32 --settings '{"n_factors": 32}' --out CELL
    python ours.py --split DIR --system pyro-bmf-amortized --only-valid

`run.py` calls it; with --only-valid it prints validation figures and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import cells
import numpy as np
import systems
import torch
import torch._inductor  # a fit on the CPU would import it at its end; imports are not timed
from prediction import Clock, Prediction
from worker import part_arrays, peak_memory, versions

from pyro_bmf.data import read_split
from pyro_bmf.evaluation import level_positions, nll
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.progress import Silent

PACKAGES = ("pyro-bmf", "pyro-ppl", "torch", "numpy", "scipy")
_PAIRS_AT_ONCE, _USERS_AT_ONCE = 50_000, 500


def main() -> None:
    """Fit, predict, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--data", help="the data set's name in the cell; that in the split when not given")
    parser.add_argument("--system", required=True, help="pyro-bmf, or pyro-bmf-NAME; see systems.py")
    parser.add_argument("--settings", default="{}", help="JSON: preset, and settings to change in it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-scores", action="store_true", help="no scores of every pair, so no ranking")
    parser.add_argument("--only-valid", action="store_true", help="validation figures and no files")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.out is None and not options.only_valid:
        parser.error("say where to write with --out, or ask for --only-valid")
    split = read_split(options.split)
    asked = systems.settings_of(options.system, {}, json.loads(options.settings))
    changes = {name: value for name, value in asked.items() if name != "preset"}
    settings = preset(asked["preset"]).replace(**{"seed": options.seed, **changes})
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    clock, trace = Clock(), Trace()
    with clock:
        result = fit(split, settings, device="cpu", threads=threads, progress=trace)
    fit_memory = peak_memory()
    started = time.perf_counter()
    torch.set_num_threads(threads)
    levels = np.array(split.ratings.scale.levels)
    valid = predict(result.posterior, split.valid, levels)
    valid_rmse = float(np.sqrt(np.mean((valid.mean - split.valid.ratings) ** 2)))
    valid_nll = float(nll(valid.pmf, level_positions(split.valid.ratings, levels)).mean())
    print(f"{options.system} seed {options.seed}: valid RMSE {valid_rmse:.4f} in {clock.wall:.1f} s")
    print(f"  valid NLL {valid_nll:.4f}", flush=True)
    if options.only_valid:
        return
    test = predict(result.posterior, split.test, levels)
    predicting = time.perf_counter() - started
    arrays = part_arrays("valid", valid, split.valid, valid_rmse, levels)
    arrays |= part_arrays("test", test, split.test, valid_rmse, levels)
    memory = peak_memory()
    started = time.perf_counter()
    scores = None if options.no_scores else all_scores(result.posterior, split.train.n_users)
    data = options.data or split.ratings.name
    description = {
        "request": cells.request(options.system, data, split.hash, options.seed, asked),
        "preset": result.posterior.info["settings"],
        "own_distribution": True,
        "valid_rmse": valid_rmse,
        "trace": trace.pairs,
        "iterations": len(result.history),
        "kept_iteration": result.best_iteration,
        "fit_seconds": clock.wall,
        "fit_cpu_seconds": clock.cpu,
        "predict_seconds": predicting,
        "score_seconds": time.perf_counter() - started,
        "fit_memory_gb": fit_memory,
        "peak_memory_gb": memory,
        "threads": threads,
        "versions": versions(PACKAGES),
    }
    cells.write(options.out, description, arrays, scores)


def predict(posterior: Any, part: Any, levels: Any) -> Prediction:
    """Return a posterior's predictions of a part, in the order of its ratings."""
    chunks = []
    for start in range(0, len(part), _PAIRS_AT_ONCE):
        rows = slice(start, start + _PAIRS_AT_ONCE)
        pair = part.users[rows].copy(), part.items[rows].copy()
        said = posterior.predict_mean(*pair), posterior.predict_sd(*pair)
        chunks.append((*said, posterior.predict_pmf(*pair, levels)))
    return Prediction(*(np.concatenate(column) for column in zip(*chunks, strict=True)))


def all_scores(posterior: Any, n_users: int) -> Any:
    """Return (n_users, n_items) ranking scores."""
    starts = range(0, n_users, _USERS_AT_ONCE)
    chunks = [posterior.score_items(np.arange(s, min(s + _USERS_AT_ONCE, n_users))) for s in starts]
    return np.concatenate(chunks).astype(np.float32)


class Trace(Silent):
    """Notes after how many seconds of the fit each validation RMSE was known, start-up included."""

    def __init__(self) -> None:
        self.pairs: list[list[float]] = []
        self._started = time.perf_counter()

    def note(self, text: str) -> None:
        """Print a line into the cell's log."""
        print(text, flush=True)

    def iteration(self, record: dict[str, Any]) -> None:
        """Take an iteration's record."""
        if record.get("valid_rmse") is not None:
            seconds = time.perf_counter() - self._started
            self.pairs.append([round(seconds, 3), round(float(record["valid_rmse"]), 6)])


if __name__ == "__main__":
    main()
