"""Users and items: two of everything, one for each side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Side = Literal["user", "item"]
#: In the order in which everything is done.
SIDES: tuple[Side, Side] = ("user", "item")

T = TypeVar("T")


class TwoSides(Generic[T]):
    """Whatever has a `user` and an `item` of one type."""

    user: T
    item: T

    def of(self, side: Side) -> T:
        """Return a side's own."""
        return self.user if side == "user" else self.item

    def opposite(self, side: Side) -> T:
        """Return that of the other side."""
        return self.item if side == "user" else self.user

    def by_side(self) -> Iterator[tuple[Side, T]]:
        """Give each side's name and its own, users first."""
        yield "user", self.user
        yield "item", self.item


@dataclass(frozen=True, eq=False)
class Sides(TwoSides[T]):
    """One for the users and one for the items."""

    user: T
    item: T


def opposite(side: Side) -> Side:
    """Return the name of the other side."""
    return "item" if side == "user" else "user"
