"""Operations of one step of the encoders, or of one iteration of the other methods, counted by the profiler.

    python benchmarks/launches.py                       # generated ratings of ML-1M's shape, preset paper
    python benchmarks/launches.py --preset literal --data ml1m --out benchmarks/results/launches.json

A launch is an operation that a graphics card would run a kernel for: those that only look at memory, or
reserve some, are not counted. A host read is one of a number by Python, for which a card's queue must empty.
`plain` and `joint` are the two kinds of steps; times are of this machine's CPU, both kinds in turn. Of a step
that is `recorded` what is left beside the recording is counted: copies into its place, and the result.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

#: Operations that move no numbers.
NO_KERNEL = frozenset(
    "aten::" + name
    for line in (
        "alias as_strided chunk contiguous detach detach_ diagonal empty empty_like empty_strided expand",
        "expand_as flatten is_nonzero item lift_fresh matrix_H mT movedim narrow new_empty new_zeros numpy_T",
        "new_empty_strided ones ones_like permute resize_ resolve_conj resolve_neg result_type scalar_tensor",
        "select set_ slice split split_with_sizes squeeze stack t to transpose unbind unflatten unfold",
        "unsqueeze view view_as zeros zeros_like _local_scalar_dense _reshape_alias _unsafe_view",
        "broadcast_tensors as_strided_ is_pinned",
    )
    for name in line.split()
)
#: Operations that are one launch, whatever a CPU makes of them.
WHOLE = tuple(f"aten::{name}" for name in ("_foreach", "_fused", "sum", "amax", "_embedding_bag", "segment_"))
HOST_READ = "aten::_local_scalar_dense"


def count(work: Any, repeats: int = 1) -> dict[str, float]:
    """Profile `work`, called so often, and return operations, launches and host reads of one call."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        for _ in range(repeats):
            work()
    operations = launches = reads = 0
    for event in found.events():
        if not event.name.startswith("aten::"):
            continue
        operations += 1
        reads += event.name == HOST_READ
        launches += _is_launch(event)
    return {
        "operations": operations / repeats,
        "launches": launches / repeats,
        "host_reads": reads / repeats,
    }


def _is_launch(event: Any) -> bool:
    """Return whether an operation of the profile runs a kernel itself."""
    above = event.cpu_parent
    while above is not None:
        if above.name.startswith(WHOLE):
            return False
        above = above.cpu_parent
    if event.name.startswith(WHOLE):
        return True
    if event.name in NO_KERNEL or (event.name == "aten::copy_" and not any(event.input_shapes)):
        return False  # numbers of Python that become tensors are arguments of a card's kernels
    # Of nested operations the innermost one runs the kernel.
    return not any(
        child.name.startswith("aten::") and child.name not in (*NO_KERNEL, "aten::_to_copy")
        for child in event.cpu_children
    )


def algorithm(preset_name: str, ratings: Any, **changes: Any) -> Any:
    """Return Algorithm 1 at its first iteration on the ratings' train part, on the CPU."""
    from pyro_bmf.data import random_split
    from pyro_bmf.methods.cross_feedback.algorithm1 import Algorithm1
    from pyro_bmf.methods.job import Job
    from pyro_bmf.methods.settings import preset
    from pyro_bmf.progress import reporter_of

    settings = preset(preset_name).replace(**changes)
    train = random_split(ratings, seed=0).train
    job = Job(train, None, settings, None, None, None, torch.device("cpu"), reporter_of(False))
    made = Algorithm1(job, settings.method)
    made._begin()
    return made


class Once:
    """Does the work once, and nothing when it is run again: what is left is what the host asks for."""

    def record(self, warm_up: Any, work: Any) -> Any:
        """Do the work."""
        work()
        return lambda: None


def measure(made: Any, steps: int) -> dict[str, dict[str, float]]:
    """Count and time both kinds of steps, in turn."""
    from pyro_bmf.methods.cross_feedback.descent import descent_of
    from pyro_bmf.methods.cross_feedback.recorded import RecordedDescent

    order, settings = made.steps.order(1), made.settings
    rest = (made.objective, made.steps.nested, made.optimizer, settings.clip_norm)
    kinds = {kind: descent_of(kind, *rest) for kind in ("plain", "joint")}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    processor: dict[str, list[float]] = {kind: [] for kind in kinds}
    found = {}

    def step(kind: str, number: int) -> None:
        kinds[kind](order[number % len(order)], settings.beta(0.5), settings.learning_rate_at(0.5))

    for kind in kinds:
        for number in range(2):
            step(kind, number)
        found[kind] = count(lambda kind=kind: step(kind, 0), 2)
    recorded = RecordedDescent(descent_of("joint", *rest), Once())
    found["recorded"] = count(lambda: recorded(order[0], settings.beta(0.5), 1e-4), 2)
    for number in range(steps):
        for kind in kinds:
            started, worked = time.perf_counter(), time.process_time()
            step(kind, number)
            seconds[kind].append(time.perf_counter() - started)
            processor[kind].append(time.process_time() - worked)
    for kind, times in seconds.items():
        found[kind] |= {
            "median_ms": 1e3 * float(np.median(times)),
            "least_ms": 1e3 * min(times),
            "processor_ms": 1e3 * float(np.median(processor[kind])),
            "iteration_s": float(np.median(times)) * len(order),
            "blocks": len(order),
        }
    return found


def main() -> None:
    """Count, time, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="paper", choices=("paper", "literal", "amortized"))
    parser.add_argument("--hidden", action="store_true", help="one hidden layer in each tower")
    parser.add_argument("--data", help="a named set or a file; generated ratings when not given")
    parser.add_argument("--users", type=int, default=6040)
    parser.add_argument("--items", type=int, default=3706)
    parser.add_argument("--ratings", type=int, default=1_000_209)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the figures here, beside those that it has")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    from pyro_bmf.data import load_ratings, synthetic_ratings
    from pyro_bmf.process import computing

    if options.data is None:
        shape = (options.users, options.items, options.ratings)
        ratings = synthetic_ratings(*shape, n_factors=8, scale="1:5", seed=0).ratings
    else:
        ratings = load_ratings(options.data)
    changes = {"n_tower_layers": 1, "n_tower_outputs": 25} if options.hidden else {}
    with computing(torch.device("cpu"), threads=options.threads, deterministic=False):
        found = measure(algorithm(options.preset, ratings, **changes), options.steps)
    print(
        "| steps | operations | launches | host reads | median (ms) | of the processor | an iteration (s) |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for kind, row in found.items():
        if "median_ms" not in row:
            counted = " | ".join(f"{row[name]:.0f}" for name in ("operations", "launches", "host_reads"))
            print(f"| {kind} | {counted} | | | |")
            continue
        print(
            f"| {kind} | {row['operations']:.0f} | {row['launches']:.0f} | {row['host_reads']:.0f} | "
            f"{row['median_ms']:.1f} | {row['processor_ms']:.1f} | {row['iteration_s']:.2f} |"
        )
    load = os.getloadavg()[0]
    print(f"{options.threads} threads, load {load:.1f}, {found['joint']['blocks']} blocks")
    if options.out is not None:
        all_found = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
        key = f"{options.preset}{' hidden' if options.hidden else ''} {options.threads}"
        all_found[key] = found | {
            "threads": options.threads,
            "load": load,
            "data": options.data or "generated",
        }
        options.out.write_text(json.dumps(all_found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
