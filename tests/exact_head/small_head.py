"""A small state of an exact head, in float64, with every part of it away from its start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pyro_bmf.data import RatingScale
from pyro_bmf.data.ratings import Ratings
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.methods.exact_head.settings import ExactHead
from pyro_bmf.methods.exact_head.updates import HeadUpdates
from pyro_bmf.model import FactorizationModel, NormalLikelihood, OrderedProbitLikelihood
from pyro_bmf.model.implicit_feedback import ImplicitFeedback
from pyro_bmf.model.priors.normal_half_t import NormalHalfTPrior
from pyro_bmf.model.row_noise import RowNoise

N_USERS, N_ITEMS, K = 9, 7, 2
LEVELS = [1.0, 2.0, 3.0, 4.0, 5.0]


def small_ratings() -> Ratings:
    """Return ratings of 9 users on 7 items; the last user rated one item, the last item has one rating."""
    rng = np.random.default_rng(3)
    seen = rng.random((N_USERS, N_ITEMS)) < 0.6
    seen[-1], seen[:, -1] = False, False
    seen[-1, 2] = seen[1, -1] = True
    users, items = np.nonzero(seen)
    values = np.clip(np.round(3.2 + rng.normal(0, 1, len(users))), 1, 5)
    return ratings_from_arrays(users, items, values, scale=RatingScale(1, 5, 1))


@dataclass(frozen=True, eq=False)
class Small:
    """A model, its ratings, and updates whose state has been moved about."""

    model: FactorizationModel
    ratings: Ratings
    updates: HeadUpdates


def make(
    *,
    ordered: bool = False,
    noisy: bool = True,
    implicit: bool = True,
    drawn: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Small:
    """Return a state that is nowhere at a stationary point."""
    ratings = small_ratings()
    likelihood = OrderedProbitLikelihood(LEVELS) if ordered else NormalLikelihood(noise=0.9)
    likelihood.drawn = drawn
    model = FactorizationModel(
        K,
        user_prior=NormalHalfTPrior(0.5),
        item_prior=NormalHalfTPrior(0.6),
        user_bias_prior=NormalHalfTPrior(0.4),
        item_bias_prior=NormalHalfTPrior(0.7),
        likelihood=likelihood,
        implicit=ImplicitFeedback() if implicit else None,
        row_noise=RowNoise("both") if noisy else None,
    ).double()
    model.start(ratings.ratings)
    updates = HeadUpdates(
        model,
        ratings,
        ExactHead(max_iterations=20, plain_iterations=0),
        seed=0,
        device=torch.device("cpu"),
        dtype=dtype,
    )
    torch.manual_seed(1)
    guide = updates.guide
    for side in (guide.user, guide.item):
        n, width = side.loc.shape
        root = 0.3 * torch.randn(n, width, width, dtype=dtype)
        side.loc = 0.5 * torch.randn(n, width, dtype=dtype)
        side.covariance = root @ root.mT + 0.05 * torch.eye(width, dtype=dtype)
        side.location = 0.2 * torch.randn(width, dtype=dtype)
        spread = 0.1 * torch.randn(width, width, dtype=dtype)
        side.location_covariance = spread @ spread.mT
        side.precision = torch.diag(1.0 + torch.rand(width, dtype=dtype))
        side.precision[0, 1] = side.precision[1, 0] = 0.3
        if noisy:
            side.row_shape = 2.0 + torch.rand(n, dtype=torch.float64)
            side.row_rate = 2.0 + torch.rand(n, dtype=torch.float64)
        if implicit:
            with torch.no_grad():
                side.weights.copy_(0.4 * torch.randn(side.weights.shape, dtype=dtype))
            side.weights_sd = 0.2 + 0.1 * torch.rand(side.weights.shape, dtype=dtype)
            side.weights_precision = 2.0 + torch.rand(width, dtype=dtype)
    return Small(model, ratings, updates)
