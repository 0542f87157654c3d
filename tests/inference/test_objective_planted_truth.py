"""Ratings drawn from the model: a fit finds what they were drawn from, on pairs that it never saw."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_bmf import fit, random_split
from pyro_bmf.data import synthetic_ratings
from pyro_bmf.methods.settings import preset

NOISE = 0.5


@pytest.mark.parametrize("elbo", ["mean-field", pytest.param("trace", marks=pytest.mark.slow)])
def test_planted_truth_is_recovered(elbo: str) -> None:
    """Bounds that a fit of biases alone (correlation 0.67, noise 0.8) or of the mean alone misses by far."""
    drawn = synthetic_ratings(300, 200, 15_000, n_factors=3, noise=NOISE, seed=0)
    split = random_split(drawn.ratings, seed=0)
    settings = preset("amortized").replace(
        n_factors=3,
        prior_scale=0.6,
        bias_scale=0.4,
        n_tower_layers=0,
        n_head_layers=0,
        n_tower_outputs=30,
        attention="sum",
        attention_scope="local",
        held_out_input=False,
        input_power=0.5,
        input_dropout=0.0,
        beta_user=1.0,
        beta_item=1.0,
        weight_decay=0.0,
        user_batch_size=100,
        item_batch_size=100,
        elbo=elbo,
        max_iterations=70,
        warmup_iterations=35,
        learning_rate=3e-3,
        final_learning_rate=2e-4,
        ema_decay=0.8,
        ema_start=0.6,
        patience=None,
        seed=0,
    )
    result = fit(split, settings, device="cpu", threads=1, progress=False)
    posterior, truth, test = result.posterior, drawn.truth, split.test
    eta = truth.eta[split.test_rows]
    mean = posterior.predict_mean(test.users, test.items)
    assert np.corrcoef(mean, eta)[0, 1] > 0.92
    assert np.sqrt(np.mean((mean - eta) ** 2)) < 0.33

    # The interaction alone, biases apart: u.v is identified, u and v only up to a rotation.
    users, items = posterior.user_rows, posterior.item_rows
    product = (users.loc.numpy()[test.users] * items.loc.numpy()[test.items]).sum(-1)
    true_product = (truth.user_factors[test.users] * truth.item_factors[test.items]).sum(-1)
    assert np.corrcoef(product, true_product)[0, 1] > 0.85
    assert np.corrcoef(users.bias_loc.numpy(), truth.user_bias)[0, 1] > 0.9
    assert np.corrcoef(items.bias_loc.numpy(), truth.item_bias)[0, 1] > 0.8

    noise = result.history[-1]["noise"]  # in the ratings' unit
    assert 0.9 * NOISE < noise < 1.2 * NOISE
    # What is not known is owned up to: predictions are wider than the noise, and as wide as their errors.
    sd = posterior.predict_sd(test.users, test.items)
    assert bool((sd > noise).all())
    z = (test.ratings - mean) / sd
    assert 0.85 < float(np.sqrt(np.mean(z**2))) < 1.15
