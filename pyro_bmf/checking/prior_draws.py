"""Priors of rows: draws from them, hyperparameters first, and what they are under each draw of a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from ..methods.gibbs.guide import ChainGuide
from ..model.implicit_feedback import feedback_means
from ..model.priors.normal import Prior
from ..numerics.keyed_draws import Stream, draw_seed
from ..posterior.encoding import side_feedback
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices, own_generator


def prior_of(posterior: Posterior, site: str) -> tuple[Prior, int | None]:
    """Return a latent site's prior and its width: None for a bias."""
    model = posterior.model
    priors = {
        "user_factors": model.user_prior,
        "item_factors": model.item_prior,
        "user_bias": model.user_bias_prior,
        "item_bias": model.item_bias_prior,
    }
    prior = priors[site]
    assert prior is not None
    return prior, None if site.endswith("_bias") else model.n_factors


def draw_prior_rows(
    posterior: Posterior, side: str, rows: Indices, draws: Indices, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Draw factors (n_draws, n_rows, K) and biases (n_draws, n_rows) or None of some rows from the prior.

    Parameters
    ----------
    posterior : Posterior
        Whose model it is; implicit feedback is that of its training ratings.
    side : {"user", "item"}
    rows, draws : ndarray of int
    seed : int
    """
    stream = Stream.PRIOR_USERS if side == "user" else Stream.PRIOR_ITEMS
    like = next(iter(posterior.user_rows.tensors().values()))
    model, n = posterior.model, len(rows)
    implicit, feedback = model.implicit, None
    if implicit is not None:
        feedback = side_feedback(posterior.train, model, side)
        feedback = feedback.select(torch.tensor(rows, device=like.device))
    factors, biases = [], []
    with own_generator(like.device) as reseed:
        for draw in draws.tolist():
            reseed(draw_seed(seed, stream, draw))
            prior, n_factors = prior_of(posterior, f"{side}_factors")
            factors.append(prior(f"{side}_factors", n_factors).sample((n,)).to(like))
            if model.biases:
                prior, _ = prior_of(posterior, f"{side}_bias")
                biases.append(prior(f"{side}_bias", None).sample((n,)).to(like))
            if implicit is not None and feedback is not None:
                # The weights' precision is Gamma(1, s^2), as in the model.
                width = posterior.n_factors + model.biases
                precision = torch._standard_gamma(torch.ones(width)) / implicit.scale**2
                weights = torch.randn(feedback.n_columns, width) * precision.rsqrt()
                means = feedback_means(feedback, weights.to(like))
                factors[-1] = factors[-1] + means[:, : posterior.n_factors]
                if biases:
                    biases[-1] = biases[-1] + means[:, -1]
    return torch.stack(factors), torch.stack(biases) if biases else None


def chain_priors(
    posterior: Posterior, guide: ChainGuide, side: str, rows: Indices
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return what gives the Normal prior of some rows at a draw: precision (D, D) and means (n, D), float64.

    Over factors and, last, the bias; the means are those of implicit feedback where the model has it.
    """
    feedback = side_feedback(posterior.train, posterior.model, side)
    feedback = feedback.select(torch.tensor(rows, device=feedback.values.device))
    location, precision, weights = (
        cast(Tensor, getattr(guide, f"{side}_{name}")) for name in ("location", "precision", "weights")
    )

    def at(draw: int) -> tuple[Tensor, Tensor]:
        mean = location[draw].double().expand(len(rows), -1)
        if guide.implicit:
            mean = mean + feedback_means(feedback, weights[draw]).double()
        return precision[draw].double(), mean

    return at
