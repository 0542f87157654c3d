"""The prior of cut points: cells of a Normal with Dirichlet shares, as a distribution and in sweeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch.distributions import Dirichlet, Normal

from pyro_bmf.model.likelihoods.cut_prior import CutPrior
from pyro_bmf.model.likelihoods.ordered_probit import CUT_SPREAD, OrderedProbitLikelihood
from pyro_bmf.numerics.ordered_cuts import log_cut_prior, log_cut_prior_of

CENTRE, SPREAD = torch.tensor(3.1, dtype=torch.float64), 1.7


def test_density_is_the_dirichlets_with_the_jacobian_of_the_shares() -> None:
    prior = CutPrior(4, SPREAD, CENTRE)
    cuts = torch.tensor([[0.4, 2.0, 3.0, 6.5], [3.0, 3.1, 3.2, 3.3]], dtype=torch.float64)
    for one, found in zip(cuts, prior.log_prob(cuts), strict=True):

        def cells(c: torch.Tensor) -> torch.Tensor:
            below = Normal(CENTRE, SPREAD).cdf(c)
            return torch.cat([below[:1], below.diff()])

        shares = cells(one)
        whole = torch.cat([shares, 1.0 - shares.sum(0, keepdim=True)])
        jacobian = torch.autograd.functional.jacobian(cells, one)
        expected = Dirichlet(torch.full((5,), 2.0)).log_prob(whole) + torch.logdet(jacobian)
        assert float(found) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    "cuts",
    [[0.4, 2.0, 3.0], [-90.0, 0.0, 200.0], [1.0, 1.0 + 1e-13, 30.0], [50.0, 51.0, 52.0], [-52.0, -51.9, 3.0]],
)
def test_plain_numbers_have_the_same_density(cuts: list[float]) -> None:
    exact = float(log_cut_prior(torch.tensor(cuts, dtype=torch.float64), SPREAD))
    assert log_cut_prior_of(cuts, SPREAD) == pytest.approx(exact, rel=1e-8)
    assert log_cut_prior_of(cuts[::-1], SPREAD) == -math.inf


def test_draws_have_dirichlet_shares() -> None:
    torch.manual_seed(0)
    cuts = CutPrior(3, SPREAD, CENTRE).sample((4_000,))
    assert cuts.shape == (4_000, 3)
    assert bool((cuts.diff(dim=-1) > 0).all())
    below = Normal(CENTRE, SPREAD).cdf(cuts).numpy()
    share = np.diff(below, prepend=0.0)
    for k in range(3):
        assert stats.kstest(share[:, k], stats.beta(2, 6).cdf).pvalue > 1e-3


def test_a_likelihood_under_sweeps_samples_its_cuts() -> None:
    likelihood = OrderedProbitLikelihood([1.0, 2.0, 3.0], noise=0.6)
    assert likelihood.sampled(CENTRE) is likelihood
    likelihood.drawn = True
    trace = poutine.trace(lambda: likelihood.sampled(CENTRE)(torch.zeros(5).double())).get_trace()
    site = trace.nodes["cuts"]
    assert site["fn"].spread == CUT_SPREAD * 0.6
    found = trace.nodes["_RETURN"]["value"]
    assert torch.equal(found.cuts, site["value"])
