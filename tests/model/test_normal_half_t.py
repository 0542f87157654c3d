"""Factors whose standard deviations are half-t: density, draws, scaling and best q, against quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from pyro_bmf.conformance import check_prior
from pyro_bmf.errors import SettingsError
from pyro_bmf.methods.build_model import build_model
from pyro_bmf.methods.model_settings import ModelSettings
from pyro_bmf.model.catalogue import prior_from_settings
from pyro_bmf.model.priors.conjugate import ScaleTerms, log_tails
from pyro_bmf.model.priors.half_t import (
    HalfTPrecision,
    HalfTPrecisionMatrix,
    draw_rate,
    expected_precision_matrix,
)
from pyro_bmf.model.priors.normal_half_t import NormalHalfTPrior
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior

SCALE = 0.7
#: What keeps spreads off zero: the density falls by exp(-EPSILON) for each unit of the precision's trace.
EPSILON = (SCALE / 1_000.0) ** 2


def half_t(k: int, scale: float = SCALE) -> HalfTPrecisionMatrix:
    return HalfTPrecisionMatrix(torch.tensor(scale, dtype=torch.float64), k)


def some_precision(k: int, seed: int = 0) -> Tensor:
    root = torch.randn(k, k + 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return root @ root.mT


def joint(precision: np.ndarray, rates: np.ndarray) -> float:
    """Density of precision and rates by SciPy: W(K + 1, (4 diag r)^-1), and Gamma(1/2, s^-2) of each rate."""
    wishart = stats.wishart(len(rates) + 1, np.diag(0.25 / rates)).logpdf(precision)
    return float(np.exp(wishart + stats.gamma(0.5, scale=SCALE**2).logpdf(rates).sum()))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_density_is_that_of_a_wishart_over_its_rates(seed: int) -> None:
    precision = some_precision(2, seed).numpy()
    # Over the roots of the rates, as the rates' own density has a pole; to where nothing is left.
    nodes, weights = np.polynomial.legendre.leggauss(30)
    reach = 7.0 / np.sqrt(SCALE**-2 + 2.0 * precision.diagonal())
    roots, widths = 0.5 * np.outer(reach, nodes + 1.0), 0.5 * np.outer(reach, weights)
    whole = sum(
        4.0 * x * y * joint(precision, np.array([x, y]) ** 2) * over_x * over_y
        for x, over_x in zip(roots[0], widths[0], strict=True)
        for y, over_y in zip(roots[1], widths[1], strict=True)
    )
    found = float(half_t(2).log_prob(torch.from_numpy(precision)))
    assert found == pytest.approx(math.log(whole) - EPSILON * precision.trace(), abs=1e-8)


def test_a_batch_has_the_density_of_each() -> None:
    scales = torch.tensor([0.3, 2.0], dtype=torch.float64)
    batch = HalfTPrecisionMatrix(scales, 3)
    values = torch.stack([some_precision(3, seed) for seed in (1, 2)])
    each = [half_t(3, float(s)).log_prob(x) for s, x in zip(scales, values, strict=True)]
    torch.testing.assert_close(batch.log_prob(values), torch.stack(each))
    assert batch.expand((4, 2)).sample((5,)).shape == (5, 4, 2, 3, 3)
    assert batch.support.check(batch.sample()).all()


@pytest.mark.parametrize("k", [1, 3, 24])
def test_draws_have_half_t_standard_deviations_and_uniform_correlations(k: int) -> None:
    torch.manual_seed(k)
    covariances = torch.linalg.inv(half_t(k).sample((1_500,)))
    spreads = covariances.diagonal(dim1=1, dim2=2).sqrt()
    for column in spreads.T[:3]:
        assert (
            stats.kstest(column.numpy(), lambda x: 2.0 * stats.t(2, scale=SCALE).cdf(x) - 1.0).pvalue > 1e-3
        )
    if k > 1:
        correlation = (covariances[:, 0, 1] / (spreads[:, 0] * spreads[:, 1])).numpy()
        assert stats.kstest(correlation, stats.uniform(-1.0, 2.0).cdf).pvalue > 1e-3


def test_draws_are_of_the_density() -> None:
    """An integral over draws: the mean of q / p is one for a density q with lighter tails everywhere."""
    torch.manual_seed(0)
    drawn = half_t(2).sample((20_000,))
    inside = stats.wishart(6, np.eye(2) / 6.0)
    ratio = np.exp(inside.logpdf(drawn.permute(1, 2, 0).numpy()) - half_t(2).log_prob(drawn).numpy())
    assert ratio.mean() == pytest.approx(1.0, abs=4.5 * ratio.std() / math.sqrt(len(ratio)))


def test_a_rate_is_drawn_from_its_conditional() -> None:
    torch.manual_seed(0)
    precision = some_precision(3)
    drawn = torch.stack([draw_rate(precision.diagonal(), SCALE, 3) for _ in range(4_000)]).numpy() / 2.0
    for k in range(3):

        def along(x: float, k: int = k) -> float:
            """Of the root of one rate, given any others."""
            rates = np.full(3, 0.3)
            rates[k] = x**2
            return 2.0 * x * joint(precision.numpy(), rates)

        whole = integrate.quad(along, 1e-9, 8.0 * SCALE)[0]
        points = np.quantile(drawn[:, k], [0.1, 0.5, 0.9])
        exact = [integrate.quad(along, 1e-9, math.sqrt(point))[0] / whole for point in points]
        assert exact == pytest.approx([0.1, 0.5, 0.9], abs=0.025)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.1


def test_given_rows_and_rates_location_and_precision_are_the_conjugate_ones() -> None:
    """Moments of draws after the rates: of a Wishart of K + 1 + n degrees and 4 diag(r) + squares."""
    prior, n = NormalHalfTPrior(SCALE, kappa=3.0), 9
    rows = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 0.4
    mean = rows.mean(0)
    squares = (rows - mean).mT @ (rows - mean) + 3.0 * n / (3.0 + n) * torch.outer(mean, mean)
    rates, drawn = [], []
    for seed in range(2_000):
        torch.manual_seed(seed)
        # The rates come first: the same seed draws them.
        rates.append(draw_rate(some_precision(2).diagonal(), SCALE, 2))
        torch.manual_seed(seed)
        drawn.append(prior.draw(rows, some_precision(2)))
    inverse = torch.diag_embed(2.0 * torch.stack(rates)) + squares
    precisions = torch.stack([precision for _, precision in drawn])
    white = torch.linalg.cholesky(inverse).mT @ precisions @ torch.linalg.cholesky(inverse)
    error = (white.mean(0) - (3.0 + n) * torch.eye(2)) / (white.std(0) / math.sqrt(len(drawn)))
    assert float(error.abs().max()) < 4.5
    locations = torch.stack([location for location, _ in drawn]) - n * mean / (3.0 + n)
    roots = torch.linalg.cholesky((3.0 + n) * precisions)
    for column in (roots.mT @ locations.unsqueeze(-1)).squeeze(-1).numpy().T:
        assert stats.kstest(column, "norm").pvalue > 1e-3


def test_draws_given_no_rows_worth_the_name_keep_the_prior() -> None:
    """Rows anew from the prior, and location and precision given them, in turn: spreads stay half-t."""
    torch.manual_seed(0)
    prior, spreads = NormalHalfTPrior(SCALE), []
    for start in half_t(2).sample((1_500,)):
        precision, noise = start, torch.randn(2, dtype=torch.float64)
        location = torch.linalg.solve(torch.linalg.cholesky(2.0 * precision).mT, noise)
        for _ in range(2):
            noise = torch.randn(3, 2, dtype=torch.float64)
            rows = location + torch.linalg.solve(torch.linalg.cholesky(precision).mT, noise.mT).mT
            location, precision = prior.draw(rows, precision)
        spreads.append(float(torch.linalg.inv(precision)[0, 0].sqrt()))
    assert stats.kstest(spreads, lambda x: 2.0 * stats.t(2, scale=SCALE).cdf(x) - 1.0).pvalue > 1e-3


@pytest.mark.parametrize(
    ("spread", "low", "high"), [(0.0, 5e-5, 2e-4), (1e-2, 8e-3, 1.3e-2), (2.0, 1.6, 2.6)]
)
def test_factors_may_hardly_differ(spread: float, low: float, high: float) -> None:
    """Given rows that do not differ at all they stay at a thousandth of s by the root of the rows."""
    torch.manual_seed(0)
    prior = NormalHalfTPrior(0.5)
    rows = spread * torch.randn(60, 3, generator=torch.Generator().manual_seed(1)).double()
    precision, kept = torch.eye(3, dtype=torch.float64), []
    for _ in range(400):
        precision = prior.draw(rows, precision)[1]
        kept.append(float(torch.linalg.inv(precision)[1, 1].sqrt()))
    assert low <= np.median(kept[50:]) < high


# ---------------------------------------------------------------- scaling


def change(terms: ScaleTerms, g: float) -> float:
    """Return what terms say of the density at g less that at one."""
    tails = terms.tails.reshape(-1).tolist()
    prior = terms.slope * math.log(g) - float(terms.rate) * (g**-2 - 1.0)
    return prior + log_tails(tails, terms.power, g**-2) - log_tails(tails, terms.power, 1.0)


PRIORS = [
    (NormalHalfTPrior(SCALE), half_t(3).log_prob),
    (
        NormalWishartPrior(SCALE, extra_degrees=1.0),
        lambda x: torch.tensor(stats.wishart(4, np.eye(3) / (4 * SCALE**2)).logpdf(x.numpy())),
    ),
]


@pytest.mark.parametrize(("prior", "density"), PRIORS, ids=["half-t", "wishart"])
def test_scale_terms_are_those_of_the_density(
    prior: NormalHalfTPrior | NormalWishartPrior, density: object
) -> None:
    """At Lambda / g^2 with the Jacobian g^-K(K + 1), and at D Lambda D of one factor with g^-(K + 1)."""
    assert callable(density)
    precision = some_precision(3)
    together, apart = prior.scale_terms(precision), prior.factor_scale_terms(precision)
    here = float(density(precision))
    for g in (0.01, 0.8, 1.5, 40.0):
        expected = float(density(precision / g**2)) - here - 12.0 * math.log(g)
        assert change(together, g) == pytest.approx(expected)
        for k in range(3):
            moved = precision.clone()
            moved[k] /= g
            moved[:, k] /= g
            one = ScaleTerms(apart.slope, apart.rate[k], apart.tails[k], apart.power)
            expected = float(density(moved)) - here - 4.0 * math.log(g)
            assert change(one, g) == pytest.approx(expected)


# ---------------------------------------------------------------- the best q


@pytest.mark.parametrize("n", [3, 30, 4_000])
def test_the_expected_precision_is_where_both_updates_stand_still(n: int) -> None:
    """As a long iteration from elsewhere finds it: from the rates of rows that vary without end."""
    k = 6
    squares = n * torch.linalg.inv(some_precision(k, 5)) * 0.1
    found = NormalHalfTPrior(SCALE).expect(squares, n)
    mean = torch.zeros(k, k, dtype=torch.float64)
    for _ in range(3_000):
        rate = 0.5 * (k + 2) / (SCALE**-2 + 2.0 * mean.diagonal())
        inverse = torch.diag(4.0 * rate + 2.0 * EPSILON) + squares
        mean = (k + 1 + n + 1) * torch.linalg.inv(inverse)
    torch.testing.assert_close(found, mean, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_it_is_found_for_rows_of_any_size(size: float) -> None:
    k, n = 3, 20
    squares = size * torch.linalg.inv(some_precision(k, 5))
    found = expected_precision_matrix(k + n + 2.0, squares, SCALE)
    rate = 0.5 * (k + 2) / (SCALE**-2 + 2.0 * found.diagonal())
    again = (k + n + 2.0) * torch.linalg.inv(torch.diag(4.0 * rate + 2.0 * EPSILON) + squares)
    torch.testing.assert_close(found, again, rtol=1e-8, atol=0.0)


# ---------------------------------------------------------------- beside the prior of a bias


def test_one_factor_has_the_prior_of_a_bias() -> None:
    prior, bias = NormalHalfTPrior(SCALE), torch.tensor(2.3, dtype=torch.float64)
    one = bias.reshape(1, 1)
    torch.testing.assert_close(half_t(1).log_prob(one), HalfTPrecision(torch.tensor(SCALE)).log_prob(bias))
    assert change(prior.scale_terms(one), 1.7) == pytest.approx(change(prior.scale_terms(bias), 1.7))
    squares = torch.tensor(0.8, dtype=torch.float64)
    mean = prior.expect(squares, 12)
    torch.testing.assert_close(prior.expect(squares.reshape(1, 1), 12).squeeze(), mean)
    found, expected = prior.posterior(mean.reshape(1, 1), 12), prior.posterior(mean, 12)
    torch.testing.assert_close(found.mean.squeeze(), expected.mean)
    torch.testing.assert_close(found.variance.squeeze(), expected.variance)
    rows = torch.tensor([0.3, -0.2, 1.1], dtype=torch.float64)
    drawn = []
    for given, at in ((rows, bias), (rows.unsqueeze(-1), one)):
        torch.manual_seed(0)
        drawn.append([float(prior.draw(given, at)[1]) for _ in range(3_000)])
    assert stats.ks_2samp(*drawn).pvalue > 1e-3


def test_a_bias_has_one_prior_under_either_kind() -> None:
    half, wishart = NormalHalfTPrior(SCALE), NormalWishartPrior(SCALE)
    precision, squares = torch.tensor(2.3).double(), torch.tensor(0.8).double()
    assert half.scale_terms(precision) == wishart.scale_terms(precision)
    assert half.expect(squares, 4) == wishart.expect(squares, 4)
    assert half.guess(None) == wishart.guess(None) == SCALE


# ---------------------------------------------------------------- as a part of models


def test_it_conforms_and_is_saved() -> None:
    prior = NormalHalfTPrior(0.4, kappa=5.0)
    check_prior(prior)
    again = prior_from_settings(prior.settings())
    assert isinstance(again, NormalHalfTPrior)
    assert again.settings() == {"kind": "normal-half-t", "scale": 0.4, "kappa": 5.0}
    with pytest.raises(SettingsError, match=r"A Normal half-t prior with scale=0\.0, kappa=2\.0"):
        NormalHalfTPrior(0.0)


@pytest.mark.parametrize("n_factors", [2, 24])
def test_the_guess_is_the_scale_for_any_number_of_factors(n_factors: int) -> None:
    settings = ModelSettings(n_factors=n_factors, prior_scale=0.4, bias_scale=0.3)
    model = build_model(settings, np.arange(1.0, 6.0), gibbs=True)
    assert isinstance(model.user_prior, NormalHalfTPrior)
    assert model.user_prior.scale == model.user_prior.guess(n_factors) == 0.4
    assert isinstance(model.item_bias_prior, NormalHalfTPrior)
    assert model.item_bias_prior.scale == 0.3


def test_sweeps_take_the_wishart_where_it_is_asked_for() -> None:
    model = build_model(ModelSettings(prior="normal-wishart:extra_degrees=1"), gibbs=True)
    assert isinstance(model.user_prior, NormalWishartPrior)
    assert model.user_prior.extra_degrees == 1.0
    assert isinstance(model.user_bias_prior, NormalHalfTPrior)
