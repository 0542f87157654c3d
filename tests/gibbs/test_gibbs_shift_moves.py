"""Shifts that no rating sees: predictors stay, and the shift is as the priors leave it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_gibbs_scale_moves import log_density
from test_gibbs_scale_moves import start as started
from tiny_chain import FACTORS, Factors, K, random_state, tiny_model, tiny_sweeps
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.gibbs.moves import shift_moves
from pyro_bmf.methods.gibbs.moves.shift_moves import rescale_factors, shift_biases, shift_factors
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.model.sides import Sides

KAPPA = 3.0  # of tiny_model


def log_prior(sweeps: Sweeps, state: ChainState) -> Tensor:
    """Log density of rows and locations given precisions and weights, from the definition."""
    total = torch.zeros((), dtype=torch.float64)
    for name, side in (("user", state.user), ("item", state.item)):
        about = side.rows - sweeps.implicit_means(name, state)
        factors, bias = side.precision[:K, :K], side.precision[K, K]
        zero = torch.zeros(K, dtype=torch.float64)
        total = total + MultivariateNormal(zero, precision_matrix=KAPPA * factors).log_prob(side.location[:K])
        total = total + Normal(0.0, (KAPPA * bias).rsqrt()).log_prob(side.location[K])
        rows = MultivariateNormal(side.location[:K], precision_matrix=factors)
        total = total + rows.log_prob(about[:, :K]).sum()
        total = total + Normal(side.location[K], bias.rsqrt()).log_prob(about[:, K]).sum()
    return total


def biases(sweeps: Sweeps, state: ChainState) -> None:
    shift_biases(state, (KAPPA, KAPPA))


def item_factors(sweeps: Sweeps, state: ChainState) -> None:
    shift_factors(state.item, state.user, KAPPA, sweeps.prior_mean("user", state)[:, -1])


def user_factors(sweeps: Sweeps, state: ChainState) -> None:
    shift_factors(state.user, state.item, KAPPA, sweeps.prior_mean("item", state)[:, -1])


MOVES: list[tuple[Callable[[Sweeps, ChainState], None], str, slice]] = [
    (biases, "user", slice(K, K + 1)),
    (item_factors, "item", slice(0, K)),
    (user_factors, "user", slice(0, K)),
]


def shifted(state: ChainState, move: Callable[..., None], d: Tensor) -> ChainState:
    """Return a state shifted by hand."""
    new = copy.deepcopy(state)
    if move is biases:
        new.user.rows[:, K] += d
        new.user.location[K] += d[0]
        new.item.rows[:, K] -= d
        new.item.location[K] -= d[0]
        return new
    moved, other = (new.item, new.user) if move is item_factors else (new.user, new.item)
    taken_up = other.rows[:, :K].clone() @ d
    moved.rows[:, :K] += d
    moved.location[:K] += d
    other.rows[:, K] -= taken_up
    return new


@pytest.mark.parametrize(("move", "side", "columns"), MOVES, ids=lambda value: getattr(value, "__name__", ""))
def test_shifts(move: Callable[[Sweeps, ChainState], None], side: str, columns: slice) -> None:
    torch.manual_seed(0)
    sweeps = tiny_sweeps(tiny_model())
    start = random_state(sweeps)
    eta = sweeps.predictors(start)
    before = getattr(start, side).location[columns].clone()
    drawn = []
    for _ in range(3_000):
        state = copy.deepcopy(start)
        move(sweeps, state)
        drawn.append(getattr(state, side).location[columns] - before)
    torch.testing.assert_close(sweeps.predictors(state), eta)
    # Rows move as their location does: the other way, predictors would stay too.
    rows = getattr(state, side).rows[:, columns] - getattr(start, side).rows[:, columns]
    torch.testing.assert_close(rows, drawn[-1].expand_as(rows))

    # The log density is quadratic in the shift: its Hessian and gradient at zero tell the whole of it.
    def density(d: Tensor) -> Tensor:
        return log_prior(sweeps, shifted(start, move, d))

    zero = torch.zeros(columns.stop - columns.start, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(density, zero)
    gradient = torch.autograd.functional.jacobian(density, zero)
    covariance = torch.linalg.inv(-hessian)
    mean = covariance @ gradient
    found = torch.stack(drawn)
    standard = (found.mean(0) - mean) / (covariance.diagonal() / len(found)).sqrt()
    assert float(standard.abs().max()) < 4.5
    error = torch.from_numpy(np.atleast_2d(np.cov(found.numpy().T))) - covariance
    diagonal = covariance.diagonal()
    bound = torch.sqrt((covariance**2 + torch.outer(diagonal, diagonal)) / len(found))
    assert bool((error.abs() < 5 * bound).all())


def rescaled(state: ChainState, factor: int, t: float) -> ChainState:
    """Return a state with a factor of the users and all that it comes from by e^t, the items' by e^-t."""
    new = copy.deepcopy(state)
    for own, g in ((new.user, math.exp(t)), (new.item, math.exp(-t))):
        own.rows[:, factor] *= g
        own.location[factor] *= g
        own.weights[:, factor] *= g
        own.weights_precision[factor] /= g**2
        own.precision[factor] /= g
        own.precision[:, factor] /= g
    return new


@pytest.mark.parametrize("prior", FACTORS)
def test_scales_of_factors_against_their_partners_are_as_the_priors_leave_them(
    prior: Factors, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sweeps, state = started("both", prior)
    # Different on either side, so that it matters which is which.
    state.user.precision *= 3.0
    state.item.weights_precision *= 5.0
    asked: list[Callable[[float], float]] = []

    def note(density: Callable[[float], float], width: float) -> float:
        asked.append(density)
        return 0.0

    monkeypatch.setattr(shift_moves, "slice_draw", note)
    factors = Sides(sweeps.priors.user.factors, sweeps.priors.item.factors)
    rescale_factors(state, K, factors, sweeps.model.implicit)
    assert len(asked) == K
    for factor, density in enumerate(asked):
        for t in (-0.7, 0.2, 0.5):
            # Volumes: what either side is multiplied by is divided on the other, but there are as many
            # numbers on both sides.
            expected = log_density(sweeps, rescaled(state, factor, t)) - log_density(sweeps, state)
            assert density(t) - density(0.0) == pytest.approx(float(expected), abs=1e-8)


def test_scaled_factors_predict_the_same_and_are_as_they_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = tiny_sweeps(tiny_model())
    state = random_state(sweeps)
    eta, before = sweeps.predictors(state), copy.deepcopy(state)
    steps = iter((0.4, -0.3, 0.2))
    monkeypatch.setattr(shift_moves, "slice_draw", lambda density, width: next(steps))
    factors = Sides(sweeps.priors.user.factors, sweeps.priors.item.factors)
    rescale_factors(state, K, factors, sweeps.model.implicit)
    torch.testing.assert_close(sweeps.predictors(state), eta)
    expected = before
    for factor, t in zip(range(K), (0.4, -0.3, 0.2), strict=False):
        expected = rescaled(expected, factor, t)
    for name, tensor in state.tensors().items():
        torch.testing.assert_close(tensor, expected.tensors()[name])
