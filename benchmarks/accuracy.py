"""Test metrics of fits on real ratings: seeds of a preset, and the paper's four ablations of its encoders.

    python benchmarks/accuracy.py --preset amortized --data ml1m --seeds 0 1 2 --ablations --out ml1m.json
    python benchmarks/accuracy.py --data ml100k --seeds 0 1 2 --out benchmarks/results/ml100k.json

Each cell (split seed = fit seed, and an ablation) is added to the file when it is done, and skipped when it
is there already, so an interrupted run goes on. A file whose cells are of other data or settings is refused.
Settings were chosen by validation RMSE on seed 0, whose test RMSE was in sight (see docs/results.md). A
preset without encoders has nothing to ablate, and is refused before anything is fitted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from pyro_bmf.data import load_ratings, random_split
from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation import evaluate_with_references
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.reading import Case
from pyro_bmf.methods.settings import Settings, preset

#: Table 4 of the paper: each takes one component away from the full model.
ABLATIONS: dict[str, dict[str, Any]] = {
    "full model": {},
    "no data input": {"data_input": False},
    "no cross feedback": {"feedback": False, "attention": "none"},
    "no attention": {"attention": "none"},
}


def cell(data: str, seed: int, settings: Settings, threads: int | None, device: str) -> dict[str, Any]:
    """Fit and evaluate one cell."""
    split = random_split(load_ratings(data), seed=seed)
    started = time.perf_counter()
    result = fit(split, settings, threads=threads, device=device)
    seconds = time.perf_counter() - started
    comparison = evaluate_with_references(result.posterior, split, name="pyro-bmf")
    systems = json.loads(comparison.table().to_json(orient="table"))["data"]
    return {
        "data": data,
        "seed": seed,
        "split_hash": split.hash,
        "settings": result.posterior.info["settings"],
        "seconds": seconds,
        "iterations": len(result.history),
        "kept_iteration": result.best_iteration,
        "valid_rmse": result.history[result.best_iteration - 1]["valid_rmse"],
        "systems": systems,
        "device": result.device,
        "threads": torch.get_num_threads() if threads is None else threads,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def _settings(parser: argparse.ArgumentParser, given: list[str]) -> dict[str, Any]:
    """Read what --set was given; a value is JSON, or else a word."""
    settings: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name or name in settings:
            parser.error(f"--set {item}: write NAME=VALUE, each name once")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def _difference(found: dict[str, Any], data: str, settings: Settings) -> str | None:
    """Return in what a cell that was measured before differs from what is asked for, if in anything."""
    if found["data"] != data:
        return f"data {found['data']}, not {data}"
    asked = settings.to_dict()
    for part, content in found["settings"].items():
        recorded = content if isinstance(content, dict) else {part: content}
        wanted = asked.get(part, {}) if isinstance(content, dict) else asked
        for name, value in recorded.items():
            now = json.loads(json.dumps(wanted.get(name)))
            if value != now:
                return f"{name} {value!r}, not {now!r}"
    return None


def main() -> None:
    """Run the cells that are missing, and print a table of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="ml1m")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ablations", action="store_true", help="the paper's four, with the first seed")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="change a setting")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    common = _settings(parser, options.set)
    jobs = [("full model", seed) for seed in options.seeds]
    if options.ablations:
        jobs += [(name, options.seeds[0]) for name in ABLATIONS if name != "full model"]
    cells: dict[str, tuple[int, Settings]] = {}
    for name, seed in jobs:
        clash = sorted(common.keys() & ({"seed"} | ABLATIONS[name].keys()))
        if clash:
            parser.error(f"--set {clash[0]}: the cell {name!r} sets it itself; leave it out")
        try:
            settings = preset(options.preset).replace(seed=seed, **common, **ABLATIONS[name])
            Case.of(settings, ratings_known=False).check()
        except SettingsError as error:
            parser.error(f"{name}: {error}")
        cells[f"{name}, seed {seed}"] = (seed, settings)
    done: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for key in done.keys() & cells.keys():
        difference = _difference(done[key], options.data, cells[key][1])
        if difference is not None:
            parser.error(f"{options.out}: its cell {key!r} has {difference}. Give another --out.")
    for key, (seed, settings) in cells.items():
        if key not in done:
            print(f"## {key}", flush=True)
            done[key] = cell(options.data, seed, settings, options.threads, options.device)
            write_json(options.out, done)
    # On a continuous scale NLL is that of a density, and there is no RPS.
    print("| fit | valid RMSE | test RMSE | NLL | RPS | coverage 90 % | iterations | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for key, found in done.items():
        test = next(row for row in found["systems"] if row["system"] == "pyro-bmf")
        nll = test["nll"] if "nll" in test else test["density_nll"]
        columns = [f"{found['valid_rmse']:.4f}", f"{test['rmse']:.4f}", f"{nll:.4f}"]
        columns += [f"{test['rps']:.4f}" if "rps" in test else "–", f"{test['pit_coverage_90']:.3f}"]
        columns += [str(found["iterations"]), f"{found['seconds']:.0f}"]
        print(f"| {key} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
