"""Likelihoods: densities and cells against SciPy, quadrature against closed forms, extremes, errors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray

from pyro_bmf import PyroBmfError
from pyro_bmf.model.catalogue import likelihood_from_settings
from pyro_bmf.model.likelihoods.normal import Likelihood, NormalLikelihood

LEVELS = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
HALVES = torch.tensor([0.5, 1.0, 2.0, 3.5, 5.0])


def scipy_cells(mean: torch.Tensor, sd: torch.Tensor, levels: torch.Tensor) -> NDArray[np.float64]:
    """Cells cut midway between levels, tails to the ends; the smaller of the two tails is subtracted."""
    cuts = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]).numpy() / 2, [np.inf]])
    normal = scipy.stats.norm(mean.numpy()[..., None], sd.numpy()[..., None])
    lower = normal.cdf(cuts[1:]) - normal.cdf(cuts[:-1])
    upper = normal.sf(cuts[:-1]) - normal.sf(cuts[1:])
    return np.where(cuts[:-1] > mean.numpy()[..., None], upper, lower)


def test_the_density_is_scipys() -> None:
    likelihood = NormalLikelihood(0.6)
    eta = torch.tensor([3.0, -1.0, 4.2])
    x = torch.tensor([3.5, 1.0, 4.0])
    expected = scipy.stats.norm(eta.numpy(), 0.6).logpdf(x.numpy())
    np.testing.assert_allclose(likelihood(eta).log_prob(x).numpy(), expected, rtol=1e-12)
    assert torch.equal(likelihood.mean(eta), eta)


@pytest.mark.parametrize("levels", [LEVELS, HALVES])
def test_the_probability_of_a_rating_is_its_cell(levels: torch.Tensor) -> None:
    likelihood = NormalLikelihood(0.8)
    eta = torch.linspace(-1.0, 7.0, 12).reshape(3, 4)
    ours = likelihood.log_prob_rating(eta, levels)
    assert ours.shape == (3, 4, len(levels))
    expected = scipy_cells(eta, torch.full_like(eta, 0.8), levels)
    np.testing.assert_allclose(ours.exp().numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(ours.exp().sum(-1).numpy(), 1.0, rtol=1e-12)


def test_one_level_has_everything() -> None:
    assert NormalLikelihood(1.0).log_prob_rating(torch.tensor([3.0]), torch.tensor([2.0])).tolist() == [[0.0]]


def test_far_ratings_have_small_probabilities_that_are_finite_and_alike_on_both_sides() -> None:
    likelihood = NormalLikelihood(0.5)
    eta = torch.tensor([-3.0, 9.0])  # 4 below the lowest level, 4 above the highest
    low, high = likelihood.log_prob_rating(eta, LEVELS)
    normal = scipy.stats.norm(-3.0, 0.5)
    np.testing.assert_allclose(float(low[-1]), normal.logsf(4.5), rtol=1e-9)
    np.testing.assert_allclose(float(low[2]), np.log(normal.sf(2.5) - normal.sf(3.5)), rtol=1e-9)
    np.testing.assert_allclose(high.flip(0).numpy(), low.numpy(), rtol=1e-9)
    for extreme in (-1e6, 1e6, 1e30):
        assert torch.isfinite(likelihood.log_prob_rating(torch.tensor([extreme]), LEVELS)).all()


@pytest.mark.parametrize("levels", [LEVELS, HALVES])
def test_predictive_probabilities_are_scipys_and_sum_to_one(levels: torch.Tensor) -> None:
    likelihood = NormalLikelihood(0.7)
    mean = torch.tensor([0.2, 3.1, 4.9, 6.0])
    variance = torch.tensor([0.0, 0.3, 1.2, 4.0])
    ours = likelihood.predictive_pmf(mean, variance, levels)
    expected = scipy_cells(mean, torch.sqrt(variance + 0.49), levels)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(ours.sum(-1).numpy(), 1.0, rtol=1e-12)
    moments = likelihood.predictive_moments(mean, variance)
    np.testing.assert_allclose(moments[0].numpy(), mean.numpy())
    np.testing.assert_allclose(moments[1].numpy(), variance.numpy() + 0.49, rtol=1e-12)


def test_the_quadrature_that_any_likelihood_inherits_agrees_with_the_closed_form() -> None:
    """The base class's methods, called on a Normal likelihood, against the Normal's own."""
    likelihood = NormalLikelihood(0.7)
    mean, variance = torch.tensor([0.2, 3.1, 4.9]), torch.tensor([0.05, 0.3, 1.2])
    exact = likelihood.predictive_moments(mean, variance)
    for ours, closed in zip(Likelihood.predictive_moments(likelihood, mean, variance), exact, strict=True):
        torch.testing.assert_close(ours, closed, rtol=1e-10, atol=1e-12)
    pmf = Likelihood.predictive_pmf(likelihood, mean, variance, LEVELS)
    torch.testing.assert_close(pmf, likelihood.predictive_pmf(mean, variance, LEVELS), rtol=0, atol=1e-6)
    torch.testing.assert_close(pmf.sum(-1), torch.ones(3), rtol=1e-12, atol=0)


def test_noise_is_fixed_or_learned() -> None:
    fixed, learned = NormalLikelihood(0.9), NormalLikelihood()
    assert list(fixed.parameters()) == []
    assert len(list(learned.parameters())) == 1
    ratings = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    fixed.start(ratings)
    learned.start(ratings)
    assert float(fixed.noise_sd) == pytest.approx(0.9, rel=1e-12)
    assert float(learned.noise_sd.detach()) == pytest.approx(ratings.std(), rel=1e-12)
    learned.start(np.array([3.0, 3.0]))
    assert float(learned.noise_sd.detach()) > 0, "equal ratings do not start the noise at zero"


@pytest.mark.parametrize("noise", ["learned", 0.4])
def test_settings_make_the_round_trip(noise: float | str) -> None:
    likelihood = NormalLikelihood(noise)
    again = likelihood_from_settings(likelihood.settings())
    assert isinstance(again, NormalLikelihood)
    assert again.settings() == likelihood.settings()
    again.load_state_dict(likelihood.state_dict())
    assert torch.equal(again.noise_sd, likelihood.noise_sd)


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan"), float("inf"), "lerned", "", None])
def test_bad_noise(noise: float | str) -> None:
    with pytest.raises(PyroBmfError, match="noise"):
        NormalLikelihood(noise)


def test_an_unknown_kind() -> None:
    with pytest.raises(PyroBmfError, match="poison"):
        likelihood_from_settings({"kind": "poison"})


def test_a_rating_outside_the_support() -> None:
    likelihood = NormalLikelihood()
    likelihood.check(np.array([1.0, -3.0, 5.0]))
    with pytest.raises(PyroBmfError, match="nan"):
        likelihood.check(np.array([1.0, np.nan]))
