"""What a method is given to fit, and what it gives back: the one interface that every method fills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ..data.ratings import Ratings
from ..data.vocabulary import Vocabulary
from ..errors import FitError
from ..model import FactorizationModel
from ..model.fitted import Guide, Rows
from ..progress import Reporter
from .settings import Settings

#: Validation RMSE of a model with both sides' rows.
Validate = Callable[[FactorizationModel, tuple[Rows, Rows]], float]


@dataclass(frozen=True, eq=False)
class Checkpoints:
    """Where the state between two iterations is kept.

    Attributes
    ----------
    file : Path or None
        None keeps it nowhere.
    every : int
        Iterations, or sweeps, from one to the next.
    resume : bool
        Whether to go on from the file.
    identity : dict
        What must agree with a file to go on from it.
    """

    file: Path | None
    every: int
    resume: bool
    identity: dict[str, Any]


class EarlierFit(Protocol):
    """What a method may ask of an earlier fit that it goes on from: a posterior is one."""

    @property
    def model(self) -> FactorizationModel:
        """Its model."""

    @property
    def guide(self) -> Guide:
        """Its guide."""

    @property
    def user_vocabulary(self) -> Vocabulary:
        """Raw ids of its users."""

    @property
    def item_vocabulary(self) -> Vocabulary:
        """Raw ids of its items."""


@dataclass(frozen=True, eq=False)
class Job:
    """A fit that is to be done, in standard units.

    Attributes
    ----------
    train : Ratings
    valid : Ratings or None
        Where they decide when to stop and what to keep, or are only watched.
    settings : Settings
    own : FactorizationModel or None
        A model of the user's, in the place of the one that the settings describe.
    validate : callable or None
        Validation RMSE by the posterior's own predictions; None without validation ratings.
    warm_start : EarlierFit or None
        For methods that can go on from one.
    device : torch.device
    reporter : Reporter
    implicit : Ratings or None
        Whose pairs are the implicit feedback, where these are not the training ratings'.
    watched : Ratings or None
        Ratings whose RMSE is recorded after every iteration, by Algorithm 1; they decide nothing.
    centre : float or None
        What predictors of a centred model start from, where this is not the mean training rating.
    """

    train: Ratings
    valid: Ratings | None
    settings: Settings
    own: FactorizationModel | None
    validate: Validate | None
    warm_start: EarlierFit | None
    device: torch.device
    reporter: Reporter
    implicit: Ratings | None = None
    watched: Ratings | None = None
    centre: float | None = None

    def start(self, model: FactorizationModel) -> None:
        """Let a model check the training ratings, and take from them what it starts with.

        Raises
        ------
        DataError
            If a rating is outside the likelihood's support.
        """
        model.start(self.train.ratings)
        if self.centre is not None and model.centred:
            model.centre.fill_(self.centre)

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest rating of the scale."""
        return float(self.train.scale.low), float(self.train.scale.high)

    def built_from(self) -> dict[str, Any]:
        """Return what `build_model` is told of the training ratings for a guide's fit."""
        return {"ends": self.ends, "mean_rating": float(self.train.ratings.mean())}


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a method gives: the kept state, and how it came about.

    Attributes
    ----------
    model, guide : Module
    rows : tuple of Rows or None
        Both sides' rows under the posterior; None where the guide encodes them from the ratings.
    history : list of dict
        One record an iteration, those of the stages before included.
    kept_iteration : int
        The record whose state is kept, counted from one.
    stopped : str
        Why it ended.
    info : dict
        What the posterior remembers of it.
    state : callable or None
        Draws a whole state that sweeps can go on from; None where only rows are handed on.
    """

    model: FactorizationModel
    guide: Any
    rows: tuple[Any, Any] | None
    history: list[dict[str, Any]]
    kept_iteration: int
    stopped: str
    info: dict[str, Any]
    state: Callable[[], Any] | None = None


class Handover:
    """What a stage leaves to the next: taken once, so that it can be let go of as soon as that has begun.

    The covariances of a guide's rows are as large as what a chain works on.

    Parameters
    ----------
    fitted : Fitted

    Attributes
    ----------
    history : list of dict
        Of the stages before.
    noise : float or None
        Standard deviation of the noise in the state that was kept.
    """

    def __init__(self, fitted: Fitted) -> None:
        self._fitted: Fitted | None = fitted
        self.history = fitted.history
        self.noise: float | None = fitted.history[fitted.kept_iteration - 1]["noise"]

    def take(self) -> Fitted:
        """Return what was left, of which nothing stays here.

        Raises
        ------
        RuntimeError
            When it is taken again.
        """
        fitted, self._fitted = self._fitted, None
        if fitted is None:
            raise RuntimeError("What a stage left can be taken once.")
        return fitted


class Diverged(FitError):
    """A method that diverged; `fitted` is its last good state, if there is any."""

    def __init__(self, message: str, fitted: Fitted | None) -> None:
        super().__init__(message)
        self.fitted = fitted


class Runner(Protocol):
    """A method at work: it builds and checks its model when it is made, and fits when it is called."""

    model: FactorizationModel

    def __call__(self, start: Handover | None, kept: Checkpoints) -> Fitted:
        """Fit, from the state that the method before left, if any."""
