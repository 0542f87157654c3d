"""PSIS-LOO: ArviZ's numbers, and the truth where it is known."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from posteriors import handmade, planted, random_rows, train_posterior
from scipy import stats

from pyro_bmf.checking.loo import LooResult, compare_loo, psis_loo
from pyro_bmf.data.ratings import Ratings
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import SettingsError
from pyro_bmf.export.arviz import arviz_module
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.row_draws import RowDraws
from pyro_bmf.model.rows import RowPosterior
from pyro_bmf.numerics.convergence import relative_efficiency
from pyro_bmf.numerics.psis import (
    count_k_hats,
    fit_generalised_pareto,
    good_k,
    leave_one_out,
    smooth_tail,
    tail_length,
)
from pyro_bmf.posterior import Posterior
from pyro_bmf.posterior.pair_draws import PairDraws


def arviz_loo(log_likelihood: np.ndarray, reff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ArviZ's pointwise elpd, k-hat and p_loo of (n, n_draws) log-likelihoods."""
    az = arviz_module()
    values = log_likelihood.T[None]
    tree = az.from_dict({"posterior": {"a": values[:, :, 0]}, "log_likelihood": {"y": values}})
    found = az.loo(tree, pointwise=True, reff=reff)
    within = np.logaddexp.reduce(log_likelihood, axis=1) - np.log(log_likelihood.shape[1])
    return found.elpd_i.values, found.pareto_k.values, within - found.elpd_i.values


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")
@pytest.mark.parametrize(("n_draws", "reff"), [(400, 1.0), (400, 0.5), (100, 1.0), (1000, 0.3)])
def test_psis_equals_arviz(n_draws: int, reff: float) -> None:
    rng = np.random.default_rng(1)
    heavy = rng.choice([3.0, 5.0, 30.0], size=(60, 1))
    ll = rng.standard_t(heavy, (60, n_draws)) * rng.uniform(0.05, 1.5, (60, 1)) - 1.2
    elpd, k_hat, within = (one.numpy() for one in leave_one_out(torch.tensor(ll), reff))
    expected = arviz_loo(ll, reff)
    np.testing.assert_allclose(elpd, expected[0], atol=1e-10)
    np.testing.assert_allclose(k_hat, expected[1], atol=1e-10)
    np.testing.assert_allclose(within - elpd, expected[2], atol=1e-10)
    assert (k_hat > 0.7).any()
    assert (k_hat < 0.5).any()


def test_the_pareto_fit_finds_the_shape() -> None:
    rng = np.random.default_rng(2)
    for shape in (0.2, 0.9):
        draws = np.sort(stats.genpareto(shape, scale=2.0).rvs((40, 4000), random_state=rng), axis=1)
        k, sigma = fit_generalised_pareto(torch.tensor(draws))
        assert float(k.mean()) == pytest.approx(shape, abs=0.02)
        assert float(sigma.mean()) == pytest.approx(2.0, abs=0.05)


def test_wide_tails_take_the_exact_path() -> None:
    base = torch.linspace(-60.0, 0.0, 60, dtype=torch.float64).exp()
    rows = torch.stack([base, torch.linspace(0.1, 1.0, 60, dtype=torch.float64)])
    k, sigma = fit_generalised_pareto(rows)
    alone = fit_generalised_pareto(rows[:1])
    assert bool(torch.isfinite(k).all())
    assert float(k[0]) == float(alone[0][0])
    assert float(sigma[0]) == float(alone[1][0])


def test_equal_weights_need_no_smoothing() -> None:
    elpd, k_hat, within = leave_one_out(torch.full((2, 50), -1.5, dtype=torch.float64))
    np.testing.assert_allclose(elpd.numpy(), -1.5)
    np.testing.assert_allclose(within.numpy(), -1.5)
    assert bool(torch.isnan(k_hat).all())
    # Weights beyond the range of numbers: not smoothed, and flagged.
    ratios = torch.linspace(0.0, 1e5, 100, dtype=torch.float64)[None]
    assert float(smooth_tail(ratios).k_hat) == float("inf")
    one_far = torch.zeros(1, 100, dtype=torch.float64)
    one_far[0, 7] = 1e5
    assert float(smooth_tail(one_far).k_hat) == float("inf")
    # A row beside them is smoothed as if it were alone.
    plain = torch.linspace(-2.0, 1.0, 100, dtype=torch.float64)[None] ** 3
    together = smooth_tail(torch.cat([ratios, plain, one_far]))
    assert float(together.k_hat[1]) == float(smooth_tail(plain).k_hat)
    torch.testing.assert_close(together.tail[1:2], smooth_tail(plain).tail)


def test_what_is_scored_may_be_another_probability_than_was_fitted() -> None:
    rng = np.random.default_rng(8)
    fitted = torch.tensor(rng.normal(size=(30, 200)) * rng.uniform(0.1, 2.0, (30, 1)))
    plain = leave_one_out(fitted)
    for found, expected in zip(leave_one_out(fitted, 1.0, fitted), plain, strict=True):
        torch.testing.assert_close(found, expected)
    # Scored by the indicator of one draw, an observation gets that draw's weight: they rise with 1 / p, add
    # up to one, and below the smoothed tail they are in the ratio of 1 / p.
    weights = torch.stack(
        [
            leave_one_out(fitted, 1.0, torch.full_like(fitted, -1e9).index_fill(1, torch.tensor([s]), 0.0))[0]
            for s in range(200)
        ],
        1,
    ).exp()
    torch.testing.assert_close(weights.sum(1), torch.ones(30, dtype=torch.float64))
    order = (-fitted).argsort(1)
    assert bool((weights.gather(1, order).diff() >= -1e-12).all())
    below = order[:, : 200 - tail_length(200)]
    ratio = weights.gather(1, below) * fitted.gather(1, below).exp()
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    chances = torch.tensor(rng.normal(size=(30, 200)))
    expected = (weights * chances.exp()).sum(1).log()
    torch.testing.assert_close(leave_one_out(fitted, 1.0, chances)[0], expected)


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(SettingsError, match="25 or more"):
        tail_length(24)
    with pytest.raises(SettingsError, match="efficiency"):
        tail_length(100, 0.0)
    for efficiency in (-1.0, np.inf, np.nan):
        with pytest.raises(SettingsError, match=f"is {efficiency}"):
            tail_length(100, efficiency)
    assert good_k(10**6) == 0.7
    assert good_k(100) == 0.5
    assert tail_length(25) == 5


def test_tails_are_a_fifth_of_few_draws_and_three_roots_of_many() -> None:
    for n_draws, efficiency, expected in (
        *((25, 1.0, 5), (100, 1.0, 20), (4000, 0.02, 800)),
        *((100, 2.5, 18), (1000, 0.3, 173), (1000, 2.5, 60), (4000, 1.0, 189)),
    ):
        assert tail_length(n_draws, efficiency) == expected


def test_k_hats_are_counted_by_their_bounds() -> None:
    k_hat = np.array(
        [*(np.nan, -np.inf, -1.0, 0.5, np.nan), *(0.51, 0.7), *(0.71, 0.9, 1.0), 1.1, 3.0, 4.0, np.inf]
    )
    assert count_k_hats(k_hat) == {"k <= 0.5": 5, "0.5 < k <= 0.7": 2, "0.7 < k <= 1": 3, "k > 1": 4}
    assert list(count_k_hats(k_hat)) == ["k <= 0.5", "0.5 < k <= 0.7", "0.7 < k <= 1", "k > 1"]


@pytest.fixture(scope="module")
def chain() -> Posterior:
    """A chain's posterior, its draws handmade, with noise of its own for users."""
    generator = torch.Generator().manual_seed(0)
    train = planted()

    def rows(n: int, noise: torch.Tensor | None) -> RowDraws:
        draws = 0.3 * torch.randn(n, 100, 4, generator=generator)
        return RowDraws(draws, draws, torch.tensor(True), noise)

    users = rows(train.n_users, 0.5 + torch.rand(train.n_users, generator=generator))
    posterior = handmade(
        random_rows(train.n_users, 3), random_rows(train.n_items, 3), centre=3.4, train=train
    )
    return Posterior(posterior.model, posterior.guide, users, rows(train.n_items, None), train, {})


@pytest.mark.parametrize("kind", ["variational", "chain"])
def test_the_stream_equals_arviz_on_a_subset(
    kind: str, posterior: Posterior, chain: Posterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = posterior if kind == "variational" else chain
    monkeypatch.setattr("pyro_bmf.checking.loo._CELLS", 5_000)  # several chunks
    # Of a hundred draws only a very high efficiency changes the length of the tail.
    reff = 1.0 if kind == "variational" else 2.5
    result = psis_loo(chosen, num_samples=100, seed=3, subset=60, efficiency=reff)
    assert len(result.elpd) == 60
    u, b = chosen.pairs.draw_rows("user", result.users, np.arange(100), 3)
    v, c = chosen.pairs.draw_rows("item", result.items, np.arange(100), 3)
    # In float64: where a rating is far off, rounding of a float32 predictor shows in the sixth digit.
    drawn = (u.double() * v.double()).sum(-1) + b.double() + c.double()
    eta = (drawn + float(chosen.model.centre)).numpy().T
    key = chosen.train.users * chosen.n_items + chosen.train.items
    at = np.searchsorted(key, result.users * chosen.n_items + result.items)
    ratings, noise = chosen.train.ratings[at], float(chosen.model.likelihood.noise_sd.detach())
    scale = noise * np.ones((60, 1))
    if kind == "chain":
        scale = noise * chosen.user_rows.noise_factor.double().numpy()[result.users, None]
    low = np.where(ratings == 0.5, -np.inf, ratings - 0.25)[:, None]
    high = np.where(ratings == 5.0, np.inf, ratings + 0.25)[:, None]
    # Above the mean a cell is a difference of upper tails, which keeps its digits.
    cells = np.where(
        low > eta,
        stats.norm.sf(low, eta, scale) - stats.norm.sf(high, eta, scale),
        stats.norm.cdf(high, eta, scale) - stats.norm.cdf(low, eta, scale),
    )
    ll = np.log(cells)
    az = arviz_loo_quiet(ll, reff)
    np.testing.assert_allclose(result.elpd, az[0], atol=1e-6)
    np.testing.assert_allclose(result.k_hat, az[1], atol=1e-4)
    assert result.of == "probability"
    assert result.variational == (kind == "variational")
    assert sum(result.k_counts().values()) == 60


def arviz_loo_quiet(ll: np.ndarray, reff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return arviz_loo(ll, reff)


def test_one_level_costs_no_other(posterior: Posterior) -> None:
    """The observed level alone has the probability that it has among all levels."""
    likelihood = NormalLikelihood(0.7)
    eta = torch.linspace(-3, 9, 41, dtype=torch.float64)[:, None].expand(41, 3)
    levels = torch.arange(1.0, 6.0, dtype=torch.float64)
    places = torch.randint(0, 5, (41, 3), generator=torch.Generator().manual_seed(0))
    relative = torch.full((41, 3), 1.3, dtype=torch.float64)
    every = likelihood.log_prob_rating(eta, levels, relative)
    own = likelihood.log_prob_observed(eta, places, levels, relative)
    np.testing.assert_allclose(own.detach(), every.gather(-1, places[..., None])[..., 0].detach(), atol=1e-12)


def test_leaving_one_out_equals_fitting_again() -> None:
    """With items known, a user's posterior is closed form: so is its rating's predictive given the rest."""
    rng = np.random.default_rng(5)
    n_items, n_users, noise = 12, 40, 0.8
    v = 0.7 * rng.normal(size=(n_items, 2))
    u = rng.normal(size=(n_users, 2))
    x = u @ v.T + noise * rng.normal(size=(n_users, n_items))
    precision = np.eye(2) + v.T @ v / noise**2
    mean = x @ v / noise**2 @ np.linalg.inv(precision)
    tril = np.linalg.cholesky(np.linalg.inv(precision))
    variance = np.diag(np.linalg.inv(precision))
    users = RowPosterior(
        torch.tensor(mean),
        torch.tensor(np.tile(variance**0.5, (n_users, 1))),
        tril=torch.tensor(np.tile(tril, (n_users, 1, 1))),
    )
    items = RowPosterior(torch.tensor(v), torch.zeros(n_items, 2, dtype=torch.float64))
    base = handmade(users, items, likelihood=NormalLikelihood(noise))
    i, j = np.divmod(np.arange(x.size), n_items)
    train = ratings_from_arrays(i, j, x.ravel(), scale="-20:20")
    result = psis_loo(Posterior(base.model, base.guide, users, items, train, {}), num_samples=4000)
    assert result.of == "density"
    expected = np.empty(x.shape)
    for item in range(n_items):
        rest = np.arange(n_items) != item
        without = np.linalg.inv(np.eye(2) + v[rest].T @ v[rest] / noise**2)
        centre = x[:, rest] @ v[rest] / noise**2 @ without @ v[item]
        spread = np.sqrt(noise**2 + v[item] @ without @ v[item])
        expected[:, item] = stats.norm.logpdf(x[:, item], centre, spread)
    error = result.elpd - expected.ravel()
    assert np.abs(error).mean() < 0.01
    assert error.sum() == pytest.approx(0.0, abs=3 * 0.03 * x.size**0.5)
    # The draws that have seen the rating do better on it: what the correction takes away.
    assert result.p_loo.sum() > 20
    assert result.n_high_k < 10


def test_a_chain_gives_no_more_draws_than_it_kept(chain: Posterior) -> None:
    with pytest.raises(SettingsError, match="the chain kept 100"):
        psis_loo(chain, num_samples=101)
    assert psis_loo(chain, subset=5).n_draws == 100


def test_other_likelihoods_are_streamed_too() -> None:
    posterior = train_posterior(planted(), iterations=2)
    draws = PairDraws.draw(posterior.pairs, posterior.train.users, posterior.train.items, 30, 1)
    part = slice(0, 50)
    users, items = posterior.train.users[part], posterior.train.items[part]
    eta = posterior.pairs.draw_eta(users, items, np.arange(30), 1)
    np.testing.assert_allclose(draws.eta(users, items), eta.T, atol=2e-6)


# ---------------------------------------------------------------- efficiency, and when nothing is ranked


def test_relative_efficiency_is_that_of_arviz() -> None:
    az = arviz_module()
    rng = np.random.default_rng(3)
    steps = rng.normal(size=(20, 300))
    draws = np.empty_like(steps)
    draws[:, 0] = steps[:, 0]
    for s in range(1, 300):  # autoregressions, from independent to sticky
        draws[:, s] = np.linspace(0.0, 0.95, 20) * draws[:, s - 1] + steps[:, s]
    values = np.exp(0.3 * draws)
    tree = az.from_dict({"posterior": {"y": values.T[None]}})
    expected = az.ess(tree, method="mean")["y"].values / 300
    np.testing.assert_allclose(relative_efficiency(values), expected, rtol=1e-9)


def test_a_chain_is_left_out_with_its_own_efficiency(chain: Posterior, posterior: Posterior) -> None:
    assert psis_loo(posterior, num_samples=50, subset=30).efficiency == 1.0
    independent = psis_loo(chain, subset=300)
    assert independent.efficiency == pytest.approx(1.0, abs=0.1)

    # Each draw four times over: a quarter as efficient, whatever else stays the same.
    def slow(rows: RowDraws) -> RowDraws:
        draws = rows.draws[:, :25].repeat_interleave(4, 1)
        return RowDraws(draws, draws, rows.biased, rows.noise_factor)

    sticky = Posterior(
        chain.model, chain.guide, slow(chain.user_rows), slow(chain.item_rows), chain.train, {}
    )
    assert psis_loo(sticky, subset=300).efficiency == pytest.approx(0.25, abs=0.05)


def test_efficiency_is_of_the_likelihoods_not_of_their_logarithms(chain: Posterior) -> None:
    az = arviz_module()
    # A chain that dwells where ratings are likely: the likelihoods, which the formula averages, are slower
    # than their logarithms.
    generator = torch.Generator().manual_seed(4)

    def dwelling(rows: RowDraws) -> RowDraws:
        draws = rows.draws.clone()
        for s in range(1, draws.shape[1]):
            stays = torch.rand((), generator=generator) < 0.7
            draws[:, s] = draws[:, s - 1] if stays else 4.0 * rows.draws[:, s]
        return RowDraws(draws, draws, rows.biased, rows.noise_factor)

    users, items = dwelling(chain.user_rows), dwelling(chain.item_rows)
    slow = Posterior(chain.model, chain.guide, users, items, chain.train, {})
    train = slow.train
    draws = PairDraws.draw(slow.pairs, train.users[:200], train.items[:200], 100, 0)
    log_prob = draws.log_likelihood(train.users[:200], train.items[:200], train.ratings[:200], train.scale)

    def efficiency(values: np.ndarray) -> float:
        tree = az.from_dict({"posterior": {"y": values.T[None]}})
        return float((az.ess(tree, method="mean")["y"].values / 100).mean())

    logs = log_prob.detach().double().numpy()
    expected, of_logs = efficiency(np.exp(logs - logs.max(1, keepdims=True))), efficiency(logs)
    some = Ratings(
        train.users[:200],
        train.items[:200],
        train.ratings[:200],
        None,
        train.user_vocabulary,
        train.item_vocabulary,
        train.scale,
        None,
        train.name,
    )
    found = psis_loo(slow, some).efficiency
    assert abs(expected - of_logs) > 10 * 1e-4 * expected
    assert found == pytest.approx(expected, rel=1e-4)


def test_draws_of_a_chain_are_not_tempered_whatever_the_guide_before_was(
    chain: Posterior, posterior: Posterior
) -> None:
    weighted = {"beta_user": 0.3, "beta_item": 0.3}
    assert psis_loo(replace(posterior, info=weighted), num_samples=50, subset=20).tempered
    assert not psis_loo(replace(chain, info=weighted), subset=20).tempered


def loo_result(k_hat: np.ndarray, elpd: float, n_draws: int = 100) -> LooResult:
    n = len(k_hat)
    values = np.full(n, elpd) + np.linspace(-0.1, 0.1, n)
    at = np.arange(n)
    return LooResult(at % 20, at, values, k_hat, at / n, n_draws, 1.0, "probability", False, False)


def test_leave_one_out_ranks_nothing_above_one_percent_of_high_k() -> None:
    # A hundred draws allow k-hats up to 0.5 (1 - 1/log10 S), ten thousand up to 0.7.
    k_hat = np.full(1000, 0.2)
    k_hat[:11] = 0.6
    bad, good = loo_result(k_hat, -1.0), loo_result(np.full(1000, 0.2), -2.0)
    assert bad.share_high_k == 0.011
    assert not bad.reliable
    refused = compare_loo(["bad", "good"], [bad, good])
    assert not refused.ranked
    assert [row.name for row in refused.rows] == ["bad", "good"]
    assert all(np.isnan(row.difference) and not row.clear for row in refused.rows)
    sentence = refused.refusal()
    assert sentence is not None
    assert "bad 1.1 %" in sentence
    assert "good" not in sentence.split(";")[0].split("Go by")[0]
    assert "held-out" in sentence
    written = bad.to_dict()
    assert written["reliable"] is False
    assert written["elpd"] == pytest.approx(-1000.0)
    assert written["elpd_per_rating"] == pytest.approx(-1.0)
    assert written["elpd_se"] == pytest.approx(1000**0.5 * np.std(np.linspace(-0.1, 0.1, 1000)))
    assert written["p_loo"] == pytest.approx(sum(bad.p_loo))
    assert (written["n_ratings"], written["n_high_k"], written["good_k"]) == (1000, 11, 0.5)
    assert written["k <= 0.5"] == 989
    assert bad.to_dict()["share_high_k"] == 0.011
    k_hat = k_hat.copy()
    k_hat[10] = 0.5
    edge = compare_loo(["good", "edge"], [good, loo_result(k_hat, -1.0)])
    assert edge.ranked
    assert edge.refusal() is None
    assert [row.name for row in edge.rows] == ["edge", "good"]
    assert edge.rows[1].clear
    more = loo_result(np.where(k_hat > 0.5, 0.65, k_hat), -1.0, n_draws=10_000)
    assert more.n_high_k == 0


def test_leave_one_out_ranks_no_variational_posterior() -> None:
    good = loo_result(np.full(1000, 0.2), -2.0)
    guide = replace(loo_result(np.full(1000, 0.2), -1.0), variational=True)
    refused = compare_loo(["chain", "guide"], [good, guide])
    assert not refused.ranked
    assert [row.name for row in refused.rows] == ["chain", "guide"]
    assert all(np.isnan(row.difference) and not row.clear for row in refused.rows)
    sentence = refused.refusal()
    assert sentence is not None
    assert "the draws of guide are of a variational posterior" in sentence
    assert "held-out ELPD" in sentence
    assert compare_loo(["a", "b"], [good, loo_result(np.full(1000, 0.2), -1.0)]).ranked
