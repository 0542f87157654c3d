"""A fit that is prepared: checked settings, ratings in standard units, and what all of it is known by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .checkpoint import CHAIN_CHECKPOINT
from .data.ratings import Ratings
from .data.splits import Split
from .data.units import Units
from .errors import SettingsError
from .fit_result import FitResult
from .in_units import posterior_in_ratings, record_in_ratings, settings_in, units_of
from .methods.cross_feedback.settings import CrossFeedback
from .methods.job import Fitted, Handover, Job
from .methods.reading import Case
from .methods.settings import IMPLICIT_FROM, Settings, preset
from .model import FactorizationModel
from .model.fitted import Rows
from .posterior import Posterior
from .posterior.predictive import PairPredictive
from .posterior.settling import check_settling
from .process import device_kind
from .progress import Reporter
from .refitting import without_validation
from .tensor_files import is_of_kind


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a fit is made of.

    Attributes
    ----------
    split : Split
    settings : Settings
        As they were asked for.
    case : Case
        Of the settings in standard units.
    units : Units
    raw : Ratings
        Those that are fitted to: the train part, or in a refit train and validation.
    train : Ratings
        The same in standard units.
    valid : Ratings or None
        Validation ratings in standard units.
    implicit : Ratings or None
        Whose pairs are the implicit feedback, where these are not the training ratings'.
    watched : Ratings or None
        Ratings whose RMSE is recorded and decides nothing, in standard units.
    centre : float or None
        What predictors start from where the units were given: their zero, whatever these ratings' mean is.
    """

    split: Split
    settings: Settings
    case: Case
    units: Units
    raw: Ratings
    train: Ratings
    valid: Ratings | None
    implicit: Ratings | None = None
    watched: Ratings | None = None
    centre: float | None = None

    @classmethod
    def of(
        cls,
        split: Split,
        settings: Settings | None,
        own: FactorizationModel | None,
        warm_start: Posterior | None,
        units: Units | None,
        implicit: Ratings | None = None,
        watched: Ratings | None = None,
        *,
        refit: bool,
    ) -> Prepared:
        """Check the settings against the ratings, and take all to standard units.

        Raises
        ------
        SettingsError
            If a setting was given that the fit does not read, or an argument is of another class.
        """
        settings = preset() if settings is None else settings
        for value, kind, remedy in (
            (split, Split, "a Split, as from random_split(load_ratings(...))"),
            (settings, Settings, "Settings, as from preset('default')"),
            (own, FactorizationModel | None, "a FactorizationModel as the model, or none"),
            (implicit, Ratings | None, "Ratings whose pairs are the implicit feedback, or none"),
            (watched, Ratings | None, "Ratings to watch, or none"),
        ):
            if not isinstance(value, kind):
                raise SettingsError(f"fit was given {value!r}: give {remedy}.")
        if warm_start is not None and not isinstance(settings.method, CrossFeedback):
            raise SettingsError(
                f"A fit by {settings.method.title} takes no warm start: fits of the encoders alone do, as "
                "those by the preset amortized (--preset amortized, in Python preset('amortized')). Leave it "
                "out (--warm-start, warm_start=), or start from such a run."
            )
        if watched is not None and not isinstance(settings.method, CrossFeedback):
            raise SettingsError(
                f"A fit by {settings.method.title} watches no ratings: leave watched out, or fit encoders by "
                "SVI (method=CrossFeedback(), as in preset('amortized'))."
            )
        if refit:
            settings = without_validation(settings)
        split.warn_of_unknown()
        train = split.train_valid if refit else split.train
        valid = None if refit or len(split.valid) == 0 else split.valid
        settings = settings.suited(len(train), train.n_users + train.n_items)
        case = Case.of(settings, levels=train.scale.levels, validated=refit or valid is not None, own=own)
        case.check()
        if implicit is not None:
            _check_implicit(implicit, train, case)
        centre = 0.0 if units is not None and settings.model.standardised else None
        if units is None:
            units = units_of(settings.model, train, own=own, earlier=warm_start)
        case = replace(case, settings=replace(settings, model=settings_in(settings.model, units)))
        valid = None if valid is None else units.of_ratings(valid)
        seen = None if watched is None else units.of_ratings(watched)
        more = units.of_ratings(train), valid, implicit, seen, centre
        return cls(split, settings, case, units, train, *more)

    @property
    def left_out(self) -> str | None:
        """What is said of parts of the model that too few ratings leave out, if there are some."""
        asked, sizes = self.settings, (len(self.raw), self.raw.n_users + self.raw.n_items)
        if self.case.own is not None:
            return None
        parts = []
        if (n_factors := asked.factors_for(*sizes)) is not None:
            parts.append(
                f"there {'is 1 factor' if n_factors == 1 else f'are {n_factors} factors'} in place of "
                f"{preset(asked.name).model.n_factors} (--factors N gives N; in Python, n_factors=N)"
            )
        if asked.too_few(*sizes):
            parts.append(
                f"implicit feedback, which takes {IMPLICIT_FROM:g}, is left out (--implicit keeps it; in "
                "Python, implicit=True)"
            )
        if not parts:
            return None
        mean = f"Users and items have {2 * sizes[0] / sizes[1]:.1f} training ratings on average"
        return f"{mean}: {', and '.join(parts)}."

    def validate(self) -> Callable[[FactorizationModel, tuple[Rows, Rows]], float] | None:
        """Return what gives validation RMSE by the posterior's predictions, if there are such ratings."""
        valid = self.valid
        if valid is None:
            return None

        def rmse(model: FactorizationModel, rows: tuple[Rows, Rows]) -> float:
            mean = PairPredictive(model, *rows).rating_moments(valid.users, valid.items)[0]
            return float(np.sqrt(np.mean((mean - valid.ratings) ** 2)))

        return rmse

    def first_stage(self, checkpoint: Path | None, *, resume: bool) -> int:
        """Return the number of the stage to begin with: a chain's checkpoint is of the last one.

        Raises
        ------
        SettingsError
            If it is asked to resume and there is no file, or the method writes none.
        """
        if not resume:
            return 0
        if checkpoint is None:
            raise SettingsError("resume needs a checkpoint: give the file to go on from.")
        if not self.settings.checkpointed:
            raise SettingsError("Coordinate ascent writes no checkpoint to resume from: leave resume out.")
        chained = self.case.settings.gibbs is not None and is_of_kind(checkpoint, CHAIN_CHECKPOINT)
        return len(self.case.settings.stages) - 1 if chained else 0

    def job(
        self,
        own: FactorizationModel | None,
        warm_start: Posterior | None,
        device: torch.device,
        reporter: Reporter,
    ) -> Job:
        """Return what every stage of the fit is given, and tell what of the model is left out."""
        if (sentence := self.left_out) is not None:
            reporter.note(sentence)
        valid, settings, more = self.valid, self.case.settings, (self.implicit, self.watched, self.centre)
        return Job(self.train, valid, settings, own, self.validate(), warm_start, device, reporter, *more)

    @property
    def trained_on(self) -> str:
        """Which parts the fit is of."""
        return "train" if len(self.train) == len(self.split.train_rows) else "train+valid"

    def identity(self, model: FactorizationModel, device: torch.device) -> dict[str, Any]:
        """Return what must agree with a checkpoint: what decides the result, not how often it is written."""
        settings = {part: content for part, content in self.case.in_force().items() if part != "preset"}
        implicit = {} if self.implicit is None else {"implicit": self.implicit.data_hash}
        return {
            **implicit,
            "settings": _plain(settings),
            "model": _plain(model.settings()),
            "split_hash": self.split.hash,
            "trained_on": self.trained_on,
            "device": device_kind(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def result(self, fitted: Fitted, device: torch.device) -> FitResult:
        """Return a result in standard units; its posterior remembers the settings that were read."""
        info = {
            "data_name": self.split.ratings.name,
            "data_hash": self.split.ratings.data_hash,
            "split_hash": self.split.hash,
            "split_scheme": self.split.scheme,
            "trained_on": self.trained_on,
            "settings": self.case.in_force(),
            "device": str(device),
            **({} if self.implicit is None else {"implicit": self.implicit.data_hash}),
            **fitted.info,
        }
        return FitResult(
            posterior=Posterior.from_fit(fitted.model, fitted.guide, self.train, rows=fitted.rows, info=info),
            history=fitted.history,
            best_iteration=fitted.kept_iteration,
            settings=self.settings,
            device=str(device),
            seconds=sum(record["seconds"] for record in fitted.history),
            stopped=fitted.stopped,
        )

    def handover(self, fitted: Fitted, device: torch.device) -> Handover:
        """Return what the next stage starts from: a state, or else the posterior's rows."""
        if fitted.state is not None:
            return Handover(fitted)
        posterior = self.result(fitted, device).posterior
        return Handover(replace(fitted, rows=(posterior.user_rows, posterior.item_rows)))

    def check_chain(self, result: FitResult) -> str | None:
        """Note in a chain's posterior whether it has settled, and return a sentence where it has not."""
        gibbs = self.settings.gibbs
        if gibbs is None:
            return None
        # Pairs of all parts, as predictions will be asked of any; what was rated in them is not read.
        pairs = self.split.ratings.users, self.split.ratings.items
        settling = check_settling(result.posterior, pairs, sweeps=gibbs.sweeps, burn_in=gibbs.burn_in)
        result.posterior.info["chain"] = settling.to_dict()
        return settling.sentence()

    def in_ratings(self, result: FitResult) -> FitResult:
        """Return a result in the unit of the ratings."""
        return replace(
            result,
            posterior=posterior_in_ratings(result.posterior, self.units, self.raw, self.settings.model),
            history=[record_in_ratings(record, self.units) for record in result.history],
        )


def _check_implicit(implicit: Ratings, train: Ratings, case: Case) -> None:
    if not case.implicit:
        raise SettingsError(
            "implicit was given, whose pairs a model without implicit feedback does not read: leave it out, "
            "or choose a model that has it (implicit=True in the settings, with exact heads or Gibbs sweeps)."
        )
    if (implicit.n_users, implicit.n_items) != (train.n_users, train.n_items):
        raise SettingsError(
            f"implicit has {implicit.n_users:,} users and {implicit.n_items:,} items, the split "
            f"{train.n_users:,} and {train.n_items:,}: give ratings under the split's vocabularies."
        )


def _plain(content: Any) -> Any:
    """Return JSON's view of nested settings, so that a saved copy compares equal."""
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    return content
