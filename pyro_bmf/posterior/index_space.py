"""A fitted posterior in index space: what it is of, and predictions of pairs of rows by their indices.

Measures and tables ask this; `Posterior` adds raw ids, new rows and files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..data.ratings import Ratings
from ..model import FactorizationModel
from ..model.fitted import Guide, Rows
from ..model.sampling import USUAL_DRAWS, Sampling
from ..numerics.ranked_lists import Exclusion
from ..systems.contract import FittedTo, TrainedOn, lists_by_score
from ..systems.known_rows import KnownRows
from ..systems.predictions import DrawnPredictions, LevelPredictions, NormalPredictions, PairPredictions
from ..systems.raw_ids import check_count, check_interval, checked_indices
from .predictive import PairPredictive
from .screening import Screen

Indices = NDArray[np.int64]
_NO_PAIRS = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class IndexedPosterior(KnownRows):
    """A fitted posterior whose users and items go by their indices.

    Attributes
    ----------
    model : FactorizationModel
    guide : Guide
        For folding in; the posterior owns both, so do not train them on.
    user_rows, item_rows : Rows
        q of every user and every item, or their draws of a chain.
    train : Ratings
        The ratings that the encoders read (without timestamps).
    info : dict
        JSON-ready: ``software_version``, and ``data_hash``, ``split_hash``, ``settings``, ``beta_user``,
        ``beta_item`` as far as known.
    """

    model: FactorizationModel
    guide: Guide
    user_rows: Rows
    item_rows: Rows
    train: Ratings
    info: dict[str, Any]
    name: ClassVar[str] = "pyro-bmf"
    ranks: ClassVar[bool] = True

    @property
    def fitted_to(self) -> FittedTo:
        """The training ratings, the hash of their split where it is known, and which parts of it they are."""
        trained_on: TrainedOn = "train+valid" if self.info.get("trained_on") == "train+valid" else "train"
        return FittedTo(self.train, self.info.get("split_hash"), trained_on)

    @property
    def n_factors(self) -> int:
        """Number of factors."""
        return self.user_rows.n_factors

    @property
    def beta(self) -> tuple[float, float]:
        """Weights of the users' and of the items' KL in the fit, as `info` tells; 1 where it does not."""
        return float(self.info.get("beta_user", 1.0)), float(self.info.get("beta_item", 1.0))

    @property
    def tempered(self) -> bool:
        """Whether KL was weighted (beta other than 1): such a posterior bounds no evidence."""
        return self.sampling.tempers and self.beta != (1.0, 1.0)

    @property
    def sampling(self) -> Sampling:
        """What its draws are: independent ones, any number of them, or those that a chain kept."""
        return self.user_rows.sampling

    def number_of_draws(self, asked: int | None, usual: int = USUAL_DRAWS) -> int:
        """Return how many draws to take where `asked` are asked for: those that a chain kept, or `usual`.

        Raises
        ------
        SettingsError
            If more are asked of a chain than it kept, or less than one.
        """
        return check_count("num_samples", self.sampling.number(asked, usual))

    @cached_property
    def pairs(self) -> PairPredictive:
        """Predictions in index space."""
        return PairPredictive(self.model, self.user_rows, self.item_rows)

    @cached_property
    def seen(self) -> Exclusion:
        """The training items of each user."""
        return Exclusion.of_pairs(self.train.users, self.train.items, self.n_users)

    def predict_mean(self, users: Indices, items: Indices) -> NDArray[np.float64]:
        """Return the (n,) posterior-predictive means, unclipped, in rating units."""
        return self.pairs.rating_moments(*self._at(users, items))[0]

    def predict_sd(self, users: Indices, items: Indices) -> NDArray[np.float64]:
        """Return the (n,) posterior-predictive standard deviations."""
        return self.pairs.rating_moments(*self._at(users, items))[1]

    def predict_pmf(self, users: Indices, items: Indices, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (n, n_levels) probability of each rating of a discrete scale; rows sum to 1."""
        return self.pairs.pmf(*self._at(users, items), levels)

    def predict_pairs(
        self, users: Indices, items: Indices, levels: NDArray[np.float64] | None
    ) -> PairPredictions:
        """Return means, standard deviations, and probabilities of levels, with the intervals printed."""
        mean, sd = self.pairs.rating_moments(*self._at(users, items))
        pmf = None if levels is None else self.pairs.pmf(*self._at(users, items), levels)
        if self.pairs.likelihood.predicts_normals():
            return NormalPredictions(mean, sd, pmf)
        if pmf is not None and levels is not None:
            return LevelPredictions(mean, sd, pmf, levels)
        return DrawnPredictions(mean, sd, pmf, partial(self.predict_interval, users, items))

    def predict_interval(
        self, users: Indices, items: Indices, probability: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the (n,) lower and upper ends of central posterior-predictive intervals, unclipped."""
        return self.pairs.rating_interval(
            *self._at(users, items), check_interval(probability), self.scale.levels
        )

    def score_items(self, users: Indices) -> NDArray[np.float32]:
        """Return the posterior-predictive mean of every item, shape (len(users), n_items)."""
        return self.pairs.score(checked_indices(users, self.n_users, "user"), np.arange(self.n_items))

    @property
    def screens_catalogue(self) -> bool:
        """Whether `best_items` finds lists without every score: a chain's draws, see `screening`."""
        return self.pairs.rows.screened

    def best_items(
        self,
        users: Indices,
        n: int,
        exclusion: Exclusion | None,
        advance: Callable[[int], None] | None = None,
    ) -> Indices:
        """Return each user's `n` best items, (n_users, n), none of `exclusion`; -1 fills short lists.

        By the posterior-predictive mean; of a chain, among the best by a cheaper score
        (`pyro_bmf.posterior.screening`).
        """
        if self._screen is not None:
            left_out = Exclusion.of_pairs(*_NO_PAIRS, self.n_users) if exclusion is None else exclusion
            return self._screen.best_items(users, n, left_out, advance)[0]
        return lists_by_score(self.score_items, users, n, exclusion, advance)

    def _at(self, users: Indices, items: Indices) -> tuple[Indices, Indices]:
        return checked_indices(users, self.n_users, "user"), checked_indices(items, self.n_items, "item")

    @cached_property
    def _screen(self) -> Screen | None:
        return Screen.build(self.pairs)
