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
from pyro_bmf.model.likelihoods.ordered_probit import CUT_BEND, CUT_SPREAD, OrderedProbitLikelihood
from pyro_bmf.numerics.cuts.density import CutDensity

CENTRE, SPREAD = torch.tensor(3.1, dtype=torch.float64), 1.7


def free(n: int) -> CutPrior:
    """Return the prior of cuts of which nothing is expected but the shares of their cells."""
    return CutPrior(CutDensity(range(n), SPREAD), CENTRE)


def test_density_is_the_dirichlets_with_the_jacobian_of_the_shares() -> None:
    prior, differences = free(4), []
    cuts = torch.tensor([[0.4, 2.0, 3.0, 6.5], [3.0, 3.1, 3.2, 3.3]], dtype=torch.float64)
    for one, found in zip(cuts, prior.log_prob(cuts), strict=True):

        def cells(c: torch.Tensor) -> torch.Tensor:
            below = Normal(CENTRE, SPREAD).cdf(c)
            return torch.cat([below[:1], below.diff()])

        shares = cells(one)
        whole = torch.cat([shares, 1.0 - shares.sum(0, keepdim=True)])
        jacobian = torch.autograd.functional.jacobian(cells, one)
        expected = Dirichlet(torch.full((5,), 2.0)).log_prob(whole) + torch.logdet(jacobian)
        differences.append(float(found) - float(expected))
    assert differences[0] == pytest.approx(differences[1], abs=1e-6)


@pytest.mark.parametrize("bend", [math.inf, 0.08])
@pytest.mark.parametrize(
    "cuts",
    [[0.4, 2.0, 3.0], [-90.0, 0.0, 200.0], [1.0, 1.0 + 1e-13, 30.0], [50.0, 51.0, 52.0], [-52.0, -51.9, 3.0]],
)
def test_plain_numbers_have_the_same_density(cuts: list[float], bend: float) -> None:
    density = CutDensity([0.5, 2.0, 2.5], SPREAD, bend)
    exact = float(density.log_density(torch.tensor(cuts, dtype=torch.float64)))
    assert density.of_numbers(cuts) == pytest.approx(exact, rel=1e-8)
    assert density.of_numbers(cuts[::-1]) == -math.inf
    assert float(density.log_density(torch.tensor(cuts[::-1], dtype=torch.float64))) == -math.inf


def test_draws_have_dirichlet_shares() -> None:
    torch.manual_seed(0)
    cuts = free(3).sample((4_000,))
    assert cuts.shape == (4_000, 3)
    assert bool((cuts.diff(dim=-1) > 0).all())
    below = Normal(CENTRE, SPREAD).cdf(cuts).numpy()
    share = np.diff(below, prepend=0.0)
    for k in range(3):
        assert stats.kstest(share[:, k], stats.beta(2, 6).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("middles", "bend"),
    [((1.5, 2.5, 3.5, 4.5), 0.2), ((1.5, 2.5, 3.5, 4.5), 2.0), ((0.0, 1.0, 5.0), 0.2)],
    ids=["even", "much bent", "uneven levels"],
)
def test_draws_are_bent_as_their_density_is(middles: tuple[float, ...], bend: float) -> None:
    """Against draws by rejection: an even spacing, a Cauchy beside it, and what the cells leave of these."""
    torch.manual_seed(0)
    n = len(middles)
    found = CutPrior(CutDensity(middles, SPREAD, bend), CENTRE).sample((4_000,)) - CENTRE
    rng = np.random.default_rng(0)
    design = np.linalg.qr(np.column_stack([np.ones(n), middles]))[0]
    noise = rng.normal(size=(800_000, n))
    flat = noise @ design @ design.T
    cuts = SPREAD * flat + bend * (noise - flat) / np.abs(rng.normal(size=(len(noise), 1)))
    cuts = cuts[(np.diff(cuts) > 0).all(1)]
    left = cuts - cuts @ design @ design.T
    cells = np.diff(
        stats.norm.cdf(np.pad(cuts, ((0, 0), (1, 1)), constant_values=(-np.inf, np.inf)) / SPREAD)
    )
    chance = ((n + 1) * cells).prod(1) * np.exp(-0.5 * (left**2).sum(1) / SPREAD**2)
    exact = cuts[rng.random(len(cuts)) < chance]
    assert len(exact) > 2_000
    for number in range(n):
        assert stats.ks_2samp(found[:, number].numpy(), exact[:, number]).pvalue > 1e-3
    sizes = [np.linalg.norm(one - one @ design @ design.T, axis=1) for one in (found.numpy(), exact)]
    assert stats.ks_2samp(*sizes).pvalue > 1e-3
    if bend < 1.0:
        assert float(np.median(sizes[0])) < 0.5 * float(np.median(np.linalg.norm(found.numpy(), axis=1)))


def test_many_levels_and_few_are_drawn() -> None:
    for n in (1, 2, 40):
        cuts = CutPrior(CutDensity(range(n), SPREAD, 0.1), CENTRE).expand((3,)).sample((2,))
        assert cuts.shape == (2, 3, n)
        assert bool((cuts.diff(dim=-1) > 0).all())
        assert bool(cuts.isfinite().all())


def test_a_likelihood_under_sweeps_samples_its_cuts() -> None:
    likelihood = OrderedProbitLikelihood([1.0, 2.0, 3.0, 5.0], noise=0.6)
    assert likelihood.sampled(CENTRE) is likelihood
    likelihood.drawn = True
    trace = poutine.trace(lambda: likelihood.sampled(CENTRE)(torch.zeros(5).double())).get_trace()
    site = trace.nodes["cuts"]
    density = site["fn"].density
    assert (density.spread, density.bend) == (CUT_SPREAD * 0.6, CUT_BEND * 0.6)
    even = torch.tensor([0.5, 1.5, 3.0], dtype=torch.float64)
    torch.testing.assert_close(density.uneven(4.0 * even - 2.0), 0.0 * even)
    found = trace.nodes["_RETURN"]["value"]
    assert torch.equal(found.cuts, site["value"])
