"""Moments, probabilities, intervals and draws of pairs, against sampling and against hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from posteriors import LogNormalLikelihood, PoissonLikelihood, handmade, random_rows
from scipy import special, stats

from pyro_bmf.model import rows
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.rows import RowPosterior
from pyro_bmf.numerics.keyed_draws import Stream, draw_seed, row_noise
from pyro_bmf.posterior import predictive

N = 200_000


def brute_eta(users: RowPosterior, items: RowPosterior, centre: float, n: int = N) -> np.ndarray:
    """Draw the predictor of every (user, item), shape (n, n_users, n_items), by numpy and the definition."""
    rng = np.random.default_rng(11)

    def draw(loc: torch.Tensor | None, scale: torch.Tensor | None) -> np.ndarray:
        assert loc is not None
        assert scale is not None
        return loc.numpy() + scale.numpy() * rng.standard_normal((n, *loc.shape))

    u, v = draw(users.loc, users.scale), draw(items.loc, items.scale)
    eta = centre + np.einsum("sik,sjk->sij", u, v)
    if users.bias_loc is not None:
        eta += draw(users.bias_loc, users.bias_scale)[:, :, None]
        eta += draw(items.bias_loc, items.bias_scale)[:, None, :]
    return eta


def grid(n_users: int, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(np.arange(n_users), n_items), np.tile(np.arange(n_items), n_users)


@pytest.mark.parametrize("biases", [True, False])
def test_eta_moments_are_those_of_draws(biases: bool) -> None:
    users, items = random_rows(3, 4, biases=biases), random_rows(2, 4, biases=biases, seed=1)
    pairs = handmade(users, items, centre=3.5).pairs
    mean, variance = (x.numpy() for x in pairs.eta_moments(*grid(3, 2)))
    drawn = brute_eta(users, items, 3.5).reshape(N, -1)
    standard_error = drawn.std(0) / math.sqrt(N)
    assert (np.abs(drawn.mean(0) - mean) < 4.5 * standard_error).all()
    # The variance's own standard error needs the fourth moment.
    fourth = ((drawn - drawn.mean(0)) ** 4).mean(0)
    assert (np.abs(drawn.var(0) - variance) < 4.5 * np.sqrt((fourth - variance**2) / N)).all()


def test_eta_moments_by_hand() -> None:
    users = RowPosterior(
        torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 0.1]]), torch.tensor([0.25]), torch.tensor([0.2])
    )
    items = RowPosterior(
        torch.tensor([[1.0, 3.0]]), torch.tensor([[0.3, 0.2]]), torch.tensor([-1.0]), torch.tensor([0.4])
    )
    zero = np.zeros(1, dtype=np.int64)
    pairs = handmade(users, items, centre=3.0, likelihood=NormalLikelihood(0.5)).pairs
    mean, variance = pairs.eta_moments(zero, zero)
    # 3 + 0.25 - 1 + 2 - 3, and var(xy) = E[x]^2 var y + E[y]^2 var x + var x var y for each factor.
    by_hand = 4 * 0.09 + 1 * 0.25 + 0.25 * 0.09 + 1 * 0.04 + 9 * 0.01 + 0.01 * 0.04 + 0.04 + 0.16
    assert float(mean) == pytest.approx(1.25, abs=1e-6)
    assert float(variance) == pytest.approx(by_hand, abs=1e-6)
    _, sd = pairs.rating_moments(zero, zero)
    assert sd[0] == pytest.approx(math.sqrt(by_hand + 0.25), abs=1e-6)
    _, mean_sd = pairs.mean_moments(zero, zero)
    assert mean_sd[0] == pytest.approx(math.sqrt(by_hand), abs=1e-6)


def test_scores_are_the_means_of_pairs() -> None:
    users, items = random_rows(7, 5), random_rows(9, 5, seed=1)
    posterior = handmade(users, items, centre=3.5)
    expected = posterior.predict_mean(*grid(7, 9)).reshape(7, 9)
    np.testing.assert_allclose(posterior.score_items(np.arange(7)), expected, atol=2e-6)
    np.testing.assert_allclose(posterior.score_items(np.array([4, 4, 0])), expected[[4, 4, 0]], atol=2e-6)


def test_scores_of_a_likelihood_with_another_mean() -> None:
    users, items = random_rows(5, 3), random_rows(6, 3, seed=1)
    posterior = handmade(users, items, likelihood=PoissonLikelihood())
    scores = posterior.score_items(np.arange(5))
    # E[exp(eta)] of a Normal eta.
    mean, variance = posterior.pairs.eta_moments(*grid(5, 6))
    np.testing.assert_allclose(scores.ravel(), (mean + variance / 2).exp().numpy(), rtol=1e-5)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    users, items = random_rows(7, 5), random_rows(9, 5, seed=1)
    levels = np.arange(1.0, 6.0)
    at = grid(7, 9)

    def everything() -> list[np.ndarray]:
        pairs = handmade(users, items, centre=3.5, likelihood=PoissonLikelihood()).pairs
        return [
            *pairs.rating_moments(*at),
            *pairs.mean_moments(*at),
            *pairs.rating_interval(*at, 0.9, levels),
            *pairs.mean_interval(*at, 0.9),
            pairs.plugin_mean(*at),
            pairs.pmf(*at, levels),
            pairs.score(np.arange(7), np.arange(9)),
            pairs.sample(*at, 13, 5, "rating"),
            pairs.sample(*at, 13, 5, "eta"),
        ]

    whole = everything()
    for module in (predictive, rows):
        monkeypatch.setattr(module, "CELLS", 20)
    for one, other in zip(whole, everything(), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6)


def test_nothing_asked_gives_nothing() -> None:
    posterior = handmade(random_rows(3, 2), random_rows(3, 2))
    none = np.zeros(0, dtype=np.int64)
    assert posterior.predict_mean(none, none).shape == (0,)
    assert posterior.predict_pmf(none, none, np.arange(1.0, 6.0)).shape == (0, 5)
    assert posterior.score_items(none).shape == (0, 3)


# ------------------------------------------------------------------ other likelihoods, intervals


def test_a_poisson_likelihood_against_draws() -> None:
    users, items = random_rows(2, 3, spread=0.15), random_rows(2, 3, spread=0.15, seed=1)
    at = grid(2, 2)
    pairs = handmade(users, items, likelihood=PoissonLikelihood()).pairs
    eta = brute_eta(users, items, 0.0).reshape(N, -1)
    rates = np.exp(eta)
    counts = np.random.default_rng(0).poisson(rates)
    mean, sd = pairs.rating_moments(*at)
    # The predictor is taken for Normal, hence a tolerance beside sampling noise.
    np.testing.assert_allclose(mean, counts.mean(0), rtol=0.02)
    np.testing.assert_allclose(sd, counts.std(0), rtol=0.03)
    mean_rating, mean_sd = pairs.mean_moments(*at)
    np.testing.assert_allclose(mean_rating, mean, rtol=1e-9)
    np.testing.assert_allclose(mean_sd, rates.std(0), rtol=0.05)
    assert (mean_sd < sd).all()
    low, high = pairs.mean_interval(*at, 0.9)
    inside = ((rates >= low) & (rates <= high)).mean(0)
    assert (np.abs(inside - 0.9) < 0.02).all()
    plugin = pairs.plugin_mean(*at)
    np.testing.assert_allclose(plugin, pairs.eta_moments(*at)[0].exp().numpy(), rtol=1e-9)
    assert (plugin < mean).all()


def test_the_interval_on_levels_is_the_smallest_pair_of_quantiles() -> None:
    users, items = random_rows(2, 3, spread=0.15), random_rows(2, 3, spread=0.15, seed=1)
    at = grid(2, 2)
    pairs = handmade(users, items, likelihood=PoissonLikelihood()).pairs
    levels = np.arange(0.0, 60.0)
    pmf = pairs.pmf(*at, levels)
    np.testing.assert_allclose(pmf.sum(1), 1.0, atol=1e-6)
    low, high = pairs.rating_interval(*at, 0.8, levels)
    for row in range(4):
        below = pmf[row].cumsum()
        assert low[row] == levels[np.flatnonzero(below >= 0.1)[0]]
        assert high[row] == levels[np.flatnonzero(below >= 0.9)[0]]


def test_a_continuous_interval_from_draws_holds_its_probability() -> None:
    users, items = random_rows(2, 3, spread=0.15), random_rows(2, 3, spread=0.15, seed=1)
    at = grid(2, 2)
    pairs = handmade(users, items, likelihood=LogNormalLikelihood()).pairs
    low, high = pairs.rating_interval(*at, 0.9, None)
    eta = brute_eta(users, items, 0.0).reshape(N, -1)
    ratings = np.exp(eta + 0.3 * np.random.default_rng(5).standard_normal(eta.shape))
    inside = ((ratings >= low) & (ratings <= high)).mean(0)
    # 2,000 draws: an end's own standard error is 0.5 % of probability.
    assert (np.abs(inside - 0.9) < 0.03).all()
    again = pairs.rating_interval(*at, 0.9, None)
    np.testing.assert_array_equal(low, again[0])
    np.testing.assert_array_equal(high, again[1])


@pytest.mark.parametrize("probability", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("n_factors", [1, 4, 16])
def test_how_far_the_normal_interval_is_from_the_draws(probability: float, n_factors: int) -> None:
    """The matched Normal has the right variance but not the product's tails: coverage within 2 points."""
    users, items = random_rows(6, n_factors), random_rows(6, n_factors, seed=1)
    pairs = handmade(users, items, centre=3.5, likelihood=NormalLikelihood(0.85)).pairs
    at = grid(6, 6)
    low, high = pairs.rating_interval(*at, probability, None)
    eta = brute_eta(users, items, 3.5, 40_000).reshape(40_000, -1)
    ratings = eta + 0.85 * np.random.default_rng(5).standard_normal(eta.shape)
    inside = ((ratings >= low) & (ratings <= high)).mean(0)
    assert (np.abs(inside - probability) < 0.02).all()


@pytest.mark.parametrize(("probability", "held"), [(0.5, 0.68), (0.9, 0.905), (0.99, 0.97)])
def test_the_normal_interval_at_its_worst(probability: float, held: float) -> None:
    """Both means zero and next to no noise: a pure product of Normals, with its peak and its heavy tails."""
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    posterior = handmade(RowPosterior(zero, one), RowPosterior(zero, one), likelihood=NormalLikelihood(1e-4))
    at = np.zeros(1, dtype=np.int64)
    low, high = posterior.pairs.rating_interval(at, at, probability, None)
    assert low[0] == -high[0]
    # The product's density is K_0(|x|) / pi.
    coverage = 2.0 / math.pi * special.iti0k0(high[0])[1]
    assert coverage == pytest.approx(held, abs=0.006)


@pytest.mark.parametrize("noise", [0.4, 1.0])
def test_pmf_is_that_of_rounded_draws(noise: float) -> None:
    users, items = random_rows(2, 8, spread=0.2), random_rows(2, 8, spread=0.2, seed=1)
    levels = np.arange(1.0, 6.0)
    pairs = handmade(users, items, centre=3.0, likelihood=NormalLikelihood(noise)).pairs
    eta = brute_eta(users, items, 3.0).reshape(N, -1)
    ratings = eta + noise * np.random.default_rng(5).standard_normal(eta.shape)
    stars = np.clip(np.floor(ratings + 0.5), 1, 5)
    expected = np.stack([(stars == level).mean(0) for level in levels], axis=1)
    pmf = pairs.pmf(*grid(2, 2), levels)
    np.testing.assert_allclose(pmf.sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose(pmf, expected, atol=0.01)


# ------------------------------------------------------------------ draws


def test_draws_of_pairs_are_joint() -> None:
    users, items = random_rows(2, 3), random_rows(2, 3, seed=1)
    pairs = handmade(users, items, centre=3.5).pairs
    eta = pairs.sample(*grid(2, 2), 40_000, 7, "eta").astype(np.float64)
    mean, variance = (x.numpy() for x in pairs.eta_moments(*grid(2, 2)))
    np.testing.assert_allclose(eta.mean(0), mean, atol=4.5 * np.sqrt(variance / len(eta)).max())
    np.testing.assert_allclose(eta.var(0), variance, rtol=0.06)
    # Two items of one user share its draws: cov = sum_k t_k^2 E[v_jk] E[v_lk] + var b.
    u, (v, w) = users.scale[0].double() ** 2, items.loc.double()
    shared = float((u * v * w).sum()) + float(users.bias_scale[0]) ** 2  # type: ignore[index]
    assert np.cov(eta[:, 0], eta[:, 1])[0, 1] == pytest.approx(shared, abs=0.03)
    # Different users with different items share nothing.
    assert abs(np.corrcoef(eta[:, 0], eta[:, 3])[0, 1]) < 4.5 / math.sqrt(len(eta))


def test_draws_of_ratings_add_the_noise() -> None:
    pairs = handmade(random_rows(2, 3), random_rows(2, 3, seed=1), likelihood=NormalLikelihood(2.0)).pairs
    at = grid(2, 2)
    difference = pairs.sample(*at, 6_000, 7, "rating") - pairs.sample(*at, 6_000, 7, "eta")
    assert stats.kstest(difference[:, 0] / 2.0, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(difference[:, 0], difference[:, 1])[0, 1]) < 0.06


def test_a_draw_does_not_depend_on_what_else_is_asked() -> None:
    posterior = handmade(random_rows(20, 3), random_rows(15, 3, seed=1))
    alone = posterior.sample(7, 4, 50, 3, kind="eta")
    among = posterior.sample(np.arange(20), 4, 50, 3, kind="eta")
    longer = posterior.sample([3, 7], [4, 4], 90, 3, kind="eta")
    np.testing.assert_array_equal(alone[:, 0], among[:, 7])
    np.testing.assert_array_equal(alone[:, 0], longer[:50, 1])
    assert not np.array_equal(alone, posterior.sample(7, 4, 50, 4, kind="eta"))


def test_the_users_own_random_numbers_stay() -> None:
    posterior = handmade(random_rows(3, 3), random_rows(3, 3), likelihood=LogNormalLikelihood(), scale="0:9")
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    posterior.sample(0, [0, 1], 10, 0)
    posterior.predict(0, [0, 1])
    assert torch.equal(torch.rand(4), expected)


def test_noise_is_normal_and_independent() -> None:
    rows, draws = np.arange(300), np.arange(100)
    noise = row_noise(0, Stream.USERS, rows, draws, 5)
    assert noise.shape == (100, 300, 5)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    limit = 4.5 / math.sqrt(noise.size)
    neighbours = [
        (noise[1:], noise[:-1]),
        (noise[:, 1:], noise[:, :-1]),
        (noise[..., 1:], noise[..., :-1]),
        (noise, row_noise(1, Stream.USERS, rows, draws, 5)),
        (noise, row_noise(0, Stream.ITEMS, rows, draws, 5)),
        (noise, row_noise(0, Stream.USERS, rows + 300, draws, 5)),
    ]
    for one, other in neighbours:
        assert abs((one * other).mean()) < 1.2 * limit
        # Independent, not only uncorrelated.
        assert abs(((one**2 - 1) * (other**2 - 1)).mean()) < 2.4 * limit


@given(
    seed=st.integers(-(2**70), 2**70),
    rows=st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True),
    draws=st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True),
    width=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_noise_is_keyed_by_row_and_draw(seed: int, rows: list[int], draws: list[int], width: int) -> None:
    noise = row_noise(seed, Stream.ITEMS, np.array(rows), np.array(draws), width)
    assert np.isfinite(noise).all()
    one = row_noise(seed, Stream.ITEMS, np.array(rows[-1:]), np.array(draws[-1:]), width)
    np.testing.assert_array_equal(noise[-1:, -1:], one)
    assert len(np.unique(noise)) == noise.size
    assert 0 <= draw_seed(seed, Stream.RATINGS, draws[0], width) < 2**63
