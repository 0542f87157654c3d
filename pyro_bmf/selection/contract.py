"""What a selection head answers: a score of what was rated, its uncertainty, and what speaks for an item.

A head reads a user as the set of items that he or she rated, so that known and new users are asked the same
way. Its score is linear and has no scale of its own; `RateMap` makes a probability of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .rated_sets import Indices, RatedSets

Scores = NDArray[np.float32]
Scorer = Callable[[RatedSets], Scores]


class SelectionHead(Protocol):
    """A model of which items get rated."""

    @property
    def word(self) -> str:
        """What files and tables call it."""

    @property
    def n_items(self) -> int:
        """Number of items."""

    def scores(self, rated: RatedSets) -> Scores:
        """Return the score of every item for some users, (n_users, n_items); ask for chunks of users."""

    def draw_scores(self, rated: RatedSets, columns: Indices, draws: Indices, seed: int) -> NDArray[Any]:
        """Draw the scores of some items of each user from the head's posterior.

        Parameters
        ----------
        rated : RatedSets
            n users.
        columns : ndarray, shape (n, m)
            Items of each.
        draws : ndarray, shape (n_draws,)
            Numbers of the draws: the same user, item, draw and seed give the same number in any request.
        seed : int

        Returns
        -------
        ndarray, shape (n_draws, n, m)
        """

    def influence(self, items: Indices, item: int) -> NDArray[np.float64]:
        """Return what each of a user's rated `items` adds to the score of `item`, (n_rated,)."""

    def refitted(self, rated: RatedSets) -> Self:
        """Return a head with the same settings, fitted to other sets."""

    def left_out(self, rated: RatedSets, users: Indices) -> Scorer:
        """Return a scorer for which `users`, of those that the head was fitted to, count as not fitted to.

        It is asked for these users alone, known by the keys of `rated`, with all or a part of what they
        rated: no score is of an item that is among it.
        """

    def settings(self) -> dict[str, Any]:
        """Return its settings, JSON-ready."""

    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """Return the arrays that rebuild it, by name."""

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild it."""
