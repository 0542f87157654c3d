r"""Scores that decide from the whole posterior of a user's predictors, not from their means alone.

``lower``
    The quantile of the predictor's posterior: what one may count on. Moments over joint draws, Normal
    quantile.
``thompson``
    The predictor under one joint draw: each list is a try that the posterior takes for the best (Thompson
    1933, doi 10.1093/biomet/25.3-4.285).
``prob-top``
    P(the item is among the user's n best), over joint draws.

The mean rating rises with the predictor, so an order of predictors is one of mean ratings. Draws are
streamed: never more than a few matrices of a part of the users by items are held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from ..errors import SettingsError
from ..numerics.ragged_rows import ragged_rows
from ..numerics.ranked_lists import Exclusion, best_scores, ordered_by
from .predictive import PairPredictive

Indices = NDArray[np.int64]
StrategyName = Literal["mean", "lower", "thompson", "prob-top"]
STRATEGIES: tuple[StrategyName, ...] = ("mean", "lower", "thompson", "prob-top")


@dataclass(frozen=True)
class Strategy:
    """What decides other than the mean.

    Attributes
    ----------
    name : {"lower", "thompson", "prob-top"}
    quantile : float
        For ``lower``, between 0 and 1.
    num_samples : int
        Joint draws; a chain has those it kept, at most.
    seed : int
        Of the draws; with a chain, it chooses the draw of ``thompson``.

    Raises
    ------
    SettingsError
        If the strategy is unknown, or a number out of its range.
    """

    name: str
    quantile: float = 0.1
    num_samples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.name not in STRATEGIES[1:]:
            raise SettingsError(f"strategy is {self.name!r}: it may be {', '.join(STRATEGIES)}.")
        if not 0.0 < self.quantile < 1.0:
            raise SettingsError(f"quantile is {self.quantile}: give a number between 0 and 1.")
        if self.num_samples < 2:
            raise SettingsError(f"num_samples is {self.num_samples}: give 2 or more.")


class StrategyScores:
    """Scores of pairs by a strategy; call it with rows and columns for a matrix of them.

    Parameters
    ----------
    pairs : PairPredictive
    strategy : Strategy
    n : int
        Length of a list, for ``prob-top``.
    exclusion : Exclusion or None
        Pairs that are in nobody's n best.
    """

    def __init__(
        self, pairs: PairPredictive, strategy: Strategy, *, n: int, exclusion: Exclusion | None = None
    ) -> None:
        self.pairs, self.strategy, self.n, self.quantile = pairs, strategy.name, n, strategy.quantile
        self.seed, self.exclusion = strategy.seed, exclusion
        sampling = pairs.users.sampling
        if self.strategy == "thompson":
            self.draws = np.array([sampling.one(strategy.seed)])
        else:
            self.draws = np.arange(sampling.at_most(strategy.num_samples))

    @torch.no_grad()
    def __call__(self, rows: Indices, columns: Indices) -> NDArray[np.float32]:
        """Return the scores of every row with every column, (n_rows, n_columns), larger is better."""
        total = torch.zeros(len(rows), len(columns), dtype=torch.float32, device=self.pairs.device)
        square = torch.zeros_like(total) if self.strategy == "lower" else total
        hidden = self._hidden(rows, columns)
        for draw in self.draws:
            eta = self._eta(rows, columns, np.array([draw]))
            if self.strategy == "prob-top":
                if hidden is not None:
                    eta[hidden] = -torch.inf
                best = eta.topk(min(self.n, len(columns)), dim=1)
                # A column is among a row's best once: nothing is added twice to one place.
                counted = total.gather(1, best.indices) + torch.isfinite(best.values)
                total.scatter_(1, best.indices, counted)
                continue
            total += eta
            if self.strategy == "lower":
                square += eta**2
        total /= len(self.draws)
        if self.strategy == "lower":
            count = len(self.draws)
            variance = (square / count - total**2).clamp_min(0.0) * (count / (count - 1))
            total += float(ndtri(self.quantile)) * variance.sqrt()
        found: NDArray[np.float32] = total.float().cpu().numpy()
        return found

    def _eta(self, rows: Indices, columns: Indices, draw: Indices) -> Tensor:
        u, b = self.pairs.draw_rows("user", rows, draw, self.seed)
        v, c = self.pairs.draw_rows("item", columns, draw, self.seed)
        eta: Tensor = u[0] @ v[0].T + self.pairs.model.predictor_centre.to(u.dtype)
        if b is not None and c is not None:
            eta = eta + b[0].unsqueeze(1) + c[0]
        return eta

    def _hidden(self, rows: Indices, columns: Indices) -> tuple[Tensor, Tensor] | None:
        """Return the places, in a matrix of scores, of pairs that are left out."""
        if self.exclusion is None or self.strategy != "prob-top":
            return None
        highest = int(max(columns.max(initial=0), self.exclusion.columns.max(initial=0)))
        place = np.full(highest + 1, -1, dtype=np.int64)
        place[columns] = np.arange(len(columns))
        at, entries = ragged_rows(self.exclusion.starts, rows)
        where = place[self.exclusion.columns[entries]]
        inside = where >= 0
        return torch.from_numpy(at[inside]), torch.from_numpy(where[inside])


def best_by_strategy(
    pairs: PairPredictive,
    strategy: Strategy,
    rows: Indices,
    candidates: Indices,
    n: int,
    exclusion: Exclusion | None,
) -> tuple[Indices, Indices, Indices, NDArray[np.float64]]:
    """Find the best columns of each row: (place in rows, rank, column, score), best first.

    Scores are in rating units, but for probabilities.
    """
    scores = StrategyScores(pairs, strategy, n=n, exclusion=exclusion)
    places, items, found = best_scores(scores, rows, candidates, n, exclusion, len(pairs.items))
    order, ranks = ordered_by(found, places, items)
    units = pairs.model.units
    if strategy.name != "prob-top" and not units.identity:
        found = found * units.scale + units.shift
    return places[order], ranks, items[order], found[order]
