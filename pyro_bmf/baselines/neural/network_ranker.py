"""What the networks that rank share: positive pairs, drawn negative ones, validation by NDCG."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from pyro_bmf.baselines.neural.ranking_settings import RankerSettings
from pyro_bmf.baselines.neural.trained_network import Indices, TrainedNetwork
from pyro_bmf.baselines.ranking_only import RankingOnly
from pyro_bmf.data import Ratings
from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation.metrics.ranked_lists import ndcg_at
from pyro_bmf.numerics.chunks import CELLS, chunks
from pyro_bmf.numerics.ranked_lists import Exclusion, best_columns

S = TypeVar("S", bound=RankerSettings)

#: Length of the lists that validation measures.
_LIST = 20
#: Times that pairs which turn out positive are drawn anew; what is still positive then is left out.
_ROUNDS = 20


class Negatives:
    """Draws items that are not among a user's positive ones, all equally likely.

    Parameters
    ----------
    users, items : Tensor, shape (n_positives,), int64
        The positive pairs.
    n_items : int
    """

    def __init__(self, users: Tensor, items: Tensor, n_items: int) -> None:
        self._keys = torch.sort(users * n_items + items).values
        self._n_items = n_items

    def draw(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return an item for each user, (n,), and whether it is not positive, as it may be where most are."""
        items = torch.randint(self._n_items, users.shape, device=users.device)
        for _ in range(_ROUNDS):
            wrong = self._positive(users, items)
            if not bool(wrong.any()):
                return items, ~wrong
            again = torch.randint(self._n_items, users.shape, device=users.device)
            items = torch.where(wrong, again, items)
        return items, ~self._positive(users, items)

    def _positive(self, users: Tensor, items: Tensor) -> Tensor:
        keys = users * self._n_items + items
        at = torch.searchsorted(self._keys, keys).clamp_max(len(self._keys) - 1)
        found: Tensor = self._keys[at] == keys
        return found


def bpr_loss(users: Tensor, positives: Tensor, negatives: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of -log sigmoid of how much higher the positive item scores (Rendle et al. 2009).

    Parameters
    ----------
    users, positives, negatives : Tensor, shape (n, width)
    counted : Tensor, shape (n,), bool
    """
    margins = torch.linalg.vecdot(users, positives - negatives)
    total: Tensor = (softplus(-margins) * counted).sum() / counted.sum().clamp_min(1)
    return total


class NetworkRanker(TrainedNetwork[S], RankingOnly):
    """A network that ranks items and says nothing of ratings; what it predicts is each item's level.

    Positive pairs are those that were rated, or rated above `positives_above`. Validation measures NDCG@20 of
    the positive validation pairs, over all items without a training rating of the user.
    """

    figure: ClassVar[str] = "valid_ndcg"
    better: ClassVar[Literal["lower", "higher"]] = "higher"

    # ---------------------------------------------------------------- what a class gives

    @abstractmethod
    def user_scores(self, users: Tensor) -> Tensor:
        """Return the (len(users), n_items) scores of every item, after `refresh`."""

    # ---------------------------------------------------------------- fitting

    def positive(self, ratings: Ratings) -> NDArray[np.bool_]:
        """Tell which ratings are positive pairs."""
        above = self.options.positives_above
        if above is None:
            return np.ones(len(ratings), dtype=np.bool_)
        positive: NDArray[np.bool_] = ratings.ratings > above
        return positive

    def pairs(self, train: Ratings) -> tuple[Tensor, Tensor]:
        """Return users and items of the positive training pairs, on the device.

        Raises
        ------
        SettingsError
            If there are none.
        """
        positive = self.positive(train)
        if not positive.any():
            raise SettingsError(
                f"positives_above is {self.options.positives_above:g} and the highest training rating "
                f"{train.ratings.max():g}: there is no positive pair. Give a lower one, or None."
            )
        return self.index(train.users[positive]), self.index(train.items[positive])

    def learn_scores(self, train: Ratings, valid: Ratings | None) -> None:
        """Train; validation ratings decide when to stop and which state is kept."""
        self._seen = Exclusion.of_pairs(train.users, train.items, train.n_users)
        with self.fitting():
            self.train_on(train, valid)

    def validate(self) -> float | None:
        """Return the mean NDCG@20 of users with positive validation pairs; None where there are none."""
        if self.valid is None or not self.positive(self.valid).any():
            return None
        with torch.no_grad():
            self.refresh()
        positive, n_items = self.positive(self.valid), self.valid.n_items
        users, totals = np.unique(self.valid.users[positive], return_counts=True)
        places, items = best_columns(
            lambda rows, columns: self.scores(rows)[:, columns],
            users, np.arange(n_items), _LIST, self._seen, n_items,
        )  # fmt: skip
        relevant = self.valid.users[positive] * n_items + self.valid.items[positive]
        hits = np.zeros((len(users), _LIST), dtype=np.bool_)
        ranks = np.arange(len(places)) - np.searchsorted(places, places)
        hits[places, ranks] = np.isin(users[places] * n_items + items, relevant)
        return float(ndcg_at(hits, totals, _LIST).mean())

    # ---------------------------------------------------------------- ranking

    @torch.no_grad()
    def scores(self, users: Indices) -> NDArray[np.float32]:
        """Return the scores of every item, some users at a time."""
        n_items = self._n_items
        scores = np.empty((users.size, n_items), dtype=np.float32)
        for part in chunks(users.size, CELLS // n_items):
            scores[part] = self.user_scores(self.index(users[part])).cpu().numpy()
        return scores

    @property
    @abstractmethod
    def _n_items(self) -> int:
        """Number of items."""

    # ---------------------------------------------------------------- its file

    def scores_state(self) -> dict[str, NDArray[Any]]:
        """Return the weights."""
        return self.network_state()

    def restore_scores(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take them back."""
        self.restore_network(state)
