"""What every reference system shares: predictive probabilities, recommendation, the state after fitting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyro_bmf.data import Ratings
from pyro_bmf.errors import DataError, SettingsError
from pyro_bmf.numerics.normal_cells import normal_pmf
from pyro_bmf.numerics.ragged_rows import ragged_rows, row_starts
from pyro_bmf.numerics.top_n import top_n

_CELLS = 4_000_000  # scores held at once while recommending: 16 MB in float32


class Baseline(ABC):
    """A reference system over index arrays, used as the model's own posterior is.

    Call `fit` first. Users and items are positions in the vocabularies of the ratings that were fitted; those
    without a train rating are predicted from what all the others say (each class tells how).
    """

    name: ClassVar[str]
    _train: Ratings | None = None

    def fit(self, train: Ratings) -> Self:
        """Fit to `train` and return the system itself.

        Raises
        ------
        DataError
            If there is no rating.
        """
        if len(train) == 0:
            raise DataError(f"{self.name} cannot be fitted: {train.name!r} has no train ratings.")
        self._train = train
        self._fit(train)
        return self

    @property
    def train(self) -> Ratings:
        """The ratings that were fitted.

        Raises
        ------
        SettingsError
            If `fit` was not called.
        """
        if self._train is None:
            raise SettingsError(f"{self.name} is not fitted yet: call fit(train) first.")
        return self._train

    @abstractmethod
    def _fit(self, train: Ratings) -> None: ...

    @abstractmethod
    def _moments(
        self, users: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the (n,) predictive mean and variance of checked index arrays."""

    @abstractmethod
    def _scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (len(users), n_items) scores of checked users."""

    def predict(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float64]:
        """Return the (n,) predicted ratings, unclipped; the same as `predict_mean`."""
        return self.predict_mean(users, items)

    def predict_mean(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float64]:
        """Return the (n,) predictive means in rating units, unclipped."""
        return self._moments(*self._pairs(users, items))[0]

    def predict_sd(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float64]:
        """Return the (n,) predictive standard deviations in rating units."""
        return np.sqrt(self._moments(*self._pairs(users, items))[1])

    def predict_pmf(self, users: ArrayLike, items: ArrayLike, levels: ArrayLike) -> NDArray[np.float64]:
        """Return the (n, L) probability of each of `levels`: cells of a Normal, see `normal_pmf`."""
        mean, variance = self._moments(*self._pairs(users, items))
        return normal_pmf(mean, np.sqrt(variance), levels)

    def score_items(self, users: ArrayLike) -> NDArray[np.float32]:
        """Return (len(users), n_items) ranking scores, larger is better."""
        return self._scores(self._checked(users, "user"))

    def recommend(self, users: ArrayLike, n: int, exclude_seen: bool = True) -> NDArray[np.int64]:
        """Return the `n` best items of each user, best first.

        Parameters
        ----------
        users
            User indices; one index is taken as one user.
        n
            Length of the lists.
        exclude_seen
            Leave out the items that the user rated in the ratings fitted to.

        Returns
        -------
        numpy.ndarray
            (len(users), n) item indices; -1 where a user has fewer candidates. Equal scores: by item index.
        """
        if n < 1:
            raise SettingsError(f"n must be at least 1, not {n}.")
        train, chosen = self.train, self._checked(users, "user")
        step = max(1, _CELLS // max(train.n_items, 1))
        starts = row_starts(train.users, train.n_users)
        lists = np.empty((chosen.size, n), dtype=np.int64)
        for start in range(0, chosen.size, step):
            chunk = chosen[start : start + step]
            scores = np.array(self._scores(chunk))
            if exclude_seen:
                local, rows = ragged_rows(starts, chunk)
                scores[local, train.items[rows]] = -np.inf
            lists[start : start + step] = top_n(scores, n)
        return lists

    def _pairs(self, users: ArrayLike, items: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        u, i = self._checked(users, "user"), self._checked(items, "item")
        if u.shape != i.shape:
            raise SettingsError(f"{u.size} users and {i.size} items: a prediction needs as many of each.")
        return u, i

    def _checked(self, indices: ArrayLike, kind: str) -> NDArray[np.int64]:
        size = self.train.n_users if kind == "user" else self.train.n_items
        found: NDArray[Any] = np.atleast_1d(np.asarray(indices))
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise SettingsError(f"{kind} indices must be a one-dimensional array of integers.")
        outside = (found < 0) | (found >= size)
        if outside.any():
            raise DataError(f"{kind} index {found[outside][0]} is outside 0..{size - 1}.")
        return found.astype(np.int64, copy=False)
