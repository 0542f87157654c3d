"""Operations of one step of the encoders, or of one iteration of the other methods, counted by the profiler.

    python benchmarks/launches.py                       # generated ratings of ML-1M's shape, preset paper
    python benchmarks/launches.py --preset literal --data ml1m --out benchmarks/results/launches.json
    python benchmarks/launches.py --methods --data ml1m --out benchmarks/results/waits.json

A launch is an operation that a graphics card would run a kernel for: those that only look at memory, or
reserve some, are not counted. A host read is one of a number by Python, for which a card's queue must empty.
`plain` and `joint` are the two kinds of steps; times are of this machine's CPU, both kinds in turn. Of a step
that is `recorded` what is left beside the recording is counted: copies into its place, and the result.

With `--methods` an iteration of the exact head and a sweep of the chain are counted, as they are run on a
card (`pyro_bmf.numerics.room.waits`), though here by a CPU; and once more with steps that are recorded, each
of which is one launch then. A wait is a number of a tensor, or a shape that depends on one, that the host
asks a card for, and a tensor made of Python's numbers, whose copy it waits for. Checks that LAPACK's kernels
make on a CPU alone are left out, and the optimizer's counters, which the host keeps.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile, record_function

from pyro_bmf.files import write_json
from pyro_bmf.numerics.slice_draw import STEPS as UNIFORMS

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
#: The range of a recording that is run again, and that of what the host computes for a card.
RECORDED, ON_HOST = "recorded", "on the host"
#: Operations that a card's host waits for.
WAITS = (HOST_READ, "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::lift_fresh")
#: What they are not waited for in: a CPU's own checks, and counters that lie with the host.
NO_WAITS = ("aten::_cholesky_solve_helper", "aten::linalg_lu_solve", "Optimizer.step")


class _Lists(TorchFunctionMode):
    """Counts tensors that become lists, or go to the host: the profiler does not see that on a CPU."""

    def __init__(self) -> None:
        self.found = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, and go on."""
        self.found += func in (torch.Tensor.tolist, torch.Tensor.cpu)
        return func(*args, **(kwargs or {}))


@contextmanager
def as_on_a_card() -> Iterator[None]:
    """Compute inside as on a card, whatever the device; what is the host's there is told apart."""
    from unittest.mock import patch

    from pyro_bmf.model.priors import normal_half_t
    from pyro_bmf.numerics import room

    turns = normal_half_t.expected_precision_matrix

    def on_host(*given: Any) -> Any:
        with record_function(ON_HOST):
            return turns(*given)

    with (
        patch.object(room, "waits", lambda device: True),
        patch.object(normal_half_t, "expected_precision_matrix", on_host),
    ):
        yield


class Marked:
    """Does work again each time that it is asked for, in one range of the profile: as a card's recording."""

    usable = True

    def record(self, warm_up: Any, work: Any) -> Any:
        """Warm up, and return what does the work."""
        warm_up()

        def again() -> None:
            with record_function(RECORDED):
                work()

        return again


@contextmanager
def with_recordings() -> Iterator[None]:
    """Let what is made inside record its steps, on any device."""
    from unittest.mock import patch

    from pyro_bmf.methods.recording import Recording

    with patch.object(Recording, "on", lambda device, note: Recording(Marked(), note)):
        yield


def count(work: Any, repeats: int = 1) -> dict[str, float]:
    """Profile `work`, called so often, and return operations, launches, host reads and waits of one call."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found, _Lists() as lists:
        for _ in range(repeats):
            work()
    operations = launches = reads = waits = 0
    for event in found.events():
        launches += event.name == RECORDED
        if not event.name.startswith("aten::") or RECORDED in _above(event):
            continue
        operations += 1
        reads += event.name == HOST_READ
        waits += event.name in WAITS and not any(name.startswith(NO_WAITS) for name in _above(event))
        launches += _is_launch(event)
    return {
        "operations": operations / repeats,
        "launches": launches / repeats,
        "host_reads": reads / repeats,
        "waits": (waits + lists.found) / repeats,
    }


def _above(event: Any) -> Iterator[str]:
    """Give the names of what an operation is part of."""
    above = event.cpu_parent
    while above is not None:
        yield above.name
        above = above.cpu_parent


def _is_launch(event: Any) -> bool:
    """Return whether an operation of the profile runs a kernel itself."""
    if any(name.startswith((*WHOLE, ON_HOST)) for name in _above(event)):
        return False
    if event.name == "aten::uniform_" and event.input_shapes[0] == [UNIFORMS]:
        return False  # of a slice, by the host's generator
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


def iterations(
    train: Any,
    kind: str,
    likelihood: str,
    *,
    device: torch.device | None = None,
    reporter: Any = False,
    **changes: Any,
) -> Any:
    """Return what does one iteration of the exact head ("head") or one sweep ("chain") of a default fit.

    Of an ordered likelihood with utilities that are drawn, as in all iterations but the first. The `reporter`
    is told what could not be recorded.
    """
    from pyro_bmf.methods.exact_head.run import ExactHeadRun
    from pyro_bmf.methods.exact_head.updates import HeadUpdates
    from pyro_bmf.methods.gibbs.chain import Chain
    from pyro_bmf.methods.gibbs.run import GibbsRun
    from pyro_bmf.methods.job import Job
    from pyro_bmf.methods.recording import Recording
    from pyro_bmf.methods.settings import preset
    from pyro_bmf.progress import reporter_of

    settings = preset("guide" if kind == "head" else "gibbs").replace(likelihood=likelihood, **changes)
    place = torch.device("cpu") if device is None else device
    job = Job(train, None, settings, None, None, None, place, reporter_of(reporter))
    torch.manual_seed(0)
    if kind == "head":
        model = ExactHeadRun(job, settings.method).model
        model.start(train.ratings)
        recording = Recording.on(place, job.reporter.note)
        updates = HeadUpdates(
            model.to(place), train, settings.method, seed=0, device=place, recording=recording
        )
        for _ in range(2):
            updates.iteration()
        updates.iterations = settings.method.plain_iterations
        updates.iteration()
        return updates.iteration
    model = GibbsRun(job, settings.method).model
    model.start(train.ratings)
    chain = Chain(model, train, None, settings.method, seed=0, device=job.device, reporter=job.reporter)
    state = chain._start(None, 1.0)
    for number in range(5):
        chain.sweeps.sweep(state, latent=False, precisions=number > 2)
    latent = chain.sweeps.utilities.latent
    if latent:
        chain.sweeps.begin_cuts(state)
    share = settings.method.overrelaxation
    return partial(chain.sweeps.sweep, state, latent=latent, overrelaxation=share)


#: What `--methods` counts: a name, the method and the likelihood.
COUNTED = (
    ("exact head, Normal", "head", "normal"),
    ("exact head, ordered probit", "head", "ordered-probit"),
    ("Gibbs sweep, Normal", "chain", "normal"),
    ("Gibbs sweep, ordered probit", "chain", "ordered-probit"),
)


def measure_methods(train: Any, repeats: int) -> dict[str, dict[str, float]]:
    """Count iterations as on a card, with what is recorded there and without, and time them as on a CPU."""
    found = {}
    for name, kind, likelihood in COUNTED:
        work = iterations(train, kind, likelihood)
        with as_on_a_card():
            work()
            found[name] = count(work, 2)
            with with_recordings():
                recorded = iterations(train, kind, likelihood)
                recorded()  # records what no sweep before has done
            found[name]["recorded"] = count(recorded, 2)["launches"]
        times = []
        for _ in range(repeats):
            worked = time.process_time()
            work()
            times.append(time.process_time() - worked)
        found[name]["processor_s"] = float(np.median(times))
        print(name, {key: round(value, 2) for key, value in found[name].items()}, flush=True)
    return found


class Once:
    """Does the work once, and nothing when it is run again: what is left is what the host asks for."""

    usable = True

    def record(self, warm_up: Any, work: Any) -> Any:
        """Do the work."""
        work()
        return lambda: None


def measure(made: Any, steps: int) -> dict[str, dict[str, float]]:
    """Count and time both kinds of steps, in turn."""
    from pyro_bmf.methods.cross_feedback.descent import descent_of

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
    found["recorded"] = measure_host(made, steps)
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


def measure_host(made: Any, steps: int) -> dict[str, float]:
    """Count and time what the host does a step beside a recording, whose replay does nothing.

    The copies of a block's tensors into place are made by the CPU here, and by the card there.
    """
    from pyro_bmf.methods.cross_feedback.descent import descent_of
    from pyro_bmf.methods.cross_feedback.recorded import RecordedDescent

    joint = descent_of("joint", made.objective, made.steps.nested, made.optimizer, made.settings.clip_norm)
    made.descend, order = RecordedDescent(joint, Once()), made.steps.order(1)
    found = count(lambda: made.descend(order[0], made.settings.beta(0.5), 1e-4), 2)
    loss_sum, parts = torch.zeros((), dtype=torch.float64), dict[str, torch.Tensor]()
    for kind, of_step in (
        ("host_ms", lambda step: made._block(step, 0.5, loss_sum, parts)),
        ("copies_ms", lambda step: made.descend.fill(step)),
    ):
        times = []
        for number in range(10 * steps):
            worked = time.process_time()
            of_step(order[number % len(order)])
            times.append(time.process_time() - worked)
        found[kind] = 1e3 * float(np.median(times))
    return found


def write_methods(ratings: Any, options: argparse.Namespace) -> None:
    """Count and time the other methods, print and write."""
    from pyro_bmf.data import random_split
    from pyro_bmf.process import computing

    with computing(torch.device("cpu"), threads=options.threads, deterministic=False):
        found = measure_methods(random_split(ratings, seed=0).train, options.steps)
    if options.out is not None:
        more = {"threads": options.threads, "load": os.getloadavg()[0], "data": options.data or "generated"}
        write_json(options.out, found | more)


def main() -> None:
    """Count, time, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="paper", choices=("paper", "literal", "amortized"))
    parser.add_argument("--host", action="store_true", help="only what is beside a recording")
    parser.add_argument("--methods", action="store_true", help="the exact head and the chain")
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
        ratings = synthetic_ratings(*shape, n_factors=8, scale="1:5:1", seed=0).ratings
    else:
        ratings = load_ratings(options.data)
    if options.methods:
        write_methods(ratings, options)
        return
    changes = {"n_tower_layers": 1, "n_tower_outputs": 25} if options.hidden else {}
    with computing(torch.device("cpu"), threads=options.threads, deterministic=False):
        made = algorithm(options.preset, ratings, **changes)
        if options.host:
            found = {"recorded": measure_host(made, options.steps)}
            print(found)
            write(found, options)
            return
        found = measure(made, options.steps)
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
    print(
        f"{options.threads} threads, load {os.getloadavg()[0]:.1f}, {found['joint']['blocks']} blocks; "
        f"beside a recording {found['recorded']['host_ms']:.2f} ms a step"
    )
    more = {"threads": options.threads, "load": os.getloadavg()[0], "data": options.data or "generated"}
    write(found | more, options)


def write(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the figures beside those that the file has."""
    if options.out is not None:
        all_found = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
        key = f"{options.preset}{' hidden' if options.hidden else ''} {options.threads}"
        all_found[key] = all_found.get(key, {}) | found
        write_json(options.out, all_found)


if __name__ == "__main__":
    main()
