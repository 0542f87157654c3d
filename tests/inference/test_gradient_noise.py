"""Gradient noise against what it is by definition, from many gradients drawn one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf.checking.gradient_noise import gradient_noise
from pyro_bmf.data import random_split
from pyro_bmf.data.synthetic import synthetic_ratings
from pyro_bmf.errors import SettingsError
from pyro_bmf.fitting import fit
from pyro_bmf.methods.cross_feedback.objective import Objective
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.blocks import TrainingBlocks
from pyro_bmf.posterior import Posterior
from pyro_bmf.posterior.encoding import side_feedback

SMALL: dict[str, Any] = {
    "n_factors": 2,
    "n_tower_outputs": 6,
    "user_batch_size": 10,
    "item_batch_size": 10,
    "max_iterations": 2,
    "input_dropout": 0.0,
}


def fitted(**changes: Any) -> tuple[Posterior, Any]:
    split = random_split(synthetic_ratings(40, 30, 700, n_factors=2, seed=0).ratings, seed=0)
    settings = preset("amortized").replace(**SMALL, **changes)
    return fit(split, settings, threads=1, progress=False, device="cpu").posterior, settings


def by_definition(posterior: Posterior, settings: Any, n_draws: int) -> tuple[float, float]:
    """Return the noise scale, and the draws' share of the variance, from n_draws gradients of every block."""
    train, model = posterior.train, posterior.model
    blocks = TrainingBlocks.build(
        side_feedback(train, model, "user"),
        side_feedback(train, model, "item"),
        torch.tensor(train.users),
        torch.tensor(train.items),
        torch.tensor(train.ratings, dtype=model.centre.dtype),
        user_batch_size=10,
        item_batch_size=10,
        kl_counting=settings.method.kl_counting,
        seed=settings.seed,
    )
    objective: Any = Objective(model, posterior.guide, elbo=settings.method.elbo)  # type: ignore[arg-type]
    parameters = list(objective.parameters())
    beta = settings.method.beta(float(settings.method.last_iteration))
    gradients = np.empty((len(blocks), n_draws), dtype=object)
    torch.manual_seed(3)
    for number in range(len(blocks)):
        block = blocks.block(number // len(blocks.item_batches), number % len(blocks.item_batches))
        for draw in range(n_draws):
            for one in parameters:
                one.grad = None
            objective(block, beta=beta)[0].backward()
            gradients[number, draw] = np.concatenate(
                [one.grad.double().flatten().numpy() for one in parameters if one.grad is not None]
            )
    every = np.array([list(row) for row in gradients])  # (blocks, draws, parameters)
    within = every.var(1, ddof=1).sum(-1).mean()
    between = every.mean(1).var(0, ddof=1).sum() - within / n_draws
    mean = every.mean((0, 1))
    length = (mean**2).sum() - (between / len(every) + within / (len(every) * n_draws))
    return (between + within) / length, within / (between + within)


def test_it_is_the_trace_over_the_squared_mean() -> None:
    posterior, settings = fitted()
    guide: Any = posterior.guide
    found = [gradient_noise(posterior, settings, n_blocks=12, seed=seed) for seed in range(6)]
    assert found[0].n_blocks == 12
    assert not any(one.requires_grad for one in guide.parameters())
    for module in (posterior.model, guide):
        module.requires_grad_(True)
    expected, share = by_definition(posterior, settings, 40)
    # All blocks are drawn each time; what is left is the noise of two draws a block.
    assert np.mean([one.noise_scale for one in found]) == pytest.approx(expected, rel=0.25)
    assert np.mean([one.share_of_draws for one in found]) == pytest.approx(share, abs=0.1)


def test_a_closed_form_has_less_noise_of_draws() -> None:
    drawn = gradient_noise(*fitted())
    closed = gradient_noise(*fitted(elbo="closed-form"))
    assert closed.share_of_draws < 1e-9
    assert drawn.share_of_draws > 0.05


def test_a_chain_has_no_gradients() -> None:
    split = random_split(synthetic_ratings(40, 30, 700, n_factors=2, seed=0).ratings, seed=0)
    settings = preset("default").replace(n_factors=2, likelihood="normal", sweeps=6, burn_in=3, kept_draws=3)
    posterior = fit(split, settings, threads=1, progress=False).posterior
    with pytest.raises(SettingsError, match="has none"):
        gradient_noise(posterior, settings)
