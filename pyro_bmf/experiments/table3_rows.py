"""Rows of the paper's Table 3: which cells each has, given those that are finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyro_bmf.errors import SettingsError
from pyro_bmf.experiments.cells import Cell, CellStore
from pyro_bmf.experiments.contenders import Contender, OurPreset, Running, contender, contenders
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.scoring import score
from pyro_bmf.experiments.tuning import Plan, Tuning, curve_of
from pyro_bmf.methods.gibbs.run import POSTERIOR_VERSION
from pyro_bmf.progress import Silent

#: Rows of the table, in the paper's order and then ours.
ROWS: tuple[str, ...] = (
    *("ncf", "cnn-cf", "u-rec", "i-rec", "dae-cf", "vae-cf"),
    *("literal", "paper", "default"),
)
#: Trials of each row, and iterations of each fit at most (None: the model's own). Rows that are not here are
#: not tuned.
TRIALS: Mapping[str, tuple[int, int | None]] = {
    "ncf": (20, 20),
    "cnn-cf": (6, 10),
    "u-rec": (20, 60),
    "i-rec": (20, 60),
    "dae-cf": (12, 60),
    "vae-cf": (12, 60),
    "paper": (6, 30),
}
#: Values left of a grid where a set has more ratings than `LARGE`: wider ones take minutes to hours a fit.
LARGE = 500_000
CUTS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {"cnn-cf": {"n_factors": (8, 16)}}
_TUNING_SEED = 0


@dataclass(frozen=True)
class Choices:
    """What may be chosen of the table beside its rows and columns.

    Attributes
    ----------
    trials : mapping
        Of rows that are tuned by another number of trials than `TRIALS` says; 0 tunes nothing. A name
        ``ROW@SET`` is of that row on one set.
    iterations : mapping
        By row, or ``ROW@SET``, iterations of each fit at most.
    cuts : mapping
        By row, or ``ROW@SET``, and setting, the values that are left of its grid.
    chosen : mapping
        By set and row, settings that were chosen already; such a row is not tuned.
    sampler : {"grid", "tpe"}
    """

    trials: Mapping[str, int] = field(default_factory=dict)
    iterations: Mapping[str, int] = field(default_factory=dict)
    cuts: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    chosen: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    sampler: str = "tpe"


@dataclass(frozen=True, eq=False)
class Derived:
    """A row that is not tuned itself: it has the settings that were chosen for another, some of them changed.

    Attributes
    ----------
    model : OurPreset
        Its own fixed settings are the changes.
    source : str
        The other row.
    """

    model: OurPreset
    source: str


@dataclass(frozen=True)
class Row:
    """One row of one data set: its cells, as far as they are known.

    Attributes
    ----------
    model : Contender
    data : DataSet
    tuning : Cell or None
        None where nothing is tuned.
    tuned : dict or None
        Its result, once it is finished.
    finals : tuple of Cell
        One a seed; none before the settings are chosen.
    cuts : mapping
        What is left out of the grid's axes.
    not_run : str or None
        Why there are no cells.
    values : mapping
        Of a row that is not tuned, what is set otherwise than the model has it.
    source : str or None
        The row whose settings it has.
    """

    model: Contender
    data: DataSet
    tuning: Cell | None = None
    tuned: dict[str, Any] | None = None
    finals: tuple[Cell, ...] = ()
    cuts: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    not_run: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None


class Table3Rows:
    """Models by data sets: tuning cells, and final cells of the settings that they chose.

    Parameters
    ----------
    models : sequence of str or Contender
        Rows, by the names of `contenders`, or variants of one's own.
    sets : sequence of DataSet
        Columns; those that cannot be had here have no cells.
    seeds : int
        Splits and fits of the finals: seeds 0, 1 and so on. Settings are chosen on seed 0.
    choices : Choices
    device, threads
        Of the fits.
    derived : sequence of Derived
        Rows that follow, with the settings of others.

    Raises
    ------
    SettingsError
        For a row that is unknown, or a choice for one that is not of the table.
    """

    def __init__(
        self,
        models: Sequence[str | Contender],
        sets: Sequence[DataSet],
        seeds: int = 3,
        choices: Choices | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        derived: Sequence[Derived] = (),
    ) -> None:
        self.derived = tuple(derived)
        self.models = tuple(one if isinstance(one, Contender) else contender(one) for one in models)
        names = [model.name for model in self.models]
        self.sets, self.seeds, self.choices = tuple(sets), seeds, choices or Choices()
        self._device, self._threads = device, threads
        self._grids = {model.name: model.grid() for model in self.models}
        for what in (self.choices.trials, self.choices.iterations, self.choices.cuts):
            unknown = [name for name in what if name.partition("@")[0] not in names]
            if unknown:
                raise SettingsError(
                    f"{unknown[0]} is not among the models of the table ({', '.join(names)}): leave out "
                    "what is chosen for it, or add it."
                )
        columns = [data.name for data in self.sets]
        for name in (*self.choices.trials, *self.choices.iterations, *self.choices.cuts):
            column = name.partition("@")[2]
            if column and column not in columns:
                raise SettingsError(
                    f"{name}: {column} is not among the sets of the table ({', '.join(columns)})."
                )

    def cells(self, store: CellStore) -> list[Cell]:
        """Return tuning cells, and the final cells of rows whose settings are chosen."""
        found: list[Cell] = []
        for row in self.rows(store):
            found += [row.tuning] if row.tuning is not None else []
            found += row.finals
        return found

    def rows(self, store: CellStore) -> list[Row]:
        """Return every row of every set, set by set."""
        found = []
        for data in self.sets:
            own = [self._row(model, data, store) for model in self.models]
            found += own + [self._derived(one, own) for one in self.derived]
        return found

    def _derived(self, derived: Derived, rows: Sequence[Row]) -> Row:
        """Return a row with the settings of another, as far as those are known."""
        source = next(row for row in rows if row.model.name == derived.source)
        data = source.data
        if source.not_run is not None:
            return Row(derived.model, data, not_run=source.not_run, source=derived.source)
        if not source.finals:
            return Row(derived.model, data, source=derived.source)
        chosen = source.values if source.tuned is None else source.tuned["chosen"]
        values = derived.model.changed(chosen)
        finals = self._finals(derived.model, data, values)
        return Row(derived.model, data, finals=finals, values=values, source=derived.source)

    def _row(self, model: Contender, data: DataSet, store: CellStore) -> Row:
        if data.missing is not None:
            return Row(model, data, not_run=data.missing)
        given = self._given(model, data)
        fixed = dict(model.for_data(data.base))
        iterations = _of(self.choices.iterations, model, data, TRIALS.get(model.base, (0, None))[1])
        if iterations is not None:
            fixed["max_iterations"] = iterations
        trials = self._trials(model, data)
        if not trials:
            values = {**fixed, **(given or {})}
            return Row(model, data, finals=self._finals(model, data, values), values=values)
        cuts = self._cuts(model, data)
        tuning = self._tuning(model, data, trials, fixed, cuts)
        tuned = store.result(tuning)
        if tuned is None:
            return Row(model, data, tuning, cuts=cuts)
        if "failed" in tuned:
            return Row(model, data, tuning, tuned, cuts=cuts, not_run=f"no settings: {tuned['failed']}")
        return Row(model, data, tuning, tuned, self._finals(model, data, tuned["chosen"]), cuts)

    def n_cells(self) -> int:
        """Return how many cells there will be: one a tuned row, and one a row and seed."""
        here = [data for data in self.sets if data.missing is None]
        tuned = sum(self._trials(model, data) > 0 for data in here for model in self.models)
        return tuned + self.seeds * len(here) * (len(self.models) + len(self.derived))

    def _trials(self, model: Contender, data: DataSet) -> int:
        """Return the trials of a row; 0 where its settings are given, or stand as they are."""
        if self._given(model, data) is not None:
            return 0
        return _of(self.choices.trials, model, data, TRIALS.get(model.base, (0, None))[0]) or 0

    def _given(self, model: Contender, data: DataSet) -> Mapping[str, Any] | None:
        every = self.choices.chosen
        return every.get(data.name, every.get("*", {})).get(model.name)

    def _cuts(self, model: Contender, data: DataSet) -> dict[str, tuple[Any, ...]]:
        large = CUTS.get(model.name, {}) if len(data.ratings) > LARGE else {}
        cuts = self.choices.cuts
        return {**large, **cuts.get(model.name, {}), **cuts.get(f"{model.name}@{data.name}", {})}

    def _tuning(
        self,
        model: Contender,
        data: DataSet,
        trials: int,
        fixed: Mapping[str, Any],
        cuts: Mapping[str, tuple[Any, ...]],
    ) -> Cell:
        sampler: Any = self.choices.sampler
        plan = Plan(sampler=sampler, seed=_TUNING_SEED, fixed=fixed, cuts=cuts)
        grid = self._grids[model.name].cut(cuts)

        def run(work: Path) -> dict[str, Any]:
            tuning = Tuning(work, model, data.split(_TUNING_SEED), plan)
            tuning.run(trials, device=self._device, threads=self._threads)
            tuning.chosen()  # refuses a study without a completed trial
            return tuning.report()

        identity = {
            "model": model.base,
            "settings": {
                "fixed": dict(fixed),
                "grid": {name: list(axis) for name, axis in grid.axes.items()},
            },
            "objective": plan.objective,
            "sampler": plan.sampler,
            "trials": trials,
            "data": data.name,
            "data_hash": data.ratings.data_hash,
            "split_hash": data.split_hash(_TUNING_SEED),
            "seed": _TUNING_SEED,
        }
        return Cell("tuning", f"{model.name} {data.name}", identity, run)

    def _finals(self, model: Contender, data: DataSet, values: Mapping[str, Any]) -> tuple[Cell, ...]:
        return tuple(self._final(model, data, values, seed) for seed in range(self.seeds))

    def _final(self, model: Contender, data: DataSet, values: Mapping[str, Any], seed: int) -> Cell:
        def run(work: Path) -> dict[str, Any]:
            split = data.split(seed)
            how = Running(Silent(), self._device, self._threads, work)
            fitted = model.fit(split, values, seed=seed, running=how)
            return {
                "settings": fitted.settings,
                "seconds": fitted.seconds,
                "iterations": len(fitted.history),
                "curve": curve_of(fitted.history),
                **score(fitted.system, split, seed),
            }

        settings = model.settings(values, seed)
        identity = {
            "model": model.base,
            "settings": settings,
            # What sweeps draw, and from which prior, is not among their settings.
            **({"sweeps": POSTERIOR_VERSION} if settings.get("gibbs") else {}),
            # Nor is what the model leaves out where there are few ratings.
            **({"suited": suited} if (suited := model.suited(values, *data.train_size(seed))) else {}),
            "data": data.name,
            "data_hash": data.ratings.data_hash,
            "split_hash": data.split_hash(seed),
            "seed": seed,
        }
        return Cell("final", f"{model.name} {data.name} seed {seed}", identity, run)


def _of(choices: Mapping[str, int], model: Contender, data: DataSet, otherwise: int | None) -> int | None:
    """Return what is chosen for a row on a set, else for the row, else the default."""
    return choices.get(f"{model.name}@{data.name}", choices.get(model.name, otherwise))


def known_rows() -> tuple[str, ...]:
    """Return every name that may be a row: the table's own, and simple references."""
    return (*ROWS, *(name for name in contenders() if name not in ROWS))
