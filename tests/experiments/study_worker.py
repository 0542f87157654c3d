"""Runs trials of a study in a process of its own, and says which it began and ended.

Arguments: the folder, the sampler, the number of trials, the seconds of a trial.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pyro_bmf.experiments.grids import Grid
from pyro_bmf.experiments.studies import SharedStudy

AXES = {"a": (1, 2, 3, 4, 5), "b": (0.1, 0.2, 0.4), "c": ("x", "y")}


def value_of(cell: tuple[object, ...]) -> float:
    a, b, c = cell
    assert isinstance(a, int)
    assert isinstance(b, float)
    return (a - 3.2) ** 2 + b + (c == "x")


def opened(folder: Path, sampler: str) -> SharedStudy:
    return SharedStudy(folder, Grid.of(AXES), "minimize", sampler, None, seed=5)  # type: ignore[arg-type]


if __name__ == "__main__":
    shared = opened(Path(sys.argv[1]), sys.argv[2])
    while (asked := shared.ask(int(sys.argv[3]))) is not None:
        print(f"begin {asked.trial.number}", flush=True)
        time.sleep(float(sys.argv[4]))
        with asked.claim:
            shared.study.tell(asked.trial, value_of(asked.cell))
    print("end", flush=True)
