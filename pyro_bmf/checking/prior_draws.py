"""Priors of rows: draws from them, hyperparameters first, and as a method learned them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.fitted import RowPriors, Side
from ..model.implicit_feedback import feedback_means
from ..model.priors.normal import Prior
from ..numerics.generators import own_generator
from ..numerics.keyed_draws import Stream, draw_seed
from ..posterior.encoding import side_feedback
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices


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
    posterior: Posterior, side: Side, rows: Indices, draws: Indices, seed: int
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


def learned_priors(posterior: Posterior, side: Side, rows: Indices | None = None) -> RowPriors | None:
    """Return the prior of some rows, or all, as the method learned it; None where it is the model's own.

    Its means are those of implicit feedback where the model has it.
    """
    feedback = side_feedback(posterior.train, posterior.model, side)
    if rows is not None:
        feedback = feedback.select(torch.tensor(rows, device=feedback.values.device))
    return posterior.guide.row_priors(side, feedback)
