"""Two heads at once: the sum of their scores, which errs less than either where each errs in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .contract import Scorer, Scores
from .factors import SelectionFactors
from .item_regression import ItemRegression
from .rated_sets import Indices, RatedSets


@dataclass(frozen=True, eq=False)
class BothHeads:
    """The sum of an item regression's scores and selection factors'.

    Attributes
    ----------
    regression : ItemRegression
    factors : SelectionFactors
    """

    regression: ItemRegression
    factors: SelectionFactors
    word: ClassVar[str] = "both"

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self.regression.n_items

    def scores(self, rated: RatedSets) -> Scores:
        """Return the sum of both scores, (n_users, J), float32."""
        found: Scores = self.regression.scores(rated) + self.factors.scores(rated)
        return found

    def draw_scores(self, rated: RatedSets, columns: Indices, draws: Indices, seed: int) -> NDArray[Any]:
        """Draw both independently."""
        found: NDArray[Any] = self.regression.draw_scores(rated, columns, draws, seed)
        # Another seed: the two heads' noise is not to be the same numbers.
        total: NDArray[Any] = found + self.factors.draw_scores(rated, columns, draws, seed + 1)
        return total

    def influence(self, items: Indices, item: int) -> NDArray[np.float64]:
        """Return the sum of both heads' contributions."""
        return self.regression.influence(items, item) + self.factors.influence(items, item)

    def refitted(self, rated: RatedSets) -> BothHeads:
        """Fit both again."""
        return BothHeads(self.regression.refitted(rated), self.factors.refitted(rated))

    def left_out(self, rated: RatedSets, users: Indices) -> Scorer:
        """Leave users out of both."""
        first, second = self.regression.left_out(rated, users), self.factors.left_out(rated, users)

        def score(some: RatedSets) -> Scores:
            found: Scores = first(some) + second(some)
            return found

        return score

    def settings(self) -> dict[str, Any]:
        """Return both heads' settings."""
        return {"regression": self.regression.settings(), "factors": self.factors.settings()}

    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """Return both heads' arrays."""
        parts = (("regression", self.regression.tensors()), ("factors", self.factors.tensors()))
        return {f"{name}.{key}": value for name, tensors in parts for key, value in tensors.items()}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> BothHeads:
        """Rebuild both."""
        parts = {
            name: {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            for name in ("regression", "factors")
        }
        regression = ItemRegression.from_saved(settings["regression"], parts["regression"])
        factors = SelectionFactors.from_saved(settings["factors"], parts["factors"])
        if regression.n_items != factors.n_items:
            raise ValueError(f"{regression.n_items} items in one head, {factors.n_items} in the other")
        return cls(regression, factors)
