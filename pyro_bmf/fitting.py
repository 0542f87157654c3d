"""Settings to method to result: the one way in to every fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .data.ratings import Ratings
from .data.splits import Split
from .data.units import Units
from .fit_result import DivergenceError, FitResult
from .in_units import InRatings
from .methods.coordinate_ascent.run import AscentRun
from .methods.coordinate_ascent.settings import CoordinateAscent
from .methods.cross_feedback.algorithm1 import Algorithm1
from .methods.cross_feedback.settings import CrossFeedback
from .methods.exact_head.run import ExactHeadRun
from .methods.exact_head.settings import ExactHead
from .methods.gibbs.run import GibbsRun
from .methods.gibbs.settings import Gibbs
from .methods.job import Checkpoints, Diverged, Handover, Job, Runner
from .methods.settings import Settings
from .model import FactorizationModel
from .posterior import Posterior
from .prepared import Prepared
from .process import computing, pick_device
from .progress import Reporter, reporter_of

#: What fits by the settings of each class.
RUNNERS: Mapping[type, Callable[[Job, Any], Runner]] = MappingProxyType(
    {ExactHead: ExactHeadRun, CrossFeedback: Algorithm1, Gibbs: GibbsRun, CoordinateAscent: AscentRun}
)


def fit(
    split: Split,
    settings: Settings | None = None,
    *,
    model: FactorizationModel | None = None,
    warm_start: Posterior | None = None,
    refit: bool = False,
    device: str = "auto",
    threads: int | None = None,
    deterministic: bool = True,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 10,
    resume: bool = False,
    progress: bool | Reporter = True,
    units: Units | None = None,
    implicit: Ratings | None = None,
    watched: Ratings | None = None,
) -> FitResult:
    """Fit the model to the train part of a split.

    Parameters
    ----------
    split : Split
        Validation ratings stop encoders and coordinate ascent, and choose encoders' state; test goes unread.
    settings : Settings
        Of model and method; the default preset when not given.
    model : FactorizationModel, optional
        A model of your own, for every stage of the fit, in the place of that of ``settings.model``.
    warm_start : Posterior, optional
        Of encoders alone: an earlier fit, whose rows keep their weights, while new ones start fresh.
    refit : bool
        Train on train and validation and keep the last state, see `refitting.chosen_iterations`.
    device : {"auto", "cpu", "cuda"} or a torch device name
    threads : int, optional
        Of the CPU, see `process.pick_threads` for when none is given. Bits may differ between numbers.
    deterministic : bool
        On CUDA, use only kernels that give the same bits at every run.
    checkpoint : path, optional
        File that takes the state every `checkpoint_every` iterations.
    resume : bool
        Go on from `checkpoint`, to the same bits as without the interruption.
    progress : bool or Reporter
        A bar on standard error, or none, or your own reporter.
    units : Units, optional
        Standard units to work in, whose zero is the centre; those of the training ratings when not given.
    implicit, watched : Ratings, optional
        Whose pairs are the implicit feedback, else the training ratings'; whose RMSE encoders' history has.

    Raises
    ------
    SettingsError
        If a setting was given that the fit does not read, or a method does not know the model.
    DataError
        If a training rating is outside the likelihood's support.
    FitError
        If the fit is too large for the machine; a DivergenceError with the last good state if it diverges.
    SavedFileError
        If `resume` is asked and the checkpoint is missing, damaged or of another fit.
    """
    fit = Prepared.of(split, settings, model, warm_start, units, implicit, watched, refit=refit)
    reporter = InRatings(reporter_of(progress), fit.units)
    file = None if checkpoint is None else Path(checkpoint)
    first = fit.first_stage(file, resume=resume)
    with computing(pick_device(device, note=reporter.note), threads, deterministic, len(fit.train)) as where:
        job = fit.job(model, warm_start, where, reporter)
        stages = [RUNNERS[one.__class__](job, one) for one in job.settings.stages]
        start: Handover | None = None
        try:
            for number, run in enumerate(stages[first:], first):
                kept = Checkpoints(
                    file, checkpoint_every, resume and number == first, fit.identity(run.model, where)
                )
                if number + 1 < len(stages):
                    start = fit.handover(run(start, kept), where)
                else:
                    result = fit.result(run(start, kept), where)
            if (sentence := fit.check_chain(result)) is not None:
                reporter.note(sentence)
            return fit.in_ratings(result)
        except Diverged as error:
            last = None if error.fitted is None else fit.in_ratings(fit.result(error.fitted, where))
            raise DivergenceError(str(error), last) from error
        finally:
            reporter.close()
