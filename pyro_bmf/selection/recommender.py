"""Recommendations by what people will choose and like: a posterior of ratings beside a selection model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..data.ratings import Ratings
from ..data.vocabulary import Vocabulary
from ..errors import SettingsError
from ..numerics.ranked_lists import Exclusion
from ..posterior import Posterior
from ..posterior.strategies import Strategy, best_by_strategy
from ..posterior.tables import rating_columns, recommendation_places
from ..systems.new_ratings import ManyNewRatings, NewRatings
from ..systems.raw_ids import candidate_indices, check_count, exclusion_of, titled
from .horizon import Horizon
from .product import Decision, Product
from .rated_sets import Indices, RatedSets
from .saved import FILE_NAME
from .selection import Selection


@dataclass(frozen=True, eq=False)
class Recommender:
    """Ranks by P(chosen and liked), by the predicted rating, or by P(chosen).

    ``liked`` is what will be chosen and liked *as choices were made in the data*. ``rating`` is what would be
    rated highest if everything were rated; it is biased where choosing and liking have causes in common.

    Attributes
    ----------
    posterior : Posterior
        Of the ratings.
    selection : Selection
        Of what gets rated, fitted to the same ratings.
    threshold : float, optional
        A rating above it is a liked one; `RatingScale.liked_above` when None.
    horizon : Horizon, optional
        Which ratings probabilities of being chosen are about; all that were held out of the fit when None.
    """

    posterior: Posterior
    selection: Selection
    threshold: float | None = None
    horizon: Horizon | None = None

    def __post_init__(self) -> None:
        """Refuse a threshold above which there is no rating, or below which there is none.

        Raises
        ------
        SettingsError
            With the ends of the scale.
        """
        scale = self.posterior.scale
        if self.threshold is not None and not scale.low <= self.threshold < scale.high:
            raise SettingsError(
                f"the threshold is {self.threshold:g}: liked is a rating above it, so give one from "
                f"{scale.low:g} to below {scale.high:g}, the ends of the scale (--threshold, in Python "
                "threshold=)."
            )

    @classmethod
    def load(
        cls, path: Path | str, *, threshold: float | None = None, posterior: Posterior | None = None
    ) -> Recommender:
        """Read the folder of a finished run, or one that `save` wrote.

        Raises
        ------
        SavedFileError
            If a file is missing or damaged; of an earlier version's run it says how to add what is missing.
        """
        own = Posterior.load(path) if posterior is None else posterior
        return cls(own, Selection.load(Path(path) / FILE_NAME, own.train), threshold)

    def save(self, path: Path | str) -> Path:
        """Write both models to a folder; returns it."""
        folder = Path(path)
        self.posterior.save(folder)
        self.selection.save(folder)
        return folder

    @property
    def liked_above(self) -> float:
        """The threshold in force."""
        return self.posterior.scale.liked_above if self.threshold is None else float(self.threshold)

    def product(self, *, horizon: Horizon | None = None) -> Product:
        """Return what ranks the known users, in index space."""
        about = horizon or self.horizon or self.selection.horizon
        post = self.posterior
        return Product(self.selection, self.selection.rated, post.pairs, post.scale, self.liked_above, about)

    def recommend(
        self,
        user_ids: Any = None,
        n: int = 10,
        *,
        by: str = "liked",
        exclude_seen: bool = True,
        exclude: Ratings | pd.DataFrame | None = None,
        candidates: ArrayLike | None = None,
        min_count: int = 0,
        interval: float = 0.9,
        strategy: str = "mean",
        quantile: float = 0.1,
        num_samples: int = 200,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return each user's `n` best items.

        Parameters
        ----------
        user_ids, n, exclude_seen, exclude, candidates, interval
            As `Posterior.recommend` has them.
        by : {"liked", "rating", "chosen"}
            What is highest: P(chosen and rated above the threshold); the predicted rating; P(chosen).
        min_count : int
            Leave out items with fewer training ratings.
        strategy, quantile, num_samples, seed
            What is highest of it: the mean; the `quantile` over joint draws; one joint draw; the probability
            to be among the user's `n` best. By ``liked`` and ``chosen``, strategies with draws choose among
            the user's `SHORTLIST` best by the mean.

        Returns
        -------
        DataFrame
            ``user_id``, ``rank``, ``item_id``, ``title``; ``liked`` = ``chosen`` × ``liked_if_chosen``, where
            ``chosen`` is the probability to be among the ratings of `Selection.horizon` and
            ``liked_if_chosen`` that of a rating above the threshold then; the predicted rating's columns as
            `Posterior.recommend` has them; and ``score`` where the strategy is not ``mean``. Equal values are
            in the order of the item ids.

        Raises
        ------
        UnknownIdError
            Naming the ids that are not known.
        SettingsError
            For an unknown word, or a number out of its range.
        """
        post = self.posterior
        rows = np.arange(post.n_users) if user_ids is None else post.user_vocabulary.index(user_ids)
        only_seen = exclude is None and exclude_seen
        exclusion = post.seen if only_seen else exclusion_of(post.train, exclude_seen, exclude)
        lists = _Lists(self.product(), post.user_vocabulary, "user", post)
        return lists.table(
            rows,
            check_count("n", n),
            exclusion,
            self._allowed(candidates, min_count),
            Decision(by, strategy, quantile, num_samples, seed),
            interval,
        )

    def fold_in(self, ratings: NewRatings) -> NewUsers:
        """Recommend to one new user from ratings; see `Posterior.fold_in`."""
        return NewUsers(self, self.posterior.fold_in(ratings).all_rows)

    def fold_in_users(self, ratings: ManyNewRatings) -> NewUsers:
        """Recommend to many new users from their ratings; see `Posterior.fold_in_users`."""
        return NewUsers(self, self.posterior.fold_in_users(ratings))

    def why(self, user_id: Any, item_ids: Any, n: int = 3) -> pd.DataFrame:
        """Tell which of a user's ratings speak most for some items to be chosen.

        Parameters
        ----------
        user_id
            One raw id.
        item_ids
            One or several.
        n : int
            Ratings to name for each item.

        Returns
        -------
        DataFrame
            ``item_id``, ``because_of`` (an item that the user rated in training), ``title`` and ``rating`` of
            that, and ``influence``: what it adds to the linear score, as a share of the sum of all that add;
            largest first. Nothing that takes away is named.
        """
        post = self.posterior
        user = int(post.user_vocabulary.index(user_id)[0])
        own = self.selection.rated.items(user)
        at = slice(*np.searchsorted(post.train.users, [user, user + 1]))
        return reasons(self, own, post.train.ratings[at], post.item_vocabulary.index(item_ids), n)

    def _allowed(self, candidates: ArrayLike | None, min_count: int) -> Indices:
        allowed = candidate_indices(candidates, self.posterior.item_vocabulary)
        if isinstance(min_count, bool) or int(min_count) != min_count or min_count < 0:
            raise SettingsError(f"min_count is {min_count!r}: give a whole number of at least 0.")
        return allowed[self.posterior.train.item_counts[allowed] >= min_count]


def reasons(
    recommender: Recommender, own: Indices, ratings: NDArray[np.float64], items: Indices, n: int
) -> pd.DataFrame:
    """Return `Recommender.why` for a set of rated items and their ratings."""
    post = recommender.posterior
    check_count("n", n)
    found: list[tuple[Indices, Indices, NDArray[np.float64]]] = []
    for item in items:
        # One item after another: a list is short.
        added = recommender.selection.head.influence(own, int(item)) if len(own) else np.zeros(0)
        added[own == item] = 0.0
        best = np.lexsort((own, -added))[:n]
        best = best[added[best] > 0]
        share = added[best] / max(added[added > 0].sum(), 1e-300)
        found.append((np.full(len(best), item), best, share))
    nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    item, place, share = (np.concatenate(parts) for parts in zip(nothing, *found, strict=True))
    titles = post.item_titles
    return pd.DataFrame(
        {
            "item_id": post.item_vocabulary.raw(item),
            "because_of": post.item_vocabulary.raw(own[place]),
            "title": np.full(len(place), "", dtype=object) if titles is None else titles[own[place]],
            "rating": ratings[place],
            "influence": share,
        }
    )


@dataclass(frozen=True, eq=False)
class NewUsers:
    """Users that came after the fit, folded into both models.

    Attributes
    ----------
    recommender : Recommender
    rows : FoldedRows
        The posterior's.
    """

    recommender: Recommender
    rows: Any

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def vocabulary(self) -> Vocabulary:
        """Ids of the new users."""
        found: Vocabulary = self.rows.vocabulary
        return found

    def product(self) -> Product:
        """Return what ranks them, in index space."""
        own = self.recommender
        seen: Exclusion = self.rows.seen
        users = np.repeat(np.arange(len(self)), np.diff(seen.starts))
        rated = RatedSets.of_pairs(users, seen.columns, (len(self), own.posterior.n_items), new=True)
        about = own.horizon or own.selection.horizon
        scale = own.posterior.scale
        return Product(own.selection, rated, self.rows.pairs, scale, own.liked_above, about)

    def recommend(
        self,
        row_ids: Any = None,
        n: int = 10,
        *,
        by: str = "liked",
        exclude_seen: bool = True,
        candidates: ArrayLike | None = None,
        min_count: int = 0,
        interval: float = 0.9,
        strategy: str = "mean",
        quantile: float = 0.1,
        num_samples: int = 200,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return each new user's `n` best items; parameters and columns as `Recommender.recommend`."""
        rows = np.arange(len(self)) if row_ids is None else self.vocabulary.index(row_ids)
        lists = _Lists(self.product(), self.vocabulary, "user", self.recommender.posterior)
        return lists.table(
            rows,
            check_count("n", n),
            self.rows.seen if exclude_seen else None,
            self.recommender._allowed(candidates, min_count),
            Decision(by, strategy, quantile, num_samples, seed),
            interval,
        )


@dataclass(frozen=True, eq=False)
class _Lists:
    """Tables of recommendations to some users, known or new."""

    product: Product
    vocabulary: Vocabulary
    side: str
    posterior: Posterior

    def table(
        self,
        rows: Indices,
        n: int,
        exclusion: Exclusion | None,
        allowed: Indices,
        how: Decision,
        interval: float,
    ) -> pd.DataFrame:
        """Return the table of `Recommender.recommend`."""
        if how.by == "rating":
            places, ranks, items, score = self._by_rating(rows, n, exclusion, allowed, how)
        else:
            places, ranks, items, score = self._by_product(rows, n, exclusion, allowed, how)
        users = rows[places]
        product, vocabulary = self.product, self.posterior.item_vocabulary
        chosen, liking = product.chosen_and_liking(users, items)
        table = pd.DataFrame(
            {
                "user_id": self.vocabulary.raw(users),
                "rank": ranks,
                "item_id": vocabulary.raw(items),
                "liked": chosen * liking,
                "chosen": chosen,
                "liked_if_chosen": liking,
                **rating_columns(product.pairs, users, items, product.scale, interval),
                **({} if score is None else {"score": score}),
            }
        )
        return titled(table, self.posterior.item_titles, items)

    def _by_product(
        self, rows: Indices, n: int, exclusion: Exclusion | None, allowed: Indices, how: Decision
    ) -> tuple[Indices, Indices, Indices, NDArray[np.float64] | None]:
        found: list[tuple[Indices, ...]] = []
        scores: Iterable[Any] = []
        for part, items, values in self.product.best(rows, n, allowed, exclusion, how):
            at, rank = np.nonzero(items >= 0)
            found.append((at + part.start, rank + 1, items[at, rank]))
            scores = [*scores, values[at, rank]]
        nothing = np.zeros(0, dtype=np.int64)
        places, ranks, items = (
            np.concatenate(parts) for parts in zip((nothing, nothing, nothing), *found, strict=True)
        )
        score = None if how.strategy == "mean" else np.concatenate([np.zeros(0), *scores])
        return places, ranks, items, score

    def _by_rating(
        self, rows: Indices, n: int, exclusion: Exclusion | None, allowed: Indices, how: Decision
    ) -> tuple[Indices, Indices, Indices, NDArray[np.float64] | None]:
        pairs = self.product.pairs
        if how.strategy == "mean":
            n_items = self.posterior.n_items
            return (*recommendation_places(pairs, rows, allowed, n, exclusion, n_items), None)
        strategy = Strategy(how.strategy, how.quantile, how.num_samples, how.seed)
        return best_by_strategy(pairs, strategy, rows, allowed, n, exclusion)
