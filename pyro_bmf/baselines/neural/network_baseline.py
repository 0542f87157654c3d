"""What the neural baselines of ratings share: a Normal predictive around the network's mean."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_bmf.baselines.effects import variance_floor
from pyro_bmf.baselines.neural.settings import NetworkSettings
from pyro_bmf.baselines.neural.trained_network import Floats, Indices, TrainedNetwork
from pyro_bmf.data import Ratings
from pyro_bmf.numerics.chunks import CELLS, chunks

S = TypeVar("S", bound=NetworkSettings)

_NOISE = "noise_variance"


class NetworkBaseline(TrainedNetwork[S]):
    """A network that gives the mean rating of a pair; the predictive is a Normal around it.

    The variance of that Normal is one number: the mean squared error on the validation ratings at the kept
    state, and on the training ratings where there are no validation ratings (`info` says which, as
    ``noise_from``). On a discrete scale probabilities are those of the levels' cells. Parameters are those of
    `TrainedNetwork`.

    Attributes
    ----------
    noise_variance : float
        Of the predictive, rating units squared.
    """

    figure: ClassVar[str] = "valid_rmse"
    better: ClassVar[Literal["lower", "higher"]] = "lower"
    noise_variance: float

    # ---------------------------------------------------------------- what a class gives

    @abstractmethod
    def pair_means(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the (n,) mean ratings of pairs."""

    @abstractmethod
    def item_means(self, users: Tensor) -> Tensor:
        """Return the (len(users), n_items) mean ratings of every item."""

    @property
    def cells_per_pair(self) -> int:
        """Numbers that a predicted pair takes on its way through the network: bounds the memory of many."""
        return 1

    @property
    def cells_per_score(self) -> int:
        """The same, where all items are scored at once."""
        return self.cells_per_pair

    # ---------------------------------------------------------------- fitting

    def learn(self, train: Ratings, valid: Ratings | None) -> None:
        """Train; validation ratings decide when to stop, which state is kept and how wide predictions are."""
        with self.fitting():
            self.train_on(train, valid)
            errors = self._errors(train if valid is None else valid)
        self.noise_variance = max(float(np.mean(errors**2)), variance_floor(train))
        self._fit_info["noise_from"] = "train" if valid is None else "valid"

    def validate(self) -> float | None:
        """Return the validation RMSE of the network as it is; None without validation ratings."""
        if self.valid is None:
            return None
        with torch.no_grad():
            self.refresh()
        return float(np.sqrt(np.mean(self._errors(self.valid) ** 2)))

    def _errors(self, ratings: Ratings) -> Floats:
        return ratings.ratings - self._means(ratings.users, ratings.items)

    # ---------------------------------------------------------------- predicting

    @torch.no_grad()
    def _means(self, users: Indices, items: Indices) -> Floats:
        means = np.empty(users.size)
        for part in chunks(users.size, CELLS // self.cells_per_pair):
            found = self.pair_means(self.index(users[part]), self.index(items[part]))
            means[part] = found.double().cpu().numpy()
        return means

    def moments(self, users: Indices, items: Indices) -> tuple[Floats, Floats]:
        """Return the network's means, and one variance."""
        return self._means(users, items), np.full(users.size, self.noise_variance)

    @torch.no_grad()
    def scores(self, users: Indices) -> NDArray[np.float32]:
        """Return the mean rating of every item, some users at a time."""
        scores = np.empty((users.size, self.train.n_items), dtype=np.float32)
        for part in chunks(users.size, CELLS // (self.cells_per_score * self.train.n_items)):
            scores[part] = self.item_means(self.index(users[part])).cpu().numpy()
        return scores

    # ---------------------------------------------------------------- its file

    def state(self) -> dict[str, NDArray[Any]]:
        """Return weights and predictive variance."""
        return self.network_state() | {_NOISE: np.array(self.noise_variance)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take both back."""
        self.restore_network(state)
        self.noise_variance = float(state[_NOISE])
