"""The contract of fitted systems: the posterior and every baseline keep it, and evaluation asks no more.

An `Estimator` has ``fit(split)``, which gives a `System`. A system answers in raw ids, which is what a user
wants, and in indices of the vocabularies, which is what evaluation works in; that half alone is a
`Predictor`, and enough to be measured. `BasePredictor` gives the rest to a class that can tell means,
standard deviations, probabilities of levels and scores of all items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..data.ratings import Ratings
from ..data.splits import Split
from ..data.vocabulary import Vocabulary
from ..numerics.ranked_lists import Exclusion, best_scores
from .new_ratings import NewRatings
from .predictions import LevelPredictions, NormalPredictions, PairPredictions

Indices = NDArray[np.int64]
Advance = Callable[[int], None]
TrainedOn = Literal["train", "train+valid"]


@dataclass(frozen=True, eq=False)
class FittedTo:
    """What a system was fitted to; `evaluate` refuses one of another split by it.

    Attributes
    ----------
    train : Ratings
        The ratings that it learned from.
    split_hash : str or None
        Of the split that they are of; None where it was not a split that was fitted.
    trained_on : {"train", "train+valid"}
        Which parts of that split.
    """

    train: Ratings
    split_hash: str | None
    trained_on: TrainedOn


@runtime_checkable
class Ranker(Protocol):
    """What ranks items for users, in index space."""

    @property
    def screens_catalogue(self) -> bool:
        """Whether `best_items` finds lists without scoring all items: a large catalogue is ranked by it.

        Only where scores are the predicted means.
        """

    def score_items(self, users: Indices) -> NDArray[Any]:
        """Return (len(users), n_items) ranking scores, larger is better; equal ones rank by item index."""

    def best_items(
        self, users: Indices, n: int, exclusion: Exclusion | None, advance: Advance | None = None
    ) -> Indices:
        """Return the (len(users), n) best items, best first, none of `exclusion`; -1 fills short lists.

        `advance` is told of users that are done.
        """


@runtime_checkable
class Predictor(Ranker, Protocol):
    """A fitted system over indices of the vocabularies that it was fitted to: all that evaluation needs.

    Every (user, item) of the vocabularies can be predicted, with or without a training rating.
    """

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def fitted_to(self) -> FittedTo | None:
        """What it was fitted to; None where that is not known, and then not checked."""

    @property
    def ranks(self) -> bool:
        """Whether its scores tell items apart; else its lists say nothing."""

    def predict_mean(self, users: Indices, items: Indices) -> NDArray[Any]:
        """Return the (n,) predictive means in rating units, unclipped."""

    def predict_sd(self, users: Indices, items: Indices) -> NDArray[Any]:
        """Return the (n,) predictive standard deviations in rating units."""

    def predict_pmf(self, users: Indices, items: Indices, levels: NDArray[np.float64]) -> NDArray[Any]:
        """Return the (n, L) probability of each of `levels`; every row sums to 1."""

    def predict_pairs(
        self, users: Indices, items: Indices, levels: NDArray[np.float64] | None
    ) -> PairPredictions:
        """Return all of the three at once, with central intervals; None for a continuous scale."""


class NewRow(Protocol):
    """A row that was not there when the system was fitted, and has ratings now."""

    def predict(self, ids: Any, *, interval: float = 0.9, clip: bool = False) -> pd.DataFrame:
        """Predict its ratings with the rows `ids` of the other side; columns as `System.predict`."""

    def recommend(
        self,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: ArrayLike | None = None,
        interval: float = 0.9,
    ) -> pd.DataFrame:
        """Return its `n` best rows of the other side; columns as `System.recommend`."""


@runtime_checkable
class System(Predictor, Protocol):
    """A fitted system as its users have it: raw ids in and out, saved and loaded.

    Attributes
    ----------
    info : mapping
        JSON-ready: ``software_version``, and ``data_hash``, ``split_hash``, ``trained_on`` as far as known.
    """

    @property
    def info(self) -> Mapping[str, Any]:
        """What is known of the fit."""

    @property
    def train(self) -> Ratings:
        """The ratings that it was fitted to."""

    @property
    def user_vocabulary(self) -> Vocabulary:
        """Raw ids of the users."""

    @property
    def item_vocabulary(self) -> Vocabulary:
        """Raw ids of the items."""

    def predict(
        self, user_ids: Any, item_ids: Any, *, interval: float = 0.9, clip: bool = False
    ) -> pd.DataFrame:
        """Predict ratings of pairs of raw ids; one id on either side goes with all of the other.

        Columns ``user_id``, ``item_id``, and those of `pyro_bmf.systems.predictions.rating_columns`.

        Raises
        ------
        UnknownIdError
            Naming the ids that are not known.
        """

    def recommend(
        self,
        user_ids: Any = None,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        exclude: Ratings | pd.DataFrame | None = None,
        candidates: ArrayLike | None = None,
        interval: float = 0.9,
    ) -> pd.DataFrame:
        """Return each user's `n` best items: ``user_id``, ``rank``, ``item_id``, ``title`` and a prediction.

        Parameters
        ----------
        user_ids
            One raw id, several, or None for all users.
        n : int
        exclude_seen : bool
            Leave out what the user rated in training.
        exclude : Ratings or DataFrame, optional
            More pairs to leave out: ratings under the same vocabularies, or ``user_id`` and ``item_id``.
        candidates : sequence of raw item ids, optional
            Recommend only from these.
        interval : float

        Raises
        ------
        UnknownIdError
            Naming the ids that are not known.
        """

    def fold_in(self, ratings: NewRatings) -> NewRow:
        """Predict for a new user from ratings, without another fit.

        Raises
        ------
        SettingsError
            If the system cannot.
        UnknownIdError, DataError
            For ratings that cannot be used.
        """

    def save(self, path: Path | str) -> Path:
        """Write the system; returns the file. `path` ends in ``.safetensors``, or is a folder."""

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote: it predicts the same bits.

        Raises
        ------
        SavedFileError
            If there is no such file, or it is damaged, or of another kind.
        """


class Estimator(Protocol):
    """What can be fitted: a class of baseline with its settings, or the model's own with its."""

    @property
    def name(self) -> str:
        """What tables call what comes out."""

    def fit(self, split: Split, *, refit: bool = False) -> System:
        """Fit to the train part of a split; validation ratings may choose settings, test is never read.

        Parameters
        ----------
        split : Split
        refit : bool
            Learn from train and validation together; nothing is chosen then.

        Raises
        ------
        DataError
            If there is nothing to learn from.
        """


class BasePredictor(ABC):
    """A `Predictor` but for four answers, which a class gives: mean, sd, probabilities, scores."""

    name: str = "system"
    ranks: bool = True
    screens_catalogue: bool = False

    @property
    def fitted_to(self) -> FittedTo | None:
        """Nothing is known, unless a class says it."""
        return None

    @abstractmethod
    def predict_mean(self, users: Indices, items: Indices) -> NDArray[Any]:
        """Return the (n,) predictive means."""

    @abstractmethod
    def predict_sd(self, users: Indices, items: Indices) -> NDArray[Any]:
        """Return the (n,) predictive standard deviations."""

    @abstractmethod
    def predict_pmf(self, users: Indices, items: Indices, levels: NDArray[np.float64]) -> NDArray[Any]:
        """Return the (n, L) probability of each level."""

    @abstractmethod
    def score_items(self, users: Indices) -> NDArray[Any]:
        """Return (len(users), n_items) scores."""

    def predict_pairs(
        self, users: Indices, items: Indices, levels: NDArray[np.float64] | None
    ) -> PairPredictions:
        """Put mean, sd and probabilities together; intervals by levels, or Normal on a continuous scale."""
        mean, sd = self.predict_mean(users, items), self.predict_sd(users, items)
        if levels is None:
            return NormalPredictions(mean, sd, None)
        return LevelPredictions(mean, sd, self.predict_pmf(users, items, levels), levels)

    def best_items(
        self, users: Indices, n: int, exclusion: Exclusion | None, advance: Advance | None = None
    ) -> Indices:
        """Rank by `score_items`."""
        return lists_by_score(self.score_items, users, n, exclusion, advance)


def lists_by_score(
    score_items: Callable[[Indices], NDArray[Any]],
    users: Indices,
    n: int,
    exclusion: Exclusion | None,
    advance: Advance | None = None,
) -> Indices:
    """Return `Ranker.best_items` of a system that scores all items, in bounded memory."""
    lists = np.full((len(users), n), -1, dtype=np.int64)
    if not len(users):
        return lists
    n_items = score_items(users[:1]).shape[1]

    def score(rows: Indices, _: Indices) -> NDArray[Any]:
        if advance is not None:
            advance(len(rows))
        return np.array(score_items(rows))  # what the system gave stays its own

    places, items, _ = best_scores(score, users, np.arange(n_items), n, exclusion, n_items)
    sizes = np.bincount(places, minlength=len(users))
    ranks = np.arange(len(places)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    lists[places, ranks] = items
    return lists
