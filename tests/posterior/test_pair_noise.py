"""Predictions average over what is unknown of rows' noise: against a fine grid, and as before without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from posteriors import handmade, planted, random_rows
from scipy import stats

from pyro_bmf.methods.gibbs.kept_draws import log_spread
from pyro_bmf.model.likelihoods.normal import Likelihood, NormalLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.model.row_draws import RowDraws
from pyro_bmf.posterior import Posterior
from pyro_bmf.posterior.pair_noise import NODES

LEVELS = np.arange(0.5, 5.1, 0.5)
PAIRS = np.arange(30), np.arange(30) % 12


def chain(likelihood: Likelihood, *, spread: bool) -> Posterior:
    """A chain's posterior, its draws handmade, with noise of its own for users and items."""
    generator = torch.Generator().manual_seed(0)
    train = planted()

    def rows(n: int) -> RowDraws:
        draws = 0.3 * torch.randn(n, 60, 4, generator=generator)
        factor = 0.5 + torch.rand(n, generator=generator)
        unknown = 0.1 + 0.4 * torch.rand(n, generator=generator)
        return RowDraws(draws, draws, torch.tensor(True), factor, unknown if spread else None)

    base = handmade(
        random_rows(train.n_users, 3),
        random_rows(train.n_items, 3),
        centre=3.2,
        train=train,
        likelihood=likelihood,
    )
    return Posterior(base.model, base.guide, rows(train.n_users), rows(train.n_items), train, {})


def likelihoods() -> list[Likelihood]:
    ordered = OrderedProbitLikelihood(LEVELS.tolist())
    return [NormalLikelihood(0.7), ordered]


@pytest.mark.parametrize("likelihood", likelihoods(), ids=["normal", "ordered"])
def test_probabilities_and_moments_are_averages_over_the_noise(likelihood: Likelihood) -> None:
    posterior = chain(likelihood, spread=True)
    pairs, (users, items) = posterior.pairs, PAIRS
    mean, variance = pairs.eta_moments(users, items)
    own, other = posterior.user_rows, posterior.item_rows
    factor = (own.noise_factor[users] * other.noise_factor[items]).double()
    sd = (own.noise_spread[users].double() ** 2 + other.noise_spread[items].double() ** 2).sqrt()
    levels = torch.tensor(LEVELS)
    expected, first, second, total = 0.0, 0.0, 0.0, 0.0
    for z in np.linspace(-7.0, 7.0, 561):
        weight = stats.norm.pdf(z) * 0.025
        relative = factor * (sd * z - sd**2 / 2).exp()
        expected = expected + weight * likelihood.predictive_pmf(mean, variance, levels, relative)
        centre, spread = likelihood.predictive_moments(mean, variance, relative)
        first, second = first + weight * centre, second + weight * (spread + centre**2)
        total += weight
    assert total == pytest.approx(1.0, abs=1e-9)
    pmf = pairs.pmf(users, items, LEVELS)
    np.testing.assert_allclose(pmf, expected.detach().numpy(), atol=1e-3)
    np.testing.assert_allclose(pmf.sum(1), 1.0, atol=1e-6)
    centre, spread = pairs.rating_moments(users, items)
    np.testing.assert_allclose(centre, first.detach().numpy(), atol=2e-3)
    np.testing.assert_allclose(spread**2, (second - first**2).detach().numpy(), rtol=5e-3)
    # What a prediction at the mean of the noise says is another thing, by far more than the nodes' error.
    plain = chain(likelihood, spread=False).pairs.pmf(users, items, LEVELS)
    assert np.abs(plain - expected.detach().numpy()).max() > 0.01
    # Draws are of the same noise.
    drawn = pairs.draw_terms(users, items, np.arange(20_000), 1)[0]
    np.testing.assert_allclose(drawn.mean(0), factor, rtol=0.03)
    np.testing.assert_allclose(drawn.log().std(0), sd, rtol=0.03)
    assert len(pairs.noise_nodes(users, items)) == NODES
    # Scores of all items are the same means.
    scores = pairs.score(users[:5], np.arange(12))
    again = pairs.rating_moments(np.repeat(users[:5], 12), np.tile(np.arange(12), 5))[0].reshape(5, 12)
    np.testing.assert_allclose(scores, again, atol=1e-4)


def test_without_a_spread_noise_enters_at_its_mean() -> None:
    posterior = chain(NormalLikelihood(0.7), spread=False)
    users, items = PAIRS
    (one,) = posterior.pairs.noise_nodes(users, items)
    assert one[0] == 1.0
    assert torch.equal(one[1][0], posterior.pairs.relative_noise(users, items)[0])
    mean, variance = posterior.pairs.eta_moments(users, items)
    plain = posterior.model.likelihood.predictive_pmf(mean, variance, torch.tensor(LEVELS), one[1][0])
    assert np.array_equal(posterior.pairs.pmf(users, items, LEVELS), plain.detach().numpy())


def test_intervals_widen_with_what_is_unknown_of_the_noise() -> None:
    likelihood = NormalLikelihood(0.7)
    users, items = PAIRS
    wide = chain(likelihood, spread=True).pairs.rating_interval(users, items, 0.9, None)
    plain = chain(likelihood, spread=False).pairs.rating_interval(users, items, 0.9, None)
    assert ((wide[1] - wide[0]) > (plain[1] - plain[0])).all()


def test_the_spread_of_logarithms_is_that_of_the_draws() -> None:
    draws = torch.rand(7, 40, dtype=torch.float64).exp()
    found = log_spread(draws.log().sum(1), draws.log().square().sum(1), 40)
    torch.testing.assert_close(found.double(), draws.log().std(1, correction=0), rtol=1e-5, atol=1e-7)
    rows = RowDraws(torch.zeros(7, 2, 3), torch.zeros(7, 2, 3), torch.tensor(True), found, found)
    assert torch.equal(rows.select(torch.tensor([3, 1])).noise_spread, found[[3, 1]])
    assert set(rows.tensors()) == {"draws", "means", "biased", "noise_factor", "noise_spread"}
    assert replace(rows, noise_spread=None).noise_spread is None
