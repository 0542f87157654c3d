"""How many steps of conjugate gradients a draw of the implicit weights takes, by its preconditioner.

    python benchmarks/solver_steps.py --data ml1m ml100k --out benchmarks/results/solver_steps.json

The default's training ratings of split 0, one thread: fifteen iterations of the guide and twenty sweeps, and
then the system of either side (the users', whose unknowns are a weight for every item, and the items'),
solved from the weights that there are to the default's tolerance. By blocks alone, and with so many
directions in which columns move together beside them (`pyro_bmf.methods.gibbs.coarse_level`). Preparing is
the blocks and, but for the first row, what the directions add; the directions are found once a fit.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from pyro_bmf import preset, random_split
from pyro_bmf.data import load_ratings
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.conjugate_gradients import conjugate_gradient
from pyro_bmf.methods.gibbs import collapsed_means
from pyro_bmf.methods.gibbs.coarse_level import CoarseLevel
from pyro_bmf.methods.gibbs.collapsed_means import MeansSystem, Operator, Preconditioner

MODES = (0, 1, 4, 8, 16)
#: Repetitions of which the fastest counts.
_TIMES = 3
_SWEEPS = 20


def systems(data: str) -> dict[str, tuple[Any, ...]]:
    """Return what the last draw of either side's weights was asked."""
    split = random_split(load_ratings(data), seed=0)
    asked: list[tuple[Any, ...]] = []
    begin, solve = MeansSystem.begin, conjugate_gradient

    def seen_begin(self: MeansSystem, own: Any, information: Any, said: Any, prior: Any) -> Any:
        asked.append((self.entries, information, own.weights_precision, prior / len(own.rows)))
        del asked[:-2]
        return begin(self, own, information, said, prior)

    def seen_solve(operator: Any, preconditioner: Any, target: Any, start: Any, **given: Any) -> Any:
        asked[-1] = (*asked[-1], target, start.clone(), given["tolerance"])
        return solve(operator, preconditioner, target, start, **given)

    MeansSystem.begin, collapsed_means.conjugate_gradient = seen_begin, seen_solve  # type: ignore[method-assign]
    try:
        lengths = {"sweeps": _SWEEPS, "burn_in": _SWEEPS - 1, "kept_draws": 1}
        fit(split, preset().replace(**lengths), threads=1, progress=False)
    finally:
        MeansSystem.begin, collapsed_means.conjugate_gradient = begin, solve  # type: ignore[method-assign]
    return dict(zip(("user", "item"), asked, strict=True))


def solved(n_modes: int, system: tuple[Any, ...]) -> dict[str, float]:
    """Solve a system, and return steps and the processor's milliseconds."""
    entries, information, precision, prior, target, start, tolerance = system
    begun = time.process_time()
    level = CoarseLevel.build(entries, max(n_modes, 1))
    finding = time.process_time() - begun
    preparing, solving, steps = [], [], 0
    for _ in range(_TIMES):
        begun = time.process_time()
        location_block = information.total() / entries.n_rows + prior
        blocks, sums = information.block_solver(precision, location_block, level.pairs())
        both = (
            Preconditioner(blocks, level.solver(information, precision, prior, sums)) if n_modes else blocks
        )
        ready = time.process_time()
        operator = Operator(entries, information, precision, prior)
        _, steps, _ = conjugate_gradient(operator, both, target, start, tolerance=tolerance, max_steps=500)
        preparing.append(ready - begun)
        solving.append(time.process_time() - ready)
    return {
        "steps": steps,
        "finding_ms": 1e3 * finding if n_modes else 0.0,
        "preparing_ms": 1e3 * min(preparing),
        "solving_ms": 1e3 * min(solving),
    }


def main() -> None:
    """Measure the sets that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["ml1m", "ml100k"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for data in options.data:
        sides = systems(data)
        found[data] = {
            str(n_modes): {side: solved(n_modes, system) for side, system in sides.items()}
            for n_modes in MODES
        }
        print(data, json.dumps(found[data], indent=1))
        if options.out is not None:
            write_json(options.out, found)


if __name__ == "__main__":
    main()
