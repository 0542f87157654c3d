"""What a posterior says of ratings it has not seen: the log predictive probability of each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.ratings import Ratings
from ..data.scale import level_positions
from ..errors import DataError
from ..evaluation.metrics import SMALLEST_PROBABILITY
from ..numerics.chunks import chunks
from ..posterior.pair_draws import rating_log_prob
from ..posterior.posterior import Posterior
from ..posterior.predictive import PairPredictive

Floats = NDArray[np.float64]
_CELLS = 1_000_000


def held_out_log_prob(
    posterior: Posterior,
    ratings: Ratings,
    *,
    num_samples: int | None = None,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Floats:
    """Return the log predictive probability of each rating (density on a continuous scale), nats, (n,).

    On a discrete scale the probability of the rating's level as `evaluate` measures it, the predictor taken
    for Normal; on a continuous one the likelihood's density averaged over draws.

    Parameters
    ----------
    posterior : Posterior
    ratings : Ratings
        Not those that it was fitted to.
    num_samples, seed : int
        Draws on a continuous scale: 400, or those of the chain.
    advance : callable, optional
        Called with the number of ratings done.

    Raises
    ------
    DataError
        If there is no rating.
    """
    if len(ratings) == 0:
        raise DataError("there are no held-out ratings to score: split with a larger test part.")
    if ratings.scale.levels is not None:
        return level_log_prob(posterior.pairs, ratings, advance)
    n_draws = posterior.number_of_draws(num_samples)
    result = np.empty(len(ratings))
    draws = np.arange(n_draws)
    with torch.no_grad():
        for part in chunks(len(ratings), _CELLS // n_draws):
            users, items = ratings.users[part], ratings.items[part]
            eta = posterior.pairs.draw_eta(users, items, draws, seed).T.double()
            terms = tuple(one.T for one in posterior.pairs.draw_terms(users, items, draws, seed))
            values = rating_log_prob(
                posterior.model.likelihood, eta, ratings.ratings[part], ratings.scale, terms
            )
            result[part] = (torch.logsumexp(values, 1) - np.log(n_draws)).cpu().numpy()
            if advance is not None:
                advance(part.stop - part.start)
    return result


def level_log_prob(
    pairs: PairPredictive, ratings: Ratings, advance: Callable[[int], None] | None = None
) -> Floats:
    """Return the log predictive probability of each rating's level, (n,), nats."""
    levels = ratings.scale.levels
    assert levels is not None
    places = level_positions(ratings.ratings, levels)
    result = np.empty(len(ratings))
    for part in chunks(len(ratings), 50_000):
        pmf = pairs.pmf(ratings.users[part], ratings.items[part], levels)
        pmf = pmf / pmf.sum(1, keepdims=True)
        own = np.take_along_axis(pmf, places[part][:, None], 1)[:, 0]
        result[part] = np.log(np.maximum(own, SMALLEST_PROBABILITY))
        if advance is not None:
            advance(part.stop - part.start)
    return result
