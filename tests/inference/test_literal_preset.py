"""The preset `literal`: what the paper's section 3 states, in the objects that a fit is made of."""

from __future__ import annotations

import torch

from pyro_bmf import fit, preset, random_split
from pyro_bmf.data import synthetic_ratings
from pyro_bmf.methods.settings import Settings


def test_a_fit_has_standard_normal_priors_noise_one_and_raw_ratings() -> None:
    split = random_split(synthetic_ratings(130, 120, 1500, n_factors=2, scale="1:5:1").ratings, seed=1)
    settings = preset("literal").replace(stop_after=2)
    result = fit(split, settings, progress=False)
    model = result.posterior.model
    for prior in (model.user_prior, model.item_prior):
        rows = prior("rows", 10)
        assert torch.equal(rows.mean.cpu(), torch.zeros(10))
        assert torch.equal(rows.variance.cpu(), torch.ones(10))
    assert not model.biases
    assert not model.centred
    assert float(model.likelihood.noise_sd) == 1.0
    # raw ratings in, raw ratings out: no unit is changed on the way
    assert float(model.centre) == 0.0
    assert [record["iteration"] for record in result.history] == [1, 2]


def test_nothing_beside_the_text_is_on() -> None:
    settings = preset("literal")
    method, encoder = settings.method, settings.method.encoder
    assert (encoder.attention, encoder.attention_merge, encoder.attention_scope) == ("sum", "concat", "local")
    assert (encoder.input_dropout, encoder.input_power, encoder.count_input) == (0.0, 0.0, False)
    assert (encoder.held_out_input, encoder.residual, encoder.bayesian_input) == (False, False, False)
    assert (method.user_batch_size, method.item_batch_size) == (100, 100)
    assert (method.kl_counting, method.shuffle_blocks, method.ema_decay) == ("per_block", False, 0.0)
    assert method.learning_rate_at(0) == method.learning_rate_at(100)
    assert method.beta(0) == (method.beta_user, method.beta_item)
    assert Settings.from_dict(settings.to_dict()) == settings
