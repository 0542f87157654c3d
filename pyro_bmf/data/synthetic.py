"""Ratings drawn from the generative model, their truth kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import atomic_write
from .ratings import Ratings
from .scale import RatingScale
from .vocabulary import Vocabulary

_TABLE = 1 << 22
_DENSE_CELLS = 4_000_000  # up to so many users x items the pairs are drawn exactly, beyond by rejection


@dataclass(frozen=True, eq=False)
class SyntheticTruth:
    """What the ratings were drawn from.

    Attributes
    ----------
    user_factors, item_factors
        Shapes (n_users, n_factors) and (n_items, n_factors).
    user_bias, item_bias
        Shapes (n_users,) and (n_items,); zeros without biases.
    mean
        The global mean, rating units.
    eta
        mean + user bias + item bias + u.v of each rating, shape (n,), rows as in the ratings.
    noise
        Standard deviation of the rating around eta.
    """

    user_factors: NDArray[np.float64]
    item_factors: NDArray[np.float64]
    user_bias: NDArray[np.float64]
    item_bias: NDArray[np.float64]
    mean: float
    eta: NDArray[np.float64]
    noise: float

    def save(self, path: Path | str) -> None:
        """Write the arrays to one ``.npz`` file, atomically."""
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                user_factors=self.user_factors,
                item_factors=self.item_factors,
                user_bias=self.user_bias,
                item_bias=self.item_bias,
                mean=np.float64(self.mean),
                eta=self.eta,
                noise=np.float64(self.noise),
            )


@dataclass(frozen=True, eq=False)
class SyntheticRatings:
    """Ratings together with the truth that they were drawn from."""

    ratings: Ratings
    truth: SyntheticTruth


def synthetic_ratings(
    n_users: int = 500,
    n_items: int = 400,
    n_ratings: int = 30_000,
    *,
    n_factors: int = 4,
    noise: float = 0.5,
    seed: int = 0,
    biases: bool = True,
    mean: float = 3.5,
    factor_scale: float = 0.6,
    bias_scale: float = 0.4,
    scale: RatingScale | str | None = None,
    name: str = "synthetic",
    noise_df: float | None = None,
) -> SyntheticRatings:
    """Draw ratings from the generative model.

    u_i, v_j ~ Normal(0, factor_scale) in each of n_factors dimensions, b_i, c_j ~ Normal(0, bias_scale),
    eta = mean + b_i + c_j + u_i.v_j, rating ~ Normal(eta, noise). Which pairs are rated is drawn from
    heavy-tailed user and item popularities that do not depend on the factors; every user and every item has
    a rating. Raw ids are 1..n.

    Parameters
    ----------
    n_users, n_items, n_ratings, n_factors
        Sizes.
    noise
        Standard deviation of a rating around eta, rating units, positive.
    seed
        Of every draw.
    biases
        Whether users and items have biases.
    mean
        The global mean, rating units.
    factor_scale, bias_scale
        Standard deviations of the priors.
    scale
        None leaves the ratings continuous (scale from the lowest to the highest drawn). A discrete scale
        (``"1:5:1"``) rounds each to the nearest level; a continuous one (``"1:5"``) clips. Then the
        likelihood holds only approximately.
    name
        What to call the data.
    noise_df
        Degrees of freedom of Student-t noise, above 2, whose standard deviation is still `noise`; None for
        Normal noise. It plants a misfit of a Normal likelihood.

    Raises
    ------
    DataError
        For sizes that cannot be met, or a `noise_df` of 2 or less.
    """
    if not (np.isfinite(noise) and noise > 0) or n_factors < 1 or factor_scale < 0 or bias_scale < 0:
        raise DataError("synthetic ratings need noise > 0, at least one factor, and scales of at least 0")
    if noise_df is not None and not noise_df > 2.0:
        raise DataError(f"noise_df is {noise_df}: Student-t noise has a standard deviation above 2 only")
    rng = np.random.default_rng(seed)
    users, items = generated_pairs(n_users, n_items, n_ratings, seed=seed)
    user_factors = rng.normal(0.0, factor_scale, (n_users, n_factors))
    item_factors = rng.normal(0.0, factor_scale, (n_items, n_factors))
    spread = bias_scale if biases else 0.0
    user_bias = rng.normal(0.0, 1.0, n_users) * spread
    item_bias = rng.normal(0.0, 1.0, n_items) * spread
    eta = mean + user_bias[users] + item_bias[items]
    for k in range(n_factors):  # one factor at a time: no (n_ratings, n_factors) array is made
        eta += user_factors[users, k] * item_factors[items, k]
    if noise_df is None:
        values = eta + rng.normal(0.0, noise, n_ratings)
    else:
        values = eta + noise * np.sqrt(1.0 - 2.0 / noise_df) * rng.standard_t(noise_df, n_ratings)
    if scale is None:
        known = RatingScale(float(values.min()), float(values.max()), None, "declared")
    else:
        known = RatingScale.parse(scale) if isinstance(scale, str) else scale
        values = known.nearest_level(values)
    ratings = Ratings(
        users,
        items,
        values,
        None,
        Vocabulary(np.arange(1, n_users + 1), "user"),
        Vocabulary(np.arange(1, n_items + 1), "item"),
        known,
        None,
        name,
    )
    truth = SyntheticTruth(user_factors, item_factors, user_bias, item_bias, float(mean), eta, float(noise))
    return SyntheticRatings(ratings, truth)


def default_synthetic() -> SyntheticRatings:
    """Return the set that is called ``synthetic``: every default of `synthetic_ratings`, seed 0."""
    return synthetic_ratings()


def generated_counts(n: int, n_ratings: int, *, spread: float = 1.1, seed: int = 0) -> NDArray[np.int64]:
    """Return heavy-tailed counts, shape (n,), each at least 1, summing to `n_ratings`.

    Popularity is log-normal; `spread` is the standard deviation of its logarithm (MovieLens: about 1.1 for
    users, 1.3 to 2.7 for items).
    """
    if not 1 <= n <= n_ratings:
        raise DataError(f"{n_ratings} ratings cannot give each of {n} rows at least one")
    ideal = _popularity(n, spread, np.random.default_rng(seed)) * (n_ratings - n)
    counts = np.floor(ideal).astype(np.int64)
    short = n_ratings - n - int(counts.sum())
    if short:  # the largest remainders make up the exact total
        counts[np.argpartition(counts - ideal, short - 1)[:short]] += 1
    return counts + 1


def generated_pairs(
    n_users: int,
    n_items: int,
    n_ratings: int,
    *,
    seed: int = 0,
    user_spread: float = 1.1,
    item_spread: float = 1.6,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw distinct (user, item) pairs with heavy-tailed counts, in canonical order.

    Memory grows with the ratings, never users x items: 2e7 pairs of ML-20M's shape take seconds.

    Parameters
    ----------
    n_users, n_items, n_ratings
        Sizes; beyond 4 million cells at most a fifth of users x items.
    seed
        Of every draw.
    user_spread, item_spread
        Standard deviations of the log-popularities.

    Returns
    -------
    users, items
        int64, shape (n_ratings,), sorted by (user, item); every user and every item occurs.
    """
    if n_users < 1 or n_items < 1 or not max(n_users, n_items) <= n_ratings <= n_users * n_items:
        raise DataError(
            f"{n_ratings} distinct pairs of {n_users} users and {n_items} items, each with a rating, do not "
            f"exist: ask for {max(n_users, n_items)}..{n_users * n_items}"
        )
    rng = np.random.default_rng(seed)
    user_weights = _popularity(n_users, user_spread, rng)
    item_weights = _popularity(n_items, item_spread, rng)
    # One rating for every user and item first: the longer side in order, so that no pair repeats.
    longest = max(n_users, n_items)
    rows = np.arange(longest)
    mixed = rng.permutation(longest)
    keys = mixed % n_users * n_items + rows if n_items >= n_users else rows * n_items + mixed % n_items
    keys.sort()
    if n_users * n_items <= _DENSE_CELLS:
        keys = _fill_dense(keys, user_weights, item_weights, n_ratings, rng)
    else:
        keys = _fill_by_rejection(keys, user_weights, item_weights, n_ratings, rng)
    return keys // n_items, keys % n_items


def _popularity(n: int, spread: float, rng: np.random.Generator) -> NDArray[np.float64]:
    weights = np.exp(spread * rng.standard_normal(n))
    scaled: NDArray[np.float64] = weights / weights.sum()
    return scaled


def _fill_dense(
    keys: NDArray[np.int64],
    user_weights: NDArray[np.float64],
    item_weights: NDArray[np.float64],
    n_ratings: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Weighted draw without replacement over all cells: the largest log-weight + Gumbel noise."""
    score = (np.log(user_weights)[:, None] + np.log(item_weights)[None, :]).ravel()
    score += rng.gumbel(size=len(score))
    score[keys] = np.inf
    if n_ratings == len(score):
        return np.arange(n_ratings)
    return np.sort(np.argpartition(-score, n_ratings)[:n_ratings]).astype(np.int64)


def _fill_by_rejection(
    keys: NDArray[np.int64],
    user_weights: NDArray[np.float64],
    item_weights: NDArray[np.float64],
    n_ratings: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    n_items = len(item_weights)
    if n_ratings > 0.2 * len(user_weights) * n_items:
        raise DataError(
            f"{n_ratings:,} ratings fill over a fifth of {len(user_weights):,} x {n_items:,} cells: ask for "
            "fewer ratings or more users and items"
        )
    # Items are looked up in a table that holds each as often as its weight says: faster than bisection.
    table = np.repeat(np.arange(n_items), np.ceil(item_weights * _TABLE).astype(np.int64))
    accepted = 1.0  # share of the last draw that was new
    while len(keys) < n_ratings:
        wanted = int((n_ratings - len(keys)) / max(accepted, 0.05)) + 1_000
        drawn = np.repeat(np.arange(len(user_weights)) * n_items, rng.multinomial(wanted, user_weights))
        drawn += table[rng.integers(0, len(table), wanted)]
        drawn.sort()
        new = np.concatenate(([True], drawn[1:] != drawn[:-1])) & ~_in_sorted(drawn, keys)
        drawn = drawn[new]
        accepted = len(drawn) / wanted
        surplus = len(keys) + len(drawn) - n_ratings
        if surplus > 0:
            kept = np.ones(len(drawn), dtype=bool)
            kept[rng.choice(len(drawn), surplus, replace=False, shuffle=False)] = False
            drawn = drawn[kept]
        keys = np.sort(np.concatenate((keys, drawn)), kind="stable")  # merges two sorted runs
    return keys


def _in_sorted(values: NDArray[np.int64], table: NDArray[np.int64]) -> NDArray[np.bool_]:
    found = np.searchsorted(table, values)
    result: NDArray[np.bool_] = table[np.minimum(found, len(table) - 1)] == values
    return result
