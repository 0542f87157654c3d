"""Replicated data sets: ratings of given pairs drawn jointly from the posterior, or from the prior.

Draw s of a row is common to all its pairs, so a replicate is a whole data set, no heap of single ratings.
Some draws are made at a time and handed on; nothing of users by items is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.scale import RatingScale
from ..numerics.chunks import chunks
from ..numerics.generators import own_generator
from ..numerics.keyed_draws import Stream, draw_seed
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices
from .prior_draws import draw_prior_rows

Floats = NDArray[np.float64]
_NUMBERS = 6_000_000  # of one table of drawn rows or drawn ratings


def replicate_ratings(
    posterior: Posterior,
    users: Indices,
    items: Indices,
    scale: RatingScale,
    num_samples: int,
    seed: int,
    *,
    prior: bool = False,
) -> Iterator[tuple[slice, Floats]]:
    """Give replicated ratings of pairs, some draws at a time.

    Parameters
    ----------
    posterior : Posterior
    users, items : ndarray, shape (n,)
        Indices of the pairs' rows.
    scale : RatingScale
        On a discrete scale ratings are its levels, drawn with the probabilities that the likelihood gives
        them; on a continuous one they are the likelihood's own draws.
    num_samples, seed : int
    prior : bool
        Draw rows from their prior instead.

    Yields
    ------
    part : slice
        Of the draws.
    ratings : ndarray, shape (len(part), n)
        NaN in data sets whose predictors left every number.
    """
    rows_u, at_u = np.unique(users, return_inverse=True)
    rows_i, at_i = np.unique(items, return_inverse=True)
    width = posterior.n_factors + int(posterior.model.biases)
    n = len(users)
    levels = scale.levels
    size = max(
        1, _NUMBERS // max((len(rows_u) + len(rows_i)) * width, n * (1 if levels is None else len(levels)))
    )
    pairs = posterior.pairs
    stream = Stream.PRIOR_RATINGS if prior else Stream.RATINGS
    with torch.no_grad():
        for part in chunks(num_samples, size):
            draws = np.arange(part.start, part.stop)
            if prior:
                u = draw_prior_rows(posterior, "user", rows_u, draws, seed)
                v = draw_prior_rows(posterior, "item", rows_i, draws, seed)
            else:
                u = pairs.draw_rows("user", rows_u, draws, seed)
                v = pairs.draw_rows("item", rows_i, draws, seed)
            eta = pairs.eta_of_draws(u, v, at_u, at_i).double()
            terms = () if prior else pairs.draw_terms(users, items, draws, seed)
            yield part, _drawn(posterior, eta, draws, levels, terms, seed, stream)


def _drawn(
    posterior: Posterior,
    eta: Tensor,
    draws: Indices,
    levels: Floats | None,
    terms: tuple[Any, ...],
    seed: int,
    stream: Stream,
) -> Floats:
    likelihood = posterior.model.likelihood
    result = np.empty(eta.shape)
    at = None if levels is None else torch.tensor(levels, dtype=torch.float64, device=eta.device)
    with own_generator(eta.device) as reseed:
        for place, draw in enumerate(draws.tolist()):
            reseed(draw_seed(seed, stream, draw))
            one, relative = eta[place], tuple(term[place] for term in terms)
            if not bool(torch.isfinite(one).all()):
                result[place] = np.nan  # a prior may give predictors beyond every number
                continue
            if at is None:
                drawn = likelihood(one, *relative).sample()
            else:
                drawn = likelihood.sample_levels(one, at, *relative)
            result[place] = drawn.double().cpu().numpy()
    return result
