"""The scales of implicit weights: their density is that of the ratings with the rows integrated out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from tiny_chain import K, random_state, tiny_model, tiny_pairs, tiny_sweeps
from torch import Tensor
from torch.distributions import Gamma, MultivariateNormal, Normal

from pyro_bmf.methods.gibbs import weights_scale
from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.gibbs.mean_information import FewRows
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.methods.gibbs.weights_scale import rescale_weights, scale_tables


def log_density(sweeps: Sweeps, state: ChainState, z: Tensor) -> Tensor:
    """Log density of utilities, users integrated out row by row, and of the users' weights."""
    own, prior_mean = state.user, sweeps.prior_mean("user", state)
    covariance = torch.linalg.inv(own.precision)
    total = torch.zeros((), dtype=torch.float64)
    users, items = tiny_pairs()
    for user in users.unique().tolist():
        rated = items[users == user]
        features = sweeps.features("user", state)[rated]
        offset = state.item.rows[rated, K]
        noise = 1.0 / (state.noise_precision * own.row_precision[user] * state.item.row_precision[rated])
        spread = features @ covariance @ features.T + torch.diag(noise)
        total = total + MultivariateNormal(features @ prior_mean[user] + offset, spread).log_prob(
            z[users == user]
        )
    one = torch.ones((), dtype=torch.float64)
    total = total + Gamma(one, one * 0.4**2).log_prob(own.weights_precision).sum()
    return total + Normal(0.0, own.weights_precision.rsqrt()).log_prob(own.weights).sum()


@pytest.mark.parametrize("few", [False, True], ids=["dense", "low rank"])
def test_the_density_is_that_of_ratings_and_priors(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = tiny_sweeps(tiny_model())
    state, z = random_state(sweeps), sweeps.ratings
    if few:
        sweeps.rows_of = type(sweeps.rows_of)(
            *(FewRows.build(sweeps.entries.of(side), K + 1) for side in ("user", "item"))
        )
    lines: list[Callable[[float], float]] = []

    def note(line: Callable[[float], float], width: float) -> float:
        lines.append(line)
        return 0.0

    monkeypatch.setattr(weights_scale, "slice_draw", note)
    given = sweeps.given_other("user", state, z)
    said = given.conditional.solve(given.conditional.linear) @ state.user.precision
    means = sweeps.implicit_means("user", state)
    rescale_weights(state.user, scale_tables(state.user, means, said, given.information(), 0.4))
    here = log_density(sweeps, state, z)
    assert len(lines) == K + 1
    for k, line in enumerate(lines):
        for t in (-0.6, 0.1, 0.5):
            moved = copy.deepcopy(state)
            moved.user.weights[:, k] *= math.exp(t)
            moved.user.weights_precision[k] /= math.exp(2 * t)
            # Weights are multiplied by g, and the precision divided by its square.
            jacobian = t * (len(state.user.weights) - 2)
            expected = float(log_density(sweeps, moved, z) - here) + jacobian
            assert line(t) - line(0.0) == pytest.approx(expected, abs=1e-7)
