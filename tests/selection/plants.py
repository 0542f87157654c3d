"""Planted ratings whose selection is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.data.ratings import Ratings, RatingScale, Vocabulary
from pyro_bmf.data.splits import Split, random_split
from pyro_bmf.selection.rated_sets import RatedSets

Floats = NDArray[np.float64]


def planted_rates(n_users: int, n_items: int, seed: int = 0) -> Floats:
    """Return probabilities of pairs to be rated: a logistic of two factors, activity and popularity."""
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=(n_users, 2)) @ rng.normal(size=(2, n_items))
    eta = taste + 0.8 * rng.normal(size=(n_users, 1)) + 1.2 * rng.normal(size=(1, n_items)) - 3.0
    rates: Floats = 1.0 / (1.0 + np.exp(-eta))
    return rates


def ratings_of(chosen: NDArray[np.bool_], values: NDArray[Any]) -> Ratings:
    """Return the ratings of the pairs that were chosen."""
    users, items = np.nonzero(chosen)
    return Ratings(
        users,
        items,
        np.asarray(values, dtype=np.float64)[users, items],
        None,
        Vocabulary(np.arange(chosen.shape[0]), "user"),
        Vocabulary(np.arange(chosen.shape[1]), "item"),
        RatingScale(1.0, 5.0, 1.0),
    )


def planted_split(n_users: int = 240, n_items: int = 90, seed: int = 0) -> tuple[Split, Floats]:
    """Return a split of planted ratings, and the probability of every pair to be among them."""
    rates = planted_rates(n_users, n_items, seed)
    return split_of(rates, seed), rates


def split_of(rates: Floats, seed: int = 0) -> Split:
    """Return a split of ratings that are there with these probabilities."""
    rng = np.random.default_rng([seed, 1])
    chosen = rng.random(rates.shape) < rates
    values = rng.integers(1, 6, rates.shape)
    return random_split(ratings_of(chosen, values), seed=seed)


def sets(n_users: int = 60, n_items: int = 25, seed: int = 0) -> RatedSets:
    """Return random sets with structure."""
    rates = planted_rates(n_users, n_items, seed)
    chosen = np.random.default_rng([seed, 2]).random(rates.shape) < rates
    return RatedSets.of_pairs(*np.nonzero(chosen), rates.shape)


def confounded_split(n_users: int = 300, n_items: int = 80, seed: int = 0) -> tuple[Split, Floats, Floats]:
    """Return a split in which what is liked is chosen: an unseen part of the liking decides the choice.

    Returns
    -------
    split : Split
    levels : ndarray, shape (n_users, n_items)
        The rating that every pair would get.
    rates : ndarray
        The probability of every pair to be chosen, given its rating.
    """
    rng = np.random.default_rng([seed, 9])
    taste = rng.normal(size=(n_users, 2)) @ rng.normal(size=(2, n_items)) * 0.5
    liking = taste + 0.4 * rng.normal(size=(1, n_items)) + 0.8 * rng.normal(size=(n_users, n_items))
    levels = np.clip(np.round(3.0 + liking), 1, 5)
    popularity = rng.normal(size=(1, n_items))
    rates: Floats = 1.0 / (1.0 + np.exp(-(1.2 * liking + popularity - 2.5)))
    chosen = rng.random(rates.shape) < rates
    return random_split(ratings_of(chosen, levels), seed=seed), levels, rates
