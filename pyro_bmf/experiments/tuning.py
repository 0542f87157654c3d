"""Tuning a contender on validation ratings: what is minimised, one trial after another, and what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pyro_bmf import __version__
from pyro_bmf.data import Split
from pyro_bmf.errors import FitError, SavedFileError, SettingsError
from pyro_bmf.experiments.contenders import Contender, Running
from pyro_bmf.experiments.grids import Grid
from pyro_bmf.experiments.studies import Asked, Direction, Sampler, SharedStudy, quiet
from pyro_bmf.files import make_folder, read_json, write_json
from pyro_bmf.progress import Reporter, Silent
from pyro_bmf.systems.contract import Predictor

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Objective = Literal["rmse", "nll", "ndcg"]
#: Which way each objective is better.
OBJECTIVES: Mapping[str, Direction] = {"rmse": "minimize", "nll": "minimize", "ndcg": "maximize"}

_FORMAT = "pyro-bmf study"
_RECORD = "study.json"
#: What a study is of, where a part's name alone would not tell which options gave it.
_OF = {
    "fixed": "whose trials (--set, --iterations) all have",
    "grid": "whose grid (--grid, --set) is",
}


@dataclass(frozen=True)
class Plan:
    """How a contender is tuned.

    Attributes
    ----------
    objective : {"rmse", "nll", "ndcg"}
        On the validation ratings: the kept state's RMSE, its NLL of the discrete ratings, or NDCG@20 of the
        whole catalogue.
    sampler : {"grid", "tpe"}
    prune : bool
        Whether a trial stops early whose validation RMSE is worse than the median of the trials before, at
        the same iteration.
    seed : int
        Of the sampler, and of every fit.
    fixed : mapping
        Settings outside the grid that every trial has.
    cuts : mapping
        By setting, the values that are left of its axis.
    """

    objective: Objective = "rmse"
    sampler: Sampler = "tpe"
    prune: bool = True
    seed: int = 0
    fixed: Mapping[str, Any] = field(default_factory=dict)
    cuts: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise SettingsError(
                f"objective is {self.objective!r}: choose 'rmse', 'nll' or 'ndcg', all of validation ratings."
            )
        if self.sampler not in ("grid", "tpe"):
            raise SettingsError(f"sampler is {self.sampler!r}: choose 'grid' or 'tpe'.")
        if self.prune and self.objective != "rmse":
            raise SettingsError(
                "prune goes with the objective 'rmse' alone, as a fit reports its RMSE on its way; the "
                f"objective is {self.objective!r}. Set prune to False (--no-prune)."
            )


class Tuning:
    """A study of one contender on one split, in a folder.

    Opening a folder that holds the same study goes on with it.

    Parameters
    ----------
    folder : Path
    contender : Contender
    split : Split
        Fitted to its train part and measured on its validation part; its test part is not read.
    plan : Plan

    Raises
    ------
    SettingsError
        If there is nothing to tune or to measure on, or the folder holds another study.
    """

    def __init__(self, folder: Path, contender: Contender, split: Split, plan: Plan) -> None:
        if not len(split.valid_rows):
            raise SettingsError(
                "Tuning measures on validation ratings, and the split has none: split some off (--fractions)."
            )
        self.folder, self.contender, self.split, self.plan = folder, contender, split, plan
        self.grid = self._grid()
        self.fixed = {**contender.for_data(split.ratings.name), **plan.fixed}
        contender.settings({**self.fixed, **self.grid.values(self.grid.cells[0])}, plan.seed)  # refuses early
        self._write_record()
        # A fit's first quarter says little of its end.
        warmup = max(3, contender.iterations(self.fixed) // 4) if plan.prune else None
        self.shared = SharedStudy(
            folder, self.grid, OBJECTIVES[plan.objective], plan.sampler, warmup, plan.seed
        )

    def run(
        self,
        n_trials: int,
        *,
        timeout: float | None = None,
        device: str = "auto",
        threads: int | None = None,
        tell: Callable[[int], None] = lambda count: None,
        reporter: Callable[[], Reporter] = Silent,
    ) -> None:
        """Run trials until the study has so many, or its grid is exhausted, or the time is over.

        Parameters
        ----------
        n_trials
            Of the whole study, by all processes and earlier runs.
        timeout
            Seconds after which no further trial begins.
        device, threads
            Of the fits.
        tell
            Told after every trial of how many the study has.
        reporter
            Makes what each fit tells its progress to.
        """
        started = time.monotonic()
        while timeout is None or time.monotonic() - started < timeout:
            asked = self.shared.ask(n_trials)
            if asked is None:
                return
            with asked.claim:
                self._try(asked, Running(reporter(), device, threads))
            tell(self.shared.n_counted())

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return the tuned settings of a trial, without those that it does not read."""
        return self.grid.values(tuple(trial.user_attrs["cell"]))

    @property
    def best(self) -> FrozenTrial | None:
        """The trial with the best value, None before the first was completed."""
        done = [trial for trial in self.shared.trials if trial.state.name == "COMPLETE"]
        if not done:
            return None
        sign = 1.0 if OBJECTIVES[self.plan.objective] == "minimize" else -1.0
        return min(done, key=lambda trial: (sign * float(trial.value or 0.0), trial.number))

    def chosen(self) -> dict[str, Any]:
        """Return all that the best trial set: what is fixed, and what was tuned.

        Raises
        ------
        FitError
            If no trial was completed.
        """
        best = self.best
        if best is None:
            told = [trial.user_attrs.get("error") for trial in self.shared.trials]
            reason = next((str(text) for text in told if text), "none was run to its end")
            raise FitError(
                f"No trial of {self.contender.name} was completed ({reason}): give more trials or time."
            )
        return {**self.fixed, **self.values(best)}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a trial: its number, state, value, settings, iterations and seconds."""
        best = self.best
        rows = []
        for trial in self.shared.trials:
            told = trial.user_attrs
            curve = told.get("curve", [])
            rows.append(
                {
                    "trial": trial.number,
                    "state": told["error"] if "error" in told else trial.state.name.lower(),
                    f"valid_{self.plan.objective}": trial.value if trial.state.name == "COMPLETE" else None,
                    "best": best is not None and trial.number == best.number,
                    **{name: self.values(trial).get(name) for name in self.grid.names},
                    "iterations": len(curve) or None,
                    "seconds": told.get("seconds"),
                }
            )
        return rows

    def report(self) -> dict[str, Any]:
        """Return what was tried, what was chosen, and how long it took, JSON-ready."""
        best = self.best
        rows = self.rows()
        return {
            **self._record(),
            "trials": [
                {**row, "curve": trial.user_attrs.get("curve", [])}
                for row, trial in zip(rows, self.shared.trials, strict=True)
            ],
            "n_combinations": len(self.grid),
            "seconds": float(sum(row["seconds"] or 0.0 for row in rows)),
            "best": None if best is None else best.number,
            "value": None if best is None else best.value,
            "chosen": None if best is None else self.chosen(),
            "on_edge": [] if best is None else list(self.grid.on_edge(self.values(best))),
        }

    def _grid(self) -> Grid:
        grid = self.contender.grid(self.plan.fixed)
        if not grid.axes:
            raise SettingsError(
                f"{self.contender.name} has nothing to tune: fit it as it is, or choose another model."
            )
        both = [name for name in self.plan.fixed if name in self.plan.cuts]
        if both:
            raise SettingsError(f"{both[0]} is set and given a grid: give one of the two.")
        tuned = {name: (value,) for name, value in self.plan.fixed.items() if name in grid.axes}
        return grid.cut({**self.plan.cuts, **tuned})

    def _record(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "format": _FORMAT,
            "software": __version__,
            "model": self.contender.name,
            "data": self.split.ratings.name,
            "data_hash": self.split.ratings.data_hash,
            "split_hash": self.split.hash,
            "objective": plan.objective,
            "sampler": plan.sampler,
            "prune": plan.prune,
            "seed": plan.seed,
            "fixed": dict(self.fixed),
            "grid": {name: list(values) for name, values in self.grid.axes.items()},
        }

    def _write_record(self) -> None:
        """Write what the study is of; refuse a folder that holds another."""
        make_folder(self.folder)
        path, own = self.folder / _RECORD, self._record()
        if not path.is_file():
            write_json(path, own)
            return
        try:
            known = read_json(path)
            assert isinstance(known, dict)
        except (ValueError, AssertionError) as error:
            raise SavedFileError(f"{path} is damaged: take it from a copy, or give another --out.") from error
        for name, value in own.items():
            if known.get(name) != value:
                of = _OF.get(name, f"whose {name.replace('_', ' ')} is")
                raise SettingsError(
                    f"{self.folder} holds a study {of} {known.get(name)!r}, and "
                    f"{value!r} is asked for: give another --out, or ask for the same again to go on with it."
                )

    def _try(self, asked: Asked, running: Running) -> None:
        from optuna import TrialPruned
        from optuna.trial import TrialState

        trial, study = asked.trial, self.shared.study
        values = {**self.fixed, **self.grid.values(asked.cell)}
        watcher = _Watcher(running.reporter, trial if self.plan.prune else None)
        started = time.perf_counter()
        running = Running(watcher, running.device, running.threads)
        outcome: dict[str, Any] = {}
        try:
            fitted = self.contender.fit(self.split, values, seed=self.plan.seed, running=running)
            outcome = {"values": measure(fitted.system, self.split, self.plan.objective)}
        except TrialPruned:
            outcome = {"state": TrialState.PRUNED}
        except FitError as error:
            trial.set_user_attr("error", str(error))
            outcome = {"state": TrialState.FAIL}
        trial.set_user_attr("curve", watcher.curve)
        trial.set_user_attr("seconds", time.perf_counter() - started)
        with quiet():
            study.tell(trial, **outcome)


class _Watcher:
    """Passes on what a fit tells, keeps its curve, and ends it where the study's pruner says so."""

    def __init__(self, inner: Reporter, trial: Any) -> None:
        self._inner, self._trial = inner, trial
        self.curve: list[float] = []

    def note(self, text: str) -> None:
        """Leave out: what one of many fits would tell its user, nobody asked."""

    def start(self, n_iterations: int, n_blocks: int, done: int) -> None:
        """Pass on."""
        self._inner.start(n_iterations, n_blocks, done)

    def block(self) -> None:
        """Pass on."""
        self._inner.block()

    def iteration(self, record: dict[str, Any]) -> None:
        """Pass on, keep the validation RMSE, and prune."""
        from optuna import TrialPruned

        self._inner.iteration(record)
        rmse = record.get("valid_rmse")
        if rmse is None:
            return
        self.curve.append(float(rmse))
        if self._trial is not None:
            with quiet():
                self._trial.report(float(rmse), len(self.curve))
                worse = self._trial.should_prune()
            if worse:
                raise TrialPruned

    def close(self) -> None:
        """Pass on."""
        self._inner.close()


def measure(system: Predictor, split: Split, objective: str) -> float:
    """Return a fitted system's objective on the validation part of a split; the test part is not read.

    Raises
    ------
    SettingsError
        If NLL is asked for on a continuous scale.
    """
    from pyro_bmf.evaluation import evaluate_ranking, level_positions, nll
    from pyro_bmf.evaluation.protocols import default_threshold

    valid = split.valid
    if objective == "rmse":
        errors = np.asarray(system.predict_mean(valid.users, valid.items), dtype=np.float64) - valid.ratings
        return float(np.sqrt(np.mean(errors**2)))
    if objective == "ndcg":
        threshold = default_threshold(split.ratings.scale)
        (found,) = evaluate_ranking(
            system, split, part="valid", n=(20,), threshold=threshold, protocols=("full",)
        )
        return found.ndcg
    levels = valid.scale.levels
    if levels is None:
        raise SettingsError(
            "The objective nll is of discrete ratings, and the scale is continuous: choose rmse or ndcg."
        )
    pmf = system.predict_pmf(valid.users, valid.items, levels)
    return float(nll(pmf, level_positions(valid.ratings, levels)).mean())


def curve_of(history: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the validation RMSE of every iteration that has one."""
    return [float(one["valid_rmse"]) for one in history if one.get("valid_rmse") is not None]
