"""Coordinate ascent: the textbook step, a bound that never falls, the bound itself, new rows, saving."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_bmf.data import Split, random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation import evaluate
from pyro_bmf.fitting import fit
from pyro_bmf.methods.build_model import build_model
from pyro_bmf.methods.coordinate_ascent.ascent import Ascent
from pyro_bmf.methods.gibbs.settings import Gibbs
from pyro_bmf.methods.model_settings import ModelSettings
from pyro_bmf.methods.settings import preset
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior
from pyro_bmf.numerics.truncated_normal import truncated_mean
from pyro_bmf.posterior import Posterior


@pytest.fixture(scope="module")
def stars() -> Split:
    rng = np.random.default_rng(7)
    u, v = rng.normal(size=(60, 2)), rng.normal(size=(45, 2))
    users, items = np.nonzero(rng.random((60, 45)) < 0.5)
    utility = 3.2 + 0.7 * (u[users] * v[items]).sum(1) + 0.5 * rng.normal(size=len(users))
    return random_split(
        ratings_from_arrays(users, items, np.clip(np.round(utility), 1, 5), scale="1:5:1"), seed=0
    )


def ascent_of(
    split: Split, likelihood: str = "normal", dtype: torch.dtype = torch.float64, **how: object
) -> Ascent:
    settings = ModelSettings(n_factors=2, prior_scale=0.5, likelihood=likelihood, **how)  # type: ignore[arg-type]
    model = build_model(settings, split.train.scale.levels)
    model.start(split.train.ratings)
    return Ascent(model, split.train, seed=0, device=torch.device("cpu"), dtype=dtype)


@pytest.mark.parametrize("likelihood", ["normal", "ordered-probit"])
@pytest.mark.parametrize("biases", [True, False])
def test_the_bound_never_falls(stars: Split, likelihood: str, biases: bool) -> None:
    ascent = ascent_of(stars, likelihood, biases=biases)
    bounds = [ascent.iteration()["elbo"] for _ in range(25)]
    assert all(b >= a - 1e-7 * abs(a) for a, b in pairwise(bounds))
    assert bounds[-1] > bounds[0] + 50


def test_the_bound_by_simulation(stars: Split) -> None:
    """Against draws from q: E[log p(x | u, v)] is an average, the KL is SciPy's densities'."""
    ascent = ascent_of(stars)
    for _ in range(8):
        parts = ascent.iteration()
    guide, train = ascent.guide, stars.train
    torch.manual_seed(0)
    rows = guide.known_rows("user"), guide.known_rows("item")
    i, j = torch.tensor(train.users), torch.tensor(train.items)
    total = []
    for _ in range(400):
        (u, b), (v, c) = rows[0].sample(), rows[1].sample()
        assert b is not None
        assert c is not None
        eta = (u[i] * v[j]).sum(1) + b[i] + c[j]
        eta = eta + float(ascent.model.centre)
        total.append(stats.norm(eta.numpy(), parts["noise"]).logpdf(train.ratings).sum())
    error = np.std(total) / math.sqrt(len(total))
    assert parts["log_likelihood"] == pytest.approx(np.mean(total), abs=4.5 * error)
    loc, covariance = guide.user.loc, guide.user.covariance
    prior = guide.user.prior_precision
    p = torch.distributions.MultivariateNormal(torch.zeros(3).double(), precision_matrix=torch.diag(prior))  # type: ignore[arg-type]
    q = torch.distributions.MultivariateNormal(loc, covariance)  # type: ignore[arg-type]
    assert parts["kl_user"] == pytest.approx(float(torch.distributions.kl_divergence(q, p).sum()))


def test_the_step_is_the_textbook_posterior(stars: Split) -> None:
    ascent = ascent_of(stars)
    for _ in range(3):
        ascent.iteration()
    guide, train = ascent.guide, stars.train
    found, _ = guide.conditional("user", ascent.entries.user, ascent.values)
    mean = found.mean(torch.zeros(3).double())
    v, cov = guide.item.loc, guide.item.covariance
    for user in (0, 7, 31):
        at = train.users == user
        precision = torch.diag(guide.user.prior_precision).double()  # type: ignore[arg-type]
        linear = torch.zeros(3).double()
        for j, x in zip(train.items[at], train.ratings[at] - float(ascent.model.centre), strict=True):
            # Of f = [v, 1] and the bias c: every expectation by hand.
            second = torch.zeros(3, 3).double()
            second[:2, :2] = cov[j][:2, :2] + torch.outer(v[j][:2], v[j][:2])  # type: ignore[index]
            second[:2, 2] = second[2, :2] = v[j][:2]  # type: ignore[index]
            second[2, 2] = 1.0
            target = torch.cat([v[j][:2] * x - v[j][:2] * v[j][2] - cov[j][:2, 2], (x - v[j][2])[None]])  # type: ignore[index]
            precision = precision + guide.noise_precision * second
            linear = linear + guide.noise_precision * target
        torch.testing.assert_close(mean[user], torch.linalg.solve(precision, linear))
        torch.testing.assert_close(found.covariance()[user], torch.linalg.inv(precision))


def test_truncated_means_are_scipys() -> None:
    eta = torch.tensor([0.0, 2.0, -9.0, 9.0, 0.3], dtype=torch.float64)
    cuts = torch.tensor([-0.5, 1.0], dtype=torch.float64)
    place = torch.tensor([0, 1, 2, 0, 2])
    mean, log_probability = truncated_mean(eta, torch.tensor(0.8).double(), cuts, place)
    for n in range(5):
        low, high = [(-np.inf, -0.5), (-0.5, 1.0), (1.0, np.inf)][int(place[n])]
        a, b = (low - float(eta[n])) / 0.8, (high - float(eta[n])) / 0.8
        exact = stats.truncnorm(a, b, loc=float(eta[n]), scale=0.8)
        assert float(mean[n]) == pytest.approx(exact.mean(), rel=1e-6)
        if abs(float(eta[n])) < 5:
            assert float(log_probability[n]) == pytest.approx(
                math.log(stats.norm.cdf(b) - stats.norm.cdf(a)), abs=1e-6
            )


@pytest.mark.parametrize("likelihood", ["normal", "ordered-probit"])
def test_fit_predict_fold_in_and_save(stars: Split, likelihood: str, tmp_path: Path) -> None:
    settings = preset("conjugate").replace(n_factors=2, likelihood=likelihood, max_iterations=30)
    result = fit(stars, settings, threads=1, progress=False)
    again = fit(stars, settings, threads=1, progress=False)
    posterior = result.posterior
    assert torch.equal(posterior.user_rows.loc, again.posterior.user_rows.loc)  # type: ignore[union-attr]
    assert not posterior.tempered
    assert evaluate(posterior, stars).rmse < 0.8
    loaded = Posterior.load(posterior.save(tmp_path / "c.safetensors"))
    test = stars.test
    on_host = posterior.to("cpu")  # where files are read
    np.testing.assert_array_equal(
        loaded.predict_mean(test.users, test.items), on_host.predict_mean(test.users, test.items)
    )
    scores = posterior.score_items(np.arange(5))
    pairs = np.repeat(np.arange(5), posterior.n_items), np.tile(np.arange(posterior.n_items), 5)
    np.testing.assert_allclose(scores.ravel(), posterior.predict_mean(*pairs), atol=1e-4)
    # A known user folded in anew is that user: q* depends on its ratings alone, once all has settled.
    train = posterior.train
    ids = posterior.item_vocabulary.raw(train.items[train.users == 4])
    row = posterior.fold_in(dict(zip(ids.tolist(), train.ratings[train.users == 4].tolist(), strict=True)))
    torch.testing.assert_close(row.posterior.loc[0], posterior.user_rows.loc[4], atol=0.05, rtol=0.05)  # type: ignore[union-attr]
    empty = posterior.fold_in({})
    assert float(empty.posterior.loc.abs().max()) == 0.0  # type: ignore[union-attr]
    first = np.zeros(1, dtype=int)
    spread = [one.all_rows.pairs.eta_moments(first, first)[1] for one in (empty, row)]
    assert float(spread[0]) > float(spread[1])


def test_moments_of_full_covariances_by_simulation(stars: Split) -> None:
    posterior = fit(
        stars, preset("conjugate").replace(n_factors=2, max_iterations=5), threads=1, progress=False
    ).posterior
    users, items = stars.test.users[:6], stars.test.items[:6]
    mean, variance = posterior.pairs.eta_moments(users, items)
    drawn = posterior.pairs.draw_eta(users, items, np.arange(20_000), 0).double()
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.var(0), variance, rtol=0.08, atol=0)


def test_a_chain_polishes_it(stars: Split) -> None:
    settings = preset("conjugate").replace(
        n_factors=2, max_iterations=6, then=Gibbs(), sweeps=40, burn_in=20, kept_draws=20, row_noise="both"
    )
    result = fit(stars, settings, threads=1, progress=False)
    assert [record["stage"] for record in result.history][5:7] == ["conjugate", "gibbs"]
    assert result.posterior.number_of_draws(None) == 20


def test_what_it_refuses(stars: Split) -> None:
    model = FactorizationModel(2, user_prior=NormalWishartPrior(), item_prior=NormalWishartPrior())
    with pytest.raises(SettingsError, match="needs Normal priors"):
        fit(stars, preset("conjugate"), model=model, progress=False)
