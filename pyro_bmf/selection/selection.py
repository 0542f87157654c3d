"""A fitted selection model: a head, and what makes probabilities of its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..data.ratings import Ratings
from .contract import Scores, SelectionHead
from .horizon import Floats, Horizon
from .rate_map import RateMap
from .rated_sets import Indices, RatedSets
from .saved import SelectionParts, load_parts, save_parts


@dataclass(frozen=True, eq=False)
class Selection:
    """Which items get rated: probabilities of pairs, and draws of them, a chunk of users at a time.

    Attributes
    ----------
    head : SelectionHead
    known, new : RateMap
        For users that the head was fitted to, and for others.
    seen : float
        Share of the completed data that the head was fitted to.
    train : Ratings
        Those ratings.
    info : dict
        JSON-ready: how it was chosen and fitted.
    """

    head: SelectionHead
    known: RateMap
    new: RateMap
    seen: float
    train: Ratings
    info: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Selection({self.head.word}, {self.train.n_users:,} users, {self.train.n_items:,} items)"

    @cached_property
    def rated(self) -> RatedSets:
        """What the known users rated in training."""
        return RatedSets.of(self.train)

    @cached_property
    def horizon(self) -> Horizon:
        """All that was held out of the fit: what a probability is about where nothing else is said.

        Where all of it is later than what was not, its words name the period.
        """
        share, period = 1.0 - self.seen, self.info.get("period")
        when = f", {period}" if isinstance(period, str) else ""
        return Horizon(self.seen, share, f"the {100 * share:.3g} % of ratings that were held out{when}")

    def map_of(self, rated: RatedSets) -> RateMap:
        """Return the calibration of these users."""
        return self.new if rated.new else self.known

    def rates(self, rated: RatedSets) -> Floats:
        """Return the probability of every pair to be in the completed data, (n_users, J), in (0, 1).

        Of what was rated alone; `RateMap.given` of `map_of` adds what predicted ratings say.
        """
        return self._rates(rated, self.head.scores(rated))

    def chosen(self, rated: RatedSets, horizon: Horizon | None = None) -> Floats:
        """Return the probability of pairs that are not known to be chosen, of `rates`, (n_users, J)."""
        return (self.horizon if horizon is None else horizon).chosen(self.rates(rated))

    def draw_chosen(
        self,
        rated: RatedSets,
        columns: Indices,
        draws: Indices,
        seed: int,
        horizon: Horizon | None = None,
        means: Floats | None = None,
    ) -> Floats:
        """Draw the probabilities of some items of each user, (n_draws, n_users, m).

        Draws of the head's score through the map; what is unknown of the map itself is left out. With the
        predicted mean ratings of the items, (n_users, m), what these say is in them.
        """
        scores = self.head.draw_scores(rated, columns, draws, seed)
        about = self.horizon if horizon is None else horizon
        found = np.empty(scores.shape)
        mapped = self.map_of(rated)
        counts, items = rated.counts / self.seen, self._item_counts
        for user in range(len(rated)):
            own = items[columns[user]]
            at = np.full(len(draws), counts[user])
            rates = mapped.rate((scores[:, user] / self.seen).astype(np.float32), at, own)
            found[:, user] = about.chosen(rates if means is None else mapped.given(rates, means[user]))
        return found

    def save(self, path: Path | str) -> Path:
        """Write the selection model; see `pyro_bmf.selection.saved`."""
        return save_parts(
            Path(path),
            SelectionParts(self.head, self.known, self.new, self.seen, self.train, self.info),
        )

    @classmethod
    def load(cls, path: Path | str, train: Ratings) -> Selection:
        """Read what `save` wrote, for the ratings that it was fitted to.

        Raises
        ------
        SavedFileError
            If there is no such file, or it is damaged, or of other ratings.
        """
        return cls(*load_parts(Path(path), train))

    @cached_property
    def _item_counts(self) -> Floats:
        return self.train.item_counts / self.seen

    def _rates(self, rated: RatedSets, scores: Scores) -> Floats:
        scaled = scores / np.float32(self.seen)
        return self.map_of(rated).rate(scaled, rated.counts / self.seen, self._item_counts)
