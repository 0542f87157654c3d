"""Figure 4 as it came out: curves, what reached the target when, and what the paper says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.experiments.cells import CellStore, software
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.papers.convergence_cells import ConvergenceCells, Curve
from pyro_bmf.experiments.papers.convergence_claims import claims
from pyro_bmf.experiments.reports import Report, Section, mean_and_se, with_se

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A variant's curves over seeds.

    Attributes
    ----------
    curve : Curve
    results : sequence of dict or None
        By seed; None where it is not finished.
    targets : sequence of float or None
        By seed, the validation RMSE to get below.
    """

    curve: Curve
    results: Sequence[Mapping[str, Any] | None]
    targets: Sequence[float | None]

    @property
    def failed(self) -> str | None:
        """Why a fit failed, if one did."""
        told = [str(one["failed"]) for one in self.results if one is not None and "failed" in one]
        return told[0] if told else None

    @property
    def state(self) -> str:
        """In words."""
        if self.failed is not None:
            return "failed"
        return "measured" if self.complete else "not finished"

    @property
    def complete(self) -> bool:
        """Whether every seed is there."""
        return self.failed is None and all(one is not None for one in self.results)

    def values(self, name: str) -> Floats:
        """Return a figure of every iteration, shape (n_seeds, n_iterations); empty unless all are there."""
        return self.so_far(name) if self.complete else np.empty((0, 0))

    def so_far(self, name: str) -> Floats:
        """Return a figure of every iteration for the seeds that are there, shape (n, n_iterations)."""
        there = [one for one in self.results if one is not None and "failed" not in one]
        return np.array([[one[name] for one in result["curve"]] for result in there]).reshape(len(there), -1)

    @property
    def title(self) -> str:
        """The variant, and how many seeds are there where some are not."""
        n = len(self.so_far("seconds"))
        return self.curve.title + (
            f" ({n} of {len(self.results)} seeds)" if 0 < n < len(self.results) else ""
        )

    def reached(self) -> list[tuple[int | None, float | None]]:
        """Return by seed after how many iterations and seconds validation RMSE was below the target."""
        found: list[tuple[int | None, float | None]] = []
        for result, target in zip(self.results, self.targets, strict=True):
            if result is None or "failed" in result or target is None:
                continue
            first = next((one for one in result["curve"] if one["valid_rmse"] < target), None)
            found.append((None, None) if first is None else (first["iteration"], first["seconds"]))
        return found


def report_convergence(experiment: ConvergenceCells, store: CellStore, command: str) -> Report:
    """Return the report of what is finished; what is not is said to be so."""
    here = [data for data in experiment.sets if data.missing is None]
    by_set = [(data, _measured(experiment, data, store)) for data in here]
    judged = [one for data, found in by_set for one in claims(data, found)]
    sections = [Section("How it was run", text=_lead(experiment, command))]
    for data in experiment.sets:
        if data.missing is not None:
            sections.append(Section(f"{data.title}: not run", text=f"Not run: {data.missing}."))
    for data, found in by_set:
        sections.append(Section(f"{data.title}: after the last iteration", [_line(one) for one in found]))
    sections.append(Section("Whether the paper's claims hold", [one.row() for one in judged], _RULE))
    return Report(
        "convergence",
        "Figure 4 of Jin et al. (arXiv 2002.09145), run again",
        sections,
        [record for _, found in by_set for one in found for record in _records(one)],
        _figures(by_set),
        {
            "claims": [one.to_dict() for one in judged],
            "reached": [line for _, found in by_set for one in found for line in _reached(one)],
        },
    )


_RULE = (
    "Differences are paired by seed; in brackets Student's 95 % interval over seeds. A claim holds where the "
    "whole interval agrees, does not hold where the whole interval disagrees, and cannot be judged between. "
    "Where one of two does not reach the target, it counts as one iteration (or one iteration's time) "
    "later than its last."
)


def _lead(experiment: ConvergenceCells, command: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in software().items())
    seeds = f"{experiment.seeds} seeds" if experiment.seeds > 1 else "one seed"
    return (
        f"`{command}`\n\n"
        f"Random splits of 70 % train, 15 % validation and 15 % test ratings, {seeds}. The preset `paper` "
        "with L = 0 and the changes of each variant; Adam at a rate of 0.0003 throughout, no average over "
        "iterations, no early stop. Test RMSE is that of the weights as they are after each iteration; it "
        "decides nothing. Seconds are those of the iterations, with what measures RMSE in them: the "
        "processor's, which other work on the machine does not reach; on a graphics card those on the wall. "
        "The target, fixed before any variant is fitted, is the validation RMSE of the bias-only baseline on "
        "the same split: faster is fewer iterations, and fewer seconds, until validation RMSE is below it. "
        "± is the standard "
        f"error over seeds. {versions}."
    )


def _measured(experiment: ConvergenceCells, data: DataSet, store: CellStore) -> list[Measured]:
    told = [store.result(cell) for cell in experiment.targets(data)]
    targets = [None if one is None else float(one["valid_rmse"]) for one in told]
    return [
        Measured(curve, [store.result(cell) for cell in curve.cells], targets)
        for curve in experiment.curves(data)
    ]


def _line(one: Measured) -> dict[str, str]:
    line = {"variant": one.title, "blocks": _blocks(one.curve), "iterations": str(one.curve.iterations)}
    test, seconds = one.so_far("test_rmse"), one.so_far("seconds")
    columns = ("test RMSE", "least test RMSE of an iteration", "seconds an iteration")
    reached = one.reached()
    if not len(test):
        return {**line, **dict.fromkeys(columns, one.state), "iterations to the target": one.state}
    return {
        **line,
        columns[0]: with_se(*mean_and_se(list(test[:, -1]))),
        columns[1]: with_se(*mean_and_se(list(test.min(axis=1)))),
        columns[2]: with_se(*mean_and_se(list(seconds[:, -1] / test.shape[1])), decimals=2),
        "iterations to the target": ", ".join("–" if at is None else str(at) for at, _ in reached) or "–",
        "seconds to the target": ", ".join("–" if s is None else f"{s:.3g}" for _, s in reached) or "–",
    }


def _blocks(curve: Curve) -> str:
    return "the preset's" if curve.blocks == "paper" else f"{curve.blocks} x {curve.blocks}"


def _records(one: Measured) -> Iterator[dict[str, Any]]:
    curve = one.curve
    head = {"set": curve.data.name, "variant": curve.variant, "blocks": curve.blocks}
    for seed, result in enumerate(one.results):
        if result is None or "failed" in result:
            state = "not finished" if result is None else f"failed: {result['failed']}"
            yield {**head, "seed": seed, "iteration": None, "state": state}
            continue
        for record in result["curve"]:
            yield {**head, "seed": seed, **record, "state": "measured"}


def _reached(one: Measured) -> Iterator[dict[str, Any]]:
    curve = one.curve
    for seed, ((iteration, seconds), target) in enumerate(zip(one.reached(), one.targets, strict=False)):
        yield {
            "set": curve.data.name,
            "variant": curve.variant,
            "blocks": curve.blocks,
            "seed": seed,
            "target_name": "bias-only",
            "target": target,
            "iteration": iteration,
            "seconds": seconds,
        }


def _figures(by_set: Sequence[tuple[DataSet, Sequence[Measured]]]) -> dict[str, Figure]:
    from matplotlib.figure import Figure

    lines = [
        (data, blocks, members)
        for data, found in by_set
        for blocks in dict.fromkeys(one.curve.blocks for one in found)
        if (members := [one for one in found if one.curve.blocks == blocks and len(one.so_far("seconds"))])
    ]
    if not lines:
        return {}
    figure = Figure(figsize=(16, 4.2 * len(lines)), layout="constrained")
    for row, (data, _, members) in zip(figure.subplots(len(lines), 3, squeeze=False), lines, strict=True):
        for one in members:
            _draw(row, one)
        targets = [target for target in members[0].targets if target is not None]
        if targets:
            told = "target: bias-only" if len(targets) == 1 else "target: bias-only, mean over seeds"
            row[2].axhline(float(np.mean(targets)), color="0.3", ls="--", lw=0.9, label=told)
        for axes, (x, y) in zip(row, _AXES, strict=True):
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            axes.grid(alpha=0.3)
            axes.legend(fontsize=7)
            axes.set_title(f"{data.title}, blocks: {_blocks(members[0].curve)}", fontsize=10)
    figure.suptitle(
        "Variants of the paper's method; L' is the number of hidden layers in the towers of its encoders. "
        "Lines: means over seeds; bands: one standard error",
        fontsize=10,
    )
    return {"": figure}


_AXES = (
    ("iteration (one pass over all blocks)", "test RMSE (rating units)"),
    ("seconds (of the processor; on a card, on the wall)", "test RMSE (rating units)"),
    ("iteration (one pass over all blocks)", "validation RMSE (rating units)"),
)
_COLOURS = {"A": "tab:gray", "B": "tab:orange", "C": "tab:blue", "D": "tab:green", "E": "tab:red"}


def _draw(row: Any, one: Measured) -> None:
    seconds = one.so_far("seconds").mean(axis=0)
    number = np.arange(1, len(seconds) + 1)
    colour = _COLOURS[one.curve.variant]
    for axes, x, name in zip(row, (number, seconds, number), ("test", "test", "valid"), strict=True):
        values = one.so_far(f"{name}_rmse")
        mean = values.mean(axis=0)
        axes.plot(x, mean, lw=1.3, color=colour, label=one.title)
        if len(values) > 1:
            se = values.std(axis=0, ddof=1) / np.sqrt(len(values))
            axes.fill_between(x, mean - se, mean + se, color=colour, alpha=0.2, lw=0)
