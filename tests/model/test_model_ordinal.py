"""The ordered probit: probabilities against SciPy and quadrature, moments against simulation, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from pyro_bmf.errors import DataError, SettingsError
from pyro_bmf.model.catalogue import likelihood_from_settings
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood

LEVELS = [1.0, 2.0, 3.0, 5.0]


def made() -> OrderedProbitLikelihood:
    likelihood = OrderedProbitLikelihood(LEVELS, noise=0.7)
    likelihood.set_cuts(torch.tensor([1.2, 2.6, 4.1]))
    return likelihood


def test_probabilities_are_scipys() -> None:
    likelihood = made()
    eta = torch.tensor([-3.0, 1.0, 2.5, 9.0], dtype=torch.float64)
    found = likelihood.log_prob_rating(eta, torch.tensor(LEVELS)).exp().detach().numpy()
    cuts = np.array([-np.inf, 1.2, 2.6, 4.1, np.inf])
    below = stats.norm.cdf((cuts - eta.numpy()[:, None]) / 0.7)
    np.testing.assert_allclose(found, np.diff(below, axis=1), atol=1e-7)
    p = likelihood(eta)
    for k, level in enumerate(LEVELS):
        np.testing.assert_allclose(
            p.log_prob(torch.full((4,), level).double()).exp().detach().numpy(), found[:, k], atol=1e-7
        )


def test_moments_and_samples_agree() -> None:
    likelihood = made()
    eta = torch.tensor([0.5, 2.0, 4.4], dtype=torch.float64)
    relative = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    torch.manual_seed(0)
    p = likelihood(eta, relative)
    drawn = p.sample((40_000,)).numpy()
    assert set(np.unique(drawn)) <= set(LEVELS)
    np.testing.assert_allclose(drawn.mean(0), p.mean.detach().numpy(), atol=0.04)
    np.testing.assert_allclose(drawn.var(0), p.variance.detach().numpy(), atol=0.06)
    assert p.expand((2, 3)).batch_shape == (2, 3)


def test_predictive_probabilities_are_the_integral() -> None:
    likelihood = made()
    mean, variance, relative = 2.2, 0.8, 1.3
    found = likelihood.predictive_pmf(
        *(torch.tensor([value], dtype=torch.float64) for value in (mean, variance)),
        torch.tensor(LEVELS),
        torch.tensor([relative], dtype=torch.float64),
    )[0].detach()
    cuts = [-np.inf, 1.2, 2.6, 4.1, np.inf]
    for k in range(4):

        def integrand(eta: float, k: int = k) -> float:
            cell = np.diff(stats.norm.cdf((np.array(cuts[k : k + 2]) - eta) / (0.7 * relative)))[0]
            return float(cell * stats.norm.pdf(eta, mean, np.sqrt(variance)))

        assert float(found[k]) == pytest.approx(integrate.quad(integrand, -8, 12)[0], abs=1e-7)
    moments = likelihood.predictive_moments(
        torch.tensor([mean]).double(), torch.tensor([variance]).double(), torch.tensor([relative]).double()
    )
    expected = float((found * torch.tensor(LEVELS)).sum())
    assert float(moments[0].detach()) == pytest.approx(expected)


def test_cuts_are_learned_by_gradient() -> None:
    likelihood = made()
    eta = torch.zeros(5)
    loss = -likelihood(eta).log_prob(torch.tensor([1.0, 1.0, 2.0, 3.0, 5.0])).sum()
    loss.backward()
    assert likelihood.first_cut.grad is not None
    assert bool(likelihood.log_gaps.grad.abs().gt(0).all())  # type: ignore[union-attr]


def test_settings_and_errors() -> None:
    likelihood = made()
    again = likelihood_from_settings(likelihood.settings())
    again.load_state_dict(likelihood.state_dict())
    torch.testing.assert_close(again.cuts, likelihood.cuts)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"A rating of 4 is not a level"):
        likelihood.check(np.array([1.0, 4.0]))
    for levels in ([1.0], [1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(SettingsError, match="two or more, ascending"):
            OrderedProbitLikelihood(levels)
    with pytest.raises(SettingsError, match="noise is"):
        OrderedProbitLikelihood(LEVELS, noise=0.0)
    with pytest.raises(SettingsError, match="made for"):
        likelihood.predictive_pmf(torch.zeros(1), torch.ones(1), torch.tensor([1.0, 2.0]))
