"""Shift and scale of utilities: probabilities stay, and both are as the priors leave them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_chain import FACTORS, ITEMS, USERS, Factors, K, random_state, tiny_model, tiny_pairs, tiny_sweeps
from torch import Tensor
from torch.distributions import Cauchy, Dirichlet, Gamma, MultivariateNormal, Normal, Wishart

from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.gibbs.moves import scale_moves
from pyro_bmf.methods.gibbs.moves.scale_moves import (
    noise_line,
    rescale_noise,
    rescale_utilities,
    scale_by,
    shift_cuts,
)
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.model.priors.half_t import HalfTPrecision, HalfTPrecisionMatrix
from pyro_bmf.model.priors.normal_half_t import NormalHalfTPrior
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior
from pyro_bmf.model.sides import SIDES, Sides
from pyro_bmf.numerics.cuts.density import CutDensity
from pyro_bmf.numerics.slice_draw import slice_draw

LEVELS, KAPPA, CENTRE, SPREAD, BEND = [1.0, 2.0, 3.0, 4.0], 3.0, 2.4, 1.75, 0.3
CUTS = CutDensity([1.5, 2.5, 3.5], SPREAD, BEND)


def start(
    row_noise: str, factors: Factors = NormalHalfTPrior
) -> tuple[FactorizationModel, Sweeps, ChainState]:
    model = tiny_model(OrderedProbitLikelihood(LEVELS, noise=0.7), row_noise=row_noise, factors=factors)
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
    """Log density of everything but the ratings, from the definitions."""
    normal = Normal(torch.tensor(CENTRE, dtype=torch.float64), SPREAD)
    below = torch.cat([torch.zeros(1), normal.cdf(state.cuts), torch.ones(1)])
    # Shares of cells are Dirichlet, and their Jacobian is the Normal's density at the cuts.
    shares = Dirichlet(torch.full((len(LEVELS),), 2.0, dtype=torch.float64))
    total = shares.log_prob(below.diff()) + normal.log_prob(state.cuts).sum()
    # What no even spacing explains of three cuts is one number, and Cauchy.
    bent = state.cuts @ torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64) / 6**0.5
    total = total + Cauchy(0.0, torch.tensor(BEND, dtype=torch.float64)).log_prob(bent)
    one = torch.ones((), dtype=torch.float64)
    for name, side in (("user", state.user), ("item", state.item)):
        factors, bias = side.precision[:K, :K], side.precision[K, K]
        if isinstance(sweeps.model.user_prior, NormalWishartPrior):
            degrees = torch.tensor(K + 2.0, dtype=torch.float64)
            eye = torch.eye(K, dtype=torch.float64)
            total = total + Wishart(degrees, eye / (degrees * 0.6**2)).log_prob(factors)
        else:
            total = total + HalfTPrecisionMatrix(0.6 * one, K).log_prob(factors)
        total = total + HalfTPrecision(0.5 * one).log_prob(bias)
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


def log_jacobian(t: float) -> float:
    """Logarithm of the volume's factor but for noise: t for what is multiplied by g, -2 t for precisions."""
    rows = USERS * (K + 1) + ITEMS
    locations = (K + 1) + 1
    weights = ITEMS * (K + 1) + USERS
    cuts = len(LEVELS) - 1
    precisions = K * (K + 1) // 2 + 1 + 1
    weights_precisions = (K + 1) + 1
    return t * (rows + locations + weights + cuts) - 2 * t * (precisions + weights_precisions)


def factor(t: float) -> Tensor:
    return torch.tensor(math.exp(t), dtype=torch.float64)


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("noisy", ["user", "item"])
def test_the_density_against_noise_is_that_of_the_priors(noisy: str, factors: Factors) -> None:
    model, sweeps, state = start("both", factors)
    side = getattr(state, noisy)
    line = noise_line(state, model, noisy, CENTRE, CUTS)
    here = log_density(sweeps, state)
    for t in (-0.7, -0.1, 0.05, 0.4):
        moved = copy.deepcopy(state)
        scale_by(moved, model, factor(t), CENTRE)
        getattr(moved, noisy).row_precision /= factor(t) ** 2
        jacobian = log_jacobian(t) - 2 * t * len(side.rows)
        expected = float(log_density(sweeps, moved) - here) + jacobian
        assert line(t) - line(0.0) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("factors", FACTORS)
def test_the_density_with_utilities_is_that_of_priors_and_utilities(
    factors: Factors, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sweeps, state = start("both", factors)
    z = sweeps.predictors(state) + 0.3 * torch.randn(len(sweeps.ratings), dtype=torch.float64)

    def log_joint(state: ChainState, z: Tensor) -> Tensor:
        utilities = Normal(sweeps.predictors(state), sweeps._noise_sd(state)).log_prob(z)
        return log_density(sweeps, state) + utilities.sum()

    lines = []

    def note(line: Callable[[float], float], width: float) -> float:
        lines.append(line)
        return 0.0

    monkeypatch.setattr(scale_moves, "slice_draw", note)
    standard = (z - sweeps.predictors(state)) / sweeps._noise_sd(state)
    rescale_utilities(state, model, CENTRE, CUTS, standard.square().sum(), len(z))
    here = log_joint(state, z)
    for t in (-0.5, -0.1, 0.05, 0.4):
        moved = copy.deepcopy(state)
        scale_by(moved, model, factor(t), CENTRE)
        there = log_joint(moved, CENTRE + factor(t) * (z - CENTRE))
        expected = float(there - here) + log_jacobian(t) + t * len(z)
        assert lines[0](t) - lines[0](0.0) == pytest.approx(expected, abs=1e-8)


def test_no_probability_changes() -> None:
    model, sweeps, state = start("both")

    def standard(state: ChainState) -> Tensor:
        eta = sweeps.predictors(state)
        return (state.cuts - eta.unsqueeze(-1)) / sweeps._noise_sd(state).unsqueeze(-1)

    before, cuts = standard(state), state.cuts.clone()
    rescale_noise(state, model, CENTRE, CUTS)
    shift_cuts(state, KAPPA, CENTRE, CUTS)
    torch.testing.assert_close(standard(state), before)
    assert not bool((state.cuts == cuts).any())


def test_drawn_shifts_follow_the_priors() -> None:
    _, sweeps, state = start("user")
    before = state.cuts[0].clone()
    torch.manual_seed(0)
    drawn = []
    for _ in range(1_200):
        shift_cuts(state, KAPPA, CENTRE, CUTS)
        drawn.append(float(state.cuts[0] - before))
    shifts = torch.linspace(min(drawn) - 1.0, max(drawn) + 1.0, 1_001, dtype=torch.float64)
    now = float(state.cuts[0] - before)

    def height(d: Tensor) -> Tensor:
        moved = copy.deepcopy(state)
        moved.cuts = state.cuts + (d - now)
        moved.user.rows[:, -1] += d - now
        moved.user.location[-1] += d - now
        return log_density(sweeps, moved)

    weights = torch.stack([height(d) for d in shifts[::10]])
    weights = (weights - weights.max()).exp()
    below = (weights.cumsum(0) / weights.sum()).numpy()
    # Neighbours depend on each other a little: every third.
    found = stats.kstest(drawn[::3], lambda d: np.interp(d, shifts[::10].numpy(), below))
    assert found.pvalue > 1e-3


def test_without_row_noise_nothing_moves() -> None:
    model = tiny_model(OrderedProbitLikelihood(LEVELS, noise=0.7), row_noise=None)
    _, _, state = start("both")
    before = state.cuts.clone()
    rescale_noise(state, model, CENTRE, CUTS)
    assert torch.equal(state.cuts, before)


@pytest.mark.parametrize("start_at", [0.0, 4.0, -9.0])
def test_slices_have_the_distribution(start_at: float) -> None:
    gamma = stats.gamma(3.0)
    at, drawn = start_at, []
    for _ in range(3_000):
        # The logarithm of a Gamma variable.
        at = slice_draw(lambda t: 3.0 * t - math.exp(t), 1.5, at)
        drawn.append(at)
    assert stats.kstest(np.exp(drawn[20::3]), gamma.cdf).pvalue > 1e-3


def test_kept_states_stand_where_cuts_started_and_predict_the_same() -> None:
    _, sweeps, state = start("both")
    sweeps.drawing_cuts = True
    z = sweeps.predictors(state) + 0.3
    means = Sides(*(sweeps.conditional_mean(side, state, z) for side in SIDES))
    moved, shifted = sweeps.anchored(state, means)
    assert float(moved.cuts.mean()) == pytest.approx(2.5)
    before = state.cuts - sweeps.predictors(state).unsqueeze(-1)
    torch.testing.assert_close(moved.cuts - sweeps.predictors(moved).unsqueeze(-1), before)
    # Conditional means are those of the shifted state, whose utilities are shifted too.
    z = z + float(moved.cuts.mean() - state.cuts.mean())
    for side in SIDES:
        torch.testing.assert_close(shifted.of(side), sweeps.conditional_mean(side, moved, z))


@pytest.mark.parametrize("share", [0.0, 0.8])
def test_a_sweep_ends_with_the_items_conditional_means(share: float) -> None:
    _, sweeps, state = start("both")
    for _ in range(2):
        z, items = sweeps.sweep(state, overrelaxation=share)
    torch.testing.assert_close(items, sweeps.conditional_mean("item", state, z))
    assert not torch.allclose(items, state.item.rows)
