"""Each draw of a sweep against the textbook posterior, in dense float64 algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from scipy import stats
from tiny_chain import ITEMS, USERS, K, draw_means, random_state, tiny_model, tiny_pairs, tiny_sweeps
from torch import Tensor

from pyro_bmf.methods.conjugate_gradients import conjugate_gradient
from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.gibbs.collapsed_means import Solver
from pyro_bmf.methods.gibbs.hyper_draws import (
    NoiseLevel,
    draw_noise_shape,
    draw_row_noise,
    draw_weights_precision,
    shape_density,
    shift_noise,
)
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.numerics.conjugate_draws import draw_normal_gamma, draw_normal_wishart
from pyro_bmf.numerics.cuts.density import CutDensity
from pyro_bmf.numerics.cuts.draws import draw_cuts_and_utilities
from pyro_bmf.numerics.cuts.newton import fit_cuts, point_at


def dense_rows(sweeps: Sweeps, state: ChainState, side: str) -> list[tuple[Tensor, Tensor]]:
    """Mean and covariance of every row given all else, one row at a time, from the definition."""
    users, items = tiny_pairs()
    ratings = sweeps.ratings
    own, other = (state.user, state.item) if side == "user" else (state.item, state.user)
    rows, columns = (users, items) if side == "user" else (items, users)
    result = []
    for i in range(len(own.rows)):
        at = (rows == i).nonzero().flatten()
        mean = own.location.clone()
        if len(at):
            mean = mean + own.weights[columns[at]].sum(0) / math.sqrt(len(at))
        precision, linear = own.precision.clone(), own.precision @ mean
        for e in at.tolist():
            j = int(columns[e])
            feature = torch.cat([other.rows[j, :K], torch.ones(1, dtype=torch.float64)])
            tau = state.noise_precision * own.row_precision[i] * other.row_precision[j]
            precision = precision + tau * torch.outer(feature, feature)
            linear = linear + tau * feature * (ratings[e] - other.rows[j, K])
        covariance = torch.linalg.inv(precision)
        result.append((covariance @ linear, covariance))
    return result


@pytest.mark.parametrize("side", ["user", "item"])
def test_rows_are_the_textbook_posterior(side: str) -> None:
    sweeps = tiny_sweeps(tiny_model())
    state = random_state(sweeps)
    found = sweeps.given_other(side, state, sweeps.ratings).conditional
    means = found.mean(sweeps.prior_mean(side, state))
    covariances = found.covariance()
    for i, (mean, covariance) in enumerate(dense_rows(sweeps, state, side)):
        torch.testing.assert_close(means[i], mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(covariances[i], covariance, rtol=1e-10, atol=1e-12)


def test_draws_of_rows_have_that_mean_and_covariance() -> None:
    sweeps = tiny_sweeps(tiny_model())
    state = random_state(sweeps)
    found = sweeps.given_other("user", state, sweeps.ratings).conditional
    n = 4_000
    drawn = torch.stack([found.spread(torch.randn(USERS, K + 1, dtype=torch.float64)) for _ in range(n)])
    for i, (_, covariance) in enumerate(dense_rows(sweeps, state, "user")):
        error = torch.from_numpy(np.cov(drawn[:, i].numpy().T)) - covariance
        bound = torch.sqrt((covariance**2 + torch.outer(covariance.diagonal(), covariance.diagonal())) / n)
        assert bool((error.abs() < 5 * bound).all())


@pytest.mark.parametrize("side", ["user", "item"])
def test_overrelaxed_rows_keep_their_distribution_and_are_on_the_other_side(side: str) -> None:
    """Location and weights are drawn in between: rows go by what they are apart from either means."""
    sweeps, share, n = tiny_sweeps(tiny_model()), 0.8, 1_000
    state = random_state(sweeps)
    before, after, apart = [], [], []
    torch.manual_seed(0)
    for _ in range(n):
        sweeps._draw_rows(side, state, draw_means(sweeps, side, state), 0.0)
        before.append(state.of(side).rows.clone())
        begun = draw_means(sweeps, side, state, implicit=sweeps.implicit_means(side, state))
        apart.append(begun.apart)
        sweeps._draw_rows(side, state, begun, share)
        after.append(state.of(side).rows.clone())
    old, new, kept = (torch.stack(one).numpy() for one in (before, after, apart))
    for i, (_, covariance) in enumerate(dense_rows(sweeps, state, side)):
        exact = covariance.numpy()
        spread = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        assert np.abs(kept[:, i].T @ kept[:, i] / n - exact).max() < 6 * spread.max() / np.sqrt(n)
        width = np.cov(old[:, i].T)
        sds = np.sqrt(np.outer(np.diag(width), np.diag(width)))
        assert (np.abs(new[:, i].mean(0) - old[:, i].mean(0)) < 6 * np.sqrt(np.diag(width) / n)).all()
        assert (np.abs(np.cov(new[:, i].T) - width) < 9 * sds / np.sqrt(n)).all()
        crossed = np.cov(new[:, i].T, old[:, i].T)[: K + 1, K + 1 :]
        assert (np.abs(crossed + share * exact) < 6 * sds / np.sqrt(n)).all()


def dense_means(
    sweeps: Sweeps, state: ChainState, side: str, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of implicit weights and location, rows integrated out, as one Normal regression.

    `mask`, (USERS, ITEMS), says which pairs are the implicit feedback: the rated ones, where it is not given.
    """
    users, items = tiny_pairs()
    own, other = (state.user, state.item) if side == "user" else (state.item, state.user)
    rows, columns = (users, items) if side == "user" else (items, users)
    m, d = own.weights.shape
    n_entries = len(rows)
    if mask is None:
        mask = torch.zeros(USERS, ITEMS, dtype=torch.bool)
        mask[users, items] = True
    fed = mask if side == "user" else mask.T
    design = torch.zeros(n_entries, (m + 1) * d, dtype=torch.float64)
    covariance = torch.zeros(n_entries, n_entries, dtype=torch.float64)
    target = torch.zeros(n_entries, dtype=torch.float64)
    features = torch.cat([other.rows[:, :K], torch.ones(len(other.rows), 1, dtype=torch.float64)], 1)
    prior = torch.linalg.inv(own.precision)
    for e in range(n_entries):
        i, f = rows[e], features[columns[e]]
        for other_entry in (rows == i).nonzero().flatten().tolist():
            j = int(columns[other_entry])
            covariance[e, other_entry] = f @ prior @ features[j]
        design[e, m * d :] = f
        for j in fed[i].nonzero().flatten().tolist() if sweeps.model.implicit is not None else ():
            design[e, j * d : (j + 1) * d] = f / fed[i].sum().sqrt()
        covariance[e, e] += 1.0 / (
            state.noise_precision * own.row_precision[i] * other.row_precision[columns[e]]
        )
        target[e] = sweeps.ratings[e] - other.rows[columns[e], K]
    noise = torch.linalg.inv(covariance)
    kappa = 3.0  # of tiny_model, of factors and of biases
    own_prior = torch.block_diag(torch.diag(own.weights_precision.repeat(m)), kappa * own.precision)
    inverse = torch.linalg.inv(design.T @ noise @ design + own_prior)
    return inverse @ design.T @ noise @ target, inverse


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("implicit", ["rated", "others", "none"])
def test_locations_and_weights_are_drawn_with_the_rows_integrated_out(side: str, implicit: str) -> None:
    """Also where the implicit feedback is of other pairs than those that are rated."""
    model, mask = tiny_model(), None
    if implicit == "none":
        model.implicit = None
    sweeps = tiny_sweeps(model)
    if implicit == "others":
        mask = torch.from_numpy(np.random.default_rng(7).random((USERS, ITEMS)) < 0.4)
        fed = Feedback.from_coo(*mask.nonzero(as_tuple=True), torch.ones(int(mask.sum())), USERS, ITEMS)
        rated = Feedback.from_coo(*tiny_pairs(), sweeps.ratings, USERS, ITEMS)
        sweeps = Sweeps(
            model, rated, sweeps.ratings, dtype=torch.float64, solver=Solver(1e-12, 500), mask=fed
        )
    state = random_state(sweeps)
    own = state.user if side == "user" else state.item
    n = 1_500
    drawn = []
    for _ in range(n):
        draw_means(sweeps, side, state, rescaled=False)
        drawn.append(torch.cat([own.weights, own.location[None]]).flatten().clone())
    mean, covariance = dense_means(sweeps, state, side, mask)
    # Without implicit feedback there are no weights to draw.
    drawn_here = slice(None) if implicit != "none" else slice(own.weights.numel(), None)
    mean, covariance = mean[drawn_here], covariance[drawn_here, drawn_here]
    found = torch.stack(drawn)[:, drawn_here]
    standard = (found.mean(0) - mean) / (covariance.diagonal() / n).sqrt()
    assert float(standard.abs().max()) < 4.5
    error = torch.from_numpy(np.cov(found.numpy().T)) - covariance
    bound = torch.sqrt((covariance**2 + torch.outer(covariance.diagonal(), covariance.diagonal())) / n)
    assert bool((error.abs() < 5 * bound).all())


def test_conjugate_gradients_solve() -> None:
    root = torch.randn(12, 12, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(12)
    target = torch.randn(12, dtype=torch.float64)
    x, steps, left = conjugate_gradient(
        lambda v: matrix @ v,
        lambda v: v / matrix.diagonal(),
        target,
        torch.zeros(12).double(),
        tolerance=1e-12,
        max_steps=200,
    )
    torch.testing.assert_close(x, torch.linalg.solve(matrix, target))
    assert steps > 0
    assert left < 1e-12


# ---------------------------------------------------------------- hyperparameters


def test_normal_wishart_of_one_dimension_is_the_normal_gamma() -> None:
    """W(nu, 1 / (nu s^2)) of one dimension is Gamma(nu / 2, nu s^2 / 2): posterior moments in closed form."""
    # Far from zero, so that the prior's pull on the location is most of the sum of squares.
    values = torch.tensor([2.3, 1.2, 3.1, 2.4, 2.9], dtype=torch.float64)
    scale, kappa, n, nu = 0.6, 2.0, 5, 3.0
    inverse = torch.tensor([nu * scale**2], dtype=torch.float64)
    drawn = [draw_normal_wishart(values[:, None], inverse, kappa, degrees=nu) for _ in range(4_000)]
    precision = np.array([float(p) for _, p in drawn])
    location = np.array([float(m) for m, _ in drawn])
    mean = float(values.mean())
    square = float(((values - mean) ** 2).sum()) + kappa * n / (kappa + n) * mean**2
    exact = stats.gamma((nu + n) / 2, scale=2.0 / (nu * scale**2 + square))
    assert stats.kstest(precision, exact.cdf).pvalue > 1e-3
    # The location's marginal is a Student-t.
    spread = math.sqrt((nu * scale**2 + square) / ((nu + n) * (kappa + n)))
    t = stats.t(nu + n, loc=n * mean / (kappa + n), scale=spread)
    assert stats.kstest(location, t.cdf).pvalue > 1e-3


def test_normal_wishart_of_three_dimensions() -> None:
    rows = torch.randn(7, 3, dtype=torch.float64) + torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    kappa, n, nu = 2.0, 7, 5.0
    prior = torch.tensor([1.8, 0.4, 6.0], dtype=torch.float64)
    mean = rows.mean(0)
    about = rows - mean
    inverse = torch.diag(prior) + about.T @ about
    inverse = inverse + kappa * n / (kappa + n) * torch.outer(mean, mean)
    expected = (nu + n) * torch.linalg.inv(inverse)
    draws = [draw_normal_wishart(rows, prior, kappa, degrees=nu) for _ in range(3_000)]
    drawn = torch.stack([precision for _, precision in draws])
    error = (drawn.mean(0) - expected) / (drawn.std(0) / math.sqrt(3_000))
    assert float(error.abs().max()) < 4.5
    # A location is Normal given its precision: made standard by it, a draw is white.
    location = torch.stack([one for one, _ in draws]) - n * mean / (kappa + n)
    roots = torch.linalg.cholesky((kappa + n) * drawn)
    white = (roots.mT @ location.unsqueeze(-1)).squeeze(-1).numpy()
    for column in white.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    apart = np.corrcoef(white.T) - np.eye(3)
    assert np.abs(apart).max() < 4.5 / math.sqrt(3_000)


def test_normal_gamma_and_weights_precision() -> None:
    # Far from zero: the term with kappa is most of the sum of squares.
    values = torch.tensor([2.3, 1.2, 3.1], dtype=torch.float64)
    mean, kappa, n = float(values.mean()), 2.0, 3
    square = float(((values - mean) ** 2).sum()) + kappa * n / (kappa + n) * mean**2
    # Nor is the rate small, or it would be nothing beside that sum.
    drawn = [draw_normal_gamma(values, torch.tensor(2.9).double(), kappa) for _ in range(3_000)]
    shape, rate = 1 + n / 2, 2.9 + square / 2
    exact = stats.gamma(shape, scale=1.0 / rate)
    assert stats.kstest([float(precision) for _, precision in drawn], exact.cdf).pvalue > 1e-3
    # The location's marginal is a Student-t.
    spread = math.sqrt(rate / (shape * (kappa + n)))
    t = stats.t(2 * shape, loc=n * mean / (kappa + n), scale=spread)
    assert stats.kstest([float(location) for location, _ in drawn], t.cdf).pvalue > 1e-3
    weights = torch.randn(6, 2, dtype=torch.float64)
    first = [float(draw_weights_precision(weights, 1.7)[0]) for _ in range(3_000)]
    exact = stats.gamma(1 + 3, scale=1.0 / (1.7**2 + float((weights[:, 0] ** 2).sum()) / 2))
    assert stats.kstest(first, exact.cdf).pvalue > 1e-3


@pytest.mark.parametrize("ordered", [False, True], ids=["normal", "ordered-not-yet"])
def test_learned_noise_is_gamma(ordered: bool) -> None:
    """Of a Normal likelihood, and of an ordered one in its first sweeps, which take ratings as they are."""
    likelihood = OrderedProbitLikelihood([1.0, 2.0, 3.0]) if ordered else NormalLikelihood()
    model = tiny_model(likelihood, row_noise=None)
    users, items = tiny_pairs()
    ratings = 1.0 + torch.arange(len(users), dtype=torch.float64) % 3
    sweeps = tiny_sweeps(model, ratings)
    state = random_state(sweeps)
    eta = (state.user.rows[users, :K] * state.item.rows[items, :K]).sum(-1)
    eta = eta + state.user.rows[users, K] + state.item.rows[items, K]
    squares = (ratings - eta) ** 2 * state.user.row_precision[users] * state.item.row_precision[items]
    drawn = []
    for _ in range(3_000):
        sweeps._draw_noise(state, sweeps.ratings - sweeps.predictors(state), latent=False)
        drawn.append(float(state.noise_precision))
    # Gamma(1, 1) before the ratings.
    exact = stats.gamma(1 + len(users) / 2, scale=1.0 / (1 + float(squares.sum()) / 2))
    assert stats.kstest(drawn, exact.cdf).pvalue > 1e-3


@pytest.mark.parametrize("side", ["user", "item"])
def test_noise_of_rows_reads_the_other_sides_noise(side: str) -> None:
    model = tiny_model(row_noise=side)
    sweeps = tiny_sweeps(model)
    state = random_state(sweeps)
    users, items = tiny_pairs()
    own, other = (state.user, state.item) if side == "user" else (state.item, state.user)
    rows, columns = (users, items) if side == "user" else (items, users)
    eta = sweeps.predictors(state)
    squares = (sweeps.ratings - eta) ** 2 * other.row_precision[columns] * state.noise_precision
    totals = torch.zeros(len(own.rows), dtype=torch.float64).index_add_(0, rows, squares)
    counts = torch.bincount(rows, minlength=len(own.rows))
    # The shape of the prior moves too, and is drawn first: each draw is made standard by its own.
    levels = []
    for _ in range(2_000):
        sweeps._draw_noise(state, sweeps.ratings - sweeps.predictors(state), latent=False)
        shape = float(state.user.row_precision_shape if side == "user" else state.item.row_precision_shape)
        levels.append(
            stats.gamma.cdf(own.row_precision.numpy(), shape + counts / 2, scale=1 / (shape + totals / 2))
        )
    for level in np.array(levels).T:
        assert stats.kstest(level, "uniform").pvalue > 1e-3


def test_row_noise_and_its_shape() -> None:
    counts, squares = torch.tensor([0.0, 4.0]).double(), torch.tensor([0.0, 3.0]).double()
    shape = torch.tensor(6.0, dtype=torch.float64)
    drawn = torch.stack([draw_row_noise(counts, squares, shape) for _ in range(3_000)])
    for i in range(2):
        exact = stats.gamma(6 + counts[i] / 2, scale=1.0 / float(6 + squares[i] / 2))
        assert stats.kstest(drawn[:, i].numpy(), exact.cdf).pvalue > 1e-3


def test_the_shape_of_row_noise_without_the_multipliers() -> None:
    # Squares given the shape are of a beta prime: a Gamma's whose rate is a Gamma's.
    counts = torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0, 40.0]).repeat(6).double()
    w = torch.distributions.Gamma(3.0, 3.0).sample((len(counts),)).double()
    squares = torch.zeros_like(counts)
    seen = counts > 0
    squares[seen] = torch.distributions.Gamma(counts[seen] / 2, w[seen] / 2).sample()
    grid = np.linspace(-2, 7, 901)
    log_density = np.array(
        [
            stats.betaprime(counts[seen] / 2, math.exp(t), scale=2 * math.exp(t)).logpdf(squares[seen]).sum()
            + stats.expon(scale=1.0 / 6.0).logpdf(math.exp(-t / 2))
            - t / 2
            for t in grid
        ]
    )
    exact = np.exp(log_density - log_density.max())
    exact = np.cumsum(exact) / exact.sum()
    shape, drawn = torch.tensor(6.0, dtype=torch.float64), []
    for _ in range(2_000):
        shape = draw_noise_shape(counts, squares, shape)
        drawn.append(math.log(float(shape)))
    levels = np.interp(drawn[::4], grid, exact)  # slices are nearly independent four apart
    assert stats.kstest(levels, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("log_shape", [-3.0, 2.0, 9.2, 9.3, 25.0, 59.0])
def test_the_density_of_a_shape_is_exact_however_large_it_is(log_shape: float) -> None:
    mp.dps = 80
    half, halves = [0.5, 3.0, 700.0], [0.2, 9.0, 650.0]
    at = [log_shape, log_shape + 0.5]

    def exact(t: float) -> mpf:
        a = mp.e ** mpf(t)
        rows = (
            a * mp.log(a) - mp.loggamma(a) + mp.loggamma(a + mpf(h)) - (a + mpf(h)) * mp.log(a + mpf(s))
            for h, s in zip(half, halves, strict=True)
        )
        return sum(rows) - 6 * a ** mpf(-0.5) - mpf(t) / 2

    found = shape_density(*(torch.tensor(one, dtype=torch.float64) for one in (at, half, halves)))
    assert float(found.diff()) == pytest.approx(float(exact(at[1]) - exact(at[0])), abs=1e-7)


@pytest.mark.parametrize("side", ["user", "item"])
def test_the_level_of_noise_and_multipliers_is_as_the_priors_leave_it(side: str) -> None:
    sweeps = tiny_sweeps(tiny_model())
    state = random_state(sweeps)
    own = getattr(state, side)
    own.row_precision_shape = torch.tensor(3.0, dtype=torch.float64)
    prior = (1.5, 0.4)
    density = NoiseLevel.of(state, own, prior)

    def log_joint(t: float) -> float:
        g = math.exp(t)
        tau, w = float(state.noise_precision) * g, own.row_precision.numpy() / g
        total = (
            stats.gamma(prior[0], scale=1 / prior[1]).logpdf(tau)
            + stats.gamma(3, scale=1 / 3).logpdf(w).sum()
        )
        return float(total) + t - t * len(w)  # with the volume's change

    for t in (-0.8, -0.1, 0.3):
        assert density(t) - density(0.0) == pytest.approx(log_joint(t) - log_joint(0.0), abs=1e-9)
    before = sweeps._pair_precision(state) * state.noise_precision
    tau = float(state.noise_precision)
    shift_noise(state, own, prior)
    assert float(state.noise_precision) != tau
    torch.testing.assert_close(sweeps._pair_precision(state) * state.noise_precision, before)


# ---------------------------------------------------------------- cuts and utilities


def cut_problem() -> tuple[Tensor, Tensor, Tensor]:
    eta = torch.randn(40, dtype=torch.float64)
    scale = torch.rand(40, dtype=torch.float64) + 0.5
    utility = eta + scale * torch.randn(40, dtype=torch.float64)
    place = torch.searchsorted(torch.tensor([-0.6, 0.7], dtype=torch.float64), utility)
    return eta, scale, place


def log_likelihood(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor) -> Tensor:
    far = torch.tensor([50.0], dtype=torch.float64)
    edges = torch.cat([-far, cuts, far])
    normal = torch.distributions.Normal(0.0, 1.0)
    high, low = (edges[place + 1] - eta) / scale, (edges[place] - eta) / scale
    return (normal.cdf(high) - normal.cdf(low)).log().sum()


SPREAD = 1.6
#: Two cuts are always evenly spaced: for bent scales see `test_gibbs_cuts`.
PRIOR = CutDensity([-0.5, 0.5], SPREAD)


def log_posterior(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor) -> Tensor:
    """Add to the likelihood one rating of each level at zero with a spread of its own, and Normal cuts."""
    zero, levels = torch.zeros(len(cuts) + 1, dtype=cuts.dtype), torch.arange(len(cuts) + 1)
    prior = log_likelihood(cuts, zero, torch.full_like(zero, SPREAD), levels)
    normal = torch.distributions.Normal(torch.zeros_like(cuts), SPREAD)
    base = normal.log_prob(torch.zeros_like(cuts))
    return log_likelihood(cuts, eta, scale, place) + prior + (normal.log_prob(cuts) - base).sum()


def test_derivatives_in_the_cuts() -> None:
    eta, scale, place = cut_problem()
    cuts = torch.tensor([-0.5, 0.9], dtype=torch.float64, requires_grad=True)
    point = point_at(cuts.detach(), eta, scale, place, PRIOR)
    value = log_posterior(cuts, eta, scale, place)
    assert point.height == pytest.approx(float(value.detach()))
    torch.testing.assert_close(point.gradient, torch.autograd.grad(value, cuts)[0])
    hessian = torch.autograd.functional.hessian(lambda c: log_posterior(c, eta, scale, place), cuts.detach())
    found = point.root @ point.root.T - 1e-3 * torch.eye(2)
    torch.testing.assert_close(found, -hessian)
    best = fit_cuts(cuts.detach(), eta, scale, place, PRIOR)
    assert float(point_at(best, eta, scale, place, PRIOR).gradient.abs().max()) < 1e-6


@pytest.mark.parametrize("unseen", [False, True], ids=["all levels", "one unseen"])
def test_cuts_have_their_posterior_and_utilities_their_cells(unseen: bool) -> None:
    eta, scale, place = cut_problem()
    if unseen:
        place = torch.where(place == 1, 2, place)
    first, second = (
        torch.linspace(-2, 1, 91).double(),
        torch.linspace(-2 if unseen else -0.6, 2.4, 91).double(),
    )
    grid = torch.stack(torch.meshgrid(first, second, indexing="ij"), -1).reshape(-1, 2)
    grid = grid[grid[:, 1] > grid[:, 0]]
    height = torch.stack([log_posterior(c, eta, scale, place) for c in grid])
    weight = (height - height.max()).exp()
    weight = weight / weight.sum()
    mean = (grid * weight[:, None]).sum(0)
    sd = (((grid - mean) ** 2) * weight[:, None]).sum(0).sqrt()
    cuts = torch.tensor([-0.5, 0.9], dtype=torch.float64)
    kept = []
    for _ in range(1_500 if unseen else 2_500):
        cuts, utilities, _ = draw_cuts_and_utilities(cuts, eta, scale, place, PRIOR)
        edges = torch.cat([torch.tensor([-1e9]).double(), cuts, torch.tensor([1e9]).double()])
        assert bool(((utilities > edges[place]) & (utilities < edges[place + 1])).all())
        kept.append(cuts)
    found = torch.stack(kept)
    assert float(((found.mean(0) - mean) / sd).abs().max()) < 0.15
    torch.testing.assert_close(found.std(0), sd, rtol=0.12, atol=0)


def test_utilities_are_truncated_normals() -> None:
    n = 20_000
    eta, scale = torch.full((n,), 0.3).double(), torch.full((n,), 0.8).double()
    place = torch.ones(n, dtype=torch.int64)
    cuts = torch.tensor([-0.5, 1.0], dtype=torch.float64)
    cuts, utilities, _ = draw_cuts_and_utilities(cuts, eta, scale, place, PRIOR)
    low, high = ((cuts - 0.3) / 0.8).tolist()
    exact = stats.truncnorm(low, high, loc=0.3, scale=0.8)
    assert stats.kstest(utilities.numpy(), exact.cdf).pvalue > 1e-3


def test_shapes_of_an_empty_row() -> None:
    sweeps = tiny_sweeps(tiny_model())
    state = random_state(sweeps)
    sweeps.sweep(state)
    assert state.user.rows.shape == (USERS, K + 1)
    assert state.item.weights.shape == (USERS, K + 1)
    assert bool(torch.isfinite(state.user.rows).all())
    assert len(state.item.rows) == ITEMS
