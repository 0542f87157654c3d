"""The autoencoders' other optimizer and start: RProp over all rows, from small weights and levels of 0."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf.baselines import AutoRecSettings, IRec, URec
from pyro_bmf.data import Ratings, Split, synthetic_ratings
from pyro_bmf.errors import SettingsError
from pyro_bmf.progress import Silent

SETTINGS = AutoRecSettings(
    n_factors=4,
    hidden="sigmoid",
    output="identity",
    l2=1e-3,
    optimizer="rprop",
    learning_rate=2e-3,
    weight_scale=0.05,
    max_iterations=25,
)


@pytest.fixture(scope="module")
def split() -> Split:
    """Thirty users of twenty items, the last of which has no training rating."""
    ratings = synthetic_ratings(30, 20, 250, n_factors=2, scale="1:5:1").ratings
    last = np.flatnonzero(ratings.items == 19)
    others = np.flatnonzero(ratings.items != 19)
    return Split(ratings, others[:200], np.arange(0), np.concatenate([others[200:], last]), "given")


def weights(system: Any) -> dict[str, Any]:
    return {name: value.tolist() for name, value in system.state().items()}


def dense(train: Ratings) -> tuple[np.ndarray, np.ndarray]:
    ratings = np.zeros((train.n_users, train.n_items))
    ratings[train.users, train.items] = train.ratings
    return ratings, ratings != 0


def gradients(
    ratings: np.ndarray, rated: np.ndarray, weights: dict[str, np.ndarray], l2: float
) -> dict[str, np.ndarray]:
    """Derivatives by hand of the mean squared error with half the squared norms, of dense matrices."""
    hidden = 1.0 / (1.0 + np.exp(-(ratings @ weights["input.weight"] + weights["input.bias"])))
    error = rated * (hidden @ weights["output.weight"].T + weights["output.bias"] - ratings)
    error *= 2.0 / rated.sum()
    inner = (error @ weights["output.weight"]) * hidden * (1.0 - hidden)
    return {
        "input.weight": ratings.T @ inner + l2 * weights["input.weight"],
        "input.bias": inner.sum(axis=0),
        "output.weight": error.T @ hidden + l2 * weights["output.weight"],
        "output.bias": error.sum(axis=0),
    }


@pytest.mark.usefixtures("double")
def test_rprop_is_that_of_dense_matrices(split: Split) -> None:
    """Steps grow by 1.2 under a sign that stays, halve under one that turns, and rest for that one step."""
    start, end = (_state(URec(replace(SETTINGS, max_iterations=n)), split) for n in (1, 15))
    train = split.train
    ratings, rated = dense(train)
    found = _start(SETTINGS, split)
    steps = {name: np.full_like(value, SETTINGS.learning_rate) for name, value in found.items()}
    before = {name: np.zeros_like(value) for name, value in found.items()}
    for iteration in range(15):
        for name, gradient in gradients(ratings, rated, found, SETTINGS.l2).items():
            turned = np.sign(gradient * before[name])
            steps[name] *= np.where(turned > 0, 1.2, np.where(turned < 0, 0.5, 1.0))
            before[name] = np.where(turned < 0, 0.0, gradient)
            found[name] = found[name] - steps[name] * np.sign(before[name])
        if iteration in (0, 14):
            for name, value in (start if iteration == 0 else end).items():
                np.testing.assert_allclose(value, found[name], atol=1e-9, err_msg=name)


def _state(system: URec, split: Split) -> dict[str, np.ndarray]:
    state = system.fit(split).state()
    return {
        name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")
    }


def _start(settings: AutoRecSettings, split: Split) -> dict[str, np.ndarray]:
    """Return the weights before the first step."""
    torch.manual_seed(settings.seed)
    network = URec(settings, device="cpu").build(split.train)
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def test_weights_begin_small_and_levels_at_zero(split: Split) -> None:
    start = _start(replace(SETTINGS, n_factors=60), split)
    assert np.std(start["input.weight"]) == pytest.approx(0.05, rel=0.1)
    assert np.std(start["output.weight"][:-1]) == pytest.approx(0.05, rel=0.1)
    assert np.count_nonzero(start["output.bias"][:-1]) == np.count_nonzero(start["output.weight"][-1]) == 0
    assert start["output.bias"][-1] == pytest.approx(split.train.ratings.mean())


@pytest.mark.parametrize("kind", [URec, IRec])
def test_it_learns_and_ignores_the_size_of_batches(split: Split, kind: type[URec | IRec]) -> None:
    long = replace(SETTINGS, max_iterations=60, l2=1e-4, learning_rate=5e-3)
    system = kind(long).fit(split)
    assert weights(system) == weights(kind(replace(long, batch_size=7)).fit(split))
    error = system.predict_mean(split.train.users, split.train.items) - split.train.ratings
    assert np.sqrt(np.mean(error**2)) < 0.9 * np.std(split.train.ratings)
    assert len(system.info["history"]) == 60


def test_an_item_without_training_ratings_stays_at_the_mean(split: Split) -> None:
    system = URec(SETTINGS).fit(split)
    means = system.predict_mean(np.arange(30), np.full(30, 19))
    np.testing.assert_allclose(means, split.train.ratings.mean(), rtol=1e-6)


class Interrupted(Silent):
    def iteration(self, record: dict[str, Any]) -> None:
        if record["iteration"] == 3:
            raise KeyboardInterrupt


def test_an_interrupted_fit_goes_on_to_the_same_bits(split, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pyro_bmf.baselines.neural.training._SECONDS", 0.0)
    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        URec(SETTINGS, checkpoint=file, progress=Interrupted()).fit(split)
    rest = URec(SETTINGS, checkpoint=file).fit(split)
    assert weights(rest) == weights(URec(SETTINGS).fit(split))


def test_a_falling_rate_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"final_learning_rate is 1e-05 and optimizer 'rprop'"):
        AutoRecSettings(optimizer="rprop", final_learning_rate=1e-5)
    assert "batch_size" in SETTINGS.unread()
    assert "batch_size" not in AutoRecSettings().unread()
