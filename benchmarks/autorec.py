"""Autoencoders on MovieLens 1M, split 90/10: as Sedhain et al. (2015) configured theirs, and as § 4.3 does.

    python benchmarks/autorec.py --cell i-autorec --out benchmarks/results/autorec.json

A cell is a network with one configuration. It is trained on 81 % of the ratings with 9 % to validate on,
which choose the number of iterations, then on all 90 % for so many; the test part is scored once, by the
second. Its regularisation was chosen by the first alone: `--try` trains that one, prints the curve, and reads
no test rating. Both go on from `--state` when they were interrupted. Published are means over five random
splits; here it is one.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pyro_bmf.baselines import AutoRecSettings, IRec, URec
from pyro_bmf.data import Split, load_ratings, random_split
from pyro_bmf.evaluation import evaluate
from pyro_bmf.files import write_json


@dataclass(frozen=True)
class Cell:
    """One network, its settings, and what was published of it."""

    kind: type[IRec] | type[URec]
    settings: AutoRecSettings
    published: float | None
    of: str


#: 500 sigmoid units and a linear output, the best of their Table 2.
PUBLISHED = AutoRecSettings(
    n_factors=500,
    hidden="sigmoid",
    output="identity",
    l2=4e-4,
    learning_rate=1e-3,
    final_learning_rate=2e-5,
    max_iterations=60,
    patience=20,
)
#: The same for users, whose batches are larger: a heavy user's summed ratings make steps noisy.
PUBLISHED_USERS = replace(PUBLISHED, l2=6e-4, batch_size=300)
#: The same as its authors trained it: RProp's steps over all users, from small weights and levels of 0.
RPROP_USERS = replace(
    PUBLISHED,
    optimizer="rprop",
    final_learning_rate=None,
    weight_scale=1e-3,
    l2=3.5e-4,
    max_iterations=300,
    patience=30,
)
#: ReLU units and a sigmoid output, the largest embedding of the grid.
SECTION_4_3 = AutoRecSettings(n_factors=100, l2=0.01, max_iterations=100, patience=20)

CELLS = {
    "i-autorec": Cell(IRec, PUBLISHED, 0.831, "Sedhain et al. 2015"),
    "u-autorec": Cell(URec, PUBLISHED_USERS, 0.874, "Sedhain et al. 2015"),
    "u-autorec-rprop": Cell(URec, RPROP_USERS, 0.874, "Sedhain et al. 2015"),
    "i-rec": Cell(IRec, SECTION_4_3, None, "section 4.3"),
    "u-rec": Cell(URec, SECTION_4_3, None, "section 4.3"),
}


def choose(cell: Cell, split: Split, state: Path | None) -> IRec | URec:
    """Train with validation ratings."""
    return cell.kind(cell.settings, threads=1, progress=True, checkpoint=state).fit(split)


def final(cell: Cell, split: Split, iterations: int, state: Path | None) -> IRec | URec:
    """Train on train and validation ratings for so many iterations, over which the rate falls alike."""
    settings = replace(cell.settings, max_iterations=iterations)
    return cell.kind(settings, threads=1, progress=True, checkpoint=state).fit(split, refit=True)


def changed(cell: Cell, pairs: list[str]) -> Cell:
    """Return the cell with settings given as name=value."""
    values = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in pairs)}
    return replace(cell, settings=replace(cell.settings, **values))


def main() -> None:
    """Run one cell and add it to the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", choices=tuple(CELLS), required=True)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change its settings")
    parser.add_argument("--try", dest="trial", action="store_true", help="validation only")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--state", type=Path, help="folder of checkpoints")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/autorec.json"))
    arguments = parser.parse_args()
    cell = changed(CELLS[arguments.cell], arguments.set)
    states: tuple[Path | None, Path | None] = (None, None)
    if arguments.state is not None:
        arguments.state.mkdir(parents=True, exist_ok=True)
        states = tuple(arguments.state / f"{arguments.cell}-{part}.safetensors" for part in ("a", "b"))
    torch.set_num_threads(1)
    split = random_split(load_ratings("ml1m"), seed=arguments.seed, fractions=(0.81, 0.09, 0.1))
    chosen = choose(cell, split, states[0])
    curve = [record["valid_rmse"] for record in chosen.info["history"]]
    iterations = chosen.info["kept_iteration"]
    print(f"validation RMSE {min(curve):.4f} after {iterations} iterations, {chosen.info['seconds']:.0f} s")
    if arguments.trial:
        print(" ".join(f"{value:.4f}" for value in curve))
        return
    system = final(cell, split, iterations, states[1])
    found = evaluate(system, split, protocols=())
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    results[arguments.cell] = {
        "command": f"python benchmarks/autorec.py --cell {arguments.cell}",
        "of": cell.of,
        "published": cell.published,
        "rmse": found.rmse,
        "rmse_clipped": found.rmse_clipped,
        "rmse_se": found.rmse_se,
        "valid_rmse": min(curve),
        "iterations": iterations,
        "seconds": round(chosen.info["seconds"] + system.info["seconds"], 1),
        "settings": cell.settings.to_dict(),
        "valid_curve": [round(value, 5) for value in curve],
        "split_hash": split.hash,
        "torch": torch.__version__,
        "when": time.strftime("%Y-%m-%d"),
    }
    write_json(arguments.out, results)
    print(f"test RMSE {found.rmse:.4f} (published: {cell.published})")


if __name__ == "__main__":
    main()
