"""The first layers as combinations of a few matrices: accuracy against seconds and memory.

    python benchmarks/bases.py --data ml1m --bases 4 16 64 --out benchmarks/results/bases_ml1m.json

Fits the preset `amortized` with a matrix of its own for each row of the other side, and with combinations of
few, one after another on one split and one thread, each in a process of its own. Nothing else is changed, and
test ratings are not read.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from pyro_bmf.data import load_ratings, random_split
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset


def one(data: str, n_bases: int | None) -> dict[str, Any]:
    """Fit one of them here."""
    split = random_split(load_ratings(data), seed=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = fit(split, preset("amortized").replace(n_bases=n_bases), threads=1, progress=False)
    best = result.history[result.best_iteration - 1]
    return {
        "n_bases": n_bases,
        "valid_rmse": best["valid_rmse"],
        "iterations": len(result.history),
        "seconds_an_iteration": result.seconds / len(result.history),
        "guide_parameters": sum(p.numel() for p in result.posterior.guide.parameters()),  # type: ignore[attr-defined]
        "gb_more": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20,
    }


def main() -> None:
    """Run those that are missing, and print a table of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="ml1m")
    parser.add_argument("--bases", type=int, nargs="+", default=[4, 16, 64], help="0 for none.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(one(options.data, options.one or None)))
        return
    done: dict[str, Any] = {}
    if options.out.exists():
        done = json.loads(options.out.read_text(encoding="utf-8"))
    for n_bases in [0, *options.bases]:
        if str(n_bases) in done:
            continue
        command = [sys.executable, __file__, "--data", options.data, "--out", str(options.out)]
        output = subprocess.run(
            [*command, "--one", str(n_bases)], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        done[str(n_bases)] = json.loads(output.splitlines()[-1])
        write_json(options.out, done)
    print("| matrices | validation RMSE | iterations | seconds an iteration | parameters | memory (GB) |")
    print("|---|---|---|---|---|---|")
    for row in done.values():
        print(
            f"| {row['n_bases'] or 'one a row'} | {row['valid_rmse']:.4f} | {row['iterations']} | "
            f"{row['seconds_an_iteration']:.2f} | {row['guide_parameters']:,} | {row['gb_more']:.2f} |"
        )


if __name__ == "__main__":
    main()
