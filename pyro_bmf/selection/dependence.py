"""Fit what predicted ratings say of choices to held-out pairs, of which few need a prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..numerics.chunks import CELLS, chunks
from .horizon import Floats, Horizon
from .rate_map import Cells, RateMap
from .rated_sets import Indices
from .rating_term import RatingTerm

#: Held-out pairs, and pairs that were not rated, of which a rating is predicted.
PAIRS = 50_000
#: Mean ratings of pairs, by users and items.
Means = Callable[[Indices, Indices], Floats]


def with_rating_term(
    mapped: RateMap, cells: Cells, users: Indices, means: Means, horizon: Horizon, rng: np.random.Generator
) -> RateMap:
    """Return a map that knows what predicted ratings add, fitted to the pairs that it was fitted to.

    Pairs that were not rated are drawn in proportion to their probability to have been, and weighted by its
    inverse: nearly all of them are so improbable that they tell nothing.

    Parameters
    ----------
    mapped : RateMap
    cells : Cells
        The candidate pairs of `users`.
    users : ndarray, shape (n,)
    means : callable
        Predicts mean ratings of pairs, by a posterior that has not read what was held out.
    horizon : Horizon
        The shares of the training and of the held-out ratings.
    rng : Generator
    """
    n_users, n_items = len(users), len(cells.item_counts)
    rates = np.empty((n_users, n_items))
    for part in chunks(n_users, max(1, CELLS // max(n_items, 1))):
        rates[part] = mapped.candidate_rates(cells.take(np.arange(part.start, part.stop)))
    flat = rates.reshape(-1)
    entries = cells.true.tocoo()
    held = entries.row.astype(np.int64) * n_items + entries.col
    held = np.sort(held[(entries.data > 0) & (flat[held] > 0.0)])
    some = held if len(held) <= PAIRS else np.sort(rng.choice(held, PAIRS, replace=False))
    left, weights = _drawn(flat, held, horizon, rng)
    at = np.concatenate([some, left])
    true = np.repeat([1.0, 0.0], [len(some), len(left)])
    weights = np.concatenate([np.full(len(some), len(held) / max(len(some), 1)), weights])
    own = means(users[at // n_items], at % n_items)
    return replace(mapped, term=RatingTerm.fit(flat[at], own, true, weights, horizon))


def _drawn(
    rates: Floats, held: Indices, horizon: Horizon, rng: np.random.Generator
) -> tuple[Indices, Floats]:
    """Draw candidates that were not rated; return their places and how many each stands for."""
    p = horizon.chosen(rates)
    p[held] = 0.0
    candidates = np.flatnonzero(p)
    if len(candidates) <= PAIRS:
        return candidates, np.ones(len(candidates))
    mass = np.cumsum(p)
    # A draw in each of as many equal shares of the mass.
    aims = (np.arange(PAIRS) + rng.random(PAIRS)) * (mass[-1] / PAIRS)
    found = np.minimum(np.searchsorted(mass, aims, side="right"), candidates[-1])
    return found, mass[-1] / (PAIRS * p[found])
