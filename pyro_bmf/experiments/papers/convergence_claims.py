"""What the paper says of its Figure 4, judged by curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.papers.judging import OPEN, Verdict, judge, paired

Floats = NDArray[np.float64]
#: RMSE that is left to gain when a curve counts as steady.
STEADY = 0.005
#: The iteration from which the paper calls the curve with attention steady.
_STEADY_FROM = 20


class Curves(Protocol):
    """A variant's curves over seeds."""

    @property
    def curve(self) -> Any:
        """Which variant, with which blocks, of how many iterations."""

    @property
    def state(self) -> str:
        """Why there are none, in words."""

    def values(self, name: str) -> Floats:
        """Return a figure of every iteration, shape (n_seeds, n_iterations); empty where there is none."""

    def reached(self) -> list[tuple[int | None, float | None]]:
        """Return by seed the iterations and seconds to the target."""


def claims(data: DataSet, found: Sequence[Curves]) -> Iterator[Verdict]:
    """Give a verdict on every claim that variants with the preset's own blocks can bear out."""
    known = {one.curve.variant: one for one in found if one.curve.blocks == "paper"}

    def test(name: str) -> Floats:
        return known[name].values("test_rmse") if name in known else np.empty((0, 0))

    def missing(*names: str) -> str:
        return ", ".join(f"{n}: {known[n].state if n in known else 'not among the variants'}" for n in names)

    for better, worse, key in (("B", "A", "b-below-a"), ("D", "C", "d-below-c"), ("E", "D", "e-below-d")):
        high, low = test(worse), test(better)
        both = bool(len(high) and len(low))
        share = float(np.mean(low.mean(axis=0) < high.mean(axis=0))) if both else 0.0
        yield judge(
            data,
            key,
            f"{better} ends at a lower test RMSE than {worse}",
            paired(list(high[:, -1]), list(low[:, -1])) if both else [],
            told=f"below it after {share:.0%} of the iterations" if both else "",
            missing=missing(better, worse),
        )
    for fast, slow in (("B", "A"), ("D", "C"), ("E", "D")):
        yield from _faster(data, known.get(fast), known.get(slow), fast, slow, missing(fast, slow))
    a, b = test("A"), test("B")
    yield judge(
        data,
        "b-smoother-than-a",
        "in the second half B's test RMSE moves less from one iteration to the next than A's",
        paired(_roughness(a), _roughness(b)),
        missing=missing("A", "B"),
        decimals=5,
    )
    d, e = test("D"), test("E")
    early = max(1, e.shape[1] // 5) if len(e) else 0
    yield judge(
        data,
        "attention-slower-early",
        "over the first fifth of the iterations E's mean test RMSE is above D's",
        paired(list(e[:, :early].mean(axis=1)), list(d[:, :early].mean(axis=1))) if len(d) and len(e) else [],
        missing=missing("D", "E"),
    )
    yield _steady(data, e, missing("E"))


def _steady(data: DataSet, e: Floats, missing: str) -> Verdict:
    claim = f"after iteration {_STEADY_FROM} E's test RMSE falls by less than {STEADY:g}"
    if len(e) and e.shape[1] <= _STEADY_FROM:
        missing, e = f"there are {e.shape[1]} iterations", np.empty((0, 0))
    left = [STEADY - (row[_STEADY_FROM - 1] - row[-1]) for row in e]
    return judge(data, "e-steady-after-20", claim, left, told="what is left of that", missing=missing)


def _faster(
    data: DataSet, fast: Curves | None, slow: Curves | None, a: str, b: str, missing: str
) -> Iterator[Verdict]:
    """Judge iterations and seconds to the target."""
    key = f"{a.lower()}-faster-than-{b.lower()}"
    for unit, decimals in (("iterations", 1), ("seconds", 1)):
        own = f"{key}-seconds" if unit == "seconds" else key
        claim = f"{a} is below the target in fewer {unit} than {b}"
        if fast is None or slow is None or not len(fast.values("seconds")) or not len(slow.values("seconds")):
            yield Verdict(data.base, data.title, own, claim, OPEN, told=missing)
            continue
        if all(at is None for one in (fast, slow) for at, _ in one.reached()):
            told = f"neither is below it in {fast.curve.iterations} iterations"
            yield Verdict(data.base, data.title, own, claim, OPEN, told=told)
            continue
        differences = paired(_cost(slow, unit), _cost(fast, unit))
        never = {name: sum(at is None for at, _ in one.reached()) for name, one in ((a, fast), (b, slow))}
        told = "; ".join(f"{name} never with {n} of its seeds" for name, n in never.items() if n)
        yield judge(data, own, claim, differences, told=told, missing=missing, decimals=decimals)


def _cost(one: Curves, unit: str) -> list[float]:
    """Return by seed what it took to get below the target: a step beyond the last where it never did."""
    seconds = one.values("seconds")
    n = seconds.shape[1]
    found = []
    for (at, second), row in zip(one.reached(), seconds, strict=True):
        if unit == "iterations":
            found.append(float(n + 1 if at is None else at))
        else:
            found.append(float(row[-1] * (n + 1) / n if second is None else second))
    return found


def _roughness(test: Floats) -> list[float]:
    """Return by seed the mean size of a step in the second half."""
    if not len(test) or test.shape[1] < 4:
        return []
    half = test[:, test.shape[1] // 2 :]
    return [float(np.abs(np.diff(row)).mean()) for row in half]
