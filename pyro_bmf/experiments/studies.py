"""Optuna's studies on disk: several processes share one, and a crash loses the running trials alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from pyro_bmf.experiments.claims import Claims
from pyro_bmf.experiments.grids import Cell, Grid

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

Sampler = Literal["grid", "tpe"]
Direction = Literal["minimize", "maximize"]

_STUDY = "study"
_CELL, _STALE, _DUPLICATE = "cell", "stale", "duplicate"
#: Trials that end at random values before the sampler models them, and proposals before it is passed over
#: for proposing what was tried already.
_STARTUP, _PROPOSALS = 6, 5


@dataclass(frozen=True)
class Asked:
    """A trial that is this process's own: nobody else runs it while the claim is held.

    Attributes
    ----------
    trial : optuna.Trial
    cell : tuple
    claim : ExitStack
        Closed when the trial is told.
    """

    trial: optuna.Trial
    cell: Cell
    claim: ExitStack


class SharedStudy:
    """A study in a folder: Optuna's journal, and claims that tell running trials from stale ones.

    Trials are asked for one at a time, by whichever process, and each from a sampler that is seeded by the
    study's seed and the trial's number: a study that one process works on gives the same trials however often
    it was interrupted, and no combination is tried twice.

    Parameters
    ----------
    folder : Path
    grid : Grid
    direction : {"minimize", "maximize"}
    sampler : {"grid", "tpe"}
        ``"grid"`` tries every combination, in an order shuffled by the seed; ``"tpe"`` proposes them.
    warmup : int or None
        Reports after which a trial stops that is worse than the median of those before; None never stops one.
    seed : int
    """

    def __init__(
        self, folder: Path, grid: Grid, direction: Direction, sampler: Sampler, warmup: int | None, seed: int
    ) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.folder, self.grid, self.sampler, self.seed = folder, grid, sampler, seed
        self.claims = Claims(folder / "claims")
        journal = folder / "journal.log"
        lock = _JournalLock(self.claims)
        lock.acquire()
        try:
            _drop_torn_line(journal)
        finally:
            lock.release()
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if warmup is not None:
            pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=warmup)
        with quiet(), self.claims.waited_for("ask"):
            storage = JournalStorage(JournalFileBackend(str(journal), cast(Any, lock)))
            self.study = optuna.create_study(
                storage=storage,
                study_name=_STUDY,
                direction=direction,
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(seed),
                pruner=pruner,
            )
        order = np.random.default_rng(seed).permutation(len(grid))
        self._order = [grid.cells[place] for place in order]

    @property
    def trials(self) -> list[FrozenTrial]:
        """Every trial that counts: not those that went stale, nor proposals of what was tried already."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if _counts(trial)]

    def n_counted(self) -> int:
        """Return how many trials are done or running."""
        return sum(trial.state.name != "WAITING" for trial in self.trials)

    def ask(self, n_trials: int) -> Asked | None:
        """Take the next trial, after giving back those whose process is no more; None if there is none.

        Parameters
        ----------
        n_trials
            Of the whole study, by all processes.
        """
        with quiet(), self.claims.waited_for("ask"):
            self.recover()
            if self.n_counted() >= n_trials:
                return None
            found = self._next()
            if found is None:
                return None
            trial, cell = found
            claim = ExitStack()
            if not claim.enter_context(self.claims.tried(_claim(trial.number))):
                raise RuntimeError(f"trial {trial.number} is claimed before it began")
            return Asked(trial, cell, claim)

    def recover(self) -> list[int]:
        """End the trials whose process is no more, queue their combinations again, return their numbers."""
        from optuna.trial import Trial, TrialState

        stale = []
        running = (TrialState.RUNNING,)
        for trial in self.study.get_trials(deepcopy=False, states=running):
            if not self.claims.is_free(_claim(trial.number)):
                continue
            # Whoever ran it may have told its end, and then given the claim back, since the list was made.
            if trial.number not in {one.number for one in self.study.get_trials(False, running)}:
                continue
            Trial(self.study, trial._trial_id).set_user_attr(_STALE, True)
            self.study.tell(trial.number, state=TrialState.FAIL)
            if _CELL in trial.user_attrs:
                self._queue(tuple(trial.user_attrs[_CELL]))
            stale.append(trial.number)
        return stale

    def _next(self) -> tuple[optuna.Trial, Cell] | None:
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        tried = {tuple(trial.user_attrs[_CELL]) for trial in trials if _counts(trial)}
        if any(trial.state == TrialState.WAITING for trial in trials):
            return self._take()
        if len(tried) >= len(self.grid):
            return None
        if self.sampler == "tpe":
            for _ in range(_PROPOSALS):
                trial, cell = self._take()
                if cell not in tried:
                    return trial, cell
                trial.set_user_attr(_DUPLICATE, True)
                self.study.tell(trial, state=TrialState.FAIL)
        self._queue(next(cell for cell in self._order if cell not in tried))
        return self._take()

    def _queue(self, cell: Cell) -> None:
        self.study.enqueue_trial(self.grid.parameters(cell), user_attrs={_CELL: list(cell)})

    def _take(self) -> tuple[optuna.Trial, Cell]:
        import optuna

        # Stale trials are not counted: a study that was interrupted goes on as if it had not been.
        number = sum(_STALE not in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.sampler == "tpe":
            self.study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=_STARTUP, multivariate=False, constant_liar=True
            )
        else:
            self.study.sampler = optuna.samplers.RandomSampler(seed)
        trial = self.study.ask()
        cell = self.grid.suggest(trial)
        trial.set_user_attr(_CELL, list(cell))
        return trial, cell


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's log, and what it says of its experimental features, from the user."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _counts(trial: FrozenTrial) -> bool:
    """Return whether a trial chose its combination, and was neither stale nor a repeat."""
    told = trial.user_attrs
    return _CELL in told and _STALE not in told and _DUPLICATE not in told


def _claim(number: int) -> str:
    return f"trial-{number}"


class _JournalLock:
    """What Optuna's journal asks of its lock, by one of the operating system: it ends with its process."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._held = ExitStack()

    def acquire(self) -> bool:
        """Wait for it."""
        self._held.enter_context(self._claims.waited_for("journal"))
        return True

    def release(self) -> None:
        """Give it back."""
        self._held.close()


def _drop_torn_line(journal: Path) -> None:
    """Remove what a process that was killed left of a last line, which nothing could be appended to."""
    if not journal.is_file():
        return
    with open(journal, "rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())
