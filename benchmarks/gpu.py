"""What a graphics card gives, in one run of at most four minutes: correctness, time, memory, tests.

    PYTHONPATH=. python benchmarks/gpu.py                 # on a machine with a CUDA card
    PYTHONPATH=. python benchmarks/gpu.py --tiny          # anywhere, in seconds, on a few ratings
    PYTHONPATH=. python benchmarks/gpu.py --only steps twenty --out gpu.json

It runs from a plain checkout, without a network. Ratings are MovieLens 1M's where `PYRO_BMF_DATA_DIR` holds
them, else generated of that shape; those of 20 million are always generated. Sections run in the order of
`SECTIONS`; one that would begin after `--budget` seconds is skipped, and told so. On a CPU the sections run
too, and what needs a card is skipped by name.

sums      segment sums and the encoders' products against the CPU in double precision; twice the same bits
steps     a step of the encoders: Pyro's, joint, recorded; host time against device time by the profiler
iterations  one of the exact head, its pairs on the card and streamed to it: the same bits, times; what the
          host waits for in it and in a sweep
methods   each method at ML-1M's size: an iteration, to the end, peak memory, deterministic and not
twenty    an iteration of each method at 20 million ratings, peak memory
tests     the tests that name a device
whole     an iteration of the exact head and a sweep at 20 million ratings by the profiler, then a default fit
          to its end, some three minutes: only where it is asked for (`--only whole --budget 300`)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

#: Changes of settings that a card is timed with at ML-1M's size: whole fits, and parts of long ones.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "default, to the end": ("default", {}),
    "guide, to the end": ("guide", {}),
    "coordinate ascent, to the end": ("conjugate", {}),
    "gibbs, 12 sweeps": ("gibbs", {"sweeps": 12, "burn_in": 6, "kept_draws": 6}),
    "amortized, 4 iterations": ("amortized", {"stop_after": 4}),
    "paper, 4 iterations": ("paper", {"stop_after": 4}),
    "literal, 1 iteration": ("literal", {"stop_after": 1}),
}
#: Seconds that a fit, or the median iteration of one, may take on a card.
MOST = {
    "default, to the end": ("seconds", 15.0),
    "amortized, 4 iterations": ("iteration_s", 0.3),
    "paper, 4 iterations": ("iteration_s", 0.3),
}
#: Those that are timed without deterministic kernels too.
BOTH = ("gibbs, 12 sweeps", "coordinate ascent, to the end", "amortized, 4 iterations")
#: At 20 million ratings; encoders over seven by seven blocks.
LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "gibbs, K 24, 3 sweeps": ("gibbs", {"sweeps": 3, "burn_in": 2, "kept_draws": 1}),
    "guide, K 24, 2 iterations": ("guide", {"n_factors": 24, "max_iterations": 2, "plain_iterations": 1}),
    "coordinate ascent, K 10, 2 iterations": ("conjugate", {"max_iterations": 2}),
    "amortized, K 10, 2 iterations": ("amortized", {"stop_after": 2}),
    "amortized, K 50, M 100, 2 iterations": (
        "amortized",
        {"n_factors": 50, "n_tower_layers": 1, "n_units": 100, "n_tower_outputs": 50, "stop_after": 2},
    ),
}

#: What the host calls to give a card work.
LAUNCHES = ("cudaLaunchKernel", "cudaGraphLaunch", "cuLaunchKernel", "cudaMemcpyAsync", "cudaMemsetAsync")


@dataclass
class Place:
    """Where the run computes, and what it found.

    Attributes
    ----------
    device : torch.device
    tiny : bool
        Whether everything is small.
    deadline : float
        Seconds of `time.perf_counter` after which no section begins.
    found : dict
    wrong, notes : list of str
        Checks that failed, and what fits told of work that could not be recorded.
    """

    device: torch.device
    tiny: bool
    deadline: float
    found: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def card(self) -> bool:
        """Whether there is a card."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.deadline - time.perf_counter()

    def wait(self) -> None:
        """Wait for the device."""
        if self.card:
            torch.cuda.synchronize()

    def check(self, what: str, good: bool, said: str) -> None:
        """Tell of a check, and remember one that failed."""
        print(f"{'ok   ' if good else 'WRONG'} {what}: {said}", flush=True)
        if not good:
            self.wrong.append(what)

    def reporter(self) -> Any:
        """Return who is told what could not be recorded: it is printed once, and nothing else is."""
        from pyro_bmf.progress import Silent

        place = self

        class Noting(Silent):
            def note(self, text: str) -> None:
                if "could not be recorded" in text and text not in place.notes:
                    place.notes.append(text)
                    print(f"note  {text}", flush=True)

        return Noting()

    def check_recorded(self, what: str) -> None:
        """Check that no work until now could not be recorded."""
        if self.card:
            self.check(f"everything is recorded, {what}", not self.notes, f"{len(self.notes)} could not be")

    def skip(self, what: str, why: str) -> None:
        """Tell of something that is left out."""
        print(f"skip  {what}: {why}", flush=True)
        self.found.setdefault("skipped", []).append({"what": what, "why": why})

    @contextmanager
    def peak(self, record: dict[str, Any]) -> Iterator[None]:
        """Measure seconds and the card's peak memory."""
        self.wait()
        if self.card:
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        yield
        self.wait()
        record["seconds"] = time.perf_counter() - started
        record["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9 if self.card else None


# ---------------------------------------------------------------- sums


def sums(place: Place) -> None:
    """Check sums and products against the CPU in double precision, and that they repeat to the bit."""
    from pyro_bmf.model.feedback import Feedback
    from pyro_bmf.model.feedback_sums import feedback_sum, row_tables
    from pyro_bmf.numerics.segment_sums import Segments, class_sums, segment_sum

    n, nnz = (50, 4000) if place.tiny else (5000, 2_000_000)
    generator = torch.Generator().manual_seed(0)
    index = (torch.rand(nnz, generator=generator) ** 3 * n).long()  # the first segments are very long
    values = torch.randn(nnz, 8, generator=generator, dtype=torch.float64)
    expected = torch.zeros(n, 8, dtype=torch.float64).index_add_(0, index, values)
    segments = Segments.of_index(index.to(place.device), n)
    for dtype, most in ((torch.float64, 1e-9), (torch.float32, 1e-2)):
        given = values.to(place.device, dtype)
        for name, one, target in (("vectors", given, expected), ("numbers", given[:, 0], expected[:, 0])):
            found = segment_sum(one.contiguous(), segments)
            gap = float((found.cpu().double() - target).abs().max())
            same = torch.equal(found, segment_sum(one.contiguous(), segments))
            place.check(
                f"segment sums of {name}, {dtype}", gap < most and same, f"{gap:.1e}, repeated: {same}"
            )
    classes = index % 10
    expected = torch.zeros(10, dtype=torch.float64).index_add_(0, classes, values[:, 0])
    zero = torch.zeros(10, dtype=torch.float64, device=place.device)
    found = class_sums(values[:, 0].to(place.device), classes.to(place.device), zero)
    gap = float((found.cpu() - expected).abs().max())
    place.check("sums by class", gap < 1e-8, f"{gap:.1e}")

    n_rows, n_columns, k, m = (60, 40, 3, 5) if place.tiny else (6040, 3706, 10, 100)
    pairs = torch.randperm(n_rows * n_columns, generator=generator)[: 500 if place.tiny else 700_000]
    weight = torch.randn(n_columns, k, m, generator=generator, dtype=torch.float64)
    v = torch.randn(n_columns, k, generator=generator, dtype=torch.float64)
    pull = torch.randn(n_rows, m, generator=generator, dtype=torch.float64)

    def product(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        rows, columns = pairs // n_columns, pairs % n_columns
        ones = torch.ones(len(pairs), dtype=dtype)
        feedback = Feedback.from_coo(rows, columns, ones, n_rows, n_columns).to(device)
        leaf = weight.to(device, dtype).requires_grad_()
        found = feedback_sum(feedback, row_tables(leaf, v.to(device, dtype)))
        (gradient,) = torch.autograd.grad(found, leaf, pull.to(device, dtype))
        return found.detach(), gradient

    exact = product(torch.device("cpu"), torch.float64)
    once, again = (product(place.device, torch.float32) for _ in range(2))
    for name, target, one, other in zip(("values", "gradient"), exact, once, again, strict=True):
        gap = float((one.cpu().double() - target).abs().max() / target.abs().max())
        same = torch.equal(one, other)
        place.check(
            f"first layer's {name}", gap < 1e-5 and same, f"{gap:.1e} of the largest, repeated: {same}"
        )


# ---------------------------------------------------------------- steps


def steps(place: Place) -> None:
    """Time a step of the encoders by each kind, and tell host time from device time."""
    from pyro_bmf.methods.cross_feedback.algorithm1 import Algorithm1
    from pyro_bmf.methods.cross_feedback.descent import JointDescent, PlainDescent
    from pyro_bmf.methods.cross_feedback.recorded import RecordedDescent
    from pyro_bmf.methods.job import Job
    from pyro_bmf.methods.recording import CudaRecorder
    from pyro_bmf.methods.settings import preset
    from pyro_bmf.process import computing

    found = place.found["steps"] = {}
    split = ml1m(place)
    for name in ("paper",) if place.tiny else ("paper", "literal"):
        settings = preset(name)
        job = Job(split.train, None, settings, None, None, None, place.device, place.reporter())
        with computing(place.device, threads=None, deterministic=True):
            made = Algorithm1(job, settings.method)
            made._begin()
            blocks, order, clip = made.steps.nested, made.steps.order(1), settings.method.clip_norm
            kinds: dict[str, Callable[[], Any]] = {
                "plain": lambda made=made, clip=clip: PlainDescent(made.objective, made.optimizer, clip),
                "joint": lambda made=made, clip=clip, blocks=blocks: JointDescent(
                    made.objective, blocks, made.optimizer, clip
                ),
            }
            if place.card:
                kinds["recorded"] = lambda joint=kinds["joint"]: RecordedDescent(
                    joint(), CudaRecorder(place.device)
                )
            else:
                place.skip(f"steps of {name}, recorded", "CUDA graphs need a card")
            for kind, make in kinds.items():
                try:
                    descend = make()
                except RuntimeError as error:
                    place.check(f"{name}, {kind}", False, str(error).splitlines()[0])
                    continue
                record = found[f"{name}, {kind}"] = time_steps(place, descend, order)
                print(f"{name}, {kind}: {told(record)}", flush=True)


def time_steps(place: Place, descend: Any, order: list[Any]) -> dict[str, Any]:
    """Return milliseconds of a step: waiting for the device, of the host alone, and of the device alone."""
    from torch.profiler import ProfilerActivity, profile

    n = 3 if place.tiny else 30

    def run(some: list[Any]) -> None:
        for step in some:
            descend(step, (0.01, 0.01), 1e-5)

    run(order[:3])
    place.wait()
    started = time.perf_counter()
    run(order[:n])
    host = time.perf_counter() - started
    place.wait()
    whole = time.perf_counter() - started
    done = len(order[:n])
    record: dict[str, Any] = {"blocks": len(order), "step_ms": 1e3 * whole / done}
    record["iteration_s"] = whole / done * len(order)
    if place.card:
        record["host_ms"] = 1e3 * host / done
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            run(order[:3])
            place.wait()
        averages = seen.key_averages()
        device_us = sum(getattr(one, "self_device_time_total", 0.0) for one in averages)
        record["device_ms"] = device_us / 3e3
        record["launches"] = sum(one.count for one in averages if one.key.startswith(LAUNCHES)) / 3
    return record


# ---------------------------------------------------------------- single iterations


def iterations(place: Place) -> None:
    """Compare an exact head whose pairs are on the device with one that streams them, and count waits."""
    from launches import iterations as work_of

    from pyro_bmf.methods.exact_head.run import ExactHeadRun, _tensors
    from pyro_bmf.methods.exact_head.updates import HeadUpdates
    from pyro_bmf.methods.job import Job
    from pyro_bmf.methods.settings import preset
    from pyro_bmf.process import computing

    split, found = ml1m(place), place.found.setdefault("iterations", {})
    settings = preset("guide").replace(**({"n_factors": 4} if place.tiny else {}))
    ends = []
    for name, chunk in (("on the device", 0), ("streamed", 500 if place.tiny else 100_000)):
        with computing(place.device, threads=None, deterministic=True):
            job = Job(split.train, None, settings, None, None, None, place.device, place.reporter())
            model = ExactHeadRun(job, settings.method).model
            model.start(split.train.ratings)
            made = HeadUpdates(
                model.to(place.device),
                split.train,
                settings.method,
                seed=0,
                device=place.device,
                host_chunk=chunk,
            )
            made.iteration()
            record: dict[str, Any] = {"chunk": chunk}
            with place.peak(record):
                for _ in range(3):
                    made.iteration()
            record["iteration_s"] = record.pop("seconds") / 3
            ends.append(_tensors(made))
        found[name] = record
        print(f"exact head, pairs {name}: {told(record)}", flush=True)
    same = all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    place.check("exact head, pairs streamed: the same bits", same, f"{len(ends[0])} tensors")
    if not place.card:
        place.skip(
            "what the host waits for", "torch tells of it on a card; benchmarks/launches.py counts here"
        )
        return
    for kind, likelihood, most in (
        ("head", "normal", 3),
        ("head", "ordered-probit", 3),
        ("chain", "normal", 20),
        ("chain", "ordered-probit", 25),
    ):
        name = f"{'exact head' if kind == 'head' else 'sweep'}, {likelihood}"
        with computing(place.device, threads=None, deterministic=True):
            work = work_of(split.train, kind, likelihood, device=place.device, reporter=place.reporter())
            work()
            waits = synchronisations(work)
            record = found[f"one {name}"] = time_work(place, work)
        print(f"one iteration, {name}: {told(record)}", flush=True)
        found[f"waits, {name}"] = waits
        place.check(f"waits in an iteration, {name}", len(waits) <= most, f"{len(waits)}, at most {most}")
        print("\n".join(waits[:30]), flush=True)
    place.check_recorded("iterations")


def time_work(place: Place, work: Callable[[], Any]) -> dict[str, Any]:
    """Return milliseconds of some work on a card: in all, of the host, of the card; and its launches."""
    from torch.profiler import ProfilerActivity, profile

    n = 5
    place.wait()
    started = time.perf_counter()
    for _ in range(n):
        work()
    host = time.perf_counter() - started
    place.wait()
    whole = time.perf_counter() - started
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        work()
        place.wait()
    averages = seen.key_averages()
    kernels = [one for one in averages if str(one.device_type).endswith("CUDA")]
    kernels.sort(key=lambda one: -one.self_device_time_total)
    for one in kernels[:12]:
        print(f"    {one.self_device_time_total / 1e3:8.3f} ms {one.count:6d} x {one.key[:90]}", flush=True)
    return {
        "ms": 1e3 * whole / n,
        "host_ms": 1e3 * host / n,
        "device_ms": sum(one.self_device_time_total for one in kernels) / 1e3,
        "launches": sum(one.count for one in averages if one.key.startswith(LAUNCHES)),
    }


def synchronisations(work: Callable[[], Any]) -> list[str]:
    """Return where the host waits for the card in some work, as torch sees it."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # Torch says at first that it does not see all "synchronizing operations", which is no wait.
    said = [one for one in seen if "called a synchronizing" in str(one.message)]
    return [f"{Path(one.filename).name}:{one.lineno}" for one in said]


# ---------------------------------------------------------------- whole methods


def ml1m(place: Place) -> Any:
    """Return MovieLens 1M's split where its ratings are at hand, else one of its shape."""
    from pyro_bmf.data import load_ratings, random_split, synthetic_ratings

    known = place.found.get("_ml1m")
    if known is None:
        folder = os.environ.get("PYRO_BMF_DATA_DIR", "")
        if not place.tiny and (Path(folder) / "ml-1m" / "ratings.dat").is_file():
            ratings, said = load_ratings("ml1m", download=False), "MovieLens 1M"
        else:
            shape = (120, 80, 2000) if place.tiny else (6040, 3706, 1_000_209)
            ratings, said = synthetic_ratings(*shape, n_factors=8, scale="1:5", seed=0).ratings, "generated"
        print(f"ratings: {said}, {len(ratings):,}", flush=True)
        place.found["ratings"] = said
        known = place.found["_ml1m"] = random_split(ratings, seed=0)
    return known


def timed_fit(place: Place, split: Any, name: str, settings: Any, *, deterministic: bool) -> dict[str, Any]:
    """Fit, and return seconds an iteration and in all, peak memory and test RMSE."""
    from pyro_bmf.errors import PyroBmfError
    from pyro_bmf.fitting import fit

    record: dict[str, Any] = {"deterministic": deterministic}
    try:
        with place.peak(record):
            result = fit(
                split,
                settings,
                device=str(place.device),
                deterministic=deterministic,
                progress=place.reporter(),
            )
    except (PyroBmfError, torch.cuda.OutOfMemoryError) as error:
        record["error"] = str(error).splitlines()[0][:300]
        place.check(name, False, record["error"])
        return record
    own = [one["seconds"] for one in result.history]
    record["iterations"] = len(own)
    record["first_s"], record["iteration_s"] = own[0], float(np.median(own[1:] or own))
    test = split.test
    if len(test):
        at = slice(None, 20_000)
        predicted = result.posterior.predict_mean(test.users[at], test.items[at])
        record["rmse"] = float(np.sqrt(np.mean((predicted - test.ratings[at]) ** 2)))
    print(f"{name}{'' if deterministic else ', not deterministic'}: {told(record)}", flush=True)
    return record


def small(changes: dict[str, Any], preset_name: str) -> dict[str, Any]:
    """Return the changes that make a method tiny."""
    less: dict[str, Any] = {"n_factors": 4}
    if preset_name in ("default", "gibbs"):
        less |= {"sweeps": 3, "burn_in": 1, "kept_draws": 2}
    if preset_name in ("guide", "conjugate"):
        less |= {"max_iterations": 2}
    kept = {name: value for name, value in changes.items() if name not in less}
    if "stop_after" in kept:
        kept["stop_after"] = 1
    return kept | less


def methods(place: Place) -> None:
    """Time every method at ML-1M's size."""
    from pyro_bmf.methods.settings import preset

    split, found = ml1m(place), place.found.setdefault("methods", {})
    for name, (chosen, changes) in METHODS.items():
        if place.left < 5:
            place.skip(name, "no time is left")
            continue
        settings = preset(chosen).replace(**(small(changes, chosen) if place.tiny else changes))
        found[name] = timed_fit(place, split, name, settings, deterministic=True)
        kind, most = MOST.get(name, ("", 0.0))
        if place.card and kind in found[name]:
            took = found[name][kind]
            place.check(f"{name}: {kind} at most {most:g}", took <= most, f"{took:.2f} s")
        if name in BOTH and place.card:
            free = found[f"{name}, not deterministic"] = timed_fit(
                place, split, name, settings, deterministic=False
            )
            if "iteration_s" in free and "iteration_s" in found[name]:
                times = found[name]["iteration_s"] / free["iteration_s"]
                place.check(f"{name}: deterministic at most 1.3 times as long", times <= 1.3, f"{times:.2f}")
    place.check_recorded("methods")


def large_split(place: Place) -> tuple[Any, tuple[int, int, int]]:
    """Return a split of 20 million generated ratings, and its shape."""
    from pyro_bmf.data import Split, synthetic_ratings

    shape = (400, 200, 6000) if place.tiny else (138_493, 26_744, 20_000_000)
    started = time.perf_counter()
    ratings = synthetic_ratings(*shape, n_factors=2, scale="1:5:0.5", seed=0).ratings
    rows = np.arange(len(ratings))
    split = Split(ratings, rows[: -shape[0]], rows[-shape[0] : -1], rows[-1:], "given")
    print(f"{len(ratings):,} ratings made in {time.perf_counter() - started:.0f} s", flush=True)
    return split, shape


def whole(place: Place) -> None:
    """Look at single iterations at 20 million ratings, and run the default fit to its end."""
    from launches import iterations as work_of

    from pyro_bmf.methods.settings import preset
    from pyro_bmf.process import computing

    split, _ = large_split(place)
    found = place.found.setdefault("whole", {})
    for name, kind in (("exact head", "head"), ("sweep", "chain")) if place.card else ():
        with computing(place.device, threads=None, deterministic=True):
            given = {"device": place.device, "reporter": place.reporter()}
            work = work_of(split.train, kind, "ordered-probit", **given)
            work()
            found[f"one {name}"] = time_work(place, work)
        print(f"one iteration, {name}: {told(found[f'one {name}'])}", flush=True)
        del work
        torch.cuda.empty_cache()
    if not place.card:
        place.skip("single iterations at 20 million ratings", "the profiler of a card is asked")
    settings = preset("default").replace(**(small({}, "default") if place.tiny else {}))
    record = found["default, to the end"] = timed_fit(
        place, split, "default, to the end", settings, deterministic=True
    )
    if place.card and "seconds" in record:
        took = record["seconds"]
        place.check(
            "the default fit of 20 million ratings takes 3 minutes at most", took <= 180, f"{took:.0f} s"
        )


def twenty(place: Place) -> None:
    """Time an iteration of every method at 20 million ratings."""
    from pyro_bmf.methods.settings import preset

    split, shape = large_split(place)
    found = place.found.setdefault("twenty", {})
    for name, (chosen, changes) in LARGE.items():
        if place.left < 15 and not place.tiny:
            place.skip(name, "no time is left")
            continue
        changes = small(changes, chosen) if place.tiny else dict(changes)
        if chosen == "amortized":
            changes |= {"user_batch_size": -(-shape[0] // 7), "item_batch_size": -(-shape[1] // 7)}
        found[name] = timed_fit(place, split, name, preset(chosen).replace(**changes), deterministic=True)


def tests(place: Place) -> None:
    """Run the tests that name a device."""
    if place.tiny:
        place.skip("tests", "they are run by themselves: pytest --device")
        return
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--device", str(place.device)]
    files = (
        "tests/test_devices.py",
        "tests/numerics/test_segment_sums.py",
        "tests/inference/test_descent.py",
    )
    limit = max(place.left, 20.0)
    try:
        done = subprocess.run(
            [*command, *files], cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        place.skip("tests", f"not done within the {limit:.0f} s that were left")
        return
    print("\n".join(done.stdout.splitlines()[-40:]))
    place.check(
        "tests", done.returncode == 0, done.stdout.splitlines()[-1] if done.stdout else done.stderr[-300:]
    )


SECTIONS: dict[str, tuple[Callable[[Place], None], float]] = {
    # Each with the seconds that it is expected to take on an H100.
    "sums": (sums, 10.0),
    "steps": (steps, 30.0),
    "iterations": (iterations, 10.0),
    "methods": (methods, 80.0),
    "twenty": (twenty, 70.0),
    "tests": (tests, 30.0),
    "whole": (whole, 220.0),
}
#: Those that run where no other ones are asked for.
USUAL = tuple(name for name in SECTIONS if name != "whole")


def told(record: dict[str, Any]) -> str:
    """Return a record's figures in one line."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in record.items()
        if value is not None
    )


def main() -> int:
    """Run the sections that there is time for; 1 if a check failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--tiny", action="store_true", help="a few ratings: a check of this script")
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS), default=list(USUAL))
    parser.add_argument("--budget", type=float, default=230.0, help="seconds")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    from pyro_bmf.process import pick_device

    place = Place(pick_device(options.device), options.tiny, time.perf_counter() + options.budget)
    card = torch.cuda.get_device_name() if place.card else "no card"
    print(
        f"{card}; torch {torch.__version__}, Python {platform.python_version()}, {place.device}", flush=True
    )
    if not place.card:
        place.skip("device times, peak memory of a card, kernels that are not deterministic", "this is a CPU")
        if not place.tiny:
            print("On a CPU this takes long: --tiny checks the script.")
    for name in options.only:
        run, _ = SECTIONS[name]
        if place.left <= 0:
            place.skip(name, f"the {options.budget:.0f} s are over")
            continue
        started = time.perf_counter()
        print(f"--- {name}", flush=True)
        try:
            run(place)
        except Exception as error:  # a section that breaks off must not cost those after it
            traceback.print_exc(limit=-8, file=sys.stdout)
            place.check(name, False, f"{type(error).__name__}: {str(error)[:300]}")
        place.found[f"{name}_s"] = time.perf_counter() - started
        print(f"    {place.found[f'{name}_s']:.1f} s", flush=True)
    place.found.pop("_ml1m", None)
    place.found |= {"notes": place.notes, "card": card, "torch": torch.__version__, "wrong": place.wrong}
    if options.out is not None:
        options.out.write_text(json.dumps(place.found, indent=2) + "\n", "utf-8")
    print("all checks passed" if not place.wrong else f"failed: {'; '.join(place.wrong)}")
    return 1 if place.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
