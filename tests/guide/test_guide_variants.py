"""Correlated rows, residuals, Bayesian first layers and bases, each against an independent statement."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from literal import Dense, randomise
from torch import Tensor
from torch.autograd import gradcheck

from pyro_bmf.errors import SettingsError
from pyro_bmf.methods.cross_feedback.covariance import (
    CorrelatedNormal,
    correlation_tril,
    n_correlations,
    row_tril,
)
from pyro_bmf.methods.cross_feedback.encoder import Encoder
from pyro_bmf.methods.cross_feedback.first_layer import (
    PreActivation,
    basis_tables,
    rectified_moments,
    weights_kl,
)
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.residual import Residual
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.model.feedback import Feedback

N_ROWS, N_OTHER, K = 7, 6, 3


def make_encoder(seed: int = 0, **changes: Any) -> tuple[Encoder, Dense, Tensor]:
    torch.manual_seed(seed)
    settings = EncoderSettings(**{"n_units": 5, "n_tower_outputs": 4, **changes})
    encoder = Encoder(settings, N_OTHER, K, bias=True, mean_count=2.5)
    randomise(encoder, seed)
    return encoder, Dense.draw(N_ROWS, N_OTHER, 0.5, seed), 0.5 + torch.randn(N_OTHER, K)


# ---------------------------------------------------------------- covariances


def literal_correlation(outputs: Tensor, covariance: str) -> Tensor:
    """The correlation matrix of one row, entry by entry."""
    vectors = []
    if covariance == "full":
        place = iter(outputs)
        for k in range(K):
            row = [next(place) for _ in range(k)] + [torch.tensor(1.0)]
            row += [torch.tensor(0.0)] * (K - 1 - k)
            vectors.append(torch.stack(row))
    else:
        for k, row in enumerate(outputs.reshape(K, -1)):
            vectors.append(torch.cat([torch.eye(K)[k], row]))
    return torch.stack(
        [torch.stack([(a @ b) / torch.sqrt((a @ a) * (b @ b)) for b in vectors]) for a in vectors]
    )


@pytest.mark.parametrize(("covariance", "rank"), [("full", 1), ("low-rank", 1), ("low-rank", 2)])
def test_correlations_are_those_of_the_outputs(covariance: Any, rank: int) -> None:
    torch.manual_seed(0)
    outputs = torch.randn(5, n_correlations(K, covariance, rank), requires_grad=True)
    tril = correlation_tril(outputs, K, covariance)
    assert not torch.triu(tril, 1).any()
    assert bool((tril.diagonal(dim1=-2, dim2=-1) > 0).all())
    expected = torch.stack([literal_correlation(row, covariance) for row in outputs])
    torch.testing.assert_close(tril @ tril.mT, expected, rtol=0, atol=1e-12)
    assert gradcheck(lambda x: correlation_tril(x, K, covariance), (outputs,))
    huge = correlation_tril(1e4 * outputs.detach().float(), K, covariance)
    assert bool(torch.isfinite(huge).all())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("more", [False, True])
def test_a_rows_covariance(bias: bool, more: bool) -> None:
    """diag(s) R diag(s), plus what is independent, and the bias apart."""
    torch.manual_seed(1)
    scale = 0.2 + torch.rand(4, K + bias)
    correlation = correlation_tril(torch.randn(4, K * 2), K, "low-rank")
    extra = torch.rand(4, K + bias) if more else None
    tril = row_tril(scale, correlation, extra, K)
    for i in range(4):
        expected = torch.zeros(K + bias, K + bias)
        expected[:K, :K] = torch.diag(scale[i, :K]) @ (correlation[i] @ correlation[i].T)
        expected[:K, :K] = expected[:K, :K] @ torch.diag(scale[i, :K])
        if bias:
            expected[K, K] = scale[i, K] ** 2
        if extra is not None:
            expected += torch.diag(extra[i])
        torch.testing.assert_close(tril[i] @ tril[i].T, expected)
        assert not torch.triu(tril[i], 1).any()


def test_the_kl_of_correlated_factors_is_torchs_own() -> None:
    torch.manual_seed(2)
    loc, tril = torch.randn(4, K), torch.tril(torch.randn(4, K, K))
    tril = tril.tril(-1) + torch.diag_embed(0.3 + torch.rand(4, K))
    m, s = torch.randn(K), 0.5 + torch.rand(K)
    ours = torch.distributions.kl_divergence(
        CorrelatedNormal(loc, scale_tril=tril), dist.Normal(m, s).to_event(1)
    )
    theirs = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(loc, scale_tril=tril),
        torch.distributions.MultivariateNormal(m, torch.diag(s**2)),
    )
    assert ours.shape == (4,)
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(NotImplementedError):
        torch.distributions.kl_divergence(
            CorrelatedNormal(loc, scale_tril=tril), dist.Laplace(m, s).to_event(1)
        )


@pytest.mark.parametrize("covariance", ["low-rank", "full"])
def test_correlations_leave_means_and_marginal_scales_as_they_are(covariance: Any) -> None:
    """The first outputs are the diagonal encoder's; with its weights, means and marginals are its own."""
    plain, data, v = make_encoder()
    more, _, _ = make_encoder(covariance=covariance)
    values = {**more.state_dict(), **{n: t for n, t in plain.state_dict().items() if "variance." not in n}}
    more.load_state_dict(values)
    n = K + 1
    with torch.no_grad():
        for name, theirs in plain.variance.named_parameters():
            ours = dict(more.variance.named_parameters())[name]
            part = tuple(slice(size) for size in theirs.shape)
            if name == "merge.weight":
                ours[:n].zero_()
                ours[:n, :n], ours[:n, -K:] = theirs[:, :n], theirs[:, n:]
            else:
                ours[part] = theirs
    encoded = more.encode(data.feedback(), v)
    loc, scale = plain(data.feedback(), v)
    torch.testing.assert_close(encoded.loc, loc, rtol=0, atol=1e-12)
    torch.testing.assert_close(encoded.relative_scale, scale, rtol=0, atol=1e-12)
    assert encoded.correlation is not None
    assert float(encoded.correlation.detach().tril(-1).abs().max()) > 0.1


def test_full_correlations_start_small() -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings(covariance="full"), N_OTHER, K, bias=True, mean_count=3.0)
    encoded = encoder.encode(Dense.draw(9, N_OTHER, 0.5, 0).feedback(), torch.randn(N_OTHER, K))
    assert encoded.correlation is not None
    off = (encoded.correlation @ encoded.correlation.mT - torch.eye(K)).abs().detach()
    assert float(off.max()) < 0.75
    assert float(off.mean()) < 0.25


# ---------------------------------------------------------------- residuals


def residual_guide(seed: int = 0, **changes: Any) -> tuple[CrossFeedbackGuide, CrossFeedbackGuide, Dense]:
    """A guide with residuals, the same without, and the users' ratings."""
    torch.manual_seed(seed)
    guides = []
    for residual in (True, False):
        settings = EncoderSettings(n_units=5, n_tower_outputs=4, residual=residual, **changes)
        torch.manual_seed(seed)
        guide = CrossFeedbackGuide(
            settings, N_ROWS, N_OTHER, K, biases=True, user_scales=(0.5, 2.0), item_scales=(3.0, 0.25)
        )
        guides.append(guide)
    randomise(guides[0], seed)
    guides[1].load_state_dict({n: t for n, t in guides[0].state_dict().items() if "residual" not in n})
    return guides[0], guides[1], Dense.draw(N_ROWS, N_OTHER, 0.5, seed)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_training_row_is_its_encoder_and_its_residual(covariance: str) -> None:
    guide, plain, data = residual_guide(covariance=covariance)
    for side, feedback, scales in (
        ("user", data.feedback(), (0.5, 2.0)),
        ("item", Dense(data.observed.T.contiguous(), data.ratings.T.contiguous()).feedback(), (3.0, 0.25)),
    ):
        n = feedback.n_rows
        order = torch.randperm(n)
        ours = guide.encode_rows(side, feedback.select(order), rows=order)  # type: ignore[arg-type]
        encoder = plain.encode_rows(side, feedback)  # type: ignore[arg-type]
        free: Residual = getattr(guide, f"{side}_residual")
        for place, i in enumerate(order.tolist()):
            r, e = free.loc[i], free.log_scale[i].exp()
            loc = encoder.loc[i] + scales[0] * r[:K]
            variance = encoder.covariance()[i] + torch.diag(
                torch.cat([scales[0] * e[:K], scales[1] * e[K:]]) ** 2
            )
            torch.testing.assert_close(ours.loc[place], loc)
            torch.testing.assert_close(ours.bias_loc[place], encoder.bias_loc[i] + scales[1] * r[K])
            torch.testing.assert_close(ours.covariance()[place], variance)
            torch.testing.assert_close(ours.scale[place] ** 2, variance.diagonal()[:K])
            torch.testing.assert_close(ours.bias_scale[place] ** 2, variance[K, K])


@pytest.mark.parametrize("chunk", [2, 100])
def test_a_new_row_has_the_spread_of_the_residuals_of_rows_with_ratings(chunk: int) -> None:
    guide, plain, data = residual_guide(seed=3)
    before = guide.encode_side("user", data.feedback())
    known = guide.encode_side("user", data.feedback(), known=True, chunk=chunk)
    new = guide.encode_side("user", data.feedback(), chunk=chunk)
    encoder = plain.encode_side("user", data.feedback())
    residual = guide.user_residual
    rated = [i for i in range(N_ROWS) if data.observed[i].any()]
    assert 0 < len(rated) < N_ROWS
    second = [residual.loc[i] ** 2 + residual.log_scale[i].exp() ** 2 for i in rated]
    spread = (sum(second) / len(rated)).detach()
    torch.testing.assert_close(residual.spread, spread)
    torch.testing.assert_close(new.loc, encoder.loc)
    torch.testing.assert_close(new.bias_loc, encoder.bias_loc)
    torch.testing.assert_close(new.scale**2, encoder.scale**2 + 0.5**2 * spread[:K])
    torch.testing.assert_close(new.bias_scale**2, encoder.bias_scale**2 + 2.0**2 * spread[K])
    assert not torch.allclose(known.loc, new.loc)
    assert not torch.allclose(before.scale, new.scale), "the spread is taken anew"
    # Calibrated: over the trained rows, standardised by the new row's variance, residuals have size one.
    everyone = torch.stack(second).detach() / spread
    torch.testing.assert_close(everyone.mean(0), torch.ones(K + 1))


def test_a_new_residual_is_small_and_centred() -> None:
    residual = Residual(4, 2)
    mean, variance = residual(torch.arange(4))
    assert not mean.any()
    torch.testing.assert_close(variance, torch.full((4, 2), 0.01))


# ---------------------------------------------------------------- Bayesian first layers

BAYESIAN = [{}, {"n_bases": 2}, {"data_input": False}, {"feedback": False, "attention": "none"}]


def literal_moments(encoder: Encoder, data: Dense, v: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Moments of both towers' pre-activations, each row and unit by its own sum over weights."""
    settings = encoder.settings
    counts = data.observed.sum(1, keepdim=True)
    divisor = ((1.0 + counts) / encoder.log_mean_count.exp()) ** settings.input_power
    found = []
    if settings.data_input:
        x = data.ratings / divisor
        mean, sd = encoder.data_weight, encoder.posteriors.data_weight.log_scale.exp()
        found.append((x @ mean + encoder.data_bias, torch.einsum("ij,jm->im", x**2, sd**2)))
    if settings.feedback:
        z = data.observed / divisor
        if settings.n_bases is None:
            mean, sd = encoder.latent_weight, encoder.posteriors.latent_weight.log_scale.exp()
            inputs = z[:, :, None] * v[None]  # (rows, other, K): every entry is one input of the dense layer
            found.append(
                (
                    torch.einsum("ijk,jkm->im", inputs, mean) + encoder.latent_bias,
                    torch.einsum("ijk,jkm->im", inputs**2, sd**2),
                )
            )
        else:
            s, sd = encoder.latent_coefficients, encoder.posteriors.latent_coefficients.log_scale.exp()
            width = encoder.latent_bases.shape[-1] // 2
            both = []
            for network in (0, 1):
                bases = encoder.latent_bases[..., network * width : (network + 1) * width]
                inputs = torch.einsum("ij,jk,bkm->ijbm", z, v, bases)  # what a coefficient is multiplied by
                both.append(
                    (
                        torch.einsum("ijbm,jb->im", inputs, s[:, network]),
                        torch.einsum("ijbm,jb->im", inputs**2, sd[:, network] ** 2),
                    )
                )
            mean, variance = (torch.cat(parts, 1) for parts in zip(*both, strict=True))
            found.append((mean + encoder.latent_bias, variance))
    return found


@pytest.mark.parametrize("changes", BAYESIAN, ids=str)
def test_moments_of_the_first_layer(changes: dict[str, Any]) -> None:
    encoder, data, v = make_encoder(bayesian_input=True, **changes)
    ours = [part for part in encoder.first_layer(data.feedback(), v) if part is not None]
    expected = literal_moments(encoder, data, v)
    assert len(ours) == len(expected)
    for part, (mean, variance) in zip(ours, expected, strict=True):
        torch.testing.assert_close(part.mean, mean)
        torch.testing.assert_close(part.variance, variance)
    pulls = [torch.randn_like(mean) for mean, _ in expected]
    parameters = {n: p for n, p in encoder.named_parameters() if n.startswith(("data", "latent"))}
    grads = []
    for parts in ([(p.mean, p.variance) for p in ours], expected):
        total = sum((q * (m + s)).sum() for q, (m, s) in zip(pulls, parts, strict=True))
        grads.append(torch.autograd.grad(total, list(parameters.values())))
    for name, mine, theirs in zip(parameters, *grads, strict=True):
        assert theirs.abs().sum() > 0, name
        torch.testing.assert_close(mine, theirs)


def test_hidden_and_heavier_entries_count_in_the_variance() -> None:
    """What input dropout does: an entry that weighs w adds w^2 times its variance."""
    encoder, data, v = make_encoder(bayesian_input=True, input_power=0.0)
    feedback = data.feedback()
    mask = torch.rand(feedback.nnz).round() * 1.6
    weights = torch.zeros(N_ROWS, N_OTHER)
    weights[feedback.row_of_entry, feedback.indices.long()] = mask
    data_part, latent_part = encoder.first_layer(feedback.hide(mask), v)
    x = data.ratings * weights
    variance = (2 * encoder.posteriors.data_weight.log_scale).exp()
    torch.testing.assert_close(data_part.variance, x**2 @ variance)
    inputs = (weights[:, :, None] * v) ** 2
    expected = torch.einsum("ijk,jkm->im", inputs, (2 * encoder.posteriors.latent_weight.log_scale).exp())
    torch.testing.assert_close(latent_part.variance, expected)


def test_rectified_moments() -> None:
    """Against a fine sum over h, far into both tails."""
    means = torch.tensor([-8.0, -1.5, -0.2, 0.0, 0.3, 2.0, 9.0])
    sds = torch.tensor([0.05, 0.7, 2.0])
    mean, sd = (x.reshape(-1, 1) for x in torch.meshgrid(means, sds, indexing="ij"))
    ours = rectified_moments(PreActivation(mean, sd**2))
    grid = np.linspace(-12.0, 12.0, 400_001)
    for place, (m, s) in enumerate(zip(mean.flatten().tolist(), sd.flatten().tolist(), strict=True)):
        h = m + s * grid
        weight = np.exp(-(grid**2) / 2)
        weight /= weight.sum()
        rectified = np.maximum(h, 0.0)
        first = float((weight * rectified).sum())
        second = float((weight * (rectified - first) ** 2).sum())
        assert float(ours[0][place]) == pytest.approx(first, rel=1e-6, abs=1e-12)
        assert float(ours[1][place]) == pytest.approx(second, rel=1e-5, abs=1e-10)
    known, nothing = rectified_moments(PreActivation(means[:, None]))
    assert torch.equal(known, means[:, None].relu())
    assert not nothing.any()


@pytest.mark.parametrize("merge", ["none", "concat", "add"])
@pytest.mark.parametrize("n_bases", [None, 2])
def test_weights_that_are_not_known_widen_the_posterior(merge: str, n_bases: int | None) -> None:
    """With L' = L = 0 outputs are linear in the rectified units: mean and variance against draws of weights.

    Softmax attention to embeddings that are all alike is a constant, so that the direct way is all there is.
    """
    attention = {"attention": "none"}
    if merge != "none":
        attention = {"attention": "softmax", "attention_merge": merge}
    encoder, data, _ = make_encoder(
        n_tower_layers=0, bayesian_input=True, attention_scope="global", n_bases=n_bases, **attention
    )
    v = torch.full((N_OTHER, K), 0.7)
    feedback = data.feedback()
    with torch.no_grad():
        encoded = encoder.encode(feedback, v)
        torch.manual_seed(4)
        tables = {}
        for name in ("data_weight", "latent_weight", "latent_coefficients"):
            if getattr(encoder, name) is not None:
                tables[name] = getattr(encoder, name).clone()
        draws = []
        for _ in range(2_000):
            for name, mean in tables.items():
                sd = encoder.posteriors[name].log_scale.exp()
                getattr(encoder, name).copy_(mean + sd * torch.randn_like(sd))
            part, latent = encoder.first_layer(feedback, v)
            plain = encoder.mean(
                part.mean[:, :4],
                latent.mean[:, :4],
                (torch.log1p(feedback.counts) - encoder.log_mean_count)[:, None],
                feedback,
                v,
            )
            draws.append(plain)
        drawn = torch.stack(draws)
    error = drawn.std(0) / len(drawn) ** 0.5
    assert bool(((encoded.loc - drawn.mean(0)).abs() < 5 * error + 1e-9).all())
    if n_bases is None:
        ratio = encoded.variance / drawn.var(0)
        assert bool(((ratio[1:] - 1).abs() < 6 * (2 / len(drawn)) ** 0.5 * 2).all())
    # A row without ratings reads no weights.
    torch.testing.assert_close(encoded.variance[0], torch.zeros(K + 1), rtol=0, atol=1e-12)


def test_hidden_layers_have_no_closed_form() -> None:
    for changes in ({"n_tower_layers": 1}, {"n_tower_layers": 0, "n_head_layers": 1}):
        encoder, data, v = make_encoder(bayesian_input=True, **changes)
        assert encoder.encode(data.feedback(), v).variance is None


def test_drawn_pre_activations_have_the_moments_and_their_gradients() -> None:
    torch.manual_seed(0)
    part = PreActivation(torch.randn(2, 3), torch.rand(2, 3))
    drawn = torch.stack([part.sample() for _ in range(20_000)])
    assert bool(((drawn.mean(0) - part.mean).abs() < 5 * part.variance.sqrt() / 20_000**0.5).all())
    assert bool(((drawn.var(0) / part.variance - 1).abs() < 5 * (2 / 20_000) ** 0.5).all())
    nothing = torch.zeros(2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(PreActivation(torch.zeros(2, 3), nothing).sample().sum(), nothing)
    assert bool(torch.isfinite(grad).all()), "a row that reads nothing has no variance, and a finite gradient"


def test_drawn_coefficients_leave_nothing_to_be_drawn() -> None:
    """They are common to a row's units: drawn once, and what they add up to has no variance left."""
    encoder, data, v = make_encoder(bayesian_input=True, n_bases=2)
    feedback = data.feedback()
    with torch.no_grad():
        _, moments = encoder.first_layer(feedback, v)
        drawn = [encoder.first_layer(feedback, v, sample=True)[1] for _ in range(4_000)]
    assert all(part.variance is None for part in drawn)
    values = torch.stack([part.mean for part in drawn])
    error = (moments.variance / len(values)).sqrt()
    assert bool(((values.mean(0) - moments.mean).abs() < 5 * error + 1e-12).all())
    ratio = values.var(0)[1:] / moments.variance[1:]
    assert bool(((ratio - 1).abs() < 6 * (2 / len(values)) ** 0.5).all())


@pytest.mark.parametrize("changes", BAYESIAN, ids=str)
def test_the_kl_of_the_weights(changes: dict[str, Any]) -> None:
    encoder, _, _ = make_encoder(bayesian_input=True, input_prior_scale=1.7, **changes)
    expected = torch.zeros(())
    spread = 1.0 / math.sqrt(2.5)
    for name, start in (
        ("data_weight", spread),
        ("latent_weight", spread / math.sqrt(K)),
        ("latent_coefficients", 1.0 / math.sqrt(2)),
    ):
        if getattr(encoder, name) is not None:
            q = dist.Normal(getattr(encoder, name), encoder.posteriors[name].log_scale.exp())
            expected = expected + torch.distributions.kl_divergence(q, dist.Normal(0.0, 1.7 * start)).sum()
    torch.testing.assert_close(encoder.weights_kl(), expected)
    plain, _, _ = make_encoder(**changes)
    assert plain.weights_kl() is None
    assert gradcheck(
        lambda m, s: weights_kl(m, s, torch.tensor(0.8)),
        (torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)),
    )


# ---------------------------------------------------------------- bases


@pytest.mark.parametrize("n_bases", [1, 3])
def test_bases_are_the_dense_first_layer_built_from_them(n_bases: int) -> None:
    basis, data, v = make_encoder(n_bases=n_bases)
    dense, _, _ = make_encoder()
    width = basis.latent_bases.shape[-1] // 2
    built = torch.zeros(N_OTHER, K, 2 * width)
    for j in range(N_OTHER):
        for b in range(n_bases):
            for network in (0, 1):
                own = slice(network * width, (network + 1) * width)
                coefficient = basis.latent_coefficients[j, network, b]
                built[j, :, own] += coefficient * basis.latent_bases[b, :, own]
    torch.testing.assert_close(basis.dense_latent_weight(), built)
    values = {n: t for n, t in basis.state_dict().items() if "coefficients" not in n and "bases" not in n}
    dense.load_state_dict({**values, "latent_weight": built.detach()})
    for ours, theirs in zip(basis(data.feedback(), v), dense(data.feedback(), v), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert dense.dense_latent_weight() is dense.latent_weight


def test_gradients_of_bases() -> None:
    torch.manual_seed(0)
    v = torch.randn(4, K)
    s, bases = torch.randn(4, 2, 2, requires_grad=True), torch.randn(2, K, 6, requires_grad=True)
    scale = torch.rand(4, 2, 2, requires_grad=True)
    assert gradcheck(lambda *x: basis_tables(x[0], x[1], v, x[2]), (s, bases, scale))
    fed_back = v.clone().requires_grad_()
    basis_tables(s, bases, fed_back, None)[0].sum().backward()
    assert fed_back.grad is None


def test_bases_save_parameters() -> None:
    """Two coefficients for each row and basis, instead of K times twice the width for each row."""
    sizes = {}
    for n_bases in (None, 8):
        settings = EncoderSettings(n_tower_outputs=50, n_tower_layers=0, n_bases=n_bases)
        encoder = Encoder(settings, 1682, 10, bias=True)
        sizes[n_bases] = sum(
            p.numel()
            for n, p in encoder.named_parameters()
            if n in ("latent_weight", "latent_coefficients", "latent_bases")
        )
    assert sizes == {None: 1682 * 10 * 100, 8: 1682 * 2 * 8 + 8 * 10 * 100}


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"covariance": "dense"}, "covariance"),
        ({"covariance_rank": 0}, "covariance_rank"),
        ({"input_prior_scale": 0.0}, "input_prior_scale"),
        ({"input_prior_scale": math.nan}, "input_prior_scale"),
        ({"n_bases": 0}, "n_bases"),
        ({"n_bases": 2, "feedback": False, "attention": "none"}, "n_bases"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        EncoderSettings(**changes)


def test_one_factor_has_no_correlations() -> None:
    settings = EncoderSettings(n_units=3, n_tower_outputs=3, covariance="full")
    guide = CrossFeedbackGuide(settings, 4, 3, 1, biases=False)
    nothing = torch.zeros(0, dtype=torch.int64)
    rows = guide.encode_rows("user", Feedback.from_coo(nothing, nothing, torch.zeros(0), 2, 3))
    torch.testing.assert_close(rows.tril[:, 0], rows.scale)
