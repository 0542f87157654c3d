"""The users, items and rating scale that a fitted system knows: those of its training ratings."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from ..data.ratings import Ratings
from ..data.scale import RatingScale
from ..data.vocabulary import Vocabulary


class Trained(Protocol):
    """What holds training ratings."""

    @property
    def train(self) -> Ratings:
        """The ratings that were fitted."""


class KnownRows:
    """Vocabularies, titles and scale of a system with training ratings."""

    @property
    def user_vocabulary(self: Trained) -> Vocabulary:
        """Raw ids of the users."""
        return self.train.user_vocabulary

    @property
    def item_vocabulary(self: Trained) -> Vocabulary:
        """Raw ids of the items."""
        return self.train.item_vocabulary

    @property
    def item_titles(self: Trained) -> NDArray[Any] | None:
        """Title of each item, where the data have titles."""
        return self.train.item_titles

    @property
    def scale(self: Trained) -> RatingScale:
        """The rating scale."""
        return self.train.scale

    @property
    def n_users(self: Trained) -> int:
        """Number of users."""
        return self.train.n_users

    @property
    def n_items(self: Trained) -> int:
        """Number of items."""
        return self.train.n_items
