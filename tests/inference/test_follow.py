"""Settings that follow those that were given, and given ones that contradict each other."""

from __future__ import annotations

from typing import Any

import pytest

from pyro_bmf.errors import SettingsError
from pyro_bmf.methods.coordinate_ascent.settings import CoordinateAscent
from pyro_bmf.methods.cross_feedback.settings import CrossFeedback
from pyro_bmf.methods.gibbs.settings import Gibbs
from pyro_bmf.methods.settings import preset

#: Settings, what is given, and what follows: burn-in, kept draws, sweeps, plain sweeps.
CHAINS: list[tuple[str, dict[str, int], tuple[int, int, int, int]]] = [
    ("default", {"burn_in": 10}, (150, 10, 100, 5)),
    ("amortized", {"sweeps": 20, "burn_in": 5, "kept_draws": 15}, (20, 5, 15, 2)),
    ("default", {"sweeps": 40}, (40, 13, 27, 6)),
    ("default", {"sweeps": 5}, (5, 1, 4, 0)),
    ("default", {"sweeps": 1}, (1, 0, 1, 0)),
    ("default", {"sweeps": 300}, (300, 50, 100, 15)),
    ("default", {"kept_draws": 200}, (250, 50, 200, 15)),
    ("default", {"burn_in": 200}, (300, 200, 100, 15)),
    ("default", {"plain_sweeps": 60}, (160, 60, 100, 60)),
    ("default", {"sweeps": 40, "kept_draws": 30}, (40, 10, 30, 5)),
    ("default", {"sweeps": 40, "kept_draws": 40}, (40, 0, 40, 0)),
    ("default", {"sweeps": 60, "plain_sweeps": 30}, (60, 30, 30, 30)),
    ("default", {"sweeps": 40, "burn_in": 20}, (40, 20, 20, 15)),
    ("amortized", {"sweeps": 20}, (20, 6, 14, 3)),
    ("default", {"sweeps": 60, "burn_in": 20, "kept_draws": 40}, (60, 20, 40, 15)),
]


@pytest.mark.parametrize(("name", "given", "expected"), CHAINS)
def test_a_chain_follows_what_is_given(
    name: str, given: dict[str, int], expected: tuple[int, int, int, int]
) -> None:
    start = preset(name) if name == "default" else preset(name).replace(then=Gibbs())
    gibbs = start.replace(**given).gibbs
    assert gibbs is not None
    assert (gibbs.sweeps, gibbs.burn_in, gibbs.kept_draws, gibbs.plain_sweeps) == expected


def test_given_settings_stay_given_over_two_replacements() -> None:
    gibbs = preset().replace(kept_draws=30).replace(sweeps=40).method
    assert isinstance(gibbs, Gibbs)
    assert (gibbs.sweeps, gibbs.burn_in, gibbs.kept_draws) == (40, 10, 30)
    gibbs = preset().replace(sweeps=40).replace(sweeps=150).method
    assert isinstance(gibbs, Gibbs)
    assert (gibbs.sweeps, gibbs.burn_in, gibbs.kept_draws) == (150, 13, 27)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("amortized", {"feedback": False}, {"attention": "none"}),
        ("amortized", {"max_iterations": 3}, {"warmup_iterations": 1}),
        ("amortized", {"max_iterations": 5}, {"warmup_iterations": 5}),
        ("amortized", {"learning_rate": 5e-5}, {"final_learning_rate": 2.5e-6}),
        ("amortized", {"learning_rate": 1e-3}, {"final_learning_rate": 1e-4}),
        ("default", {"method": CrossFeedback()}, {"implicit": False, "row_noise": "both"}),
        ("default", {"method": CoordinateAscent()}, {"implicit": False, "row_noise": "none"}),
        ("paper", {"prior": "student-t:df=4"}, {"prior_mean": 0.0}),
        ("paper", {"method": CoordinateAscent()}, {"prior_mean": 0.0}),
    ],
)
def test_other_settings_follow(name: str, given: dict[str, Any], expected: dict[str, Any]) -> None:
    changed = preset(name).replace(**given)
    values = changed.values()
    assert {one: values[one] for one in expected} == expected
    # Nobody asked for them: they are not refused where nothing reads them.
    assert not changed.asked() & expected.keys()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("default", {"sweeps": 40, "kept_draws": 60}),
        ("default", {"sweeps": 40, "burn_in": 40}),
        ("default", {"burn_in": 10, "plain_sweeps": 15}),
        ("amortized", {"feedback": False, "attention": "sum"}),
        ("amortized", {"feedback": False, "n_bases": 2}),
        ("amortized", {"final_learning_rate": 1e-2}),
        ("amortized", {"max_iterations": 3, "stop_after": 5}),
        ("default", {"sweeps": 0}),
        ("amortized", {"implicit": True}),
        ("default", {"method": CoordinateAscent(), "row_noise": "user"}),
        ("paper", {"prior": "gamma", "prior_mean": 0.3}),
    ],
)
def test_given_settings_that_contradict_are_refused_by_name(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as error:
        preset(name).replace(**given)
    assert all(one in str(error.value) for one in given if one != "method")
