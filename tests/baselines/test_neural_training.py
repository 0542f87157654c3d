"""What all networks share: the contract's extras, early stopping, checkpoints, seeds, grids, files."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_bmf.baselines import NEURAL_BASELINES, NEURAL_SETTINGS, AutoRecSettings, IRec, NetworkSettings
from pyro_bmf.data import Split, random_split, synthetic_ratings
from pyro_bmf.errors import FitError, SavedFileError, SettingsError
from pyro_bmf.progress import Silent

SMALL: dict[str, dict[str, Any]] = {
    "ncf": {"n_factors": 8, "n_layers": 1, "n_units": 16},
    "cnn-cf": {"n_factors": 8, "n_layers": 2, "n_channels": 8},
    "u-rec": {"n_factors": 16},
    "i-rec": {"n_factors": 16},
    "dae-cf": {"n_factors": 16},
    "vae-cf": {"n_factors": 16, "n_units": 16},
}


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(synthetic_ratings(30, 20, 250, n_factors=2, scale="1:5:1").ratings, seed=1)


@pytest.fixture(params=NEURAL_BASELINES, ids=lambda one: one.name)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def small(kind: Any, **changed: Any) -> Any:
    """Settings of a small network: a few iterations over batches of a few cases."""
    given = {"max_iterations": 6, "batch_size": 16, "learning_rate": 0.01} | SMALL[kind.name] | changed
    return kind.settings_class(**given)


def weights(system: Any) -> dict[str, Any]:
    return {name: value.tolist() for name, value in system.state().items()}


def test_names_are_those_of_the_settings() -> None:
    assert [one.name for one in NEURAL_BASELINES] == list(NEURAL_SETTINGS)
    assert all(NEURAL_SETTINGS[one.name] is one.settings_class for one in NEURAL_BASELINES)


def test_a_network_can_learn_a_tiny_set_by_heart(split, kind) -> None:
    settings = small(kind, max_iterations=300, patience=None, **_without_limits(kind))
    few = Split(split.ratings, np.arange(40), np.arange(0), np.arange(40, 80), "given")
    system = kind(settings).fit(few)
    error = system.predict_mean(few.train.users, few.train.items) - few.train.ratings
    assert np.sqrt(np.mean(error**2)) < 0.15
    assert system.info["noise_from"] == "train"
    assert system.info["kept_iteration"] == system.info["iterations"] == 300


def _without_limits(kind: Any) -> dict[str, Any]:
    free = {"l2": 0.0, "beta": 0.0, "dropout": 0.0}
    known = kind.settings_class().to_dict()
    return {name: value for name, value in free.items() if name in known}


def test_the_best_state_by_validation_is_kept_and_recorded(split, kind) -> None:
    system = kind(small(kind, max_iterations=80, patience=2)).fit(split)
    curve = [record["valid_rmse"] for record in system.info["history"]]
    best = int(np.argmin(curve))
    assert system.info["kept_iteration"] == best + 1
    assert len(curve) == system.info["iterations"]
    error = system.predict_mean(split.valid.users, split.valid.items) - split.valid.ratings
    assert np.sqrt(np.mean(error**2)) == pytest.approx(curve[best], rel=1e-6)
    assert system.noise_variance == pytest.approx(curve[best] ** 2, rel=1e-6)
    assert system.info["noise_from"] == "valid"
    if system.info["stopped"] == "patience":
        assert len(curve) == best + 3
    assert all(record["seconds"] > 0 for record in system.info["history"])
    assert system.info["seconds"] == pytest.approx(sum(one["seconds"] for one in system.info["history"]))


def test_the_seed_decides_everything(split, kind) -> None:
    first, again, other = (kind(small(kind, seed=seed)).fit(split) for seed in (0, 0, 1))
    assert weights(first) == weights(again)
    assert weights(first) != weights(other)


def test_fitting_leaves_the_processs_random_numbers_alone(split, kind) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)
    kind(small(kind, max_iterations=1)).fit(split)
    assert torch.rand(3).tolist() == expected


class Interrupted(Silent):
    """Stops a fit after some iterations, as a pruned trial or a signal does."""

    def iteration(self, record: dict[str, Any]) -> None:
        if record["iteration"] == 3:
            raise KeyboardInterrupt


def test_an_interrupted_fit_goes_on_to_the_same_bits(split, kind, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pyro_bmf.baselines.neural.training._SECONDS", 0.0)
    whole = kind(small(kind)).fit(split)
    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        kind(small(kind), checkpoint=file, progress=Interrupted()).fit(split)
    rest = kind(small(kind), checkpoint=file).fit(split)
    assert weights(rest) == weights(whole)
    curves = [[record["valid_rmse"] for record in one.info["history"]] for one in (rest, whole)]
    assert curves[0] == curves[1]
    with pytest.raises(SavedFileError, match="a checkpoint of another fit: its settings"):
        kind(small(kind, seed=9), checkpoint=file).fit(split)


def test_a_loss_that_is_not_finite_ends_the_fit(split) -> None:
    settings = AutoRecSettings(n_factors=4, output="identity", hidden="identity", learning_rate=1e30)
    with pytest.raises(FitError, match=r"training diverged. Lower learning_rate \(now 1e\+30\)"):
        IRec(settings).fit(split)


def test_settings_of_another_class_are_refused() -> None:
    with pytest.raises(SettingsError, match="give AutoRecSettings"):
        IRec({"n_factors": 3})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="n_factors is 0: give a whole number of 1 or more"):
        AutoRecSettings(n_factors=0)


def test_the_rate_falls_as_half_a_cosine(split) -> None:
    from pyro_bmf.baselines.neural.training import rate_at

    constant = AutoRecSettings(learning_rate=0.01)
    assert {rate_at(constant, at) for at in (0, 3.5, 60)} == {0.01}
    falling = AutoRecSettings(learning_rate=0.01, final_learning_rate=0.002, max_iterations=10)
    assert [rate_at(falling, at) for at in (0, 5, 10)] == pytest.approx([0.01, 0.006, 0.002])
    fits = [
        IRec(AutoRecSettings(n_factors=3, max_iterations=3, final_learning_rate=end)).fit(split)
        for end in (None, 1e-5)
    ]
    assert weights(fits[0]) != weights(fits[1])


@pytest.mark.parametrize("one", list(dict.fromkeys(NEURAL_SETTINGS.values())))
def test_cells_of_the_grid_are_distinct_and_read(one: type[NetworkSettings]) -> None:
    grid, cells = one.grid(), list(one.cells(max_iterations=7))
    assert len(set(cells)) == len(cells)
    assert all(cell.max_iterations == 7 and cell.plain() == cell for cell in cells)
    for name, values in grid.items():
        read = {cell.to_dict()[name] for cell in cells if name not in cell.unread()}
        assert read == set(values)
    if "n_units" in grid:
        deep = list(product(*grid.values()))
        n_flat = len(deep) // len(grid["n_layers"]) // len(grid["n_units"])
        assert len(cells) == len(deep) * 2 // 3 + n_flat
    fixed = list(one.cells(n_layers=1))
    assert all(cell.to_dict()["n_layers"] == 1 for cell in fixed)
    assert fixed


#: Another value of each setting than `small` gives.
OTHER: dict[str, Any] = {
    "max_iterations": 4,
    "patience": 1,
    "batch_size": 7,
    "learning_rate": 0.02,
    "final_learning_rate": 1e-3,
    "l2": 0.3,
    "seed": 3,
    "n_factors": 4,
    "n_layers": 2,
    "n_units": 5,
    "n_channels": 3,
    "hidden": "sigmoid",
    "output": "identity",
    "dropout": 0.1,
    "normalize_input": False,
    "beta": 0.5,
    "anneal_iterations": 2,
    "optimizer": "rprop",
    "weight_scale": 0.02,
}


def test_every_setting_is_read(split, kind) -> None:
    given = {"n_layers": 1, "learning_rate": 0.05, "max_iterations": 8}
    before = kind(small(kind, **given)).fit(split)
    for name in before.settings():
        other = kind(small(kind, **given | {name: OTHER[name]})).fit(split)
        # What stops earlier may have kept the same state.
        same = weights(other) == weights(before) and other.info["iterations"] == before.info["iterations"]
        assert not same, name


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation gave."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, torch.Tensor) and one.layout == torch.strided:
                self.numel = max(self.numel, one.numel())
        return found


def test_nothing_of_the_size_of_users_times_items_is_built(kind) -> None:
    ratings = synthetic_ratings(300, 200, 1500, n_factors=2, scale="1:5:1").ratings
    wide = random_split(ratings, seed=1)
    few = {"n_factors": 4, "n_layers": 1, "n_units": 4, "n_channels": 2}
    known = kind.settings_class().to_dict()
    settings = small(kind, max_iterations=1, **{name: few[name] for name in few if name in known})
    with Largest() as seen:
        system = kind(settings).fit(wide)
        system.predict_mean(wide.test.users, wide.test.items)
    assert 300 < seen.numel <= 5 * len(ratings)
    assert seen.numel < 300 * 200 / 5
