"""Adam's groups: first layers that sum over very many numbers have a share of the learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from objective_tools import make_objective

from pyro_bmf.data import random_split, synthetic_ratings
from pyro_bmf.fitting import fit
from pyro_bmf.methods.cross_feedback import optimizer
from pyro_bmf.methods.cross_feedback.optimizer import HEAVY, adam_of, rates, set_rate
from pyro_bmf.methods.cross_feedback.settings import CrossFeedback
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.sides import Sides
from pyro_bmf.progress import Silent

CPU = torch.device("cpu")


def test_light_rows_have_one_group_in_the_usual_order() -> None:
    objective = make_objective()
    found = adam_of(objective, CrossFeedback(), Sides(HEAVY / 2, 10.0), CPU)
    (group,) = found.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in objective.parameters() if p.requires_grad]
    set_rate(found, 0.25)
    assert group["lr"] == 0.25


def test_rates_fall_as_sums_grow() -> None:
    """Of K 2 factors: the items' table of embeddings is heavy, and where rows have far more, all are."""
    objective = make_objective()
    items = objective.guide.item_encoder
    found = adam_of(objective, CrossFeedback(weight_decay=0.1), Sides(10.0, HEAVY), CPU)
    assert isinstance(found, torch.optim.AdamW)
    assert [group.get("share") for group in found.param_groups] == [None, 0.5]
    assert found.param_groups[1]["params"][0] is items.latent_weight
    assert rates(found, 0.1) == [0.1, 0.05]
    many = adam_of(objective, CrossFeedback(), Sides(4 * HEAVY, 4 * HEAVY), CPU)
    assert sorted(group.get("share", 1.0) for group in many.param_groups) == [0.125, 0.125, 0.25, 0.25, 1.0]
    assert sum(len(group["params"]) for group in many.param_groups) == len(list(objective.parameters()))


def test_a_step_moves_a_heavy_table_less() -> None:
    objective = make_objective()
    weight = objective.guide.item_encoder.latent_weight
    assert weight is not None
    adam = adam_of(objective, CrossFeedback(), Sides(10.0, 4 * HEAVY), CPU)
    before = weight.detach().clone()
    for parameter in objective.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_rate(adam, 0.1)
    adam.step()
    # Adam's first step is the rate, whatever the gradient's size.
    torch.testing.assert_close(before - weight, torch.full_like(before, 0.1 / 8))


class Stopped(Silent):
    """Is interrupted when an iteration is done."""

    def __init__(self, after: int) -> None:
        self.after = after

    def iteration(self, record: dict[str, Any]) -> None:
        if record["iteration"] == self.after:
            raise KeyboardInterrupt


def test_a_fit_of_heavy_rows_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer, "HEAVY", 20.0)
    split = random_split(synthetic_ratings(40, 30, 500, n_factors=2, scale="1:5:0.5").ratings, seed=0)
    settings = preset("amortized").replace(n_factors=3, max_iterations=4)
    file = tmp_path / "checkpoint"
    how = {"threads": 1, "progress": False, "device": "cpu"}
    whole = fit(split, settings, **how).posterior  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        fit(split, settings, checkpoint=file, checkpoint_every=1, **(how | {"progress": Stopped(3)}))  # type: ignore[arg-type]
    again = fit(split, settings, checkpoint=file, resume=True, **how).posterior  # type: ignore[arg-type]
    users, items = split.test.users, split.test.items
    np.testing.assert_array_equal(again.predict_mean(users, items), whole.predict_mean(users, items))
