"""The sparse encoder against the literal dense statement of Eq. 8-10, in values and in gradients."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from literal import Dense, literal_attention, literal_encoder, randomise, score_ratio

from pyro_bmf.methods.cross_feedback.attention import GUARD, attend
from pyro_bmf.methods.cross_feedback.encoder import Encoder
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings

N_ROWS, N_OTHER, K = 7, 6, 3
DEPTHS = list(itertools.product((0, 1, 2), (0, 1, 2)))
ATTENTIONS = list(
    itertools.product(("sum", "softmax"), ("local", "global"), ("concat", "add"), (False, True))
)
ABLATIONS: list[dict[str, Any]] = [
    {"attention": "none"},
    {"attention": "none", "data_input": False},
    {"data_input": False},
    {"attention": "none", "feedback": False},
    {"attention": "none", "feedback": False, "count_input": False},
    {"count_input": False},
    {"input_power": 0.5},
    {"latent_input": "average"},
    {"latent_input": "average", "data_input": False, "input_power": 0.5, "attention": "none"},
    {"n_units": 2, "n_tower_outputs": 5, "n_tower_layers": 0, "n_head_layers": 2},
]


def literal_settings(**changes: Any) -> EncoderSettings:
    """The paper's architecture with plain sums as inputs, tiny, with the given changes."""
    start = {
        "n_tower_layers": 1,
        "n_head_layers": 1,
        "n_units": 5,
        "n_tower_outputs": 4,
        "attention": "sum",
        "attention_scope": "local",
        "attention_merge": "concat",
        "data_input": True,
        "feedback": True,
        "count_input": True,
        "input_power": 0.0,
    }
    return EncoderSettings(**{**start, **changes})


def compare(settings: EncoderSettings, *, biases: bool, seed: int = 0) -> None:
    torch.manual_seed(seed)
    data = Dense.draw(N_ROWS, N_OTHER, 0.5, seed)
    encoder = Encoder(settings, N_OTHER, K, bias=biases, mean_count=2.5)
    randomise(encoder, seed)
    # Embeddings around a common point: the scores of a row have one sign, so that the guard is not active.
    embeddings = 1.0 + 0.2 * torch.randn(N_OTHER, K)
    loc, relative_scale = encoder(data.feedback(), embeddings)
    literal_loc, literal_variance, ratio = literal_encoder(encoder, data, embeddings)
    literal = ratio > GUARD
    assert literal.sum() >= 5, "too few rows where the guard is inactive: the comparison says little"
    assert loc.shape == (N_ROWS, K + biases)
    torch.testing.assert_close(loc[literal], literal_loc[literal], rtol=0, atol=1e-10)
    torch.testing.assert_close((relative_scale**2)[literal], literal_variance[literal], rtol=0, atol=1e-10)

    pull_loc, pull_variance = (torch.randn_like(loc) * literal[:, None] for _ in range(2))
    parameters = dict(encoder.named_parameters())
    sparse, dense = (
        torch.autograd.grad((pull_loc * mean + pull_variance * variance).sum(), parameters.values())
        for mean, variance in ((loc, relative_scale**2), (literal_loc, literal_variance))
    )
    for name, ours, theirs in zip(parameters, sparse, dense, strict=True):
        assert theirs.abs().sum() > 0, f"{name} has no effect here: the comparison says nothing about it"
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("tower", "head"), DEPTHS)
def test_every_depth_is_eq_8(tower: int, head: int) -> None:
    settings = literal_settings(n_tower_layers=tower, n_head_layers=head)
    compare(settings, biases=True, seed=3)


@pytest.mark.parametrize(("attention", "scope", "merge", "biases"), ATTENTIONS)
def test_every_attention_is_eq_9_and_10(attention: Any, scope: Any, merge: Any, biases: bool) -> None:
    settings = literal_settings(attention=attention, attention_scope=scope, attention_merge=merge)
    compare(settings, biases=biases, seed=1)


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
@pytest.mark.parametrize("biases", [False, True])
def test_every_ablation(ablation: dict[str, Any], biases: bool) -> None:
    compare(literal_settings(**ablation), biases=biases, seed=2)


def test_the_worked_example_of_the_latent_input() -> None:
    """Section 3.2: three items, K = 2, the first one rated: z = [v11, v12, 0, 0, 0, 0]."""
    settings = literal_settings(
        n_tower_layers=0,
        n_head_layers=0,
        n_tower_outputs=2,
        attention="none",
        data_input=False,
        count_input=False,
    )
    encoder = Encoder(settings, 3, 2, bias=False)
    v = torch.tensor([[2.0, 3.0], [5.0, 7.0], [11.0, 13.0]])
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        # The tower hands through v11 and v12 of the first item alone; other items would add thousands.
        encoder.latent_weight.fill_(1000.0)
        encoder.latent_weight[0] = torch.eye(2).repeat(1, 2)
        encoder.mean.head[-1].weight.copy_(torch.eye(2))
    data = Dense(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[4.0, 0.0, 0.0]]))
    loc, relative_scale = encoder(data.feedback(), v)
    assert loc.tolist() == [[2.0, 3.0]]
    torch.testing.assert_close(relative_scale**2, torch.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize("scope", ["local", "global"])
def test_the_literal_quotient_wherever_the_guard_is_inactive(scope: str) -> None:
    """With embeddings of both signs some rows are guarded; every other one is Eq. 9 to the letter."""
    torch.manual_seed(0)
    data = Dense.draw(60, 8, 0.5, 0)
    embeddings, query = torch.randn(8, K), torch.randn(60, K)
    ours = attend(query, embeddings, data.feedback(), normalization="sum", scope=scope)
    literal = literal_attention(query, embeddings, data.observed, normalization="sum", scope=scope)
    mask = data.observed if scope == "local" else torch.ones_like(data.observed)
    scores = (query @ embeddings.T) * mask
    size = torch.sqrt(mask.sum(1) * (scores**2).sum(1))
    inactive = score_ratio(query, embeddings, data.observed, scope=scope) > GUARD
    assert 10 < int(inactive.sum()) < 59
    torch.testing.assert_close(ours[inactive], literal[inactive], rtol=1e-9, atol=1e-12)
    guarded = ~inactive & (mask.sum(1) > 0)
    sign = torch.where(scores.sum(1) < 0, -1.0, 1.0)
    expected = (scores @ embeddings) / (sign * GUARD * size)[:, None]
    torch.testing.assert_close(ours[guarded], expected[guarded], rtol=1e-9, atol=1e-12)


def test_sides_have_their_own_encoders_scales_and_embeddings() -> None:
    """encode_rows: the item side reads X^T and U, has its own weights, and scales by its own priors."""
    torch.manual_seed(5)
    settings = literal_settings(attention="softmax")
    guide = CrossFeedbackGuide(
        settings,
        7,
        6,
        K,
        biases=True,
        user_scales=(0.5, 2.0),
        item_scales=(3.0, 0.25),
        mean_counts=(3.0, 4.0),
    )
    randomise(guide, 4)
    data = Dense.draw(7, 6, 0.5, 5)
    transposed = Dense(data.observed.T.contiguous(), data.ratings.T.contiguous())
    for side, seen, encoder, embeddings, scales in (
        ("user", data, guide.user_encoder, guide.item_factors, (0.5, 2.0)),
        ("item", transposed, guide.item_encoder, guide.user_factors, (3.0, 0.25)),
    ):
        rows = guide.encode_rows(side, seen.feedback())
        loc, variance, _ = literal_encoder(encoder, seen, embeddings)
        spread = variance.sqrt()
        torch.testing.assert_close(rows.loc, loc[:, :K], rtol=0, atol=1e-10)
        torch.testing.assert_close(rows.bias_loc, loc[:, K], rtol=0, atol=1e-10)
        torch.testing.assert_close(rows.scale, scales[0] * spread[:, :K], rtol=0, atol=1e-10)
        torch.testing.assert_close(rows.bias_scale, scales[1] * spread[:, K], rtol=0, atol=1e-10)
        by_chunks = guide.encode_side(side, seen.feedback(), chunk=2)
        torch.testing.assert_close(by_chunks.loc, rows.loc, rtol=0, atol=1e-12)
        torch.testing.assert_close(by_chunks.bias_scale, rows.bias_scale, rtol=0, atol=1e-12)
        assert not by_chunks.loc.requires_grad
