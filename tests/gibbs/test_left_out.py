"""Ratings left out of a chain, rows integrated out: against dense algebra without them, and quadrature."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_bmf.checking.loo import psis_loo
from pyro_bmf.data import Split, random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.fitting import fit
from pyro_bmf.methods.gibbs.guide import ChainGuide
from pyro_bmf.methods.gibbs.left_out import LEAST_DRAWS, ChainLeftOut
from pyro_bmf.methods.settings import preset
from pyro_bmf.model import FactorizationModel, RowNoise
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.implicit_feedback import ImplicitFeedback
from pyro_bmf.model.likelihoods.normal import Likelihood, NormalLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior
from pyro_bmf.model.row_draws import RowDraws
from pyro_bmf.model.sides import Sides
from pyro_bmf.numerics.psis import leave_one_out
from pyro_bmf.posterior import Posterior
from pyro_bmf.posterior.encoding import side_feedback

CENTRE, CUTS = 3.1, np.array([1.9, 2.7, 3.6])


def model_of(k: int, likelihood: Likelihood, row_noise: str | None) -> FactorizationModel:
    prior = NormalWishartPrior(0.6)
    model = FactorizationModel(
        k,
        user_prior=prior,
        item_prior=NormalWishartPrior(0.6),
        user_bias_prior=NormalWishartPrior(0.5),
        item_bias_prior=NormalWishartPrior(0.5),
        likelihood=likelihood,
        centred=True,
        implicit=ImplicitFeedback(0.4),
        row_noise=None if row_noise is None else RowNoise(row_noise),
    )
    model.centre.fill_(CENTRE)
    return model


# ---------------------------------------------------------------- dense algebra, without the rating


N_USERS, N_ITEMS, K, N_DRAWS = 7, 6, 2, 3


def random_chain(dtype: torch.dtype) -> tuple[ChainGuide, RowDraws, RowDraws]:
    """Draws with nothing at a special value."""
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    guide = ChainGuide(N_USERS, N_ITEMS, K, N_DRAWS, biases=True, weights_dtype=dtype).to(dtype)
    for side in (guide.user, guide.item):
        for s in range(N_DRAWS):
            root = normal(K, K)
            side.precision[s] = torch.block_diag(root @ root.T + torch.eye(K), normal(1, 1).exp())
        side.location.copy_(normal(N_DRAWS, K + 1))
        side.weights.copy_(0.3 * normal(*side.weights.shape))
    guide.noise_precision = normal(N_DRAWS).mul(0.3).exp() * 2.0
    guide.centre = torch.tensor(CENTRE, dtype=torch.float64)
    rows = [normal(n, N_DRAWS, K + 1).to(dtype) for n in (N_USERS, N_ITEMS)]
    users, items = (RowDraws(one, one, torch.tensor(True)) for one in rows)
    return guide, users, items


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_a_rating_is_left_out_as_if_it_had_never_been(dtype: torch.dtype, tolerance: float) -> None:
    guide, users, items = random_chain(dtype)
    model = model_of(K, NormalLikelihood(0.7), None).to(dtype)
    guide.attach(users, items, model.likelihood)
    rng = np.random.default_rng(1)
    rated = np.array([[i, j] for i, j in product(range(N_USERS), range(N_ITEMS)) if rng.random() < 0.6])
    x = 3.0 + rng.normal(size=len(rated))
    i, j = torch.tensor(rated[:, 0]), torch.tensor(rated[:, 1])
    feedback = Feedback.from_coo(i, j, torch.tensor(x - CENTRE, dtype=dtype), N_USERS, N_ITEMS)
    left_out = guide.left_out(model, feedback, None, N_DRAWS, 0)
    done: list[int] = []
    found, scored = left_out.log_chances(torch.arange(len(rated)), done.append)
    assert scored is None
    assert sum(done) == len(rated)
    # Nothing but rows is drawn of this model: all repeats of a draw agree.
    assert left_out.width == LEAST_DRAWS
    repeated = found.view(len(rated), N_DRAWS, -1)
    assert bool((repeated == repeated[..., :1]).all())

    def without(side: str, e: int, s: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of one row of rating e, from all others of its ratings."""
        own, at, mate = (guide.user, 0, 1) if side == "user" else (guide.item, 1, 0)
        others = (items if side == "user" else users).draws[:, s].double().numpy()
        mine = rated[rated[:, at] == rated[e, at]]
        weights = own.weights[s].double().numpy()
        prior = own.precision[s].double().numpy()
        mean = own.location[s].double().numpy() + weights[mine[:, mate]].sum(0) / math.sqrt(len(mine))
        tau = float(guide.noise_precision[s])
        precision, linear = prior.copy(), prior @ mean
        for r in np.flatnonzero(rated[:, at] == rated[e, at]):
            if r != e:
                other = others[rated[r, mate]]
                f = np.append(other[:K], 1.0)
                precision += tau * np.outer(f, f)
                linear += tau * f * (x[r] - CENTRE - other[K])
        return np.linalg.solve(precision, linear), np.linalg.inv(precision)

    drawn = np.random.default_rng(2)
    approximation = []
    for s, e in product(range(N_DRAWS), range(len(rated))):
        (m, c), (n, d) = without("user", e, s), without("item", e, s)
        g, h = np.append(n[:K], 1.0), np.append(m[:K], 1.0)
        eta = CENTRE + m[:K] @ n[:K] + m[K] + n[K]
        variance = g @ c @ g + h @ d @ h + np.trace(c[:K, :K] @ d[:K, :K])
        tau = float(guide.noise_precision[s])
        density = stats.norm.logpdf(x[e], eta, math.sqrt(variance + 1.0 / tau))
        assert float(repeated[e, s, 0]) == pytest.approx(density, abs=tolerance)
        u, v = drawn.multivariate_normal(m, c, 20_000), drawn.multivariate_normal(n, d, 20_000)
        predictors = CENTRE + (u[:, :K] * v[:, :K]).sum(1) + u[:, K] + v[:, K]
        assert predictors.var() == pytest.approx(variance, rel=0.15)
        exact = np.log(stats.norm.pdf(x[e], predictors, tau**-0.5).mean())
        approximation.append(density - exact)
    # Rows with two or three ratings: the product of two Normals is hardly a Normal there, and yet.
    assert np.abs(np.mean(approximation)) < 0.05
    assert np.median(np.abs(approximation)) < 0.1


# ---------------------------------------------------------------- quadrature, with noise of rows


N_OWN, N_OTHER, SHAPE, NOISE, MANY = 10, 8, 2.5, 1.7, 600
LOCATION, PRECISION = np.array([0.2, -0.3]), np.array([1.4, 2.2])


def grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u, b, t = np.meshgrid(
        LOCATION[0] + np.linspace(-4.0, 4.0, 55) / np.sqrt(PRECISION[0]),
        LOCATION[1] + np.linspace(-4.0, 4.0, 55) / np.sqrt(PRECISION[1]),
        np.linspace(-5.0, 2.0, 48),
        indexing="ij",
    )
    return u, b, t


def log_share(rating: float, eta: np.ndarray, sd: np.ndarray, *, ordered: bool) -> np.ndarray:
    if not ordered:
        found: np.ndarray = stats.norm.logpdf(rating, eta, sd)
        return found
    edges, place = np.concatenate([[-np.inf], CUTS, [np.inf]]), int(rating) - 1
    low, high = (edges[place] - eta) / sd, (edges[place + 1] - eta) / sd
    flip = np.where(low > 0, -1.0, 1.0)
    share = np.abs(stats.norm.cdf(flip * high) - stats.norm.cdf(flip * low))
    return np.log(np.maximum(share, 1e-300))


@pytest.mark.parametrize("ordered", [False, True], ids=["normal", "ordered"])
@pytest.mark.parametrize("side", ["user", "item"])
def test_chances_of_a_known_other_side_are_those_of_quadrature(side: str, ordered: bool) -> None:
    """Rows and their noise over a grid give the posterior's draws and every left-out chance exactly."""
    rng = np.random.default_rng(4)
    others = rng.normal(size=(N_OTHER, 2)) * [1.2, 0.4]
    ratings = np.clip(np.round(3.0 + 1.2 * rng.normal(size=(N_OWN, N_OTHER))), 1.0, 4.0)
    rated = rng.random((N_OWN, N_OTHER)) < 0.8
    u, b, t = grid()
    prior = stats.norm.logpdf(u, LOCATION[0], PRECISION[0] ** -0.5)
    prior += stats.norm.logpdf(b, LOCATION[1], PRECISION[1] ** -0.5)
    prior += SHAPE * t - SHAPE * np.exp(t)
    sd = np.exp(-0.5 * t) / math.sqrt(NOISE)
    exact, own = np.zeros((N_OWN, N_OTHER)), np.empty((N_OWN, MANY, 2))
    steps = np.array([u[1, 0, 0] - u[0, 0, 0], b[0, 1, 0] - b[0, 0, 0]])
    for n in range(N_OWN):
        terms = {
            j: log_share(ratings[n, j], CENTRE + u * others[j, 0] + b + others[j, 1], sd, ordered=ordered)
            for j in np.flatnonzero(rated[n])
        }
        height = prior + sum(terms.values())
        for j, term in terms.items():
            without = height - term
            top = without.max()
            exact[n, j] = np.log(np.exp(height - top).sum()) - np.log(np.exp(without - top).sum())
        share = np.exp(height - height.max()).sum(2)
        places = rng.choice(share.size, MANY, p=(share / share.sum()).ravel())
        at = np.stack(np.unravel_index(places, share.shape), 1)
        own[n] = np.stack([u[at[:, 0], 0, 0], b[0, at[:, 1], 0]], 1)
        own[n] += (rng.random((MANY, 2)) - 0.5) * steps

    shape = (N_OWN, N_OTHER) if side == "user" else (N_OTHER, N_OWN)
    likelihood = OrderedProbitLikelihood([1.0, 2.0, 3.0, 4.0]) if ordered else NormalLikelihood()
    guide = ChainGuide(*shape, 1, MANY, biases=True, n_cuts=3 if ordered else 0, row_noise=(side,))
    guide = guide.double()
    hyper, known = (guide.user, guide.item) if side == "user" else (guide.item, guide.user)
    hyper.location[:] = torch.tensor(LOCATION)
    hyper.precision[:] = torch.diag(torch.tensor(PRECISION))
    hyper.row_precision_shape[:] = SHAPE
    # The other side is known: its priors are very narrow, about means that implicit weights give.
    known.precision[:] = 1e9 * torch.eye(2)
    means = rated.T / np.sqrt(rated.sum(0))[:, None]
    known.weights[:] = torch.tensor(np.linalg.lstsq(means, others, rcond=None)[0])
    guide.noise_precision[:] = NOISE
    guide.centre.fill_(CENTRE)
    guide.cuts[:] = torch.tensor(CUTS) if ordered else guide.cuts
    given = torch.tensor(others).unsqueeze(1).expand(-1, MANY, -1).contiguous()
    rows = RowDraws(torch.tensor(own), torch.tensor(own), torch.tensor(True), torch.ones(N_OWN))
    other_rows = RowDraws(given, given, torch.tensor(True))
    guide.attach(*((rows, other_rows) if side == "user" else (other_rows, rows)), likelihood)
    table, mask = (ratings, rated) if side == "user" else (ratings.T, rated.T)
    at_user, at_item = np.nonzero(mask)
    values = torch.tensor(table[mask] - CENTRE)
    feedback = Feedback.from_coo(torch.tensor(at_user), torch.tensor(at_item), values, *shape)
    levels = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64) if ordered else None
    left_out = guide.left_out(model_of(1, likelihood, side), feedback, levels, MANY, 0)
    found, _ = left_out.log_chances(torch.arange(int(mask.sum())))
    elpd, _, within = leave_one_out(found.double())
    error = elpd.numpy() - (exact if side == "user" else exact.T)[mask]
    assert np.sqrt((error**2).mean()) < 0.03
    assert abs(error.mean()) < 0.01
    # The posterior that has seen the rating is ten times as far off.
    assert float((within - elpd).mean()) > 0.08


# ---------------------------------------------------------------- a whole chain


@pytest.fixture(scope="module")
def stars() -> Split:
    rng = np.random.default_rng(7)
    u, v = rng.normal(size=(30, 2)), rng.normal(size=(24, 2))
    users, items = np.nonzero(rng.random((30, 24)) < 0.5)
    utility = 3.2 + 0.7 * (u[users] * v[items]).sum(1) + 0.5 * rng.normal(size=len(users))
    ratings = ratings_from_arrays(users, items, np.clip(np.round(utility), 1, 5), scale="1:5:1")
    return random_split(ratings, seed=0)


SMALL = preset().replace(n_factors=2, sweeps=260, burn_in=60, kept_draws=100)


@pytest.mark.parametrize("likelihood", ["ordered-probit", "normal"])
def test_loo_of_a_chain_integrates_its_rows(stars: Split, likelihood: str) -> None:
    result = fit(stars, SMALL.replace(likelihood=likelihood), threads=1, progress=False)
    done: list[int] = []
    every = psis_loo(result.posterior, advance=done.append)
    assert every.integrated
    assert every.n_draws == LEAST_DRAWS
    assert sum(done) == len(stars.train)
    assert every.of == "probability"
    assert np.isfinite(every.elpd).all()
    assert every.share_high_k < 0.1
    # Ratings are worth the same wherever the sum over them is cut, and whichever are asked for.
    some = psis_loo(result.posterior, subset=40, efficiency=every.efficiency)
    key = every.users * 1000 + every.items
    at = np.searchsorted(key, some.users * 1000 + some.items)
    np.testing.assert_allclose(some.elpd, every.elpd[at], atol=1e-5)
    assert 0.05 < every.p_loo.mean() < 0.6


def test_pairs_of_other_implicit_feedback_are_not_left_out(stars: Split) -> None:
    """The posterior does not hold the pairs that its rows' prior means come from."""
    settings = SMALL.replace(sweeps=60, burn_in=20, kept_draws=40)
    result = fit(stars, settings, threads=1, progress=False, implicit=stars.train)
    assert not psis_loo(result.posterior, subset=20).integrated
    loaded = fit(stars, settings, threads=1, progress=False)
    assert psis_loo(loaded.posterior, subset=20).integrated


@pytest.mark.slow
def test_leaving_out_is_fitting_again_without(stars: Split) -> None:
    """Chains without a rating, which goes on to tell implicitly that its pair is rated, predict it so."""
    longer = SMALL.replace(sweeps=1100, burn_in=100, kept_draws=1000)
    every = psis_loo(fit(stars, longer, threads=1, progress=False).posterior)
    # Of those that the draws can leave out, the ones that matter most for their own prediction.
    told = np.flatnonzero(every.k_hat < 0.5)
    chosen = told[np.argsort(-every.p_loo[told])[:4]]
    again = []
    for e in chosen:
        rows = np.delete(stars.train_rows, e)
        rest = Split(stars.ratings, rows, stars.valid_rows, stars.test_rows, "random")
        refit = fit(rest, longer, threads=1, progress=False, implicit=stars.train).posterior
        chance = chance_of(refit, every.users[e], every.items[e], stars.train.ratings[e])
        again.append(np.log(chance))
    error = every.elpd[chosen] - np.array(again)
    # Each has the noise of its own chain; the posterior that has seen the rating is wrong by all of p_loo.
    assert every.p_loo[chosen].mean() > 0.5
    assert abs(error.mean()) < 0.3 * every.p_loo[chosen].mean()


def chance_of(posterior: Posterior, user: int, item: int, rating: float) -> float:
    """Return the probability of a pair's rating, each draw with its own cuts and noise of rows."""
    guide, model = posterior.guide, posterior.model
    feedback = side_feedback(posterior.train, model, "user")
    chain = guide.left_out(model, feedback, torch.arange(1.0, 6.0), guide.n_draws, 0)
    assert isinstance(chain, ChainLeftOut)
    noise, found = chain._mean_multipliers(), []
    torch.manual_seed(0)
    for s in range(guide.n_draws):
        state = chain._state(s, noise)
        chain._settle(state, 4)
        noise = Sides(state.user.row_precision, state.item.row_precision)
        u, v = state.user.rows[user].double(), state.item.rows[item].double()
        precision = state.noise_precision * noise.user[user].double() * noise.item[item].double()
        eta = (u[:-1] @ v[:-1] + u[-1] + v[-1]).reshape(1)
        cuts = torch.cat([torch.tensor([-np.inf]), state.cuts - chain.centre, torch.tensor([np.inf])])
        place = int(rating) - 1
        low, high = (float((cut - eta) * precision.sqrt()) for cut in cuts[place : place + 2])
        found.append(stats.norm.cdf(high) - stats.norm.cdf(low))
    return float(np.mean(found))
