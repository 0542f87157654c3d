"""Rows are exchangeable: their order, their company and what is hidden from them change nothing else."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from literal import Dense, randomise

from pyro_bmf import PyroBmfError
from pyro_bmf.methods.cross_feedback.encoder import Encoder
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.rows import RowPosterior

K, N_ROWS, N_OTHER = 3, 8, 6
FORMS = list(itertools.product(("none", "sum", "softmax"), ("local", "global")))


def make(attention: Any, scope: Any, seed: int = 0) -> tuple[Encoder, Dense, torch.Tensor]:
    torch.manual_seed(seed)
    settings = EncoderSettings(
        n_tower_layers=1, n_units=5, n_tower_outputs=4, attention=attention, attention_scope=scope
    )
    encoder = Encoder(settings, N_OTHER, K, bias=True, mean_count=3.0)
    randomise(encoder, seed)
    return encoder, Dense.draw(N_ROWS, N_OTHER, 0.5, seed), torch.randn(N_OTHER, K)


@pytest.mark.parametrize(("attention", "scope"), FORMS)
def test_permuted_and_repeated_rows(attention: str, scope: str) -> None:
    encoder, data, v = make(attention, scope)
    loc, scale = encoder(data.feedback(), v)
    for rows in (torch.randperm(N_ROWS), torch.tensor([3, 3, 0, 3]), torch.tensor([5])):
        part_loc, part_scale = encoder(data.feedback().select(rows), v)
        torch.testing.assert_close(part_loc, loc[rows], rtol=0, atol=1e-12)
        torch.testing.assert_close(part_scale, scale[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("attention", "scope"), FORMS)
def test_permuted_columns_with_their_weights(attention: str, scope: str) -> None:
    encoder, data, v = make(attention, scope)
    loc, scale = encoder(data.feedback(), v)
    order = torch.randperm(N_OTHER)
    with torch.no_grad():
        encoder.data_weight.copy_(encoder.data_weight[order].clone())
        encoder.latent_weight.copy_(encoder.latent_weight[order].clone())
    renamed = Dense(data.observed[:, order], data.ratings[:, order])
    other_loc, other_scale = encoder(renamed.feedback(), v[order])
    torch.testing.assert_close(other_loc, loc, rtol=0, atol=1e-12)
    torch.testing.assert_close(other_scale, scale, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("attention", "scope"), FORMS)
def test_hidden_entries_are_as_if_they_were_never_there(attention: str, scope: str) -> None:
    encoder, data, v = make(attention, scope)
    hidden = torch.tensor([True, False, False, True, False, False])
    without = Dense(data.observed * ~hidden, data.ratings * ~hidden)
    for kept, removed in zip(
        encoder(data.feedback().hide_columns(hidden), v), encoder(without.feedback(), v), strict=True
    ):
        torch.testing.assert_close(kept, removed, rtol=0, atol=1e-12)
    everything = torch.ones(N_OTHER, dtype=torch.bool)
    loc, _ = encoder(data.feedback().hide_columns(everything), v)
    torch.testing.assert_close(loc, loc[:1].expand_as(loc), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("attention", "scope"), FORMS)
def test_rows_without_ratings_are_defined(attention: str, scope: str) -> None:
    encoder, data, v = make(attention, scope)
    nothing = torch.zeros(0, dtype=torch.int64)
    empty = Feedback.from_coo(nothing, nothing, torch.zeros(0), 4, N_OTHER)
    loc, scale = encoder(empty, v)
    assert torch.isfinite(loc).all()
    assert bool(((scale > 0) & (scale < 1)).all())
    full_loc, full_scale = encoder(data.feedback(), v)
    assert not data.observed[0].any()
    torch.testing.assert_close(loc, full_loc[:1].expand_as(loc), rtol=0, atol=1e-12)
    torch.testing.assert_close(scale, full_scale[:1].expand_as(scale), rtol=0, atol=1e-12)
    grads = torch.autograd.grad(loc.sum() + scale.sum(), encoder.parameters(), allow_unused=True)
    assert all(grad is None or torch.isfinite(grad).all() for grad in grads)


def test_an_extreme_variance_is_not_rounded_to_zero_or_one() -> None:
    encoder, data, v = make("none", "local")
    with torch.no_grad():
        encoder.variance.head[-1].weight.zero_()
        for logit, expected in ((-60.0, 9.3576229688e-14), (40.0, 1.0)):
            encoder.variance.head[-1].bias.fill_(logit)
            _, scale = encoder(data.feedback(), v)
            assert bool((scale > 0).all())
            torch.testing.assert_close(scale, torch.full_like(scale, expected), rtol=1e-9, atol=0)


def test_the_starting_scale_is_the_one_asked_for() -> None:
    torch.manual_seed(0)
    settings = EncoderSettings(initial_scale=0.2, attention="none")
    encoder = Encoder(settings, N_OTHER, K, bias=True, mean_count=3.0)
    _, scale = encoder(Dense.draw(200, N_OTHER, 0.5, 0).feedback(), torch.randn(N_OTHER, K))
    assert 0.15 < float(scale.detach().median()) < 0.25


def test_row_posterior_parts() -> None:
    torch.manual_seed(0)
    rows = RowPosterior(torch.randn(5, 2), torch.rand(5, 2) + 0.5, torch.randn(5), torch.rand(5) + 0.5)
    joined = RowPosterior.concatenate([rows.select(torch.tensor([4, 1])), rows.select(torch.tensor([0]))])
    assert len(joined) == 3
    assert joined.n_factors == 2
    order = torch.tensor([4, 1, 0])
    for name in ("loc", "scale", "bias_loc", "bias_scale"):
        assert torch.equal(getattr(joined, name), getattr(rows, name)[order])
    plain = RowPosterior(rows.loc, rows.scale)
    assert RowPosterior.concatenate([plain, plain]).bias_loc is None
    assert plain.sample()[1] is None
    factors, biases = rows.sample(20_000, generator=torch.Generator().manual_seed(1))
    assert factors.shape == (20_000, 5, 2)
    assert biases.shape == (20_000, 5)
    # Four standard errors of a mean, and of a standard deviation, of 20,000 draws.
    assert bool(((factors.mean(0) - rows.loc).abs() < 4 * rows.scale / 20_000**0.5).all())
    assert bool(((factors.std(0) / rows.scale - 1).abs() < 4 / 40_000**0.5).all())
    assert bool(((biases.mean(0) - rows.bias_loc).abs() < 4 * rows.bias_scale / 20_000**0.5).all())
    assert bool(((biases.std(0) / rows.bias_scale - 1).abs() < 4 / 40_000**0.5).all())


def test_resampling_draws_from_q() -> None:
    torch.manual_seed(0)
    guide = CrossFeedbackGuide(EncoderSettings(), 3000, 2000, 2, biases=False)
    assert 0.9 < float(guide.user_factors.std()) < 1.1, "the first feedback is drawn from the prior"
    users = RowPosterior(torch.full((3000, 2), 4.0), torch.full((3000, 2), 0.5))
    items = RowPosterior(torch.full((2000, 2), -3.0), torch.full((2000, 2), 2.0))
    guide.resample_feedback(users, items)
    assert abs(float(guide.user_factors.mean()) - 4.0) < 0.05
    assert abs(float(guide.user_factors.std()) - 0.5) < 0.05
    assert abs(float(guide.item_factors.mean()) + 3.0) < 0.15
    assert abs(float(guide.item_factors.std()) - 2.0) < 0.15
    assert "user_factors" in guide.state_dict(), "the fed-back embeddings are part of q, and saved with it"


def test_settings_make_the_round_trip_and_weights_load() -> None:
    torch.manual_seed(0)
    settings = EncoderSettings(n_units=5, n_tower_outputs=4, attention="sum", attention_merge="add")
    guide = CrossFeedbackGuide(
        settings, 8, 6, K, biases=True, user_scales=(0.5, 0.25), mean_counts=(3.0, 4.0)
    )
    again = CrossFeedbackGuide.from_settings(guide.settings())
    again.load_state_dict(guide.state_dict())
    feedback = Dense.draw(8, 6, 0.5, 0).feedback()
    before, after = (g.encode_side("user", feedback) for g in (guide, again))
    for name in ("loc", "scale", "bias_loc", "bias_scale"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    assert again.guide_settings == settings


@pytest.mark.parametrize(
    "bad",
    [
        {"n_units": 0},
        {"n_tower_outputs": 0},
        {"n_tower_layers": -1},
        {"n_head_layers": -1},
        {"attention": "mean"},
        {"attention_scope": "everywhere"},
        {"attention_merge": "multiply"},
        {"data_input": False, "feedback": False},
        {"feedback": False, "attention": "sum"},
        {"initial_scale": 0.0},
        {"initial_scale": 1.0},
    ],
    ids=str,
)
def test_settings_that_cannot_be(bad: dict[str, Any]) -> None:
    with pytest.raises(PyroBmfError, match=next(iter(bad))):
        EncoderSettings(**bad)


def test_a_variance_out_of_reach_of_the_precision_leaves_a_finite_kl() -> None:
    encoder, data, v = make("none", "local")
    with torch.no_grad():
        encoder.variance.head[-1].bias.fill_(-5_000.0)
        _, scale = encoder(data.feedback(), v)
    assert bool(torch.isfinite(scale.log()).all())
