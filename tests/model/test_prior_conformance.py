"""Every prior under the same checks, and each density against scipy's or an integral."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from scipy import integrate, special, stats

from pyro_bmf.conformance import check_prior
from pyro_bmf.errors import SettingsError
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.likelihoods.counts import PoissonLikelihood
from pyro_bmf.model.priors.heavy_tails import (
    HorseshoePrior,
    LaplacePrior,
    StudentTPrior,
    log_scaled_exponential_integral,
)
from pyro_bmf.model.priors.hierarchical import HierarchicalNormalPrior, LKJPrior
from pyro_bmf.model.priors.normal import NormalPrior, Prior
from pyro_bmf.model.priors.normal_half_t import NormalHalfTPrior
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior
from pyro_bmf.model.priors.positive import GammaPrior, LogNormalPrior

CASES: dict[str, tuple[Callable[[], Prior], dict[str, Any]]] = {
    "normal": (lambda: NormalPrior(0.3, 0.7), {}),
    "hierarchical-normal": (lambda: HierarchicalNormalPrior(0.6), {}),
    "lkj": (lambda: LKJPrior(0.6, 1.5), {}),
    "normal-wishart": (lambda: NormalWishartPrior(0.5), {}),
    "normal-half-t": (lambda: NormalHalfTPrior(0.5), {}),
    "student-t": (lambda: StudentTPrior(df=6.0, scale=0.5), {}),
    "laplace": (lambda: LaplacePrior(0.4), {}),
    "horseshoe": (lambda: HorseshoePrior(0.3), {"finite_variance": False}),
    "gamma": (lambda: GammaPrior(0.8, 1.7), {}),
    "log-normal": (lambda: LogNormalPrior(-0.2, 0.4), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_conformance(name: str) -> None:
    make, more = CASES[name]
    check_prior(make(), **more)
    assert make().settings()["kind"] == name
    assert make().density


class _Own(Prior):
    """A prior of a user's own, which makes its tensors in `forward`."""

    def forward(self, side: str, n_factors: int | None) -> Any:
        del side
        shape = () if n_factors is None else (n_factors,)
        rows: Any = dist.Laplace(torch.zeros(shape), torch.full(shape, 0.5))
        return rows.to_event(len(shape))


# Torch cannot draw correlations and precisions without numbers.
_MATRICES = {("lkj", 3), ("normal-wishart", 3)}


@pytest.mark.parametrize(
    ("name", "n_factors"),
    [(name, n) for name in (*CASES, "own") for n in (3, None) if (name, n) not in _MATRICES],
)
def test_a_prior_is_where_its_model_is(name: str, n_factors: int | None) -> None:
    """On torch's device without numbers, which every build has: on a card it is the same."""
    prior = _Own() if name == "own" else CASES[name][0]()
    prior.prepare(n_factors)
    before = list(prior.state_dict())
    prior.to("meta")
    with pyro.validation_enabled(False):  # which reads numbers
        drawn = poutine.trace(lambda: pyro.sample("row", prior("user_factors", n_factors))).get_trace()
    sites = [drawn.nodes[site]["value"] for site in drawn.stochastic_nodes]
    assert {value.device.type for value in sites} == {"meta"}
    assert list(prior.state_dict()) == before


def test_a_broken_prior_does_not_pass() -> None:
    class Forgetful(HierarchicalNormalPrior):
        def guide(self, side: str, n_factors: int | None) -> None:
            self.prepare(n_factors)

    class Settled(LaplacePrior):
        def settings(self) -> dict[str, Any]:
            return {"kind": "laplace", "scale": 0.1}

    with pytest.raises(AssertionError, match="different sites"):
        check_prior(Forgetful())
    with pytest.raises(AssertionError, match="round trip"):
        check_prior(Settled(0.4))


# ---------------------------------------------------------------- densities

U = torch.tensor([-1.3, 0.2, 2.4], dtype=torch.float64)


def row(prior: Prior, fixed: dict[str, Any] | None = None) -> Any:
    """The prior of one row of three factors, hyperparameters held at given values."""
    values = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in (fixed or {}).items()}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with poutine.condition(data=values):
            return prior("rows", 3)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    ("prior", "reference", "value"),
    [
        (StudentTPrior(3.0, 0.7), stats.t(3.0, scale=0.7), U),
        (LaplacePrior(0.6), stats.laplace(scale=0.6), U),
        (GammaPrior(0.4, 2.0), stats.gamma(0.4, scale=0.5), U.abs()),
        (LogNormalPrior(0.3, 0.8), stats.lognorm(0.8, scale=np.exp(0.3)), U.abs()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_densities(prior: Prior, reference: Any, value: torch.Tensor) -> None:
    found = float(row(prior).log_prob(value))
    assert found == pytest.approx(reference.logpdf(value.numpy()).sum(), rel=1e-9)


def test_the_lkj_prior_is_a_normal_with_that_covariance() -> None:
    correlation = np.array([[1.0, 0.3, -0.2], [0.3, 1.0, 0.5], [-0.2, 0.5, 1.0]])
    spread, location = np.array([0.5, 1.0, 2.0]), np.array([0.1, -0.2, 0.3])
    fixed = {
        "rows_location": location,
        "rows_spread": spread,
        "rows_correlation": np.linalg.cholesky(correlation),
    }
    found = float(row(LKJPrior(1.0), fixed).log_prob(U))
    reference = stats.multivariate_normal(location, np.outer(spread, spread) * correlation)
    assert found == pytest.approx(reference.logpdf(U.numpy()), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_scaled_exponential_integral(dtype: torch.dtype) -> None:
    z = torch.logspace(-12, 2.5, 400, dtype=dtype, requires_grad=True)
    found = log_scaled_exponential_integral(z)
    x = z.detach().double().numpy()
    expected = np.log(special.exp1(x) * np.exp(x))
    tolerance = 1e-8 if dtype is torch.float64 else 2e-5
    np.testing.assert_allclose(found.detach(), expected, rtol=tolerance, atol=tolerance)
    (slope,) = torch.autograd.grad(found.sum(), z)
    exact = 1 - 1 / (x * np.exp(expected))
    np.testing.assert_allclose(slope, exact, rtol=1e-4 if dtype is torch.float32 else 1e-6, atol=1e-4)
    assert bool(torch.isfinite(log_scaled_exponential_integral(torch.tensor([0.0, 1e30], dtype=dtype))).all())


@pytest.mark.parametrize("u", [0.05, 0.7, 3.0])
def test_the_horseshoe_is_the_mixture(u: float) -> None:
    """Integrated over the local scale by quadrature."""
    tau = 0.4

    def integrand(angle: float) -> float:
        local = np.tan(angle)  # half-Cauchy when the angle is uniform
        return float(stats.norm.pdf(u, scale=local * tau) * 2 / np.pi)

    expected = integrate.quad(integrand, 1e-12, np.pi / 2 - 1e-12, limit=500)[0]
    prior = row(HorseshoePrior(1.0), {"rows_tau": tau})
    found = float(prior.log_prob(torch.full((3,), u, dtype=torch.float64))) / 3
    assert np.exp(found) == pytest.approx(expected, rel=1e-6)


# ---------------------------------------------------------------- what does not go together


def test_priors_that_do_not_go_together_are_refused() -> None:
    one = HierarchicalNormalPrior()
    with pytest.raises(SettingsError, match="given twice"):
        FactorizationModel(2, user_prior=one, item_prior=one)
    with pytest.raises(SettingsError, match="bias has a GammaPrior"):
        FactorizationModel(2, user_bias_prior=GammaPrior())
    identity = PoissonLikelihood("identity")
    with pytest.raises(SettingsError, match="needs positive predictors"):
        FactorizationModel(2, likelihood=identity, biases=False, centred=False)
    with pytest.raises(SettingsError, match="needs positive predictors"):
        FactorizationModel(2, user_prior=GammaPrior(), item_prior=GammaPrior(), likelihood=identity)
    FactorizationModel(
        2,
        user_prior=GammaPrior(),
        item_prior=LogNormalPrior(),
        likelihood=identity,
        biases=False,
        centred=False,
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HierarchicalNormalPrior(0.0), "scale is"),
        (lambda: LKJPrior(concentration=-1.0), "concentration is"),
        (lambda: StudentTPrior(df=2.0), "df is"),
        (lambda: LaplacePrior(float("nan")), "scale is"),
        (lambda: HorseshoePrior(-1.0), "scale is"),
        (lambda: GammaPrior(rate=0.0), "rate is"),
        (lambda: LogNormalPrior(float("inf")), "loc is"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], Prior], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make()
