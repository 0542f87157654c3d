"""Nested and sequential iterations move what they say; ratings that are watched decide nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf.data import RatingScale, Split, random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import SettingsError
from pyro_bmf.fitting import fit
from pyro_bmf.methods.cross_feedback.descent import JointDescent, PlainDescent
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.methods.settings import Settings, preset

SMALL: dict[str, Any] = {"n_factors": 2, "n_tower_outputs": 3, "max_iterations": 3, "warmup_iterations": 0}


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(1)
    users, items = np.nonzero(rng.random((13, 9)) < 0.7)
    values = np.clip(np.round(3.2 + rng.normal(0, 1.0, len(users))), 1, 5)
    return random_split(ratings_from_arrays(users, items, values, scale=RatingScale(1, 5, 1)))


def settings(**changes: Any) -> Settings:
    return preset("paper").replace(**{**SMALL, "user_batch_size": 5, "item_batch_size": 3, **changes})


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], encoder: str) -> bool:
    return any(not torch.equal(before[name], after[name]) for name in before if name.startswith(encoder))


def test_sequential_steps_move_one_side_each(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool, int, int]] = []
    losses: list[float] = []
    step = PlainDescent.__call__

    def watched(self: PlainDescent, one: Any, *rest: Any) -> Any:
        guide = self.objective.guide
        before = {name: p.detach().clone() for name, p in guide.named_parameters()}
        loss, parts = step(self, one, *rest)
        after = dict(guide.named_parameters())
        block = one.block()
        sides = (moved(before, after, "user_encoder"), moved(before, after, "item_encoder"))
        seen.append((*sides, len(block.users), len(block.items)))
        losses.append(float(loss))
        return loss, parts

    monkeypatch.setattr(PlainDescent, "__call__", watched)
    told = fit(split, settings(iteration_order="sequential", max_iterations=1), progress=False)
    users = [(n_users, n_items) for user, item, n_users, n_items in seen if user and not item]
    items = [(n_users, n_items) for user, item, n_users, n_items in seen if item and not user]
    # Batches of at most 5 of 13 users and 3 of 9 items, each against all of the other side.
    assert [n for n, _ in sorted(users)] == [4, 4, 5]
    assert {n for _, n in users} == {9}
    assert sorted(n for _, n in items) == [3, 3, 3]
    assert {n for n, _ in items} == {13}
    assert len(users) + len(items) == len(seen), "a step moved both sides, or neither"
    assert seen[:3] == [one for one in seen if one[0]], "all user batches come first"
    assert told.history[0]["loss"] == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_nested_steps_move_both(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    count = []
    step = JointDescent.__call__

    def watched(self: JointDescent, one: Any, *rest: Any) -> Any:
        guide = self.objective.guide
        before = {name: p.detach().clone() for name, p in guide.named_parameters()}
        found = step(self, one, *rest)
        after = dict(guide.named_parameters())
        count.append(moved(before, after, "user_encoder") and moved(before, after, "item_encoder"))
        return found

    monkeypatch.setattr(JointDescent, "__call__", watched)
    fit(split, settings(max_iterations=1), progress=False)
    assert count == [True] * 9


def test_watched_ratings_decide_nothing(split: Split) -> None:
    plain = fit(split, settings(), progress=False)
    told = fit(split, settings(), progress=False, watched=split.valid)
    assert [one["watched_rmse"] for one in told.history] == [one["valid_rmse"] for one in told.history]
    assert "watched_rmse" not in plain.history[0]
    mine, theirs = plain.posterior.guide.state_dict(), told.posterior.guide.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    test = fit(split, settings(keep="last", ema_decay=0.0), progress=False, watched=split.test)
    errors = test.posterior.predict_mean(split.test.users, split.test.items) - split.test.ratings
    # Recorded is the mean at the rows' means; a product of independent Normals has the same.
    assert test.history[-1]["watched_rmse"] == pytest.approx(float(np.sqrt(np.mean(errors**2))), rel=1e-5)
    standard = settings(standardised=True, centred=True, prior_mean=0.0)
    scaled = fit(split, standard, progress=False, watched=split.valid)
    assert scaled.history[-1]["watched_rmse"] == scaled.history[-1]["valid_rmse"]


def test_refusals(split: Split) -> None:
    with pytest.raises(SettingsError, match="watches no ratings"):
        fit(split, preset("guide"), progress=False, watched=split.test)
    with pytest.raises(SettingsError, match="fit was given 3: give Ratings to watch"):
        fit(split, settings(), progress=False, watched=3)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="whose first layer is one matrix"):
        EncoderSettings(latent_input="average", n_bases=2)
    with pytest.raises(SettingsError, match="whose first layer has no posterior"):
        EncoderSettings(latent_input="average", bayesian_input=True)
    with pytest.raises(SettingsError, match=r"latent_input=.*feedback is true"):
        fit(split, settings(feedback=False, latent_input="average"), progress=False)
