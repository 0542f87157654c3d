"""Every combination of a grid exists, and a sampler reaches each by choosing one setting after another."""

from __future__ import annotations

import warnings
from itertools import product

import optuna
import pytest

from pyro_bmf.baselines import NEURAL_BASELINES
from pyro_bmf.errors import SettingsError
from pyro_bmf.experiments.contenders import OurPreset, contender, contenders
from pyro_bmf.experiments.grids import Grid

NETWORKS = [kind.name for kind in NEURAL_BASELINES]


def test_the_papers_grid_is_that_of_its_text() -> None:
    """§ 4.2 counted independently: K ≤ K', both ≤ M at hidden layers; without those M does not exist."""
    widths, units, layers = (10, 15, 25, 50), (10, 25, 50, 100), (0, 1, 2)
    shapes = set()
    for k, outputs, head, tower, m in product(widths, widths, layers, layers, units):
        hidden = head + tower > 0
        if k <= outputs and (not hidden or (k <= m and outputs <= m)):
            shapes.add((k, outputs, head, tower, m if hidden else None))
    grid = contender("paper").grid()
    assert {cell[:5] for cell in grid.cells} == shapes
    assert len(grid) == len(shapes) * 6 * 6 * 2 == len(set(grid.cells))
    assert grid.axes["beta_user"] == (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def test_every_shape_of_the_papers_grid_can_be_built() -> None:
    one = contender("paper")
    grid = one.grid()
    for cell in {(*cell[:5], 0.1, 1e-5, "global"): None for cell in grid.cells}:
        settings = one.settings(grid.values(cell), 3)
        assert settings["cross-feedback"]["encoder"]["n_tower_outputs"] == cell[1]
    for beta in grid.axes["beta_user"]:
        one.settings({"beta_user": beta, "beta_item": beta, "attention_scope": "local"}, 0)


@pytest.mark.parametrize("name", [*NETWORKS, "default"])
def test_every_combination_of_the_other_grids_can_be_built(name: str) -> None:
    one = contender(name)
    grid = one.grid()
    assert len(set(grid.cells)) == len(grid) > 1
    for cell in grid.cells:
        one.settings(grid.values(cell), 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_grids_of_networks_are_those_of_table_2(name: str) -> None:
    (kind,) = [kind for kind in NEURAL_BASELINES if kind.name == name]
    grid = contender(name).grid()
    built = {kind.settings_class(**grid.values(cell)).plain() for cell in grid.cells}
    assert built == set(kind.settings_class.cells())
    assert len(built) == len(grid)


@pytest.mark.parametrize("name", ["paper", *NETWORKS])
def test_what_a_sampler_chooses_is_of_the_grid(name: str) -> None:
    grid = contender(name).grid()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    known = set(grid.cells)
    found = {grid.suggest(study.ask()) for _ in range(60)}
    assert found <= known
    assert len(found) > 10


def test_a_combination_is_reached_by_its_parameters() -> None:
    grid = contender("paper").grid()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for cell in grid.cells[::601]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            study.enqueue_trial(grid.parameters(cell))
            assert grid.suggest(study.ask()) == cell


def test_gaps_and_words_are_reached_too() -> None:
    def rule(values: dict[str, object]) -> dict[str, object] | None:
        return None if values["a"] == 1 and values["b"] == 2 else values

    grid = Grid.of({"a": (1, 2), "b": (1, 2, 3), "c": ("x", "y"), "d": (False, True)}, rule)
    assert len(grid) == 20
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for cell in grid.cells:
        study.enqueue_trial(grid.parameters(cell))
        assert grid.suggest(study.ask()) == cell
    assert {grid.suggest(study.ask()) for _ in range(300)} == set(grid.cells)


def test_cuts() -> None:
    grid = contender("paper").grid().cut({"n_factors": (50, 10), "n_units": (100,)})
    assert grid.axes["n_factors"] == (10, 50)
    assert {cell[4] for cell in grid.cells} == {None, 100}
    with pytest.raises(SettingsError, match=r"n_factors=11 is not of the grid: choose from 10, 15, 25, 50"):
        contender("paper").grid().cut({"n_factors": (11,)})
    with pytest.raises(SettingsError, match="colour is not tuned here"):
        contender("paper").grid().cut({"colour": (1,)})
    with pytest.raises(SettingsError, match="No combination"):
        contender("paper").grid().cut({"n_factors": (50,), "n_tower_outputs": (10,)})


def test_the_word_none_is_a_word_where_a_setting_has_words() -> None:
    grid = contender("default").grid().cut({"row_noise": (None,)})
    assert {cell[grid.names.index("row_noise")] for cell in grid.cells} == {"none"}
    one = contender("paper")
    assert one.settings({"attention": None}, 0)["cross-feedback"]["encoder"]["attention"] == "none"
    assert one.settings({"patience": None}, 0)["cross-feedback"]["patience"] is None


def test_a_variant_without_attention_does_not_tune_it() -> None:
    one = contender("paper")
    assert "attention_scope" not in one.grid({"attention": None}).axes
    variant = OurPreset(
        "paper", one.grid().axes, fixed={"feedback": False}, name="paper-alone", title="no feedback"
    )
    assert (variant.name, variant.title) == ("paper-alone", "no feedback")
    assert len(variant.grid().axes) == len(one.grid().axes) - 1
    assert variant.for_data("ml1m") == {"feedback": False}
    assert not variant.settings(variant.for_data("ml1m"), 0)["cross-feedback"]["encoder"]["feedback"]


def test_edges() -> None:
    grid = Grid.of({"a": (1, 2, 3), "b": (0, 1), "c": ("x", "y"), "d": (7,)})
    assert grid.on_edge({"a": 1, "b": 0, "c": "x", "d": 7}) == ("a",)
    assert grid.on_edge({"a": 3, "b": 1, "c": "y", "d": 7}) == ("a", "b")
    assert grid.on_edge({"a": 2, "b": 0}) == ()


def test_every_contender_has_a_name_of_its_own() -> None:
    known = contenders()
    assert {one.name for one in known.values()} == set(known)
    assert {"paper", "default", "bias-only", "i-rec", "u-rec"} <= set(known)
    with pytest.raises(SettingsError, match=r"no model 'svd': choose from .*i-rec"):
        contender("svd")
