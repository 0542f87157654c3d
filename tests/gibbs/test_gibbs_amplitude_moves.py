"""Amplitudes of factors and biases: densities from the definitions, and predictors that follow."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from test_gibbs_scale_moves import log_density, start
from tiny_chain import FACTORS, ITEMS, USERS, Factors, K
from torch import Tensor
from torch.distributions import Normal

from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.gibbs.moves import amplitude_moves
from pyro_bmf.methods.gibbs.moves.amplitude_moves import sums_of_parts
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.model.sides import SIDES

#: In the order in which they are drawn: a bias is the last column, and all factors come before each.
PARTS = [(side, [K]) for side in SIDES] + [
    (side, list(columns)) for side in SIDES for columns in (range(K), *([factor] for factor in range(K)))
]


def utilities(sweeps: Sweeps, state: ChainState) -> Tensor:
    noise = torch.randn(len(sweeps.ratings), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return sweeps.predictors(state) + 0.5 * noise


def scaled(state: ChainState, side: str, columns: list[int], g: float) -> ChainState:
    moved = copy.deepcopy(state)
    own = getattr(moved, side)
    own.rows[:, columns] *= g
    own.location[columns] *= g
    own.weights[:, columns] *= g
    own.precision[columns] /= g
    own.precision[:, columns] /= g
    own.weights_precision[columns] /= g**2
    return moved


def log_volume(side: str, columns: list[int]) -> int:
    """Of a move, by the power of g: rows, locations and weights go up, entries of precisions down."""
    n, other = (USERS, ITEMS) if side == "user" else (ITEMS, USERS)
    width = len(columns)
    # An entry is divided by g once for its row and once for its column; a bias has none beside it.
    beside = 0 if columns == [K] else K - width
    entries = width * (width + 1) + width * beside
    return width * (n + 1 + other) - entries - 2 * width


@pytest.mark.parametrize("factors", FACTORS)
def test_densities_are_those_of_priors_and_utilities_one_after_the_other(
    factors: Factors, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sweeps, state = start("both", factors)
    z, there = utilities(sweeps, state), copy.deepcopy(state)
    asked: list[amplitude_moves.AmplitudeDensity] = []
    steps = [t for t, _ in zip(itertools.cycle((0.2, -0.3, 0.15)), PARTS, strict=False)]

    def note(density: amplitude_moves.AmplitudeDensity, width: float) -> float:
        asked.append(density)
        return steps[len(asked) - 1]

    def log_joint(state: ChainState) -> float:
        noise = Normal(sweeps.predictors(state), sweeps._noise_sd(state)).log_prob(z)
        return float(log_density(sweeps, state) + noise.sum())

    monkeypatch.setattr(amplitude_moves, "slice_draw", note)
    eta = sweeps._draw_amplitudes(state, z, sweeps.predictors(state))
    for (side, columns), density, step in zip(PARTS, asked, steps, strict=True):
        here = log_joint(there)
        for t in (-0.6, -0.1, 0.05, 0.4):
            expected = log_joint(scaled(there, side, columns, math.exp(t))) - here
            expected += t * log_volume(side, columns)
            assert density(t) - density(0.0) == pytest.approx(expected, abs=1e-8)
        there = scaled(there, side, columns, math.exp(step))
    for name, tensor in there.tensors().items():
        torch.testing.assert_close(state.tensors()[name], tensor, msg=name)
    torch.testing.assert_close(eta, sweeps.predictors(there))


@pytest.mark.parametrize("row_noise", ["user", "both"])
def test_amplitudes_are_drawn_and_predictors_follow(row_noise: str) -> None:
    _, sweeps, state = start(row_noise)
    z, before = utilities(sweeps, state), copy.deepcopy(state)
    eta = sweeps._draw_amplitudes(state, z, sweeps.predictors(state))
    for side, column in ((side, column) for side in SIDES for column in range(K + 1)):
        ratios = getattr(state, side).rows[:, column] / getattr(before, side).rows[:, column]
        assert float(ratios[0]) != 1.0
        torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))
    torch.testing.assert_close(eta, sweeps.predictors(state))


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_sums_of_parts_are_those_of_a_dense_table(
    dtype: torch.dtype, within: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A few pairs at a time.
    monkeypatch.setattr(amplitude_moves, "_CELLS", 7 * K)
    _, sweeps, state = start("both")
    left = utilities(sweeps, state) - sweeps.predictors(state)
    precision = sweeps._pair_precision(state)
    parts = state.user.rows[sweeps.pairs.user, :K] * state.item.rows[sweeps.pairs.item, :K]
    for own in (state.user, state.item):
        own.rows = own.rows.to(dtype)
    gram, linear = sums_of_parts(state, sweeps.pairs, left, precision, K)
    size = float((precision * parts.norm(dim=1) ** 2).sum())
    assert gram.dtype == linear.dtype == torch.float64
    torch.testing.assert_close(
        gram, torch.einsum("n,nk,nl->kl", precision, parts, parts), atol=within * size, rtol=0
    )
    torch.testing.assert_close(linear, (precision * left) @ parts, atol=within * size, rtol=0)
