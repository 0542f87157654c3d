"""Default fits of catalogues with far more rows than a rating each can tell about: memory and time.

    python benchmarks/large_catalogue.py --out benchmarks/results/large_catalogue.json

Ratings are generated with heavy tails (`pyro_bmf.data.synthetic_ratings`: log-normal popularities; every row
has a rating) in two shapes: 22,000 users x 296,000 items with 0.9 M ratings, and 200,000 x 200,000 with
0.6 M. Each is written to a file, fitted by ``pyro-bmf fit`` with all defaults and measured again by
``pyro-bmf evaluate``, each in a process of its own, whose peak resident memory and seconds are noted beside
what the estimate said. ``--sweeps`` makes a shorter chain, whose burn-in is a third, and 15 sweeps at
least: what is kept, and so the memory, is then less.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pyro_bmf.files import write_json

SHAPES = {
    "22,000 x 296,000": (22_000, 296_000, 900_000),
    "200,000 x 200,000": (200_000, 200_000, 600_000),
}


def write_ratings(path: Path, n_users: int, n_items: int, n_ratings: int, seed: int) -> None:
    """Write ratings of this shape as text: user, item, rating on five levels."""
    import pandas as pd

    from pyro_bmf.data import synthetic_ratings

    ratings = synthetic_ratings(
        n_users, n_items, n_ratings, scale="1:5:1", seed=seed, noise=0.8, name="large"
    ).ratings
    frame = {"user": ratings.users + 1, "item": ratings.items + 1, "rating": ratings.ratings.astype(int)}
    pd.DataFrame(frame).to_csv(path, index=False)


def measured(arguments: list[str], log: Path) -> dict[str, Any]:
    """Run one command, and return its seconds, its peak memory and what its estimate said."""
    started = time.perf_counter()
    with open(log, "w", encoding="utf-8") as file:
        child = subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    text = log.read_text(encoding="utf-8")
    if status != 0:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{text[-3000:]}")
    scale = 1 if sys.platform == "darwin" else 1024
    found: dict[str, Any] = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gb": round(usage.ru_maxrss * scale / 1e9, 2),
    }
    estimate = re.search(r"about ([0-9.]+) GB of memory", text)
    if estimate is not None:
        found["estimated_gb"] = float(estimate[1])
    return found


def one(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Generate, fit and evaluate one shape."""
    n_users, n_items, n_ratings = SHAPES[name]
    data, run = folder / "ratings.csv", folder / "run"
    write_ratings(data, n_users, n_items, n_ratings, options.seed)
    command = [sys.executable, "-c", "from pyro_bmf.cli.main import main; main()"]
    shorter: list[str] = []
    if options.sweeps is not None:
        burnt = max(15, options.sweeps // 3)
        shorter = ["--sweeps", str(options.sweeps), "--burn-in", str(burnt)]
        shorter += ["--kept-draws", str(options.sweeps - burnt)]
    threads = ["--threads", str(options.threads)]
    # With so few ratings a row the default would have fewer factors, and leave implicit feedback out.
    whole = ["--implicit", "--factors", "24"]
    asked = ["fit", "--data", str(data), "--out", str(run), *whole, *threads, *shorter]
    fitted = measured([*command, *asked], folder / "fit.log")
    evaluated = measured([*command, "evaluate", str(run)], folder / "evaluate.log")
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        sweeps = sum(bool(row.get("sweep")) for row in csv.DictReader(file))
    figures = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["evaluations"]
    return {
        "n_users": n_users,
        "n_items": n_items,
        "n_ratings": n_ratings,
        "sweeps": sweeps,
        "fit": fitted,
        "evaluate": evaluated,
        "model_file_gb": round((run / "model.safetensors").stat().st_size / 1e9, 2),
        "test_rmse": {one["system"]: round(one["rmse"], 4) for one in figures},
    }


def main() -> None:
    """Measure the shapes asked for and write a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--sweeps", type=int, help="of a shorter chain; all defaults when not given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where runs are kept; a temporary one when not given")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    done: dict[str, Any] = {}
    if options.out.exists():
        done = json.loads(options.out.read_text(encoding="utf-8"))
    for name in options.shapes:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) if options.folder is None else options.folder / name.replace(",", "")
            folder.mkdir(parents=True, exist_ok=True)
            done[name] = one(name, options, folder)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, done)
        print(name, json.dumps(done[name]))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
