"""Which items users have rated: all that a selection head reads of a user, known or new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..data.ratings import Ratings
from ..numerics.keyed_draws import Stream

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RatedSets:
    """Sets of rated items, one a user.

    Attributes
    ----------
    matrix : csr_matrix, shape (n_users, n_items), float32
        One where a user rated an item.
    keys : ndarray, shape (n_users,)
        Numbers of the users, by which their draws go.
    new : bool
        Whether they are users that the head was not fitted to.
    """

    matrix: Any
    keys: Indices
    new: bool = False

    @classmethod
    def of(cls, ratings: Ratings) -> RatedSets:
        """Return the sets of all users of some ratings."""
        return cls.of_pairs(ratings.users, ratings.items, (ratings.n_users, ratings.n_items))

    @classmethod
    def of_pairs(
        cls, users: Indices, items: Indices, shape: tuple[int, int], *, new: bool = False
    ) -> RatedSets:
        """Return the sets that pairs make up, each pair once."""
        ones = np.ones(len(users), dtype=np.float32)
        matrix = sparse.csr_matrix((ones, (users, items)), shape=shape)
        return cls(matrix, np.arange(shape[0]), new)

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def take(self, rows: Indices) -> RatedSets:
        """Return the sets of some users."""
        return RatedSets(self.matrix[rows], self.keys[rows], self.new)

    def thinned(self, shares: NDArray[np.float64], rng: np.random.Generator) -> RatedSets:
        """Return the same users with a share (n_users,) of their items each, drawn one by one."""
        entries = self.matrix.tocoo()
        kept = rng.random(len(entries.row)) < shares[entries.row]
        part = (entries.data[kept], (entries.row[kept], entries.col[kept]))
        return RatedSets(sparse.csr_matrix(part, shape=self.matrix.shape), self.keys, self.new)

    def items(self, row: int) -> Indices:
        """Return the items that one user rated, ascending."""
        found: Indices = np.sort(self.matrix[[row]].indices).astype(np.int64)
        return found

    @property
    def counts(self) -> Indices:
        """Number of items that each user rated, shape (n_users,)."""
        counts: Indices = np.diff(self.matrix.indptr).astype(np.int64)
        return counts

    @property
    def stream(self) -> Stream:
        """Which noise their draws are made of."""
        return Stream.FOLDED_SELECTION if self.new else Stream.SELECTION
