"""What is recorded once is the work of every iteration; the rate of the weights' steps falls."""

from __future__ import annotations

import copy

import pytest
import torch
from recorders import OnTheSpot
from small_head import make

from pyro_bmf.methods.exact_head.weight_steps import WeightSteps
from pyro_bmf.methods.recording import NOT_RECORDED, Looks, Recording
from pyro_bmf.numerics import room


def test_iterations_are_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "waits", lambda device: True)
    plain = make(ordered=True).updates
    recorded = copy.deepcopy(plain)
    recorder = OnTheSpot()
    for updates, recording in ((plain, NOT_RECORDED), (recorded, Recording(recorder, pytest.fail))):
        updates.weight_steps = WeightSteps(updates.guide, updates.loss, updates.settings, recording)
        updates.looks = updates._of_ratings = Looks(recording)
    figures = [[updates.iteration() for _ in range(6)] for updates in (plain, recorded)]
    assert figures[0] == figures[1]
    # Of each side its steps and the shape of its noise; what ratings say; two steps of cut points.
    assert (recorder.recorded, recorder.runs) == (2 + 2 + 1 + 1, 38)
    for name, value in plain.guide.state_dict().items():
        assert torch.equal(value, recorded.guide.state_dict()[name]), name


def test_a_rate_that_lies_on_the_device_is_changed_in_place() -> None:
    updates = make().updates
    steps = updates.weight_steps
    assert steps is not None
    group = steps.optimizers.user.param_groups[0]
    group["lr"] = rate = torch.tensor(1.0)
    steps.set_rates(5)
    assert group["lr"] is rate
    torch.testing.assert_close(float(rate), steps.optimizers.item.param_groups[0]["lr"])
