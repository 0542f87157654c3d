"""What a user does with a fitted model: predict, sample, recommend, fold in, save and load."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from .. import __version__
from ..data.ratings import Ratings
from ..data.scale import RatingScale
from ..data.splits import Split
from ..data.vocabulary import Vocabulary
from ..errors import FitError, SettingsError
from ..model import FactorizationModel
from ..model.fitted import Fitted, Rows, Side
from ..model.likelihoods.normal import Likelihood
from ..model.priors.normal import Prior
from ..model.sampling import USUAL_DRAWS, Sampling
from ..numerics.ranked_lists import Exclusion, best_scores, ordered_by
from ..systems.contract import FittedTo, TrainedOn, lists_by_score
from ..systems.new_ratings import CheckedRatings, ManyNewRatings, NewRatings, checked_many, checked_one
from ..systems.predictions import DrawnPredictions, LevelPredictions, NormalPredictions, PairPredictions
from ..systems.raw_ids import (
    candidate_indices,
    check_count,
    check_interval,
    exclusion_of,
    pair_indices,
    titled,
)
from ..tensor_files import is_finite
from .encoding import compact, plain_info, side_feedback
from .folding import FoldedRow, FoldedRows, fold_rows
from .predictive import PairPredictive
from .saved import load_parts, save_parts
from .screening import Screen
from .similarity import similar_rows
from .strategies import StrategyScores
from .tables import (
    RATING_COLUMNS,
    Indices,
    Kind,
    Method,
    check_kind,
    prediction_columns,
    recommendation_places,
)

_NO_PAIRS = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Posterior:
    """The posterior of a fitted model: raw ids in, raw ids out.

    It knows nothing of how it was trained. It is a `pyro_bmf.systems.contract.System`. Make one by `from_fit`
    or `load`.

    Attributes
    ----------
    model : FactorizationModel
    guide : Fitted
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
    guide: Fitted
    user_rows: Rows
    item_rows: Rows
    train: Ratings
    info: dict[str, Any]
    name: ClassVar[str] = "pyro-bmf"
    ranks: ClassVar[bool] = True

    # ---------------------------------------------------------------- making one

    @classmethod
    def from_fit(
        cls,
        model: FactorizationModel,
        guide: Fitted,
        train: Ratings | Split,
        *,
        rows: tuple[Rows, Rows] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> Posterior:
        """Encode every user and item from the training ratings and keep what comes out.

        Parameters
        ----------
        model, guide
            Fitted; on any device, where the posterior then computes.
        train : Ratings or Split
            Training ratings. Of a split the train part is taken, and its hashes are noted.
        rows : tuple, optional
            Users and items where they are no encoder's output but draws of a chain; nothing is encoded then.
        info : mapping, optional
            What to remember about the fit, JSON-ready.

        Raises
        ------
        FitError
            If the posterior holds numbers that are not finite.
        """
        noted: dict[str, Any] = {"software_version": __version__}
        if isinstance(train, Split):
            noted |= {"data_hash": train.ratings.data_hash, "split_hash": train.hash}
            train = train.train
        train = replace(train, timestamps=None)
        if rows is None:
            sides: tuple[Side, Side] = ("user", "item")
            users, items = (
                compact(guide.training_rows(side, side_feedback(train, model, side))) for side in sides
            )
        else:
            users, items = compact(rows[0]), compact(rows[1])
        for name, part in (("users", users), ("items", items)):
            if not all(is_finite(tensor) for tensor in part.tensors().values()):
                raise FitError(
                    f"the posterior of the {name} holds numbers that are not finite: the fit diverged. "
                    "Fit again with a smaller learning rate."
                )
        return cls(model, guide, users, items, train, plain_info({**noted, **(info or {})}))

    def __post_init__(self) -> None:
        """Tell the guide of the rows that it goes with."""
        self.guide.attach(self.user_rows, self.item_rows)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        priors: Mapping[str, type[Prior]] | None = None,
        likelihoods: Mapping[str, type[Likelihood]] | None = None,
        guides: Mapping[str, Any] | None = None,
    ) -> Posterior:
        """Read a posterior from the file, or the folder, that `save` wrote.

        Parameters
        ----------
        path
        priors, likelihoods, guides : mapping, optional
            Your own classes by the ``kind`` in their settings; the package's are known.

        Raises
        ------
        SavedFileError
            If there is no such file, or it is damaged, foreign, or of a newer format.
        """
        return cls(*load_parts(path, priors=priors, likelihoods=likelihoods, guides=guides))

    def save(self, path: Path | str) -> Path:
        """Write the posterior, atomically; returns the file written.

        Parameters
        ----------
        path
            A name that ends in ``.safetensors`` gives that one file. Any other is a folder, which gets
            ``posterior.safetensors`` and a readable copy of its description, ``posterior.json``.
        """
        return save_parts(path, self.model, self.guide, self.user_rows, self.item_rows, self.train, self.info)

    def to(self, device: torch.device | str) -> Posterior:
        """Return the same posterior on another device, with copies of its model and guide."""
        guide = copy.deepcopy(self.guide)
        if isinstance(guide, nn.Module):
            guide.to(device)
        return replace(
            self,
            model=copy.deepcopy(self.model).to(device),
            guide=guide,
            user_rows=self.user_rows.to(device),
            item_rows=self.item_rows.to(device),
        )

    # ---------------------------------------------------------------- what it is

    @property
    def fitted_to(self) -> FittedTo:
        """The training ratings, the hash of their split where it is known, and which parts of it they are."""
        trained_on: TrainedOn = "train+valid" if self.info.get("trained_on") == "train+valid" else "train"
        return FittedTo(self.train, self.info.get("split_hash"), trained_on)

    @property
    def user_vocabulary(self) -> Vocabulary:
        """Raw ids of the users."""
        return self.train.user_vocabulary

    @property
    def item_vocabulary(self) -> Vocabulary:
        """Raw ids of the items."""
        return self.train.item_vocabulary

    @property
    def item_titles(self) -> NDArray[Any] | None:
        """Title of each item, where the data have titles."""
        return self.train.item_titles

    @property
    def scale(self) -> RatingScale:
        """The rating scale."""
        return self.train.scale

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_rows)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_rows)

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

    def __repr__(self) -> str:
        return (
            f"Posterior({self.n_users:,} users, {self.n_items:,} items, {self.n_factors} factors, "
            f"{len(self.train):,} training ratings{', tempered' if self.tempered else ''})"
        )

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

    # ---------------------------------------------------------------- raw ids

    def predict(
        self,
        user_ids: Any,
        item_ids: Any,
        *,
        interval: float = 0.9,
        method: Method = "predictive",
        clip: bool = False,
    ) -> pd.DataFrame:
        """Predict ratings of pairs, with two kinds of uncertainty told apart.

        Parameters
        ----------
        user_ids, item_ids
            Raw ids of the pairs; a single id on one side goes with every id of the other.
        interval : float
            Probability that the intervals hold.
        method : {"predictive", "plugin"}
            What ``mean`` is: the posterior-predictive mean, or the likelihood's mean at the posterior means
            of the factors. Under a Normal likelihood they are the same number, as E[u.v] = E[u].E[v] for
            independent rows. All other columns are the same for both.
        clip : bool
            Limit means and intervals to the rating scale; unclipped otherwise.

        Returns
        -------
        DataFrame
            One row a pair, in rating units:

            - ``user_id``, ``item_id``;
            - ``mean``, ``sd``, ``lower``, ``upper``: of the *rating* (posterior predictive: noise and what is
              unknown of the pair together); on a discrete scale also ``smallest_set``, the smallest set of
              levels whose probability is at least `interval`, as text (``"4, 5"``, ``"3 to 5"``; of equally
              likely levels the lower one), and ``set_probability``, which it holds;
            - ``mean_sd``, ``mean_lower``, ``mean_upper``: of the *mean rating* E[x | u, v] alone: what is
              unknown of the pair, without the noise of one rating. Narrower.

        Raises
        ------
        UnknownIdError
            Naming the ids that are not known.
        """
        users, items = pair_indices(user_ids, item_ids, self.user_vocabulary, self.item_vocabulary)
        return pd.DataFrame(
            {
                "user_id": self.user_vocabulary.raw(users),
                "item_id": self.item_vocabulary.raw(items),
                **prediction_columns(
                    self.pairs, users, items, self.scale, interval=interval, method=method, clip=clip
                ),
            }
        )

    def sample(
        self, user_ids: Any, item_ids: Any, num_samples: int, seed: int, *, kind: Kind = "rating"
    ) -> NDArray[np.float32]:
        """Draw ratings of pairs from the posterior predictive, jointly.

        Parameters
        ----------
        user_ids, item_ids
            Raw ids of the pairs, as in `predict`.
        num_samples : int
        seed : int
            Draw s of a user or an item depends on the seed and s alone: it is common to all its pairs, and
            the same in every call.
        kind : {"rating", "eta"}
            Ratings (with noise), or the linear predictor without.

        Returns
        -------
        ndarray, shape (num_samples, n), float32
        """
        users, items = pair_indices(user_ids, item_ids, self.user_vocabulary, self.item_vocabulary)
        return self.pairs.sample(
            users, items, check_count("num_samples", num_samples), seed, check_kind(kind)
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
        strategy: str = "mean",
        quantile: float = 0.1,
        num_samples: int = 200,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return the `n` best items for each user: with the highest posterior-predictive mean, or otherwise.

        Memory is bounded whatever the number of users: scores are made some millions at a time.

        Parameters
        ----------
        user_ids
            One raw id, several, or None for all users.
        n : int
            Length of a list.
        exclude_seen : bool
            Leave out what the user rated in training.
        exclude : Ratings or DataFrame, optional
            More pairs to leave out: ratings under the same vocabularies (a validation part, say), or columns
            ``user_id`` and ``item_id``.
        candidates : sequence of raw item ids, optional
            Recommend only from these.
        interval : float
            Probability of the posterior-predictive interval.
        strategy : {"mean", "lower", "thompson", "prob-top"}
            What is highest: the mean; the `quantile` of the mean's posterior; the mean under one joint draw;
            the probability of being among the user's `n` best (see `strategies`).
        quantile, num_samples, seed
            Of the strategies other than ``mean``.

        Returns
        -------
        DataFrame
            ``user_id``, ``rank`` (from 1), ``item_id``, ``title``, ``mean``, ``sd``, ``lower``, ``upper`` of
            the rating (and ``smallest_set``, ``set_probability`` on a discrete scale, as `predict` has them),
            users in the order given, and ``score`` where the strategy is not ``mean``: on the
            predictor's scale, or a probability. Equal means are in the order of the item ids. A user with
            fewer than `n` candidates left has fewer rows.

        Raises
        ------
        UnknownIdError
            Naming the ids that are not known.
        """
        rows = np.arange(self.n_users) if user_ids is None else self.user_vocabulary.index(user_ids)
        only_seen = exclude is None and exclude_seen
        exclusion = self.seen if only_seen else exclusion_of(self.train, exclude_seen, exclude)
        chosen = candidate_indices(candidates, self.item_vocabulary)
        check_count("n", n)
        score: dict[str, Any] = {}
        if strategy == "mean":
            places, ranks, items = recommendation_places(self.pairs, rows, chosen, n, exclusion, self.n_items)
        else:
            scores = StrategyScores(
                self.pairs,
                strategy,
                n=n,
                quantile=quantile,
                num_samples=num_samples,
                seed=seed,
                exclusion=exclusion,
            )
            places, items, found = best_scores(scores, rows, chosen, n, exclusion, self.n_items)
            order, ranks = ordered_by(found, places, items)
            units = self.model.units
            if strategy != "prob-top" and not units.identity:
                found = found * units.scale + units.shift
            places, items, score = places[order], items[order], {"score": found[order]}
        users = rows[places]
        values = prediction_columns(
            self.pairs, users, items, self.scale, interval=interval, method="predictive", clip=False
        )
        table = pd.DataFrame(
            {
                "user_id": self.user_vocabulary.raw(users),
                "rank": ranks,
                "item_id": self.item_vocabulary.raw(items),
                **{name: values[name] for name in RATING_COLUMNS if name in values},
                **score,
            }
        )
        return titled(table, self.item_titles, items)

    def similar_items(
        self, item_id: Any, n: int = 10, *, measure: str = "correlation", interval: float = 0.9, seed: int = 0
    ) -> pd.DataFrame:
        """Return the `n` items most like one item.

        Parameters
        ----------
        item_id
            Raw id.
        n : int
        measure : {"correlation", "cosine"}
            ``correlation``: of what is predicted for the two items, beyond biases, over users and the
            posterior. ``cosine``: of the factors. Both shrink toward zero where little is known; the formula
            is in `pyro_bmf.posterior.similarity`.
        interval, seed
            Of the interval over joint posterior draws of the factors.

        Returns
        -------
        DataFrame
            ``item_id``, ``title``, ``similarity`` (highest first), ``sd``, ``lower``, ``upper``.
        """
        found, table = self._similar("item", self.item_vocabulary, item_id, n, measure, interval, seed)
        table.insert(0, "item_id", self.item_vocabulary.raw(found))
        return titled(table, self.item_titles, found)

    def similar_users(
        self, user_id: Any, n: int = 10, *, measure: str = "correlation", interval: float = 0.9, seed: int = 0
    ) -> pd.DataFrame:
        """Return the `n` users most like one user, as `similar_items` does for items."""
        found, table = self._similar("user", self.user_vocabulary, user_id, n, measure, interval, seed)
        table.insert(0, "user_id", self.user_vocabulary.raw(found))
        return table

    def fold_in(self, ratings: NewRatings, *, side: Side = "user") -> FoldedRow:
        """Give a new user (or item) a posterior from its ratings, through the encoder, without training.

        Parameters
        ----------
        ratings
            ``{item_id: rating}``, pairs of those, a series of ratings whose index holds the item ids, or a
            data frame with columns ``item_id`` and ``rating``; none at all gives what the encoder says of a
            row without ratings. For a new item, user ids.
        side : {"user", "item"}
            Which side the new row is on.

        Raises
        ------
        UnknownIdError
            Naming an id of the other side that the model does not know.
        DataError
            For a rating that is not finite, off the scale, outside the likelihood's support, or a second one
            of a pair.
        """
        return FoldedRow(self._folded(checked_one(ratings, side, self._others(side), self.scale), side), 0)

    def fold_in_users(self, ratings: ManyNewRatings) -> FoldedRows:
        """Fold in many new users at once: ``{user_id: ratings}`` or columns user_id, item_id, rating."""
        return self._folded(checked_many(ratings, "user", self.item_vocabulary, self.scale), "user")

    def fold_in_items(self, ratings: ManyNewRatings) -> FoldedRows:
        """Fold in many new items at once: ``{item_id: ratings}`` or columns item_id, user_id, rating."""
        return self._folded(checked_many(ratings, "item", self.user_vocabulary, self.scale), "item")

    # ---------------------------------------------------------------- index space

    def predict_mean(self, users: Indices, items: Indices) -> NDArray[np.float64]:
        """Return the (n,) posterior-predictive means, unclipped, in rating units."""
        return self.pairs.rating_moments(users, items)[0]

    def predict_sd(self, users: Indices, items: Indices) -> NDArray[np.float64]:
        """Return the (n,) posterior-predictive standard deviations."""
        return self.pairs.rating_moments(users, items)[1]

    def predict_pmf(self, users: Indices, items: Indices, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (n, n_levels) probability of each rating of a discrete scale; rows sum to 1."""
        return self.pairs.pmf(users, items, levels)

    def predict_pairs(
        self, users: Indices, items: Indices, levels: NDArray[np.float64] | None
    ) -> PairPredictions:
        """Return means, standard deviations, and probabilities of levels, with the intervals printed."""
        mean, sd = self.pairs.rating_moments(users, items)
        pmf = None if levels is None else self.pairs.pmf(users, items, levels)
        kind = self.pairs.interval_kind(levels)
        if kind == "normal":
            return NormalPredictions(mean, sd, pmf)
        if pmf is not None and levels is not None:
            return LevelPredictions(mean, sd, pmf, levels)
        return DrawnPredictions(mean, sd, pmf, partial(self.predict_interval, users, items))

    def predict_interval(
        self, users: Indices, items: Indices, probability: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the (n,) lower and upper ends of central posterior-predictive intervals, unclipped."""
        return self.pairs.rating_interval(users, items, check_interval(probability), self.scale.levels)

    def score_items(self, users: Indices) -> NDArray[np.float32]:
        """Return the posterior-predictive mean of every item, shape (len(users), n_items)."""
        return self.pairs.score(users, np.arange(self.n_items))

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

    # ---------------------------------------------------------------- parts

    @cached_property
    def _screen(self) -> Screen | None:
        return Screen.build(self.pairs)

    def _similar(
        self,
        side: Side,
        vocabulary: Vocabulary,
        raw_id: Any,
        n: int,
        measure: str,
        interval: float,
        seed: int,
    ) -> tuple[Indices, pd.DataFrame]:
        return similar_rows(
            self.pairs,
            side,
            int(vocabulary.index(raw_id)[0]),
            check_count("n", n),
            measure=measure,
            interval=check_interval(interval),
            seed=seed,
        )

    def _others(self, side: str) -> Vocabulary:
        if side not in ("user", "item"):
            raise SettingsError(f"side is {side!r}: it may be 'user' or 'item'.")
        return self.item_vocabulary if side == "user" else self.user_vocabulary

    def _folded(self, new: CheckedRatings, side: Side) -> FoldedRows:
        return fold_rows(new, side, self.guide, self.pairs, self._others(side), self.scale, self.item_titles)
