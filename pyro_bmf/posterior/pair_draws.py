"""Joint draws of all rows kept in memory, and likelihoods of any pairs under them, a chunk at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.ratings import Ratings
from ..data.scale import RatingScale, level_positions
from ..model.fitted import Side
from ..numerics.chunks import chunks
from .predictive import Indices, PairPredictive

_NUMBERS = 4_000_000  # of drawn rows made at once


@dataclass(frozen=True, eq=False)
class PairDraws:
    """Draws of users and items, laid out so that a chunk of pairs is gathered a factor at a time.

    Attributes
    ----------
    pairs : PairPredictive
        Whose rows they are.
    users, items : Tensor, shape (width, n_rows, n_draws), float64
        Factors and, last, the bias where there is one.
    places : tuple of ndarray
        Where each user's and each item's draws stand; -1 where a row was not drawn.
    seed : int
    """

    pairs: PairPredictive
    users: Tensor
    items: Tensor
    places: tuple[Indices, Indices]
    seed: int

    @classmethod
    def draw(
        cls, pairs: PairPredictive, users: Indices, items: Indices, num_samples: int, seed: int
    ) -> PairDraws:
        """Draw the rows of these pairs; draw s of a row is that of every other request with the seed."""
        tables, places = [], []
        sides: tuple[tuple[Side, Indices, int], ...] = (
            ("user", users, len(pairs.users)),
            ("item", items, len(pairs.items)),
        )
        for side, rows, n in sides:
            rows = np.unique(rows)
            tables.append(_table(pairs, side, rows, num_samples, seed))
            place = np.full(n, -1, dtype=np.int64)
            place[rows] = np.arange(len(rows))
            places.append(place)
        return cls(pairs, tables[0], tables[1], (places[0], places[1]), seed)

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return self.users.shape[2]

    def eta(self, users: Indices, items: Indices) -> Tensor:
        """Return the predictors of pairs under every draw, shape (n, n_draws), float64."""
        i = torch.from_numpy(self.places[0][users]).to(self.users.device)
        j = torch.from_numpy(self.places[1][items]).to(self.users.device)
        k = self.pairs.users.n_factors
        eta = self.users[0].index_select(0, i).mul_(self.items[0].index_select(0, j))
        for factor in range(1, k):
            eta.addcmul_(self.users[factor].index_select(0, i), self.items[factor].index_select(0, j))
        if len(self.users) > k:
            eta += self.users[k].index_select(0, i)
            eta += self.items[k].index_select(0, j)
        return eta.add_(self.pairs.model.predictor_centre.double())

    def terms(self, users: Indices, items: Indices) -> tuple[Any, ...]:
        """Return draws of the pairs' noise and cut points, (n, n_draws); none where rows have none."""
        draws = np.arange(self.n_draws)
        return tuple(one.T for one in self.pairs.draw_terms(users, items, draws, self.seed))

    def log_likelihood(
        self, users: Indices, items: Indices, ratings: NDArray[np.float64], scale: RatingScale
    ) -> Tensor:
        """Return what each draw says of each rating, in nats: shape (n, n_draws), float64.

        The log-*probability* of the rating's level on a discrete scale, the log-density on a continuous one.
        """
        return rating_log_prob(
            self.pairs.likelihood, self.eta(users, items), ratings, scale, self.terms(users, items)
        )

    def of(self, observed: Ratings, rows: Indices) -> Tensor:
        """Return the same of some of a set's ratings, without gradients."""
        with torch.no_grad():
            return self.log_likelihood(
                observed.users[rows], observed.items[rows], observed.ratings[rows], observed.scale
            )


def rating_log_prob(
    likelihood: Any,
    eta: Tensor,
    ratings: NDArray[np.float64],
    scale: RatingScale,
    relative: tuple[Any, ...] = (),
) -> Tensor:
    """Return log-probabilities (densities on a continuous scale) of ratings (n,) for predictors (n, S).

    `relative` are the pairs' terms, which broadcast against the predictors.
    """
    noise = tuple(one.expand_as(eta) for one in relative)
    if scale.levels is None:
        observed = torch.tensor(ratings, dtype=eta.dtype, device=eta.device).unsqueeze(1)
        density: Tensor = likelihood(eta, *noise).log_prob(observed.expand_as(eta))
        return density
    places = torch.from_numpy(level_positions(ratings, scale.levels)).to(eta.device)
    levels = torch.tensor(scale.levels, dtype=torch.float64, device=eta.device)
    result: Tensor = likelihood.log_prob_observed(eta, places.unsqueeze(1).expand_as(eta), levels, *noise)
    return result


def _table(pairs: PairPredictive, side: Side, rows: Indices, num_samples: int, seed: int) -> Tensor:
    model = pairs.model
    width = pairs.users.n_factors + int(model.biases)
    table = torch.empty(width, len(rows), num_samples, dtype=torch.float64, device=pairs.device)
    draws = np.arange(num_samples)
    for part in chunks(len(rows), _NUMBERS // (num_samples * width)):
        factors, bias = pairs.draw_rows(side, rows[part], draws, seed)
        table[: factors.shape[-1], part] = factors.permute(2, 1, 0).double()
        if bias is not None:
            table[-1, part] = bias.T.double()
    return table
