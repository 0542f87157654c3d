"""Precisions with a half-t standard deviation: density, draws, and the rate given which all is conjugate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from pyro_bmf.model.priors.half_t import HalfTPrecision, draw_rate, expected_precision
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior

SCALE = 0.7
#: What keeps spreads off zero: the density falls by exp(-EPSILON) for each unit of the precision.
EPSILON = (SCALE / 1_000.0) ** 2


def double(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("sd", [0.01, 0.4, 3.0, 200.0])
def test_density_is_that_of_a_half_t(sd: float) -> None:
    found = float(HalfTPrecision(double(SCALE)).log_prob(double(sd**-2)))
    # |d lambda / d sd| = 2 / sd^3.
    expected = math.log(2.0 * stats.t(2, scale=SCALE).pdf(sd)) - EPSILON * sd**-2
    assert found + math.log(2.0 / sd**3) == pytest.approx(expected)


def test_spreads_below_a_thousandth_of_the_scale_are_not_drawn() -> None:
    """Of the half-t alone one in 500 would be below half of it, of which exp(-4) is left."""
    torch.manual_seed(0)
    sd = HalfTPrecision(torch.full((400_000,), SCALE).double()).sample().rsqrt() / SCALE
    below = [float((sd < limit).double().mean()) for limit in (5e-4, 1e-2)]
    alone = torch.stack([HalfTPrecision(double(SCALE)).sample() for _ in range(3_000)])  # some are drawn anew
    assert bool((alone > 0).all())
    half_t = 2.0 * stats.t(2).cdf(1e-2) - 1.0
    assert below[0] < 2e-5
    assert below[1] == pytest.approx(half_t - 1e-3 * math.sqrt(math.pi) * 2.0 * stats.t(2).pdf(0.0), rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_are_of_a_half_t(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    drawn = HalfTPrecision(torch.tensor([SCALE, SCALE], dtype=dtype)).expand((3, 2)).sample((2_000,))
    assert drawn.shape == (2_000, 3, 2)
    assert drawn.dtype == dtype
    assert bool((drawn > 0).all() & drawn.isfinite().all())
    sd = drawn.rsqrt().flatten().double().numpy()
    assert stats.kstest(sd, lambda x: 2.0 * stats.t(2, scale=SCALE).cdf(x) - 1.0).pvalue > 1e-3


def test_the_rate_is_drawn_from_its_conditional() -> None:
    """Of Gamma(1, 2r) and Gamma(1/2, s^-2), by quadrature; over it the precision has its density."""
    torch.manual_seed(0)
    precision = 3.0
    drawn = 0.5 * draw_rate(torch.full((4_000,), precision).double(), SCALE).numpy()

    def joint(r: float) -> float:
        return float(stats.gamma(1.0, scale=0.5 / r).pdf(precision) * stats.gamma(0.5, scale=SCALE**2).pdf(r))

    whole = integrate.quad(joint, 0.0, np.inf)[0]
    found = float(HalfTPrecision(double(SCALE)).log_prob(double(precision)))
    assert math.log(whole) - EPSILON * precision == pytest.approx(found)
    points = np.quantile(drawn, [0.1, 0.5, 0.9])
    exact = [integrate.quad(joint, 0.0, point)[0] / whole for point in points]
    assert exact == pytest.approx([0.1, 0.5, 0.9], abs=0.025)


@pytest.mark.parametrize("squares", [1e-12, 0.3, 5.0, 1e9])
def test_the_expected_precision_is_where_both_updates_stand_still(squares: float) -> None:
    shape = 6.5
    found = float(expected_precision(shape, double(squares), SCALE))
    rate = 3.0 / (SCALE**-2 + 2.0 * found)
    assert found == pytest.approx(shape / (rate + EPSILON + 0.5 * squares))


@pytest.mark.parametrize(("spread", "low", "high"), [(0.0, 0.0, 0.06), (2.0, 1.6, 2.6)])
def test_biases_may_not_differ_at_all(spread: float, low: float, high: float) -> None:
    """Draws given rows, each after the last: of rows that are alike the spread has no least value."""
    torch.manual_seed(0)
    prior = NormalWishartPrior(0.5)
    rows = spread * torch.randn(60, generator=torch.Generator().manual_seed(1)).double() + 1e-4
    precision, kept = double(1.0), []
    for _ in range(400):
        precision = prior.draw(rows, precision)[1]
        kept.append(float(precision.rsqrt()))
    assert low <= np.median(kept[50:]) < high


def test_the_density_of_a_scaled_precision_is_the_half_ts() -> None:
    """At lambda / g^2 it changes by g^A exp(-B g^-2) (1 + C g^-2)^(-3/2), with the Jacobian g^-2."""
    density, precision = HalfTPrecision(double(SCALE)), double(2.0)
    power, rate, (tail,), half = NormalWishartPrior(SCALE).scale_terms(precision)
    assert half == 1.5
    assert float(rate) == pytest.approx(EPSILON * 2.0)
    for g in (0.01, 0.8, 1.5, 40.0):
        expected = float(density.log_prob(precision / g**2) - density.log_prob(precision)) - 2.0 * math.log(g)
        found = power * math.log(g) - 1.5 * (math.log1p(float(tail) / g**2) - math.log1p(float(tail)))
        assert found - float(rate) * (g**-2 - 1.0) == pytest.approx(expected)
