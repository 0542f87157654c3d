"""Geweke's joint test: sweeps that alternate with new data must leave the model's own prior as it is.

The model is simulated by Pyro, the chain by the sweeps: two statements of one joint distribution that share
no code. Geweke (2004), doi 10.1198/016214504000001132.
"""

from __future__ import annotations

import math

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from tiny_chain import ITEMS, USERS, K, tiny_model, tiny_pairs, tiny_sweeps
from torch import Tensor

from pyro_bmf.data.blocks import Block
from pyro_bmf.data.feedback import Feedback
from pyro_bmf.inference import sweeps as sweeps_module
from pyro_bmf.inference.chain_state import ChainState
from pyro_bmf.inference.utilities import _at, draw_truncated
from pyro_bmf.model import FactorizationModel, OrderedProbitLikelihood

LEVELS = [1.0, 2.0, 3.0]


def whole_block() -> Block:
    users, items = tiny_pairs()
    ones = torch.ones(len(users))
    return Block(
        users=torch.arange(USERS),
        items=torch.arange(ITEMS),
        rating_users=users,
        rating_items=items,
        ratings=ones,
        user_feedback=Feedback.from_coo(users, items, ones, USERS, ITEMS),
        item_feedback=Feedback.from_coo(items, users, ones, ITEMS, USERS),
        user_weight=1.0,
        item_weight=1.0,
        global_weight=1.0,
    )


def statistics(values: dict[str, Tensor]) -> np.ndarray:
    """Return functionals that have an identity: predictors, ratings, biases, logs of precisions."""
    users, items = tiny_pairs()
    u, v = values["user_factors"].double(), values["item_factors"].double()
    product = (u[users] * v[items]).sum(-1)
    ratings = values["rating"].double()
    noise = values["user_noise"].double()
    weights = values["user_weights"].double()
    found = [
        product.mean(),
        (product**2).mean().clamp_max(20.0),
        values["user_bias"].double().mean(),
        (values["item_bias"].double() ** 2).mean().clamp_max(20.0),
        (ratings.clamp(-10, 10)).mean(),
        (ratings.clamp(-10, 10) ** 2).mean(),
        (ratings * product).mean().clamp(-20, 20),
        noise.log().mean(),
        values["item_noise"].double().log().mean(),
        values["user_noise_shape"].double().log(),
        values["user_weights_precision"].double().log().mean(),
        values["item_weights_precision"].double().log().mean(),
        (weights**2).mean().clamp_max(20.0),
        values["user_bias_precision"].double().log(),
        torch.logdet(values["user_factors_precision"].double()),
        values["item_bias_location"].double().clamp(-10, 10),
    ]
    return np.array([float(value) for value in found])


def of_state(state: ChainState, ratings: Tensor) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {"rating": ratings}
    for name, side in (("user", state.user), ("item", state.item)):
        values |= {
            f"{name}_factors": side.rows[:, :K],
            f"{name}_bias": side.rows[:, K],
            f"{name}_noise": side.noise,
            f"{name}_noise_shape": side.noise_shape,
            f"{name}_weights": side.weights,
            f"{name}_weights_precision": side.weights_precision,
            f"{name}_factors_precision": side.precision[:K, :K],
            f"{name}_bias_precision": side.precision[K, K],
            f"{name}_bias_location": side.location[K],
        }
    return values


def simulate(model: FactorizationModel, n: int) -> tuple[np.ndarray, dict[str, Tensor]]:
    """Draw statistics from the Pyro model, and give the last draw."""
    block = whole_block()
    rows, values = [], {}
    for _ in range(n):
        trace = poutine.trace(poutine.uncondition(model)).get_trace(block, beta=(1.0, 1.0))
        values = {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}
        rows.append(statistics(values))
    return np.array(rows), values


def start_from(values: dict[str, Tensor], sweeps: sweeps_module.Sweeps, noise: float) -> ChainState:
    def rows(side: str) -> Tensor:
        return torch.cat([values[f"{side}_factors"], values[f"{side}_bias"][:, None]], 1).double()

    state = sweeps.start(rows("user"), rows("item"), noise)
    for name, side in (("user", state.user), ("item", state.item)):
        side.noise = values[f"{name}_noise"].double()
        side.noise_shape = values[f"{name}_noise_shape"].double()
        side.weights = values[f"{name}_weights"].double()
        side.weights_precision = values[f"{name}_weights_precision"].double()
        side.precision = torch.block_diag(
            values[f"{name}_factors_precision"].double(),
            values[f"{name}_bias_precision"].double()[None, None],
        )
        side.location = torch.cat(
            [values[f"{name}_factors_location"].double(), values[f"{name}_bias_location"].double()[None]]
        )
    return state


@pytest.mark.parametrize("ordered", [False, True])
def test_sweeps_leave_the_joint_distribution_as_it_is(ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    likelihood = OrderedProbitLikelihood(LEVELS, noise=0.7) if ordered else None
    model = tiny_model(likelihood)
    if ordered:
        likelihood.set_cuts(torch.tensor([-0.4, 0.5]))  # type: ignore[union-attr]
    model.requires_grad_(False)
    torch.manual_seed(3)
    prior, values = simulate(model, 600)
    sweeps = tiny_sweeps(model, values["rating"].double())
    state = start_from(values, sweeps, 0.7)
    if ordered:
        # Cuts have a flat prior, so the joint distribution is proper with cuts held fixed only.
        def fixed(cuts: Tensor, eta: Tensor, scale: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
            point = _at(cuts, eta, scale, place)
            return cuts, draw_truncated(eta, scale, point.low, point.high)

        monkeypatch.setattr(sweeps_module, "draw_cuts_and_utilities", fixed)
    kept = []
    for _ in range(2_400):
        sweeps.sweep(state)
        eta = sweeps.predictors(state)
        relative = (state.user.noise[sweeps.users] * state.item.noise[sweeps.items]).rsqrt()
        ratings = model.likelihood(eta, relative).sample()
        sweeps.ratings = ratings
        if ordered:
            sweeps.place = torch.searchsorted(torch.tensor([1.5, 2.5]).double(), ratings.double())
        kept.append(statistics(of_state(state, ratings)))
    chain = np.array(kept)
    # Batch means: the chain's draws are not independent.
    batches = chain.reshape(30, -1, chain.shape[1]).mean(1)
    error = np.sqrt(batches.var(0, ddof=1) / 30 + prior.var(0, ddof=1) / len(prior))
    z = (chain.mean(0) - prior.mean(0)) / error
    assert np.abs(z).max() < 4.0, dict(enumerate(z.round(1)))
    assert math.isfinite(float(error.sum()))
