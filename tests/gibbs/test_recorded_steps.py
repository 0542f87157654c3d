"""Steps of the solver that are recorded once are the steps of every draw, whatever the system is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from recorders import OnTheSpot
from tiny_chain import ITEMS, USERS, random_state, tiny_model, tiny_pairs

from pyro_bmf.methods.gibbs.coarse_level import CoarseLevel
from pyro_bmf.methods.gibbs.collapsed_means import Solver
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.methods.recording import NOT_RECORDED, Recording
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.numerics import room


def sweeps_of(recording: Recording, dense_cells: int) -> Sweeps:
    users, items = tiny_pairs()
    values = torch.randn(len(users), dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    feedback = Feedback.from_coo(users, items, values, USERS, ITEMS)
    return Sweeps(
        tiny_model(),
        feedback,
        feedback.values,
        dtype=torch.float64,
        solver=Solver(1e-10, 60),
        dense_cells=dense_cells,
        recording=recording,
    )


@pytest.mark.parametrize("dense_cells", [10**9, 0])
def test_sweeps_are_the_same_to_the_bit(dense_cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one matrix a row, and with factors of rows that have few ratings."""
    monkeypatch.setattr(room, "waits", lambda device: True)
    recorder = OnTheSpot()
    ends = []
    for recording in (NOT_RECORDED, Recording(recorder, pytest.fail)):
        sweeps = sweeps_of(recording, dense_cells)
        for system in (sweeps.means.user, sweeps.means.item):
            # With as many directions as columns one step would do.
            system.coarse = CoarseLevel.build(system.entries, 1)
        state = random_state(sweeps)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            for _ in range(4):
                sweeps.sweep(state, overrelaxation=0.8)
        ends.append((state.tensors(), sweeps.means.user.steps + sweeps.means.item.steps))
    assert recorder.recorded == 2  # once a side, for all draws
    assert recorder.runs >= ends[1][1] > 16
    assert ends[0][1] == ends[1][1]
    for name, value in ends[0][0].items():
        assert torch.equal(value, ends[1][0][name]), name


def test_a_recording_that_fails_leaves_the_steps_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def record(self, warm_up: Callable[[], object], work: Callable[[], object]) -> Callable[[], object]:
            raise RuntimeError("not permitted")

    monkeypatch.setattr(room, "waits", lambda device: True)
    told: list[str] = []
    sweeps = sweeps_of(Recording(Failing(), told.append), 10**9)
    state = random_state(sweeps)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        sweeps.sweep(state)
        sweeps.sweep(state)
    assert bool(torch.isfinite(state.user.rows).all())
    assert len(told) == 2  # once a side
    assert "not permitted" in told[0]
