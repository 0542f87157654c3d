"""A fit that the command line runs: fitted, saved in its folder, and gone on with."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TYPE_CHECKING

from pyro_bmf.errors import PyroBmfError
from pyro_bmf.files import write_json

from ..printing.output import note
from ..printing.text import counted, shell_word
from ..shared_options import Running
from .folder import RunFolder
from .selection import fit_selection_of

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.fit_result import FitResult
    from pyro_bmf.methods.settings import Settings
    from pyro_bmf.posterior import Posterior


@dataclass(frozen=True)
class Job:
    """A fit that is about to run, all that it needs checked and loaded.

    Attributes
    ----------
    earlier : Posterior or None
        Of a warm start.
    running : Running
        With the device and the threads that the machine gives.
    """

    folder: RunFolder
    split: Split
    settings: Settings
    earlier: Posterior | None
    refit: bool
    running: Running


@contextmanager
def ctrl_c() -> Iterator[list[int]]:
    """Give a list that Ctrl-C makes non-empty, beside what it does anyway.

    Its exception may be swallowed inside a library's import, which then fails in some other way.
    """
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield pressed
        return
    usual = before

    def handle(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        usual(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def fit_and_save(job: Job, *, resume: bool, progress: bool) -> str | None:
    """Fit and save, unless that is done already; return a line about how it went."""
    from pyro_bmf.fit_result import DivergenceError

    if job.folder.model.is_file():
        note(f"{job.folder.path} is finished already.")
        _fit_selection(job, None, progress=progress)
        return None
    try:
        result = _fit(job, resume=resume, progress=progress)
    except DivergenceError as error:
        if error.result is None:
            job.folder.discard()
            raise
        job.folder.write_result(error.result, job.running)
        raise type(error)(f"{error} That state is saved in {job.folder.path}.", error.result) from error
    except PyroBmfError:
        if not resume and not job.folder.selection.is_file():
            job.folder.discard()
        raise
    # Before the model: a folder that holds that is finished.
    _fit_selection(job, result.posterior, progress=progress)
    job.folder.write_result(result, job.running)
    return _how_it_went(result, refit=job.refit)


def _fit_selection(job: Job, posterior: Posterior | None, *, progress: bool) -> None:
    seed = job.settings.seed
    fit_selection_of(job.folder, job.split, posterior, refit=job.refit, seed=seed, progress=progress)


def _fit(job: Job, *, resume: bool, progress: bool) -> FitResult:
    """Fit; with `refit`, choose the iterations first and then train on train and validation."""
    from pyro_bmf.fitting import fit
    from pyro_bmf.refitting import chosen_iterations, refit_settings

    def run(settings: Settings, *, refit: bool) -> FitResult:
        checkpoint = job.folder.checkpoint(refit=refit)
        return fit(
            job.split,
            settings,
            warm_start=job.earlier,
            refit=refit,
            checkpoint=checkpoint,
            resume=resume and checkpoint.exists(),
            progress=progress,
            **asdict(job.running),
        )

    if not job.refit:
        return run(job.settings, refit=False)
    if not job.settings.method.validated:
        # There are no iterations to choose.
        return run(job.settings, refit=True)
    stop_after = job.folder.chosen_iterations()
    if stop_after is None:
        chosen = run(job.settings, refit=False)
        stop_after = int(chosen_iterations(chosen).values()["stop_after"])
        write_json(job.folder.selection, {"iterations": stop_after, "history": chosen.history})
    chosen_words = counted(stop_after, "iteration", "iterations")
    note(f"{chosen_words} chosen on validation; now training on train and validation.")
    return run(refit_settings(job.settings, stop_after), refit=True)


def _how_it_went(result: FitResult, *, refit: bool) -> str:
    done, kept = len(result.history), result.best_iteration
    gibbs = result.settings.gibbs
    if gibbs is not None:
        sweeps = gibbs.all_sweeps
        before = "" if done == sweeps else f"{counted(done - sweeps, 'iteration', 'iterations')} and "
        before += f"{gibbs.chains} times " if gibbs.chains > 1 else ""
        drawn = gibbs.all_draws
        best = result.history[-1].get("valid_rmse")
        made = counted(gibbs.sweeps, "Gibbs sweep", "Gibbs sweeps")
        text = f"{before}{made} in {result.seconds:.0f} s, {counted(drawn, 'draw', 'draws')} kept"
        if refit:
            return f"{text} of train + validation"
        return text + ("" if best is None else f", validation RMSE {best:.4f}")
    text = f"{counted(done, 'iteration', 'iterations')} in {result.seconds:.0f} s"
    if refit:
        return f"{text} on train + validation"
    if result.stopped == "patience":
        text += ", stopped as validation RMSE did not improve any more"
    best = result.history[kept - 1]["valid_rmse"] if kept else None
    return f"{text}; kept: iteration {kept}" + ("" if best is None else f", validation RMSE {best:.4f}")


def how_to_go_on(job: Job) -> str:
    """Return what an interrupted user is told."""
    run = shell_word(str(job.folder.path))
    if job.folder.model.is_file():
        return f"Interrupted, but the fit is saved in {run}. Measure it with: pyro-bmf evaluate {run}"
    again = f"pyro-bmf fit --resume {run}"
    if any(job.folder.checkpoint(refit=refit).exists() for refit in (True, False)):
        return f"Interrupted. The last checkpoint is kept; go on with: {again}"
    if not job.settings.checkpointed:
        method = job.settings.method.title
        return f"Interrupted. A fit by {method} writes no checkpoints; start over with: {again}"
    every = job.running.checkpoint_every
    return f"Interrupted before the first checkpoint (one every {every} iterations); start over with: {again}"
