"""What every reference system shares: the contract of fitted systems, but for what it learns and predicts.

A baseline is one short file: a subclass of `Baseline` with `learn`, `moments` and `scores`, and `state` and
`restore` for its file. One that can predict a new user gives `new_user` as well, one with probabilities of
its own `predict_pmf`, one with settings a constructor and `settings`. What ranks and predicts no rating is a
`pyro_bmf.baselines.ranking_only.RankingOnly`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pyro_bmf import __version__
from pyro_bmf.baselines.files import read_baseline, write_baseline
from pyro_bmf.baselines.new_users import NewUser, NewUserAnswers
from pyro_bmf.data import Ratings, Split
from pyro_bmf.errors import SettingsError
from pyro_bmf.numerics.cell_arrays import normal_pmf
from pyro_bmf.numerics.ranked_lists import Exclusion, best_columns, ordered_by
from pyro_bmf.systems.contract import BasePredictor, FittedTo, TrainedOn
from pyro_bmf.systems.known_rows import KnownRows
from pyro_bmf.systems.new_ratings import NewRatings, checked_one
from pyro_bmf.systems.predictions import rating_columns
from pyro_bmf.systems.raw_ids import (
    candidate_indices,
    check_count,
    checked_indices,
    exclusion_of,
    pair_indices,
    titled,
)

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


class Baseline(KnownRows, BasePredictor):
    """A reference system, used as the model's own posterior is; see `pyro_bmf.systems.contract.System`.

    Call `fit` first. Users and items without a train rating are predicted from what all the others say (each
    class tells how).
    """

    name: str
    #: Bumped when what `state` holds comes to mean something else.
    version: ClassVar[int] = 1
    _fitted: FittedTo | None = None

    # ---------------------------------------------------------------- what a class gives

    @abstractmethod
    def learn(self, train: Ratings, valid: Ratings | None) -> None:
        """Learn from at least one rating; `valid`, where there is any, may choose when to stop."""

    @abstractmethod
    def moments(self, users: Indices, items: Indices) -> tuple[Floats, Floats]:
        """Return the (n,) predictive mean and variance of pairs that exist."""

    @abstractmethod
    def scores(self, users: Indices) -> NDArray[np.float32]:
        """Return (len(users), n_items) scores of users that exist."""

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """Return what was learned, by name."""

    @abstractmethod
    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `state` gave."""

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments that make such a baseline, JSON-ready."""
        return {}

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Return such a baseline, not fitted, from what `settings` gave."""
        return cls(**settings)

    def new_user(self, items: Indices, ratings: Floats) -> NewUserAnswers:
        """Return what is predicted for a new user with these ratings, of every item.

        Raises
        ------
        SettingsError
            If this system knows no way to.
        """
        del items, ratings
        raise SettingsError(
            f"{self.name} predicts the users that it was fitted to alone: fit it again with the new user's "
            "ratings among the others."
        )

    # ---------------------------------------------------------------- fitting, saving, loading

    def fit(self, split: Split, *, refit: bool = False) -> Self:
        """Fit to a split's train part, or with `refit` to train and validation; returns the system itself."""
        valid = None if refit or not len(split.valid_rows) else split.valid
        train = split.train_valid if refit else split.train
        trained_on: TrainedOn = "train+valid" if refit else "train"
        self.learn(train, valid)
        self._fitted = FittedTo(replace(train, timestamps=None), split.hash, trained_on)
        self._info = {
            "software_version": __version__,
            "data_hash": split.ratings.data_hash,
            "split_hash": split.hash,
            "trained_on": trained_on,
        }
        return self

    def save(self, path: Path | str) -> Path:
        """Write the system in one file of tensors under a digest; returns the file.

        Parameters
        ----------
        path
            A name that ends in ``.safetensors`` gives that file. Any other is a folder, which gets
            ``baseline.safetensors``.
        """
        about = {"system": self.name, "version": self.version, "settings": self.settings()}
        return write_baseline(path, about, self.train, dict(self.info), self.state())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        SavedFileError
            If there is no such file, or it is damaged, or of another system.
        """
        with read_baseline(path, cls.name, cls.version) as saved:
            system = cls.of_settings(saved.settings)
            system._info = saved.info
            system._fitted = FittedTo(saved.train, saved.info["split_hash"], saved.info["trained_on"])
            system.restore(saved.state)
            return system

    # ---------------------------------------------------------------- what it is

    @property
    def fitted_to(self) -> FittedTo | None:
        """What was fitted; None before `fit`."""
        return self._fitted

    @property
    def train(self) -> Ratings:
        """The ratings that were fitted, without timestamps.

        Raises
        ------
        SettingsError
            If `fit` was not called.
        """
        if self._fitted is None:
            raise SettingsError(f"{self.name} is not fitted yet: call fit(split) first.")
        return self._fitted.train

    @property
    def info(self) -> Mapping[str, Any]:
        """Version of the software, and hashes of data and split."""
        _ = self.train  # refuses before a fit
        return self._info

    # ---------------------------------------------------------------- raw ids

    def predict(
        self, user_ids: Any, item_ids: Any, *, interval: float = 0.9, clip: bool = False
    ) -> pd.DataFrame:
        """Predict ratings of pairs of raw ids; see `System.predict`."""
        users, items = pair_indices(user_ids, item_ids, self.user_vocabulary, self.item_vocabulary)
        said = self.predict_pairs(users, items, self.scale.levels)
        return pd.DataFrame(
            {
                "user_id": self.user_vocabulary.raw(users),
                "item_id": self.item_vocabulary.raw(items),
                **rating_columns(said, self.scale, interval=interval, clip=clip),
            }
        )

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
        """Return each user's `n` best items by score, equal ones by item id; see `System.recommend`."""
        rows = np.arange(self.n_users) if user_ids is None else self.user_vocabulary.index(user_ids)
        places, items = best_columns(
            lambda users, columns: self.scores(users)[:, columns],
            rows,
            candidate_indices(candidates, self.item_vocabulary),
            check_count("n", n),
            exclusion_of(self.train, exclude_seen, exclude),
            self.n_items,
        )
        users = rows[places]
        _, ranks = ordered_by(np.zeros(len(places)), places, np.arange(len(places)))
        said = self.predict_pairs(users, items, self.scale.levels)
        table = pd.DataFrame(
            {
                "user_id": self.user_vocabulary.raw(users),
                "rank": ranks,
                "item_id": self.item_vocabulary.raw(items),
                **rating_columns(said, self.scale, interval=interval),
            }
        )
        return titled(table, self.train.item_titles, items)

    def fold_in(self, ratings: NewRatings) -> NewUser:
        """Predict for a new user from ratings, where the system can; see `System.fold_in`."""
        new = checked_one(ratings, "user", self.item_vocabulary, self.scale)
        return NewUser(self.new_user(new.columns, new.ratings), self.train, new.columns)

    # ---------------------------------------------------------------- index space

    def predict_mean(self, users: ArrayLike, items: ArrayLike) -> Floats:
        """Return the (n,) predictive means in rating units, unclipped."""
        return self.moments(*self._pairs(users, items))[0]

    def predict_sd(self, users: ArrayLike, items: ArrayLike) -> Floats:
        """Return the (n,) predictive standard deviations in rating units."""
        return np.sqrt(self.moments(*self._pairs(users, items))[1])

    def predict_pmf(self, users: ArrayLike, items: ArrayLike, levels: ArrayLike) -> Floats:
        """Return the (n, L) probability of each of `levels`: cells of a Normal, see `normal_pmf`."""
        mean, variance = self.moments(*self._pairs(users, items))
        return normal_pmf(mean, np.sqrt(variance), levels)

    def score_items(self, users: ArrayLike) -> NDArray[np.float32]:
        """Return (len(users), n_items) ranking scores, larger is better."""
        return self.scores(self._checked(users, "user"))

    def seen(self) -> Exclusion:
        """Return the pairs that were fitted to, as `best_items` takes them."""
        return Exclusion.of_pairs(self.train.users, self.train.items, self.n_users)

    def _pairs(self, users: ArrayLike, items: ArrayLike) -> tuple[Indices, Indices]:
        u, i = self._checked(users, "user"), self._checked(items, "item")
        if u.shape != i.shape:
            raise SettingsError(f"{u.size} users and {i.size} items: a prediction needs as many of each.")
        return u, i

    def _checked(self, indices: ArrayLike, kind: str) -> Indices:
        return checked_indices(indices, self.n_users if kind == "user" else self.n_items, kind)
