"""PMF, Bayesian PMF, robust and Poisson factorization: each preset against its authors' formulas, densely."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pyro import poutine
from scipy import stats

from pyro_bmf import fit, preset, random_split
from pyro_bmf.data import Ratings, synthetic_ratings
from pyro_bmf.methods.build_model import build_model
from pyro_bmf.methods.coordinate_ascent.ascent import Ascent
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.methods.settings import Settings
from pyro_bmf.model.blocks import TrainingBlocks
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior
from pyro_bmf.posterior import Posterior

K = 2
EARLIER = ("pmf", "bpmf", "robust", "poisson")
#: So that each is fitted in a moment.
SHORT = {
    "pmf": {},
    "bpmf": {"sweeps": 12, "n_factors": 3},
    "robust": {"max_iterations": 1, "n_factors": 2, "user_batch_size": 100, "item_batch_size": 100},
    "poisson": {"max_iterations": 1, "n_factors": 2, "user_batch_size": 100, "item_batch_size": 100},
}
Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def ratings() -> Ratings:
    return synthetic_ratings(40, 25, 700, n_factors=2, scale="1:5:1", seed=3).ratings


def settings_of(name: str) -> Settings:
    return preset(name).replace(n_factors=K)


# -------------------------------------------------------------- PMF


def pmf(ratings: Ratings, iterations: int) -> tuple[Ascent, float, float, list[float]]:
    settings = settings_of("pmf")
    model = build_model(settings.model, ratings.scale.levels)
    model.start(ratings.ratings)
    ascent = Ascent(
        model, ratings, seed=0, device=torch.device("cpu"), dtype=torch.float64, point=settings.method.point
    )
    heights = [ascent.iteration()["elbo"] for _ in range(iterations)]
    return ascent, settings.model.prior_scale, float(settings.model.noise), heights


def pmf_gradient(u: Array, v: Array, ratings: Ratings, scale: float, noise: float) -> tuple[Array, Array]:
    """Of 1/2 sum (x - mean - u.v)^2 + lambda/2 (|U|^2 + |V|^2), lambda = (noise / scale)^2."""
    weight = (noise / scale) ** 2
    mean = ratings.ratings.mean()
    by_user, by_item = weight * u, weight * v
    for i, j, x in zip(ratings.users, ratings.items, ratings.ratings, strict=True):
        left = x - mean - u[i] @ v[j]
        by_user[i] -= left * v[j]
        by_item[j] -= left * u[i]
    return by_user, by_item


def test_pmf_is_where_its_objective_is_flat(ratings: Ratings) -> None:
    ascent, scale, noise, _ = pmf(ratings, 500)
    u, v = ascent.guide.user.loc.numpy(), ascent.guide.item.loc.numpy()
    assert np.abs(u).max() > 0.1, "not at the saddle of no factors"
    for gradient in pmf_gradient(u, v, ratings, scale, noise):
        assert np.abs(gradient).max() < 1e-6
    # and not by chance: elsewhere it is not flat
    assert np.abs(pmf_gradient(1.01 * u, v, ratings, scale, noise)[0]).max() > 1e-3


def test_an_iteration_of_pmf_is_alternating_ridge_regression(ratings: Ratings) -> None:
    before, scale, noise, _ = pmf(ratings, 3)
    after, _, _, _ = pmf(ratings, 4)
    rated = np.zeros((ratings.n_users, ratings.n_items), dtype=bool)
    x = np.zeros(rated.shape)
    rated[ratings.users, ratings.items] = True
    x[ratings.users, ratings.items] = ratings.ratings - ratings.ratings.mean()
    penalty = (noise / scale) ** 2 * np.eye(K)

    def ridge(mask: NDArray[np.bool_], values: Array, other: Array) -> Array:
        rows = [
            np.linalg.solve(other[m].T @ other[m] + penalty, other[m].T @ y[m])
            for m, y in zip(mask, values, strict=True)
        ]
        return np.stack(rows)

    u = ridge(rated, x, before.guide.item.loc.numpy())
    v = ridge(rated.T, x.T, u)
    np.testing.assert_allclose(after.guide.user.loc.numpy(), u, atol=1e-6)
    np.testing.assert_allclose(after.guide.item.loc.numpy(), v, atol=1e-6)


def test_pmf_climbs_the_log_joint_density(ratings: Ratings) -> None:
    ascent, scale, noise, heights = pmf(ratings, 20)
    assert all(b >= a - 1e-9 * abs(a) for a, b in pairwise(heights))
    u, v = ascent.guide.user.loc.numpy(), ascent.guide.item.loc.numpy()
    eta = ratings.ratings.mean() + (u[ratings.users] * v[ratings.items]).sum(1)
    joint = stats.norm(eta, noise).logpdf(ratings.ratings).sum()
    joint += stats.norm(0, scale).logpdf(u).sum() + stats.norm(0, scale).logpdf(v).sum()
    assert heights[-1] == pytest.approx(joint, rel=1e-8)


def test_pmf_gives_new_rows_their_ridge_regression(ratings: Ratings) -> None:
    split = random_split(ratings, seed=0)
    posterior = fit(split, preset("pmf").replace(n_factors=K, standardised=False), progress=False).posterior
    settings = posterior.model.user_prior.scale, float(posterior.model.likelihood.noise_sd)
    v = posterior.guide.item.loc.double().cpu().numpy()
    at = [0, 2, 5]
    given = {split.train.item_vocabulary.ids[j]: float(1 + j % 5) for j in at}
    x = np.array(list(given.values())) - split.train.ratings.mean()
    expected = np.linalg.solve(v[at].T @ v[at] + (settings[1] / settings[0]) ** 2 * np.eye(K), v[at].T @ x)
    found = posterior.fold_in(given).posterior.loc
    np.testing.assert_allclose(found.cpu().numpy()[0], expected, atol=1e-5)


# -------------------------------------------------------------- Bayesian PMF


def bpmf(ratings: Ratings) -> Sweeps:
    settings = settings_of("bpmf")
    model = build_model(settings.model, ratings.scale.levels, gibbs=True)
    model.start(ratings.ratings)
    feedback = Feedback.from_coo(
        torch.from_numpy(ratings.users.astype(np.int64)),
        torch.from_numpy(ratings.items.astype(np.int64)),
        torch.from_numpy(ratings.ratings.astype(np.float64)),
        ratings.n_users,
        ratings.n_items,
    )
    return Sweeps(model, feedback, feedback.values, dtype=torch.float64)


@pytest.mark.parametrize("n_factors", [2, 30])
def test_bpmf_has_the_published_hyperpriors(n_factors: int) -> None:
    """W_0 = I of nu_0 = D degrees, mu_0 = 0, beta_0 = 2, alpha = 2."""
    settings = preset("bpmf").replace(n_factors=n_factors)
    model = build_model(settings.model, gibbs=True)
    for prior in (model.user_prior, model.item_prior):
        assert isinstance(prior, NormalWishartPrior)
        degrees = n_factors + prior.extra_degrees
        assert degrees == n_factors
        assert degrees * prior.scale**2 == pytest.approx(1.0), "the inverse of W_0"
        assert prior.kappa == 2.0
    assert float(model.likelihood.noise_sd) ** -2 == pytest.approx(2.0)
    assert not model.biases
    assert model.implicit is None
    assert model.row_noise is None


@pytest.mark.parametrize("side", ["user", "item"])
def test_a_row_of_bpmf_is_drawn_from_the_published_conditional(ratings: Ratings, side: str) -> None:
    """Lambda* = Lambda + alpha sum v v^T, mu* = Lambda*^{-1} (alpha sum v x + Lambda mu)."""
    sweeps = bpmf(ratings)
    torch.manual_seed(1)
    state = sweeps.start(
        torch.randn(ratings.n_users, K).double(), torch.randn(ratings.n_items, K).double(), math.sqrt(0.5)
    )
    own, other = (state.user, state.item) if side == "user" else (state.item, state.user)
    rows, columns = (ratings.users, ratings.items) if side == "user" else (ratings.items, ratings.users)
    root = torch.randn(K, K).double()
    own.precision, own.location = root @ root.T + torch.eye(K), torch.randn(K).double()
    found = sweeps.given_other(side, state, sweeps.ratings).conditional
    means, covariances = found.mean(sweeps.prior_mean(side, state)).numpy(), found.covariance().numpy()
    x, alpha = ratings.ratings - ratings.ratings.mean(), 2.0
    for i in range(len(means)):
        v = other.rows.numpy()[columns[rows == i]]
        precision = own.precision.numpy() + alpha * v.T @ v
        linear = alpha * v.T @ x[rows == i] + own.precision.numpy() @ own.location.numpy()
        np.testing.assert_allclose(covariances[i], np.linalg.inv(precision), rtol=1e-6)
        np.testing.assert_allclose(means[i], np.linalg.solve(precision, linear), atol=1e-6)


def test_the_hyperparameters_of_bpmf_are_drawn_from_the_published_conditional() -> None:
    """Normal-Wishart of mu*, beta*, W*, nu*, by the moments of 4,000 draws."""
    torch.manual_seed(0)
    prior = build_model(settings_of("bpmf").model, gibbs=True).user_prior
    assert isinstance(prior, NormalWishartPrior)
    rows = torch.randn(9, K, dtype=torch.float64) * 0.7 + torch.tensor([0.4, -0.2])
    drawn = [prior.draw(rows, torch.eye(K).double()) for _ in range(4000)]
    u = rows.numpy()
    n, mean = len(u), u.mean(0)
    spread = (u - mean).T @ (u - mean) / n
    inverse = np.eye(K) + n * spread + 2.0 * n / (2.0 + n) * np.outer(mean, mean)
    expected = (K + n) * np.linalg.inv(inverse)  # nu* W*
    precisions = torch.stack([precision for _, precision in drawn]).numpy()
    error = precisions.std(0) / math.sqrt(len(drawn))
    assert (np.abs(precisions.mean(0) - expected) < 4.5 * error).all()
    # of a Wishart the variance of an entry is nu (W_ij^2 + W_ii W_jj): it tells nu from W
    w = np.linalg.inv(inverse)
    variance = (K + n) * (w**2 + np.outer(np.diag(w), np.diag(w)))
    np.testing.assert_allclose(precisions.var(0), variance, rtol=0.15)
    locations = torch.stack([location for location, _ in drawn]).numpy()
    error = locations.std(0) / math.sqrt(len(drawn))
    assert (np.abs(locations.mean(0) - n * mean / (2.0 + n)) < 4.5 * error).all()


# -------------------------------------------------------------- robust and Poisson factorization


def drawn_joint(name: str, ratings: Ratings) -> tuple[dict[str, Array], float, Array, Array, Array, float]:
    """Draw all sites of the preset's model; return them, log p, the ratings and the centre."""
    torch.manual_seed(2)
    users, items = (torch.from_numpy(x.astype(np.int64)) for x in (ratings.users, ratings.items))
    values = torch.from_numpy(ratings.ratings.astype(np.float32))
    model = build_model(settings_of(name).model, ratings.scale.levels)
    model.start(ratings.ratings)
    shape = ratings.n_users, ratings.n_items
    block = TrainingBlocks.build(
        Feedback.from_coo(users, items, values, *shape),
        Feedback.from_coo(items, users, values, *shape[::-1]),
        users, items, values, user_batch_size=100, item_batch_size=100,
    ).block(0, 0)  # fmt: skip
    trace = poutine.trace(model).get_trace(block, beta=(1.0, 1.0))
    sites = {
        site: node["value"].detach().double().numpy()
        for site, node in trace.nodes.items()
        if node["type"] == "sample"
    }
    i, j = block.users[block.rating_users].numpy(), block.items[block.rating_items].numpy()
    for side, order in (("user", block.users), ("item", block.items)):
        for site in [one for one in sites if one.startswith(side) and len(sites[one].shape)]:
            sites[site][order.numpy()] = sites[site].copy()
    return (
        sites,
        float(trace.log_prob_sum().detach()),
        i,
        j,
        block.ratings.double().numpy(),
        float(model.centre),
    )


def test_the_robust_model_has_student_t_factors_and_ratings_whose_scale_goes_by_row(ratings: Ratings) -> None:
    sites, joint, i, j, x, centre = drawn_joint("robust", ratings)
    u, v, b, c = (sites[f"{side}_{what}"] for what in ("factors", "bias") for side in ("user", "item"))
    expected = sum(stats.t(4).logpdf(factors).sum() for factors in (u, v))
    scale = settings_of("robust").model.bias_scale
    expected += sum(stats.norm(0, scale).logpdf(bias).sum() for bias in (b, c))
    for side in ("user", "item"):
        shape = float(sites[f"{side}_noise_shape"])
        expected += stats.expon(scale=1 / 6).logpdf(shape**-0.5) - math.log(2.0 * shape**1.5)
        expected += stats.gamma(shape, scale=1.0 / shape).logpdf(sites[f"{side}_noise"]).sum()
    eta = centre + (u[i] * v[j]).sum(1) + b[i] + c[j]
    # started where a t of four degrees has the ratings' variance
    width = ratings.ratings.std() * math.sqrt(0.5) / np.sqrt(sites["user_noise"][i] * sites["item_noise"][j])
    expected += stats.t(4, eta, width).logpdf(x).sum()
    assert joint == pytest.approx(expected, rel=1e-5)


def test_poisson_factorization_has_gamma_factors_and_their_product_for_a_rate(ratings: Ratings) -> None:
    sites, joint, i, j, x, _ = drawn_joint("poisson", ratings)
    u, v = sites["user_factors"], sites["item_factors"]
    expected = sum(stats.gamma(3, scale=1 / 5).logpdf(factors).sum() for factors in (u, v))
    expected += stats.poisson((u[i] * v[j]).sum(1)).logpmf(x.astype(int)).sum()
    assert joint == pytest.approx(expected, rel=1e-5)


def test_a_factor_of_poisson_factorization_has_its_gamma_conditional() -> None:
    """With one factor, p(u | v, x) is Gamma(a + sum x, b + sum v), as Gopalan et al. have it."""
    model = build_model(preset("poisson").replace(n_factors=1).model, np.arange(1.0, 6.0))
    v, x = torch.tensor([0.5, 1.4, 2.2]).double(), torch.tensor([1.0, 5.0, 4.0]).double()
    u = torch.linspace(0.2, 4.0, 30).double()
    prior = model.user_prior("user_factors", 1)
    log_joint = prior.log_prob(u.unsqueeze(-1)) + model.likelihood(u.unsqueeze(-1) * v).log_prob(x).sum(-1)
    posterior = stats.gamma(3 + float(x.sum()), scale=1 / (5 + float(v.sum()))).logpdf(u.numpy())
    difference = log_joint.numpy() - posterior
    np.testing.assert_allclose(difference, difference[0], atol=1e-4)


# -------------------------------------------------------------- as presets


@pytest.mark.parametrize("name", EARLIER)
def test_a_fit_is_saved_and_predicts_the_same(name: str, tmp_path: Path) -> None:
    split = random_split(synthetic_ratings(40, 30, 400, n_factors=2, scale="1:5:1").ratings, seed=1)
    settings = preset(name).replace(**SHORT[name])
    posterior = fit(split, settings, progress=False).posterior
    assert Settings.from_dict(settings.to_dict()) == settings
    posterior.save(tmp_path / name)
    again = Posterior.load(tmp_path / name)
    test = split.test
    users, items = test.user_vocabulary.ids[test.users], test.item_vocabulary.ids[test.items]
    mean = posterior.to("cpu").predict(users, items)["mean"].to_numpy()  # where files are read
    np.testing.assert_array_equal(again.predict(users, items)["mean"], mean)
    assert np.isfinite(mean).all()
    assert len(again.recommend([users[0]], 3))
