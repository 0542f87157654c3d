"""Amplitudes of factors and biases: densities from the definitions, and predictors that follow."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from test_gibbs_scale_moves import CENTRE, log_density, start
from tiny_chain import ITEMS, USERS, K
from torch import Tensor
from torch.distributions import Normal

from pyro_bmf.methods.gibbs import amplitude_moves
from pyro_bmf.methods.gibbs.amplitude_moves import Parts
from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.model.sides import SIDES


def utilities(sweeps: Sweeps, state: ChainState) -> Tensor:
    noise = torch.randn(len(sweeps.ratings), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return sweeps.predictors(state) + 0.5 * noise


def scaled(state: ChainState, side: str, columns: slice, g: float) -> ChainState:
    moved = copy.deepcopy(state)
    own = getattr(moved, side)
    own.rows[:, columns] *= g
    own.location[columns] *= g
    own.weights[:, columns] *= g
    own.precision[columns, columns] /= g**2
    own.weights_precision[columns] /= g**2
    return moved


def test_densities_are_those_of_priors_and_utilities(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sweeps, state = start("both")
    z = utilities(sweeps, state)
    asked = []

    def note(density: amplitude_moves.AmplitudeDensity, width: float) -> float:
        asked.append(density)
        return 0.0

    def log_joint(state: ChainState) -> float:
        noise = Normal(sweeps.predictors(state), sweeps._noise_sd(state)).log_prob(z)
        return float(log_density(sweeps, state) + noise.sum())

    monkeypatch.setattr(amplitude_moves, "slice_draw", note)
    sweeps._draw_amplitudes(state, z, sweeps.predictors(state))
    parts = [(side, slice(K, None)) for side in SIDES] + [(side, slice(None, K)) for side in SIDES]
    here = log_joint(state)
    for (side, columns), density in zip(parts, asked, strict=True):
        width = len(range(K + 1)[columns])
        n, other = (USERS, ITEMS) if side == "user" else (ITEMS, USERS)
        scaled_up, scaled_down = width * (n + 1 + other), width * (width + 1) // 2 + width
        for t in (-0.6, -0.1, 0.05, 0.4):
            expected = log_joint(scaled(state, side, columns, math.exp(t))) - here
            expected += t * scaled_up - 2 * t * scaled_down
            assert density(t) - density(0.0) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("row_noise", ["user", "both"])
def test_predictors_follow(row_noise: str) -> None:
    _, sweeps, state = start(row_noise)
    z = utilities(sweeps, state)
    before = state.item.rows.clone()
    eta = sweeps._draw_amplitudes(state, z, sweeps.predictors(state))
    assert not torch.allclose(before, state.item.rows)
    torch.testing.assert_close(eta, sweeps.predictors(state))


def test_parts_add_up_and_a_model_without_biases_has_one() -> None:
    _, sweeps, state = start("both")
    eta = sweeps.predictors(state) - CENTRE
    parts = Parts.of(state, sweeps.pairs, eta, biases=True)
    torch.testing.assert_close(parts.product + parts.biases.user + parts.biases.item, eta)
    users, items = sweeps.pairs.user, sweeps.pairs.item
    torch.testing.assert_close(
        parts.product, (state.user.rows[users, :K] * state.item.rows[items, :K]).sum(1)
    )
    alone = Parts.of(state, sweeps.pairs, eta, biases=False)
    torch.testing.assert_close(alone.product, eta)
    assert float(alone.biases.user) == float(alone.biases.item) == 0.0
