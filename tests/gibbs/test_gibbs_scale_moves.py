"""The scale of utilities: probabilities stay, and the scale is as the priors leave it."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_chain import ITEMS, USERS, K, random_state, tiny_model, tiny_pairs, tiny_sweeps
from torch import Tensor
from torch.distributions import Gamma, MultivariateNormal, Normal, Wishart

from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.gibbs.scale_moves import _conditional, rescale_utilities, scale_by
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood

LEVELS, KAPPA, CENTRE = [1.0, 2.0, 3.0, 4.0], 3.0, 2.4


def start(row_noise: str) -> tuple[FactorizationModel, Sweeps, ChainState]:
    model = tiny_model(OrderedProbitLikelihood(LEVELS, noise=0.7), row_noise=row_noise)
    generator = torch.Generator().manual_seed(2)
    stars = torch.randint(1, 5, (len(tiny_pairs()[0]),), generator=generator).double()
    sweeps = tiny_sweeps(model, stars)
    sweeps.centre = CENTRE
    state = random_state(sweeps)
    state.cuts = torch.tensor([1.2, 2.6, 3.3], dtype=torch.float64)
    state.user.row_precision_shape = torch.tensor(4.0, dtype=torch.float64)
    state.item.row_precision_shape = torch.tensor(6.0, dtype=torch.float64)
    return model, sweeps, state


def log_density(sweeps: Sweeps, state: ChainState) -> Tensor:
    """Log density of everything but the ratings, from the definitions; cuts are flat."""
    total = torch.zeros((), dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    for name, side in (("user", state.user), ("item", state.item)):
        factors, bias = side.precision[:K, :K], side.precision[K, K]
        degrees = torch.tensor(K + 2.0, dtype=torch.float64)
        eye = torch.eye(K, dtype=torch.float64)
        total = total + Wishart(degrees, eye / (degrees * 0.6**2)).log_prob(factors)
        total = total + Gamma(one, one * 0.5**2).log_prob(bias)
        zero = torch.zeros(K, dtype=torch.float64)
        total = total + MultivariateNormal(zero, precision_matrix=KAPPA * factors).log_prob(side.location[:K])
        total = total + Normal(0.0, (KAPPA * bias).rsqrt()).log_prob(side.location[K])
        about = side.rows - sweeps.implicit_means(name, state)
        rows = MultivariateNormal(side.location[:K], precision_matrix=factors)
        total = total + rows.log_prob(about[:, :K]).sum()
        total = total + Normal(side.location[K], bias.rsqrt()).log_prob(about[:, K]).sum()
        total = total + Gamma(one, one * 0.4**2).log_prob(side.weights_precision).sum()
        total = total + Normal(0.0, side.weights_precision.rsqrt()).log_prob(side.weights).sum()
        shape = side.row_precision_shape
        total = total + Gamma(shape, shape).log_prob(side.row_precision).sum()
    return total


def log_jacobian(noisy: str, t: float) -> float:
    """Logarithm of the volume's factor: t for what is multiplied by g, -2 t for precisions."""
    rows = USERS * (K + 1) + ITEMS
    locations = (K + 1) + 1
    weights = ITEMS * (K + 1) + USERS
    cuts = len(LEVELS) - 1
    precisions = K * (K + 1) // 2 + 1 + 1
    weights_precisions = (K + 1) + 1
    multipliers = USERS if noisy == "user" else ITEMS
    return t * (rows + locations + weights + cuts) - 2 * t * (precisions + weights_precisions + multipliers)


@pytest.mark.parametrize("noisy", ["user", "item"])
def test_the_conditional_is_that_of_the_priors(noisy: str) -> None:
    model, sweeps, state = start("both")
    side = getattr(state, noisy)
    slope, rate = _conditional(state, model, side)
    here = log_density(sweeps, state)
    for t in (-0.7, -0.1, 0.05, 0.4):
        moved = copy.deepcopy(state)
        scale_by(moved, model, getattr(moved, noisy), torch.tensor(math.exp(t), dtype=torch.float64), CENTRE)
        expected = float(log_density(sweeps, moved) - here) + log_jacobian(noisy, t)
        assert slope * t - float(rate) * (math.exp(-2 * t) - 1) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("noisy", ["user", "item"])
def test_no_probability_changes(noisy: str) -> None:
    model, sweeps, state = start("both")

    def standard(state: ChainState) -> Tensor:
        eta = sweeps.predictors(state)
        return (state.cuts - eta.unsqueeze(-1)) / sweeps._noise_sd(state).unsqueeze(-1)

    before = standard(state)
    scale_by(state, model, getattr(state, noisy), torch.tensor(1.7, dtype=torch.float64), CENTRE)
    torch.testing.assert_close(standard(state), before)


@pytest.mark.parametrize("row_noise", ["user", "item"])
def test_drawn_scales_follow_it(row_noise: str) -> None:
    model, _, state = start(row_noise)
    slope, rate = _conditional(state, model, getattr(state, row_noise))
    torch.manual_seed(0)
    width = float(state.cuts[-1] - state.cuts[0])
    drawn = []
    for _ in range(3_000):
        moved = copy.deepcopy(state)
        rescale_utilities(moved, model, CENTRE)
        drawn.append((float(moved.cuts[-1] - moved.cuts[0]) / width) ** -2)
    assert stats.kstest(np.array(drawn), stats.gamma(-0.5 * slope, scale=1 / float(rate)).cdf).pvalue > 1e-3


def test_without_row_noise_nothing_moves() -> None:
    model = tiny_model(OrderedProbitLikelihood(LEVELS, noise=0.7), row_noise=None)
    _, _, state = start("both")
    before = state.cuts.clone()
    rescale_utilities(state, model, CENTRE)
    assert torch.equal(state.cuts, before)
