"""Priors: densities against SciPy, settings, errors."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

from pyro_bmf import PyroBmfError
from pyro_bmf.conformance import check_prior
from pyro_bmf.errors import SettingsError
from pyro_bmf.model.catalogue import prior_from_settings
from pyro_bmf.model.priors.normal import NormalPrior, Prior
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior


def test_the_normal_prior_is_scipys() -> None:
    prior = NormalPrior(0.3, 0.7)
    factors = torch.linspace(-2.0, 2.5, 12).reshape(4, 3)
    p = prior("user_factors", 3)
    assert p.event_shape == (3,)
    assert p.batch_shape == ()
    expected = scipy.stats.norm(0.3, 0.7).logpdf(factors.numpy()).sum(-1)
    np.testing.assert_allclose(p.log_prob(factors).numpy(), expected, rtol=1e-12)
    bias = prior("user_bias", None)
    assert bias.event_shape == ()
    expected = scipy.stats.norm(0.3, 0.7).logpdf(factors[:, 0].numpy())
    np.testing.assert_allclose(bias.log_prob(factors[:, 0]).numpy(), expected, rtol=1e-12)


def test_settings_make_the_round_trip() -> None:
    prior = NormalPrior(0.3, 0.7)
    again = prior_from_settings(prior.settings())
    assert isinstance(again, NormalPrior)
    assert again.settings() == prior.settings()
    assert again.scale == prior.scale == 0.7


@pytest.mark.parametrize(
    ("loc", "scale"), [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), (0.0, float("inf")), (0.0, float("nan"))]
)
def test_bad_settings(loc: float, scale: float) -> None:
    with pytest.raises(PyroBmfError, match="scale"):
        NormalPrior(loc, scale)


class LaplacePrior(Prior):
    """A prior of a user's own."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width

    def forward(self, side: str, n_factors: int | None) -> dist.TorchDistribution:
        base = dist.Laplace(torch.tensor(0.0), torch.tensor(self.width))
        return base if n_factors is None else base.expand([n_factors]).to_event(1)

    @property
    def scale(self) -> float:
        return self.width * 2**0.5

    def settings(self) -> dict[str, object]:
        return {"kind": "wide-laplace", "width": self.width}


def test_a_prior_of_ones_own_is_found_by_kind() -> None:
    prior = LaplacePrior(0.5)
    with pytest.raises(PyroBmfError, match="wide-laplace"):
        prior_from_settings(prior.settings())
    again = prior_from_settings(prior.settings(), {"wide-laplace": LaplacePrior})
    assert again.settings() == prior.settings()


@pytest.mark.parametrize("extra_degrees", [0.0, 2.0, 5.0])
@pytest.mark.parametrize("n_factors", [1, 3, 24])
def test_the_spread_of_one_factor_is_guessed_alike_for_any_number_of_factors(
    n_factors: int, extra_degrees: float
) -> None:
    """Its variance is an inverse Gamma(a, a s^2), a = (e + 1) / 2, by SciPy, whatever K is."""
    torch.manual_seed(n_factors)
    prior = NormalWishartPrior.guessing(0.4, n_factors, extra_degrees=extra_degrees)
    assert prior.guess(n_factors) == pytest.approx(0.4)
    precisions = torch.stack([_precision(prior, n_factors) for _ in range(800)])
    variances = torch.linalg.inv(precisions)[:, 0, 0].numpy()
    half = (extra_degrees + 1.0) / 2.0
    expected = scipy.stats.invgamma(half, scale=half * 0.4**2)
    assert scipy.stats.kstest(variances, expected.cdf).pvalue > 0.01


@pytest.mark.parametrize("extra_degrees", [0.0, 2.0])
def test_the_density_of_a_scaled_precision_is_the_wisharts(extra_degrees: float) -> None:
    """At Lambda / g^2 it changes by g^A exp(-B (g^-2 - 1)), with the Jacobian of K (K + 1) / 2 entries."""
    k, scale = 3, 0.6
    prior = NormalWishartPrior(scale, extra_degrees=extra_degrees)
    check_prior(prior)
    root = torch.randn(k, k, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    precision = root @ root.T + torch.eye(k)
    degrees = k + extra_degrees
    density = scipy.stats.wishart(degrees, np.eye(k) / (degrees * scale**2)).logpdf
    power, height, tails, power_of_tails = prior.scale_terms(precision)
    assert power_of_tails == 0.0
    assert not tails.any()
    for g in (0.7, 1.3):
        expected = density(precision.numpy() / g**2) - density(precision.numpy()) - k * (k + 1) * np.log(g)
        assert power * np.log(g) - float(height) * (g**-2 - 1.0) == pytest.approx(expected)


def test_degrees_of_freedom_are_checked_and_saved() -> None:
    with pytest.raises(SettingsError, match="extra_degrees=-1"):
        NormalWishartPrior(extra_degrees=-1)
    prior = NormalWishartPrior(0.4, extra_degrees=0.0)
    again = prior_from_settings(prior.settings())
    assert again.settings() == prior.settings()
    assert prior.settings() != NormalWishartPrior(0.4).settings()


def _precision(prior: NormalWishartPrior, n_factors: int) -> torch.Tensor:
    trace = pyro.poutine.trace(prior.forward).get_trace("user", n_factors)
    drawn: torch.Tensor = trace.nodes["user_precision"]["value"]
    return drawn
