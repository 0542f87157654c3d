"""One system beside the trivial references, always."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pandas as pd

from pyro_bmf.baselines import BASELINES
from pyro_bmf.data import Split
from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation.evaluate import Evaluation, FittedOn, evaluate
from pyro_bmf.evaluation.metrics import METRICS, Metric, rating_metrics
from pyro_bmf.evaluation.paired import PairedDifference, paired_difference
from pyro_bmf.evaluation.plain_values import json_ready
from pyro_bmf.evaluation.protocols import PROTOCOLS, Part
from pyro_bmf.systems.contract import Predictor


@dataclass(frozen=True)
class Comparison:
    """Evaluations of several systems on the same ratings.

    Attributes
    ----------
    evaluations
        The system in question first, then the others.
    differences
        The first less each other, by paired bootstrap over users: RMSE, and NLL and RPS (density NLL on a
        continuous scale).
    """

    evaluations: tuple[Evaluation, ...]
    differences: tuple[PairedDifference, ...]

    @property
    def model(self) -> Evaluation:
        """The evaluation of the system in question."""
        return self.evaluations[0]

    def table(self) -> pd.DataFrame:
        """Return one row a system: rating, probabilistic and ranking figures side by side.

        The ranking columns are named ``full:recall@20`` and so on; NaN where a system has no such figure.
        """
        return pd.DataFrame([evaluation.row() for evaluation in self.evaluations]).set_index("system")

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return ``systems`` (see `table`), ``differences``, and the tables of every evaluation stacked."""
        stacked: dict[str, list[pd.DataFrame]] = {}
        for evaluation in self.evaluations:
            for name, frame in evaluation.tables().items():
                if not len(frame):
                    continue
                if "system" not in frame:
                    frame.insert(0, "system", evaluation.system)
                stacked.setdefault(name, []).append(frame)
        differences = pd.DataFrame([difference.to_dict() for difference in self.differences])
        tables = {"systems": self.table().reset_index(), "differences": differences}
        return tables | {name: pd.concat(frames, ignore_index=True) for name, frames in stacked.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single ratings, ready for JSON."""
        return {
            "evaluations": [evaluation.to_dict() for evaluation in self.evaluations],
            "differences": json_ready([difference.to_dict() for difference in self.differences]),
        }


def compare(evaluations: Sequence[Evaluation], *, draws: int = 1000, seed: int = 0) -> Comparison:
    """Put evaluations of the same ratings side by side, the first one against each other one.

    Raises
    ------
    SettingsError
        If there is none, two share a name, or they are of different splits, parts or ratings.
    """
    if not evaluations:
        raise SettingsError("there is no evaluation to compare.")
    names = [evaluation.system for evaluation in evaluations]
    if len(set(names)) < len(names):
        raise SettingsError(f"two systems share a name among {', '.join(names)}: give each its own.")
    first = evaluations[0]
    wanted = [
        metric.name
        for metric in rating_metrics(first.metrics)
        if metric.compared and first.figures[metric.name] is not None
    ]
    differences = tuple(
        paired_difference(metric, first, other, draws=draws, seed=seed)
        for other in evaluations[1:]
        for metric in wanted
    )
    return Comparison(tuple(evaluations), differences)


def evaluate_with_references(
    predictor: Predictor,
    split: Split,
    *,
    part: Part = "test",
    n: Sequence[int] = (20, 50),
    threshold: float = 3.0,
    protocols: Sequence[str] = PROTOCOLS,
    seed: int = 0,
    name: str | None = None,
    fitted_on: FittedOn | None = None,
    chunk: int = 100_000,
    draws: int = 1000,
    advance: Callable[[int], None] | None = None,
    metrics: Sequence[Metric] = METRICS,
) -> Comparison:
    """Evaluate a system beside the global mean, biases and popularity, fitted to the same ratings as it was.

    Parameters, and what is raised, are those of `evaluate`. The global mean scores all items alike and so
    has no ranking figures. References are named ``global-mean``, ``bias-only`` and ``popularity``; a system
    that has one of these names takes its place.
    """
    measure = partial(
        evaluate,
        split=split,
        part=part,
        n=n,
        threshold=threshold,
        seed=seed,
        chunk=chunk,
        draws=draws,
        advance=advance,
        metrics=metrics,
    )
    first = measure(predictor, protocols=protocols, name=name, fitted_on=fitted_on)
    fitted_on = cast(FittedOn, first.fitted_on)
    others = [
        measure(
            reference().fit(split, refit=fitted_on == "train+valid"),
            protocols=protocols if reference.ranks else (),
            fitted_on=fitted_on,
        )
        for reference in BASELINES
        if reference.name != first.system
    ]
    return compare([first, *others], draws=draws, seed=seed)
