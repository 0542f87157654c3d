"""Systems that rank items and say nothing of ratings: what they predict is each item's level."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.effects import Effects, fit_effects
from pyro_bmf.baselines.new_users import NewUserAnswers
from pyro_bmf.data import Ratings

_EFFECTS = "effects."


class RankingOnly(Baseline):
    """Predict an item's shrunk mean; a class says how items are ranked.

    The predictions are those of centre + item effect (`fit_effects` without users), whose variance is noise +
    the effect's posterior variance. An item without train ratings is predicted at the centre; users are all
    alike.

    Attributes
    ----------
    effects : Effects
        What was learned for prediction.
    """

    effects: Effects

    @abstractmethod
    def learn_scores(self, train: Ratings, valid: Ratings | None) -> None:
        """Learn to rank; `valid`, where there is any, may choose when to stop."""

    @abstractmethod
    def scores_state(self) -> dict[str, NDArray[Any]]:
        """Return what was learned to rank by, by name."""

    @abstractmethod
    def restore_scores(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `scores_state` gave."""

    def new_user_scores(self, items: NDArray[np.int64], ratings: NDArray[np.float64]) -> NDArray[Any]:
        """Return the (n_items,) scores of a new user with these ratings.

        Raises
        ------
        SettingsError
            If this system knows no way to.
        """
        return super().new_user(items, ratings).scores

    def learn(self, train: Ratings, valid: Ratings | None) -> None:
        """Fit the items' effects, and learn to rank."""
        self.effects = fit_effects(train, user_effects=False)
        self.learn_scores(train, valid)

    def moments(
        self, users: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the items' levels and their variances."""
        e = self.effects
        return e.centre + e.item_loc[items], e.noise_variance + e.item_variance[items]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the effects, and what was learned to rank by."""
        effects = {f"{_EFFECTS}{name}": value for name, value in self.effects.state().items()}
        return effects | self.scores_state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take both back."""
        effects = {
            name.removeprefix(_EFFECTS): value for name, value in state.items() if name.startswith(_EFFECTS)
        }
        self.effects = Effects.of_state(effects, self.train)
        self.restore_scores({name: value for name, value in state.items() if not name.startswith(_EFFECTS)})

    def new_user(self, items: NDArray[np.int64], ratings: NDArray[np.float64]) -> NewUserAnswers:
        """Predict what is predicted for everybody, and rank by the user's ratings."""
        e = self.effects
        scores = self.new_user_scores(items, ratings)
        return NewUserAnswers(e.centre + e.item_loc, e.noise_variance + e.item_variance, scores)
