"""Each closed form is where the bound is highest: against KL divergences of torch, and dense sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats
from small_head import K, Small, make
from torch import Tensor
from torch.distributions import Gamma, Wishart, kl_divergence

from pyro_bmf.methods.exact_head.guide import noise_squares
from pyro_bmf.methods.exact_head.hyperparameters import times_kappa
from pyro_bmf.methods.exact_head.objective import Collapsed, CollapsedELBO
from pyro_bmf.methods.exact_head.updates import best_noise_shape
from pyro_bmf.model.priors.normal_half_t import NormalHalfTPrior
from pyro_bmf.model.priors.normal_wishart import EXTRA_DEGREES, NormalWishartPrior
from pyro_bmf.model.row_noise import SPREAD_RATE


def test_the_precision_of_rows_is_the_best_wishart() -> None:
    """E log p of rows and location, less the KL of torch's Wisharts, falls in every direction."""
    n, scale = 12, 0.4
    root = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    squares = 5.0 * root @ root.mT
    prior = NormalWishartPrior(scale)
    degrees = torch.tensor(3.0 + EXTRA_DEGREES, dtype=torch.float64)
    before = Wishart(degrees, torch.eye(3, dtype=torch.float64) / (degrees * scale**2))

    def bound(mean: Tensor) -> float:
        after = degrees + n + 1
        q = Wishart(after, mean / after)
        half = (after - torch.arange(3, dtype=torch.float64)) / 2
        log_det = torch.digamma(half).sum() + 3 * math.log(2.0) + torch.logdet(mean / after)
        expected = 0.5 * (n + 1) * log_det - 0.5 * (mean * squares).sum()
        return float((expected - kl_divergence(q, before)).detach())

    best = prior.expect(squares, n)
    height = bound(best)
    torch.testing.assert_close(prior.posterior(best, n).mean, best)
    for direction in (torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, 0.0])), torch.ones(3, 3)):
        for step in (-0.02, 0.02):
            assert bound(best + step * direction.double() * best.diagonal().mean()) < height


@pytest.mark.parametrize("size", [1.0, 0.01, 50.0])
def test_the_precision_of_half_t_factors_is_the_best_wishart(size: float) -> None:
    """With the best q of the rates of its prior: the bound falls in every direction of both."""
    n, scale, k = 12, 0.4, 3
    root = torch.randn(k, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    squares = size * root @ root.mT
    half = torch.tensor([0.5, 0.5 * (k + 2)], dtype=torch.float64)
    after = torch.tensor(k + 1.0 + n + 1, dtype=torch.float64)
    halves = (after - torch.arange(k, dtype=torch.float64)) / 2

    def bound(mean: Tensor, rates: Tensor) -> float:
        """Of the Wishart of this mean, and q(r_k) = Gamma((K + 2) / 2, rate_k)."""
        q, q_rates = Wishart(after, mean / after), Gamma(half[1], rates)
        log_det = torch.digamma(halves).sum() + k * math.log(2.0) + torch.logdet(mean / after)
        said = 0.5 * (n + 1) * log_det - 0.5 * (mean * squares).sum()
        # E log W(K + 1, (4 diag r)^-1), but for constants: no determinant is left of it.
        log_rates = torch.digamma(half[1]) - rates.log()
        said = said + 0.5 * (k + 1) * log_rates.sum() - 2.0 * (q_rates.mean * mean.diagonal()).sum()
        prior = Gamma(half[0], torch.tensor(scale**-2, dtype=torch.float64))
        return float(said + q.entropy() - kl_divergence(q_rates, prior).sum())

    best = NormalHalfTPrior(scale).expect(squares, n)
    torch.testing.assert_close(NormalHalfTPrior(scale).posterior(best, n).mean, best)
    rates = scale**-2 + 2.0 * best.diagonal()
    height = bound(best, rates)
    root = torch.linalg.cholesky(best)
    for direction in (torch.eye(k), torch.diag(torch.tensor([1.0, -1.0, 0.0])), torch.ones(k, k)):
        for step in (-0.02, 0.02):
            assert bound(best + step * root @ direction.double() @ root.mT, rates) < height
    for i in range(k):
        for factor in (0.98, 1.02):
            moved = rates.clone()
            moved[i] *= factor
            assert bound(best, moved) < height


@pytest.mark.parametrize("squares", [2.3, 0.001, 80.0])
def test_the_precision_of_a_bias_is_the_best_gamma(squares: float) -> None:
    """With the best q of the rate of its prior: the bound falls on either side of both."""
    n, scale, total = 7, 0.3, torch.tensor(squares, dtype=torch.float64)
    best = NormalWishartPrior(scale).expect(total, n)
    shape = torch.tensor(1.0 + 0.5 * (n + 1), dtype=torch.float64)
    half = torch.tensor([0.5, 1.5], dtype=torch.float64)

    def bound(mean: Tensor, rate: Tensor) -> float:
        """Of q(lambda) = Gamma(shape, shape / mean) and q(r) = Gamma(3/2, rate)."""
        q, q_rate = Gamma(shape, shape / mean), Gamma(half[1], rate)
        said = 0.5 * (n + 1) * (torch.digamma(shape) - q.rate.log()) - 0.5 * mean * total
        log_rate = torch.digamma(half[1]) - rate.log()
        said = said + math.log(2.0) + log_rate - 2.0 * q_rate.mean * mean + q.entropy()
        return float(said - kl_divergence(q_rate, Gamma(half[0], torch.tensor(scale**-2).double())))

    rate = scale**-2 + 2.0 * best
    height = bound(best, rate)
    for factor in (0.97, 1.03):
        assert height > max(bound(best * factor, rate), bound(best, rate * factor))


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_the_location_is_where_the_bound_is_highest(beta: float) -> None:
    small = make(noisy=False)
    updates, guide = small.updates, small.updates.guide
    own = guide.user
    given = _collapsed(small, beta)
    total = given.head.mean_precision()[1]
    with torch.no_grad():
        updates._update_location("user", given.head, total, beta)
    prior = times_kappa(updates.priors.user, own.precision)

    def bound() -> float:
        loss = CollapsedELBO().loss(small.model, guide, given)
        return -loss - 0.5 * float(own.location @ prior @ own.location)

    best = bound()
    for k in range(K + 1):
        for step in (-1e-3, 1e-3):
            own.location[k] += step
            assert bound() < best
            own.location[k] -= step
    spread = torch.linalg.inv((beta * total + prior)[:K, :K])
    torch.testing.assert_close(own.location_covariance[:K, :K], spread)
    assert not own.location_covariance[K, :K].any()


def _collapsed(small: Small, beta: float) -> Collapsed:
    """Return the users integrated out."""
    from test_objective import collapsed

    return collapsed(small, "user", beta)


def test_the_shape_of_the_noise_is_the_most_likely() -> None:
    generator = np.random.default_rng(0)
    shape = torch.from_numpy(3.0 + generator.gamma(2.0, size=40))
    rate = torch.from_numpy(3.0 + generator.gamma(2.0, size=40))
    total = float((torch.digamma(shape) - rate.log() - shape / rate).sum())

    def height(x: float) -> float:
        a = math.exp(x)
        # Of x = log a, whose a^(-1/2) is Exponential.
        prior = stats.expon(scale=1.0 / SPREAD_RATE).logpdf(math.exp(-x / 2)) - x / 2
        return 40 * (a * x - special.gammaln(a)) + a * total + prior

    best = optimize.minimize_scalar(lambda x: -height(x), bounds=(-3.0, 6.0), method="bounded").x
    a = torch.tensor(10.0, dtype=torch.float64)
    for _ in range(4):
        a = best_noise_shape(shape, rate, a)
    assert float(a.log()) == pytest.approx(best, abs=1e-3)


def test_the_noise_of_rows_counts_what_the_ratings_leave() -> None:
    """After an iteration the items' q has the rate that the state's expected squares give."""
    small = make()
    updates, guide = small.updates, small.updates.guide
    updates.iterations = 5
    a, tau = guide.item.row_precision_shape.clone(), guide.noise_precision.clone()
    updates.iteration()
    entries, other = updates.entries.item, guide.moments("item")
    eta = updates.predictors()[updates.item_order]
    terms = updates._terms(fit_cuts=False, begun=False).reordered(updates.item_order)
    squares = noise_squares(other, entries, terms, guide.item.loc, guide.item.covariance, eta)
    gaps = torch.zeros_like(squares).index_add_(
        0, entries.rows, ((terms.target - eta) ** 2) * other.precision[entries.indices.long()]
    )
    assert bool((squares > gaps).all())  # predictors are uncertain
    torch.testing.assert_close(guide.item.row_rate, a + 0.5 * tau * squares)
    torch.testing.assert_close(guide.item.row_shape, a + 0.5 * entries.indptr.diff().double())


def test_the_precisions_of_weights_are_the_best_gammas() -> None:
    small = make()
    updates, own = small.updates, small.updates.guide.user
    updates.iterations = 5
    updates.iteration()
    n, scale = len(own.weights), updates.priors.user.weights_scale
    total = (own.weights.detach() ** 2 + own.weights_sd**2).sum(0)

    def bound(mean: Tensor) -> Tensor:
        shape = torch.full_like(mean, 1.0 + 0.5 * n)
        q = Gamma(shape, shape / mean)
        expected = 0.5 * n * (torch.digamma(shape) - q.rate.log()) - 0.5 * mean * total
        return expected - kl_divergence(q, Gamma(torch.ones_like(mean), torch.full_like(mean, scale**2)))

    best = bound(own.weights_precision)
    assert bool((best > bound(own.weights_precision * 0.98)).all())
    assert bool((best > bound(own.weights_precision * 1.02)).all())
