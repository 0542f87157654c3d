r"""Priors and likelihoods side by side, by what they say of held-out ratings.

    python benchmarks/leaderboard.py --data ml100k --out benchmarks/results/leaderboard_ml100k.json
    python benchmarks/leaderboard.py --data ml1m --out benchmarks/results/leaderboard_ml1m.json --rows \
        default/normal/auto default/normal/normal conjugate/normal/ordered-probit conjugate/normal/normal \
        amortized/normal/normal amortized/normal/ordered-logistic \
        amortized/normal/ordered-logistic:cuts=user amortized/hierarchical-normal/ordered-logistic

One split, every combination fitted by the preset named beside it with nothing else changed, one thread.
Ranked by held-out ELPD, the sum of the test ratings' log-probabilities, each a probability of the rating and
never a density. A finished row is kept in the file, so that an interrupted run goes on; a markdown table is
written beside it.
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
from pyro_bmf.evaluation import evaluate_with_references
from pyro_bmf.files import atomic_write, write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset

#: Preset, prior, likelihood.
ROWS = [
    ("default", "normal", "auto"),
    ("default", "normal", "normal"),
    ("conjugate", "normal", "ordered-probit"),
    ("conjugate", "normal", "normal"),
    ("amortized", "normal", "normal"),
    ("amortized", "normal", "ordered-logistic"),
    ("amortized", "normal", "ordered-logistic:cuts=user"),
    ("amortized", "normal", "ordered-probit"),
    ("amortized", "normal", "student-t"),
    ("amortized", "hierarchical-normal", "ordered-logistic"),
    ("amortized", "lkj", "ordered-logistic"),
    ("amortized", "student-t", "ordered-logistic"),
    ("amortized", "laplace", "ordered-logistic"),
    ("amortized", "horseshoe", "ordered-logistic"),
    ("amortized", "gamma", "poisson"),
    ("amortized", "normal", "bernoulli"),
]


def row(data: str, seed: int, name: str, prior: str, likelihood: str) -> dict[str, Any]:
    """Fit and evaluate one combination."""
    split = random_split(load_ratings(data), seed=seed)
    settings = preset(name).replace(seed=seed, prior=prior, likelihood=likelihood)
    started = time.perf_counter()
    result = fit(split, settings, threads=1, progress=False)
    seconds = time.perf_counter() - started
    comparison = evaluate_with_references(result.posterior, split, name="pyro-bmf")
    systems = json.loads(comparison.table().to_json(orient="table"))["data"]
    test = next(found for found in systems if found["system"] == "pyro-bmf")
    return {
        "preset": name,
        "prior": prior,
        "likelihood": likelihood,
        "valid_rmse": result.history[result.best_iteration - 1]["valid_rmse"],
        "elpd": -test["nll"] * len(split.test_rows),
        **{key: test[key] for key in ("nll", "rps", "rmse", "pit_coverage_90")},
        "tempered": result.posterior.tempered,
        "seconds": seconds,
        "split_hash": split.hash,
    }


def table(content: dict[str, Any]) -> str:
    """Return the rows as a markdown table, best first."""
    rows = sorted(content["rows"].values(), key=lambda found: -found["elpd"])
    lines = [
        "| preset | prior | likelihood | ELPD | less the best | NLL | RPS | RMSE | coverage of 90 % | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for found in rows:
        name = found["preset"] + (" (tempered)" if found["tempered"] else "")
        cells = [name, found["prior"], found["likelihood"], f"{found['elpd']:.0f}"]
        cells += [f"{found['elpd'] - rows[0]['elpd']:.0f}", f"{found['nll']:.4f}", f"{found['rps']:.4f}"]
        cells += [f"{found['rmse']:.4f}", f"{found['pit_coverage_90']:.3f}", f"{found['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the rows that are missing, and write and print the table of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="ml100k")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="PRESET/PRIOR/LIKELIHOOD",
        help="Only these, as default/normal/auto.  [default: all]",
    )
    options = parser.parse_args()
    chosen = ROWS
    if options.rows:
        chosen = [row for row in ROWS if "/".join(row) in options.rows]
        unknown = set(options.rows) - {"/".join(row) for row in ROWS}
        if unknown:
            parser.error(f"there is no row {', '.join(sorted(unknown))}.")
    content: dict[str, Any] = {"data": options.data, "seed": options.seed, "rows": {}}
    if options.out.exists():
        content = json.loads(options.out.read_text(encoding="utf-8"))
    for name, prior, likelihood in chosen:
        key = f"{name} {prior} {likelihood}"
        if key not in content["rows"]:
            print(key, flush=True)
            content["rows"][key] = row(options.data, options.seed, name, prior, likelihood)
            content |= {
                "torch": torch.__version__,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            }
            write_json(options.out, content)
    text = table(content)
    with atomic_write(options.out.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
