"""What a user does with a fitted model: predict, sample, recommend, fold in, save and load."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from .. import __version__
from ..data.ratings import Ratings
from ..data.splits import Split
from ..data.vocabulary import Vocabulary
from ..errors import SettingsError
from ..model import FactorizationModel
from ..model.fitted import Guide, Rows, Side
from ..model.likelihoods.normal import Likelihood
from ..model.priors.normal import Prior
from ..systems.new_ratings import CheckedRatings, ManyNewRatings, NewRatings, checked_many, checked_one
from ..systems.raw_ids import candidate_indices, check_count, exclusion_of, pair_indices, titled
from .encoding import kept_rows, plain_info
from .folding import FoldedRow, FoldedRows, fold_rows
from .index_space import IndexedPosterior
from .saved import load_parts, save_parts
from .similarity import similar_rows
from .strategies import Strategy, best_by_strategy
from .tables import (
    Kind,
    Method,
    check_kind,
    prediction_columns,
    rating_columns,
    recommendation_places,
)


@dataclass(frozen=True, eq=False)
class Posterior(IndexedPosterior):
    """The posterior of a fitted model: raw ids in, raw ids out.

    It knows nothing of how it was trained. A `pyro_bmf.systems.contract.System`, made by `from_fit`, `load`.

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

    # ---------------------------------------------------------------- making one

    @classmethod
    def from_fit(
        cls,
        model: FactorizationModel,
        guide: Guide,
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
        users, items = kept_rows(model, guide, train, rows)
        return cls(model, guide, users, items, train, plain_info({**noted, **(info or {})}))

    def __post_init__(self) -> None:
        """Tell the guide of the rows that it goes with."""
        self.guide.attach(self.user_rows, self.item_rows, self.model.likelihood)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        priors: Mapping[str, type[Prior]] | None = None,
        likelihoods: Mapping[str, type[Likelihood]] | None = None,
        guides: Mapping[str, Any] | None = None,
    ) -> Posterior:
        """Read a posterior from the file or folder that `save` wrote, or from the folder of a finished run.

        Parameters
        ----------
        path
            A file, a folder with ``posterior.safetensors``, or a run of ``pyro-bmf fit``.
        priors, likelihoods, guides : mapping, optional
            Your own classes by the ``kind`` in their settings; the package's are known.

        Raises
        ------
        SavedFileError
            If there is no such file, or it is damaged, foreign, or of a newer format.
        """
        return cls(*load_parts(path, priors=priors, likelihoods=likelihoods, guides=guides))

    def save(self, path: Path | str) -> Path:
        """Write the posterior, atomically; returns the file written, or raises a WriteError.

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

    def __repr__(self) -> str:
        return (
            f"Posterior({self.n_users:,} users, {self.n_items:,} items, {self.n_factors} factors, "
            f"{len(self.train):,} training ratings{', tempered' if self.tempered else ''})"
        )

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
        num_samples, seed : int
            Draw s of a user or an item depends on the seed and s alone: it is common to all its pairs, and
            the same in every call.
        kind : {"rating", "eta"}
            Ratings (with noise), or the linear predictor without.

        Returns
        -------
        ndarray, shape (num_samples, n), float32

        Raises
        ------
        UnknownIdError, SettingsError
            Naming the ids that are not known; for fewer draws than one, or another `kind`.
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
            how = Strategy(strategy, quantile, num_samples, seed)
            places, ranks, items, found = best_by_strategy(self.pairs, how, rows, chosen, n, exclusion)
            score = {"score": found}
        users = rows[places]
        table = pd.DataFrame(
            {
                "user_id": self.user_vocabulary.raw(users),
                "rank": ranks,
                "item_id": self.item_vocabulary.raw(items),
                **rating_columns(self.pairs, users, items, self.scale, interval),
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
        item_id, n
            Raw id, and how many others.
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

        Raises
        ------
        UnknownIdError, SettingsError
            If the id is not known; for another `measure`, an `n` below 1 or an `interval` outside 0 to 1.
        """
        item = int(self.item_vocabulary.index(item_id)[0])
        how: dict[str, Any] = {"measure": measure, "interval": interval, "seed": seed}
        found, table = similar_rows(self.pairs, "item", item, n, **how)
        table.insert(0, "item_id", self.item_vocabulary.raw(found))
        return titled(table, self.item_titles, found)

    def similar_users(
        self, user_id: Any, n: int = 10, *, measure: str = "correlation", interval: float = 0.9, seed: int = 0
    ) -> pd.DataFrame:
        """Return the `n` users most like one user, as `similar_items` does for items; raises as it does."""
        user = int(self.user_vocabulary.index(user_id)[0])
        how: dict[str, Any] = {"measure": measure, "interval": interval, "seed": seed}
        found, table = similar_rows(self.pairs, "user", user, n, **how)
        table.insert(0, "user_id", self.user_vocabulary.raw(found))
        return table

    def fold_in(self, ratings: NewRatings, *, side: Side = "user") -> FoldedRow:
        """Give a new user (or item) a posterior from its ratings, without training.

        Parameters
        ----------
        ratings
            ``{item_id: rating}``, pairs of those, a series of ratings whose index holds the item ids, or a
            data frame with columns ``item_id`` and ``rating``; none at all gives the posterior of a
            row without ratings. For a new item, user ids.
        side : {"user", "item"}
            Which side the new row is on.

        Raises
        ------
        UnknownIdError, DataError
            Naming an id of the other side that the model does not know; for a rating that is not finite, off
            the scale, outside the likelihood's support, or a second one of a pair; for missing columns.
        """
        return FoldedRow(self._folded(checked_one(ratings, side, self._others(side), self.scale), side), 0)

    def fold_in_users(self, ratings: ManyNewRatings) -> FoldedRows:
        """Fold in many: ``{user_id: ratings}`` or columns user_id, item_id, rating; raises as `fold_in`."""
        return self._folded(checked_many(ratings, "user", self.item_vocabulary, self.scale), "user")

    def fold_in_items(self, ratings: ManyNewRatings) -> FoldedRows:
        """Fold in many: ``{item_id: ratings}`` or columns item_id, user_id, rating; raises as `fold_in`."""
        return self._folded(checked_many(ratings, "item", self.user_vocabulary, self.scale), "item")

    # ---------------------------------------------------------------- parts

    def _others(self, side: str) -> Vocabulary:
        if side not in ("user", "item"):
            raise SettingsError(f"side is {side!r}: it may be 'user' or 'item'.")
        return self.item_vocabulary if side == "user" else self.user_vocabulary

    def _folded(self, new: CheckedRatings, side: Side) -> FoldedRows:
        return fold_rows(new, side, self.guide, self.pairs, self._others(side), self.scale, self.item_titles)
