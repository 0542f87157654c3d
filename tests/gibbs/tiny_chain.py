"""Tiny problems for Gibbs sweeps: everything in float64, small enough for dense algebra."""

from __future__ import annotations

import numpy as np
import torch

from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.gibbs.collapsed_means import Solver
from pyro_bmf.methods.gibbs.side_draws import BegunSide
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.model import FactorizationModel, RowNoise
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.implicit_feedback import ImplicitFeedback
from pyro_bmf.model.likelihoods.normal import Likelihood, NormalLikelihood
from pyro_bmf.model.priors.normal_half_t import NormalHalfTPrior
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior
from pyro_bmf.model.sides import Side

USERS, ITEMS, K = 6, 5, 2


#: Priors of the factors that sweeps know.
FACTORS = (NormalHalfTPrior, NormalWishartPrior)
Factors = type[NormalHalfTPrior] | type[NormalWishartPrior]


def tiny_model(
    likelihood: Likelihood | None = None,
    *,
    row_noise: str | None = "both",
    factors: Factors = NormalHalfTPrior,
) -> FactorizationModel:
    return FactorizationModel(
        K,
        user_prior=factors(0.6, kappa=3.0),
        item_prior=factors(0.6, kappa=3.0),
        user_bias_prior=NormalHalfTPrior(0.5, kappa=3.0),
        item_bias_prior=NormalHalfTPrior(0.5, kappa=3.0),
        likelihood=NormalLikelihood(0.7) if likelihood is None else likelihood,
        centred=False,
        implicit=ImplicitFeedback(0.4),
        row_noise=None if row_noise is None else RowNoise(row_noise),
    )


def tiny_pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Which pairs are rated: one user has none."""
    rng = np.random.default_rng(0)
    mask = rng.random((USERS, ITEMS)) < 0.6
    mask[3] = False
    users, items = np.nonzero(mask)
    return torch.from_numpy(users), torch.from_numpy(items)


def tiny_sweeps(model: FactorizationModel, ratings: torch.Tensor | None = None) -> Sweeps:
    users, items = tiny_pairs()
    if ratings is None:
        ratings = torch.randn(len(users), dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    feedback = Feedback.from_coo(users, items, ratings.double(), USERS, ITEMS)
    return Sweeps(model, feedback, feedback.values, dtype=torch.float64, solver=Solver(1e-12, 500))


def random_state(sweeps: Sweeps, seed: int = 1) -> ChainState:
    """Return a state with nothing at a special value."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    state = sweeps.start(normal(USERS, K + 1), normal(ITEMS, K + 1), 0.7)
    for side, n_other in ((state.user, ITEMS), (state.item, USERS)):
        root = normal(K, K)
        side.precision = torch.block_diag(root @ root.T + torch.eye(K), normal(1, 1).exp())
        side.location = normal(K + 1)
        side.weights = normal(n_other, K + 1) * 0.3
        side.weights_precision = normal(K + 1).exp() + 1.0
        side.row_precision = normal(len(side.rows)).mul(0.3).exp()
    return state


def draw_means(
    sweeps: Sweeps,
    side: Side,
    state: ChainState,
    *,
    implicit: torch.Tensor | None = None,
    rescaled: bool = True,
) -> BegunSide:
    """Draw a side's location and weights given its ratings as they are, in place."""
    begun = sweeps.begin_side(side, state, sweeps.ratings, implicit)
    sweeps._draw_means(side, state, begun, rescaled=rescaled)
    return begun
