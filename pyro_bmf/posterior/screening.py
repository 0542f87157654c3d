r"""The best items of many users of a large catalogue: a cheap score of all, the exact one of the best by it.

The exact score of a pair, the posterior-predictive mean, takes three inner products a draw. A cheap one is
made of the predictor's mean and variance in which

- consecutive draws stand by the means of groups of them (within a group the two sides are taken for
  independent): :math:`\mu + \frac{1}{G} \sum_g \bar u_{ig} \cdot \bar v_{jg}` of the rows' conditional
  means;
- the variance is one number a user plus one an item, fitted to exact variances of some users and items.

The candidates are a user's best by it; their exact scores make the list. What was not a candidate was not
looked at exactly, so a list is the exact one unless the cheap score misses by more than the gap between the
last candidate and the last of the list. That gap is compared with how far the two scores are apart on the
user's own candidates, and users for whom it is too small get four times as many candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..numerics.chunks import chunks
from ..numerics.ragged_rows import ragged_rows
from ..numerics.ranked_lists import Exclusion
from .predictive import Indices, PairPredictive

GROUPS = 10
CANDIDATES = 512
_ROUNDS = 2
_SAMPLED = 64
#: How many standard deviations of the difference of the scores the gap must hold.
_SAFE = 4.0
_USERS = 64
_BLOCK = 8_192


@dataclass(frozen=True, eq=False)
class Screen:
    """Cheap scores of all items for any users of a chain's posterior.

    Attributes
    ----------
    pairs : PairPredictive
    users, items : Tensor, shape (n, GROUPS * (D + 1)), float32
        Features whose product is the predictor's mean about its centre.
    user_variance, item_variance : Tensor, shape (n,), float32
        Their sum is the variance of a pair's predictor.
    """

    pairs: PairPredictive
    users: Tensor
    items: Tensor
    user_variance: Tensor
    item_variance: Tensor

    @classmethod
    @torch.no_grad()
    def build(cls, pairs: PairPredictive) -> Screen | None:
        """Make short features and fit the variances; None where exact scores are no dearer."""
        features = pairs.rows.screen_features(GROUPS)
        if features is None:
            return None
        user_variance = torch.zeros(len(pairs.users), device=pairs.device)
        item_variance = torch.zeros(len(pairs.items), device=pairs.device)
        if not pairs.likelihood.identity_mean:
            some_users = _spread_over(len(pairs.users))
            some_items = _spread_over(len(pairs.items))
            by_item = pairs.rows.variances(some_users, np.arange(len(pairs.items))).mean(0)
            by_user = pairs.rows.variances(np.arange(len(pairs.users)), some_items).mean(1)
            user_variance = by_user
            item_variance = by_item - by_user[torch.from_numpy(some_users).to(by_user.device)].mean()
        return cls(pairs, *features, user_variance, item_variance)

    @torch.no_grad()
    def scores(self, users: Indices) -> Tensor:
        """Return the cheap score of every item for some users, (n_users, n_items), float32."""
        i = torch.from_numpy(users).to(self.users.device)
        left, own_variance = self.users[i], self.user_variance[i].unsqueeze(1)
        centre = float(self.pairs.model.predictor_centre)
        found = torch.empty(len(users), len(self.items), device=left.device)
        likelihood = self.pairs.likelihood
        for part in chunks(len(self.items), _BLOCK):
            mean = (left @ self.items[part].T).add_(centre)
            variance = (own_variance + self.item_variance[part]).clamp_min_(0.0)
            found[:, part] = likelihood.screening_mean(mean, variance, self._noise(i, part))
        return found

    def _noise(self, users: Tensor, items: slice) -> Tensor:
        """Return the pairs' squared noise multipliers."""
        found = torch.ones(1, 1, device=users.device)
        if self.pairs.users.noise_factor is not None:
            found = found * self.pairs.users.noise_factor[users].float().square().unsqueeze(1)
        if self.pairs.items.noise_factor is not None:
            found = found * self.pairs.items.noise_factor[items].float().square()
        return found

    def best_items(
        self,
        users: Indices,
        n: int,
        exclusion: Exclusion | None,
        advance: Callable[[int], None] | None = None,
    ) -> tuple[Indices, NDArray[np.bool_]]:
        """Find the `n` items with the highest exact score among each user's candidates.

        Parameters
        ----------
        users : ndarray, shape (n_users,)
        n : int
        exclusion : Exclusion or None
            Items left out, by user.
        advance : callable, optional
            Told of users that are done.

        Returns
        -------
        items : ndarray, shape (n_users, n)
            Best first, equal scores by ascending item; -1 fills the end of a list with too few candidates.
        sure : ndarray of bool, shape (n_users,)
            Whether the gap behind the list holds `_SAFE` standard deviations of the scores' difference.
        """
        items = np.full((len(users), n), -1, dtype=np.int64)
        sure = np.zeros(len(users), dtype=bool)
        for part in chunks(len(users), _USERS):
            cheap = self.scores(users[part])
            if exclusion is not None:
                at, entries = ragged_rows(exclusion.starts, users[part])
                cheap[torch.from_numpy(at), torch.from_numpy(exclusion.columns[entries])] = -math.inf
            left = np.arange(part.stop - part.start)
            size = max(CANDIDATES, 4 * n)
            for _ in range(_ROUNDS):
                size = min(size, cheap.shape[1])
                own = cheap if len(left) == len(cheap) else cheap[torch.from_numpy(left)]
                found, good = self._exact(users[part][left], own, n, size)
                items[part.start + left], sure[part.start + left] = found, good
                left = left[~good]
                if not len(left) or size == cheap.shape[1]:
                    break
                size *= 4
            if advance is not None:
                advance(part.stop - part.start)
        return items, sure

    def _exact(self, users: Indices, cheap: Tensor, n: int, size: int) -> tuple[Indices, NDArray[np.bool_]]:
        """Order the `size` best by the cheap score by the exact one, and tell which lists are safe."""
        best = cheap.topk(size, dim=1, sorted=False)
        candidates, screened = best.indices.cpu().numpy(), best.values.double().cpu().numpy()
        allowed = np.isfinite(screened)
        exact = np.full(screened.shape, -np.inf)
        row, column = np.nonzero(allowed)
        exact[row, column] = self.pairs.rating_moments(users[row], candidates[row, column])[0]
        order = np.lexsort((candidates, -exact), axis=1)[:, :n]
        found = np.take_along_axis(candidates, order, axis=1)
        scores = np.take_along_axis(exact, order, axis=1)
        lists = np.full((len(users), n), -1, dtype=np.int64)
        lists[:, : found.shape[1]] = np.where(np.isneginf(scores), -1, found)
        all_there = ~allowed.all(1) | (size == cheap.shape[1])
        off = np.where(allowed, exact - np.where(allowed, screened, 0.0), np.nan)
        with np.errstate(invalid="ignore"):
            reach = np.nanmean(off, axis=1) + _SAFE * np.nanstd(off, axis=1)
        last = np.where(allowed, screened, np.inf).min(1)
        return lists, all_there | (scores[:, -1] >= last + reach)


def _spread_over(n: int) -> Indices:
    return np.unique(np.linspace(0, n - 1, min(n, _SAMPLED)).astype(np.int64))
