"""Rankings of some users by what they will choose, like, or choose and like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.scale import RatingScale
from ..errors import SettingsError
from ..numerics.chunks import CELLS, chunks
from ..numerics.ragged_rows import ragged_rows
from ..numerics.ranked_lists import Exclusion
from ..numerics.top_n import top_n
from ..posterior.predictive import PairPredictive
from ..posterior.strategies import STRATEGIES
from .ahead import ahead
from .horizon import Floats, Horizon
from .predicted import Predicted
from .rate_map import RateMap
from .rated_sets import Indices, RatedSets
from .search import best_bounded
from .selection import Selection

By = Literal["liked", "rating", "chosen"]
BY: tuple[By, ...] = get_args(By)
#: Items of a user that strategies with draws choose among: the best by the mean.
SHORTLIST = 200
_USERS = 64


@dataclass(frozen=True)
class Decision:
    """What decides of a list.

    Attributes
    ----------
    by : {"liked", "chosen"}
    strategy : {"mean", "lower", "thompson", "prob-top"}
    quantile, num_samples, seed
        As `pyro_bmf.posterior.strategies.Strategy` has them.

    Raises
    ------
    SettingsError
        If one is unknown, or out of its range.
    """

    by: str = "liked"
    strategy: str = "mean"
    quantile: float = 0.1
    num_samples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.by not in BY:
            raise SettingsError(f"by is {self.by!r}: it may be {', '.join(BY)}.")
        if self.strategy not in STRATEGIES:
            raise SettingsError(f"strategy is {self.strategy!r}: it may be {', '.join(STRATEGIES)}.")
        if not 0.0 < self.quantile < 1.0:
            raise SettingsError(f"quantile is {self.quantile}: give a number between 0 and 1.")
        if self.num_samples < 2:
            raise SettingsError(f"num_samples is {self.num_samples}: give 2 or more.")


@dataclass(frozen=True, eq=False)
class Product:
    """P(chosen) P(rating > threshold) of pairs of some users, known or new.

    Attributes
    ----------
    selection : Selection
    rated : RatedSets
        What the users rated, in the order of the rows of `pairs`.
    pairs : PairPredictive
    scale : RatingScale
    threshold : float
    horizon : Horizon
    """

    selection: Selection
    rated: RatedSets
    pairs: PairPredictive
    scale: RatingScale
    threshold: float
    horizon: Horizon

    def liking(self, users: Indices, items: Indices) -> Floats:
        """Return P(rating > threshold) of pairs, should they be chosen, (n,)."""
        return self._predicted.mean_and_liking(users, items, self.threshold)[1]

    @torch.no_grad()
    def draw_liking(self, users: Indices, items: Indices, draws: Indices, seed: int) -> Floats:
        """Draw P(rating > threshold | the rows) of pairs jointly, (n_draws, n)."""
        found = np.empty((len(draws), len(users)))
        eta = self.pairs.draw_eta(users, items, draws, seed)
        terms = self.pairs.draw_terms(users, items, draws, seed)
        likelihood, levels = self.pairs.likelihood, self.scale.levels
        for place, one in enumerate(eta.double()):
            own = tuple(term[place] for term in terms)
            if levels is None:
                mean, variance = likelihood.predictive_moments(one, torch.zeros_like(one), *own)
                value = torch.special.ndtr((mean - self.threshold) / variance.clamp_min(1e-24).sqrt())
            else:
                at = torch.tensor(levels, dtype=torch.float64, device=one.device)
                value = likelihood.log_prob_rating(one, at, *own).exp()[:, at > self.threshold].sum(-1)
            found[place] = value.cpu().numpy()
        return np.clip(found, 0.0, 1.0)

    def chosen_pairs(self, users: Indices, items: Indices) -> Floats:
        """Return the probability of pairs to be chosen, (n,); users ascending or not."""
        return self.chosen_and_liking(users, items)[0]

    def chosen_and_liking(self, users: Indices, items: Indices) -> tuple[Floats, Floats]:
        """Return the probability of pairs to be chosen, and that of being liked then, (n,) each."""
        rates = np.empty(len(users))
        distinct, place = np.unique(users, return_inverse=True)
        order = np.argsort(place, kind="stable")
        starts = np.searchsorted(place[order], np.arange(len(distinct) + 1))
        for part, found in self._rates(distinct):
            own = order[starts[part.start] : starts[part.stop]]
            rates[own] = found[place[own] - part.start, items[own]]
        means, liking = self._predicted.mean_and_liking(users, items, self.threshold)
        return self.horizon.chosen(self._map.given(rates, means)), liking

    def best(
        self, users: Indices, n: int, allowed: Indices, exclusion: Exclusion | None, how: Decision
    ) -> Iterator[tuple[slice, Indices, Floats]]:
        """Give the best items of some users at a time.

        Parameters
        ----------
        users : ndarray, shape (n_users,)
        n : int
        allowed : ndarray
            Items to choose from.
        exclusion : Exclusion or None
            Pairs left out.
        how : Decision

        Yields
        ------
        part : slice
            Of `users`.
        items : ndarray, shape (n_part, n)
            Best first; -1 fills short lists.
        scores : ndarray, shape (n_part, n)
            What decided: a probability; minus infinity where there is no item.
        """
        several = torch.get_num_threads() > 1
        for part, rates in ahead(self._rates(users)) if several else self._rates(users):
            bounds = np.full_like(rates, -np.inf)
            bounds[:, allowed] = self.horizon.chosen(self._map.most(rates[:, allowed]))
            if exclusion is not None:
                at, entries = ragged_rows(exclusion.starts, users[part])
                bounds[at, exclusion.columns[entries]] = -np.inf
            length = n if how.strategy == "mean" else max(n, SHORTLIST)
            items, scores = self._by_mean(users[part], rates, bounds, length, how.by)
            if how.strategy != "mean":
                items, scores = self._by_draws(users[part], items, n, how)
            yield part, items, scores

    @cached_property
    def _predicted(self) -> Predicted:
        return Predicted(self.pairs, self.scale)

    @property
    def _map(self) -> RateMap:
        return self.selection.map_of(self.rated)

    def _rates(self, users: Indices) -> Iterator[tuple[slice, Floats]]:
        size = max(1, min(_USERS, CELLS // max(self.selection.train.n_items, 1)))
        for part in chunks(len(users), size):
            yield part, self.selection.rates(self.rated.take(users[part]))

    def _by_mean(
        self, users: Indices, rates: Floats, bounds: Floats, n: int, by: str
    ) -> tuple[Indices, Floats]:
        if by == "chosen" and self._map.term is None:
            items = top_n(bounds, n)
            scores = np.take_along_axis(bounds, np.maximum(items, 0), axis=1)
            return items, np.where(items < 0, -np.inf, scores)

        def value(rows: Indices, items: Indices) -> Floats:
            means, liking = self._predicted.mean_and_liking(users[rows], items, self.threshold)
            chosen = self.horizon.chosen(self._map.given(rates[rows, items], means))
            return chosen if by == "chosen" else chosen * liking

        return best_bounded(bounds, value, n)

    def _by_draws(self, users: Indices, items: Indices, n: int, how: Decision) -> tuple[Indices, Floats]:
        """Decide among a shortlist by draws of the product."""
        sampling = self.pairs.users.sampling
        thompson = how.strategy == "thompson"
        draws = (
            np.array([sampling.one(how.seed)]) if thompson else np.arange(sampling.at_most(how.num_samples))
        )
        there = items >= 0
        columns = np.maximum(items, 0)
        at, place = np.nonzero(there)
        means = None
        if self._map.term is not None:
            means = np.zeros(columns.shape)
            means[at, place] = self._predicted.mean(users[at], columns[at, place])
        drawn = self.selection.draw_chosen(
            self.rated.take(users), columns, draws, how.seed, self.horizon, means
        )
        if how.by == "liked":
            drawn[:, at, place] *= self.draw_liking(users[at], columns[at, place], draws, how.seed)
        drawn[:, ~there] = -np.inf
        if thompson:
            scores = drawn[0]
        elif how.strategy == "lower":
            scores = np.where(there, np.quantile(np.where(there, drawn, 0.0), how.quantile, axis=0), -np.inf)
        else:
            scores = _share_among_best(drawn, n)
            scores[~there] = -np.inf
        order = np.lexsort((items, -scores), axis=1)[:, :n]
        return np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _share_among_best(drawn: NDArray[Any], n: int) -> Floats:
    """Return the share of draws in which each place of a row is among its n largest, (n_rows, m)."""
    n_draws, n_rows, width = drawn.shape
    found = np.zeros((n_rows, width))
    best = top_n(drawn.reshape(n_draws * n_rows, width), n)
    row, place = np.nonzero(best >= 0)
    np.add.at(found, (row % n_rows, best[row, place]), 1.0)
    share: Floats = found / n_draws
    return share
