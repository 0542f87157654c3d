"""The coarse level is the system restricted to groups, and it saves steps without moving what is drawn."""

from __future__ import annotations

import pytest
import torch
from tiny_chain import random_state, tiny_model, tiny_sweeps

from pyro_bmf.methods.gibbs.coarse_level import CoarseLevel
from pyro_bmf.methods.gibbs.mean_information import DenseInformation
from pyro_bmf.numerics import room


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("n_groups", [1, 3])
def test_the_coarse_system_is_the_restricted_one(
    side: str, n_groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps = tiny_sweeps(tiny_model())
    state = random_state(sweeps)
    own, entries = state.of(side), sweeps.entries.of(side)
    information = sweeps.given_other(side, state, sweeps.ratings).conditional.mean_precision()
    n, width = information.shape[:2]
    location_prior = sweeps.priors.of(side).location_precision(own.precision) / n
    m = entries.n_columns
    # The system, one unit vector at a time, from its definition.
    system = torch.zeros((m + 1) * width, (m + 1) * width, dtype=torch.float64)
    for place in range((m + 1) * width):
        unit = torch.zeros((m + 1) * width, dtype=torch.float64)
        unit[place] = 1.0
        joined = unit.view(m + 1, width)
        means = entries.means(joined[:-1].contiguous()) + joined[-1] / n**0.5
        image = (information @ means.unsqueeze(-1)).squeeze(-1)
        system[:, place] = torch.cat(
            [
                entries.means_back(image) + own.weights_precision * joined[:-1],
                (image.sum(0) / n**0.5 + location_prior @ joined[-1]).unsqueeze(0),
            ]
        ).flatten()
    coarse = CoarseLevel.build(entries, n_groups)
    assert int(coarse.segments.index[-1]) == n_groups
    basis = torch.nn.functional.one_hot(coarse.segments.index, n_groups + 1).double()
    spread = torch.kron(basis, torch.eye(width, dtype=torch.float64))
    used = torch.nn.functional.one_hot(coarse.segments.index[:-1], n_groups).sum(0) > 0
    assert bool(used.all())
    restricted = spread.T @ system @ spread
    given = DenseInformation(entries, information), own.weights_precision, location_prior
    solver = coarse.solver(*given)
    torch.testing.assert_close(solver.root @ solver.root.T, restricted)
    left = torch.randn(m + 1, width, dtype=torch.float64)
    expected = spread @ torch.linalg.solve(restricted, spread.T @ left.flatten())
    torch.testing.assert_close(solver(left).flatten(), expected)
    monkeypatch.setattr(room, "waits", lambda device: True)
    on_a_card = coarse.solver(*given)
    assert on_a_card.inverse is not None
    torch.testing.assert_close(on_a_card(left).flatten(), expected)
