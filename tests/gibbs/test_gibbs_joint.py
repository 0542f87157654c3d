"""Geweke's joint test: sweeps that alternate with new data must leave the model's own prior as it is.

The model is simulated by Pyro, the chain by the sweeps: two statements of one joint distribution that share
no code. Geweke (2004), doi 10.1198/016214504000001132. Sweeps run as a fit runs them: in the same precision,
at the same tolerance of the solver, with cut points, noise and scale moving.

Many short chains start from draws of the prior, and what their sweeps change on average is compared with its
standard error: chains are independent of each other, so that it holds however slowly they mix.
"""

from __future__ import annotations

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from tiny_chain import ITEMS, USERS, K, tiny_model, tiny_pairs
from torch import Tensor

from pyro_bmf.methods.gibbs import sweeps as sweeps_module
from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.gibbs.collapsed_means import Solver
from pyro_bmf.methods.gibbs.settings import Gibbs
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.blocks import Block
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood

LEVELS, NOISE = [1.0, 2.0, 3.0], 0.7


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
        # The noise moves where there are no cuts.
        *([] if len(values["cuts"]) else [values["noise"].log()]),
        *values["cuts"],
        *(values["cuts"] ** 2).clamp_max(20.0),
        *values["cuts"].diff().log(),
    ]
    return np.array([float(value) for value in found])


def of_state(state: ChainState, ratings: Tensor) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {"rating": ratings, "noise": state.noise_precision, "cuts": state.cuts}
    for name, side in (("user", state.user), ("item", state.item)):
        values |= {
            f"{name}_factors": side.rows[:, :K],
            f"{name}_bias": side.rows[:, K],
            f"{name}_noise": side.row_precision,
            f"{name}_noise_shape": side.row_precision_shape,
            f"{name}_weights": side.weights,
            f"{name}_weights_precision": side.weights_precision,
            f"{name}_factors_precision": side.precision[:K, :K],
            f"{name}_bias_precision": side.precision[K, K],
            f"{name}_bias_location": side.location[K],
        }
    return values


def simulate(model: FactorizationModel, ordered: bool) -> dict[str, Tensor]:
    """Draw parameters and ratings from the Pyro model."""
    unknowns = {} if ordered else draw_noise(model)
    trace = poutine.trace(poutine.uncondition(model)).get_trace(whole_block(), beta=(1.0, 1.0))
    values = {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}
    if ordered:
        unknowns = {"noise": torch.tensor(NOISE**-2, dtype=torch.float64)}
    return values | unknowns


def start_from(values: dict[str, Tensor], sweeps: sweeps_module.Sweeps) -> ChainState:
    def rows(side: str) -> Tensor:
        return torch.cat([values[f"{side}_factors"], values[f"{side}_bias"][:, None]], 1)

    state = sweeps.start(rows("user"), rows("item"), 1.0)
    state.noise_precision, state.cuts = values["noise"].clone(), values["cuts"].clone()
    for name, side in (("user", state.user), ("item", state.item)):
        side.row_precision = values[f"{name}_noise"].clone()
        side.row_precision_shape = values[f"{name}_noise_shape"].double()
        side.weights = values[f"{name}_weights"].clone()
        side.weights_precision = values[f"{name}_weights_precision"].clone()
        side.precision = torch.block_diag(
            values[f"{name}_factors_precision"], values[f"{name}_bias_precision"][None, None]
        )
        side.location = torch.cat([values[f"{name}_factors_location"], values[f"{name}_bias_location"][None]])
    return state


def draw_noise(model: FactorizationModel) -> dict[str, Tensor]:
    """Draw the noise, which the Pyro model holds as a parameter, and put it in place."""
    # The prior of a learned noise: its precision is Gamma(1, 1).
    precision = torch.distributions.Exponential(torch.ones((), dtype=torch.float64)).sample()
    model.likelihood.set_noise_sd(precision.rsqrt())
    return {"cuts": torch.empty(0, dtype=torch.float64), "noise": precision}


def new_ratings(sweeps: sweeps_module.Sweeps, state: ChainState) -> Tensor:
    """Draw the data anew given everything, for the sweeps."""
    eta = sweeps.predictors(state).double()
    precision = (
        state.noise_precision
        * (state.user.row_precision[sweeps.pairs.user] * state.item.row_precision[sweeps.pairs.item]).double()
    )
    utilities = eta + torch.randn_like(eta) * precision.rsqrt()
    if not sweeps.utilities.latent:
        sweeps.ratings = utilities.to(sweeps.dtype)
        return utilities
    place = torch.searchsorted(state.cuts, utilities)
    sweeps.observed, sweeps.ratings = place, (1.0 + place).to(sweeps.dtype)
    return sweeps.ratings


def standard_errors_apart(ordered: bool, n_chains: int, n_sweeps: int, seed: int) -> np.ndarray:
    """Return how far sweeps take each statistic from the prior's on average, in standard errors."""
    likelihood = OrderedProbitLikelihood(LEVELS, noise=NOISE) if ordered else NormalLikelihood()
    likelihood.drawn = True
    model = tiny_model(likelihood)
    model.requires_grad_(False)
    torch.manual_seed(seed)
    users, items = tiny_pairs()
    ones = torch.ones(len(users))
    feedback = Feedback.from_coo(users, items, ones, USERS, ITEMS)
    # As they are made for a fit by default.
    sweeps = sweeps_module.Sweeps(model, feedback, ones, solver=Solver(Gibbs().solver_tolerance))
    assert sweeps.dtype == torch.float32
    assert sweeps.scale_moves
    assert Gibbs().scale_moves
    assert Gibbs().overrelaxation > 0.0
    changes = []
    for _ in range(n_chains):
        values = simulate(model, ordered)
        state = start_from(values, sweeps)
        sweeps.ratings = values["rating"].to(sweeps.dtype)
        if ordered:
            sweeps.observed = (values["rating"] - 1).long()
        kept = []
        for _ in range(n_sweeps):
            sweeps.sweep(state, overrelaxation=Gibbs().overrelaxation)
            ratings = new_ratings(sweeps, state)
            kept.append(statistics(of_state(state, ratings)))
        changes.append(np.mean(kept, axis=0) - statistics(values))
    change = np.array(changes)
    standard: np.ndarray = change.mean(0) / (change.std(0, ddof=1) / np.sqrt(n_chains))
    return standard


@pytest.mark.parametrize("ordered", [False, True], ids=["normal", "ordered"])
def test_sweeps_leave_the_joint_distribution_as_it_is(ordered: bool) -> None:
    z = standard_errors_apart(ordered, 500, 3, seed=3)
    assert np.abs(z).max() < 4.0, dict(enumerate(z.round(1)))


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [False, True], ids=["normal", "ordered"])
def test_many_chains_leave_it_too(ordered: bool) -> None:
    z = standard_errors_apart(ordered, 4_000, 5, seed=4)
    assert np.abs(z).max() < 4.0, dict(enumerate(z.round(1)))
