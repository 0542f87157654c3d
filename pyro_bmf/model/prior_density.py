"""The density of a row under its prior, whose hyperparameters have a posterior: by tracing and replaying."""

from __future__ import annotations

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution

from .priors.normal import Prior


@torch.no_grad()
def has_hyperparameters(prior: Prior, site: str, n_factors: int | None) -> bool:
    """Return whether a prior samples anything before the rows of a site."""
    return bool(poutine.trace(prior.guide).get_trace(site, n_factors).stochastic_nodes)


@torch.no_grad()
def given_hyperparameters(prior: Prior, site: str, n_factors: int | None) -> TorchDistribution:
    """Return the prior of one row at hyperparameters drawn from their q.

    The draw is of torch's current generator; nothing of it reaches a trace that is under way.
    """
    with poutine.block():
        hyper = poutine.trace(prior.guide).get_trace(site, n_factors)
        density: TorchDistribution = poutine.replay(prior, trace=hyper)(site, n_factors)
    return density
