"""Settings that follow those that were given, and given ones that contradict each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pyro_bmf.checking.calibration.from_prior import simulate_like
from pyro_bmf.data import random_split, synthetic_ratings
from pyro_bmf.errors import SettingsError
from pyro_bmf.fitting import fit
from pyro_bmf.methods.coordinate_ascent.settings import CoordinateAscent
from pyro_bmf.methods.cross_feedback.settings import CrossFeedback, EncoderSettings
from pyro_bmf.methods.gibbs.settings import Gibbs
from pyro_bmf.methods.model_settings import ModelSettings
from pyro_bmf.methods.reading import Case
from pyro_bmf.methods.settings import Settings, preset
from pyro_bmf.progress import Silent

#: Settings, what is given, and what follows: burn-in, kept draws, sweeps, plain sweeps.
CHAINS: list[tuple[str, dict[str, int], tuple[int, int, int, int]]] = [
    ("gibbs", {"burn_in": 10}, (150, 10, 100, 5)),
    ("amortized", {"sweeps": 20, "burn_in": 5, "kept_draws": 15}, (20, 5, 15, 2)),
    ("gibbs", {"sweeps": 40}, (40, 13, 27, 6)),
    ("gibbs", {"sweeps": 5}, (5, 1, 4, 0)),
    ("gibbs", {"sweeps": 1}, (1, 0, 1, 0)),
    ("gibbs", {"sweeps": 300}, (300, 50, 100, 15)),
    ("gibbs", {"kept_draws": 200}, (250, 50, 200, 15)),
    ("gibbs", {"burn_in": 200}, (300, 200, 100, 15)),
    ("gibbs", {"plain_sweeps": 60}, (160, 60, 100, 60)),
    ("gibbs", {"sweeps": 40, "kept_draws": 30}, (40, 10, 30, 5)),
    ("gibbs", {"sweeps": 40, "kept_draws": 40}, (40, 0, 40, 0)),
    ("gibbs", {"sweeps": 60, "plain_sweeps": 30}, (60, 30, 30, 30)),
    ("gibbs", {"sweeps": 40, "burn_in": 20}, (40, 20, 20, 15)),
    ("amortized", {"sweeps": 20}, (20, 6, 14, 3)),
    ("gibbs", {"sweeps": 60, "burn_in": 20, "kept_draws": 40}, (60, 20, 40, 15)),
]


@pytest.mark.parametrize(("name", "given", "expected"), CHAINS)
def test_a_chain_follows_what_is_given(
    name: str, given: dict[str, int], expected: tuple[int, int, int, int]
) -> None:
    start = preset(name) if name == "gibbs" else preset(name).replace(then=Gibbs())
    gibbs = start.replace(**given).gibbs
    assert gibbs is not None
    assert (gibbs.sweeps, gibbs.burn_in, gibbs.kept_draws, gibbs.plain_sweeps) == expected


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, 0.8),
        ({"sweeps": 700}, 0.0),
        ({"kept_draws": 400}, 0.8),
        ({"sweeps": 240}, 0.0),
        ({"sweeps": 239}, 0.8),
        ({"sweeps": 700, "overrelaxation": 0.8}, 0.8),
        ({"overrelaxation": 0.0}, 0.0),
    ],
)
def test_rows_are_drawn_anew_where_not_every_sweep_is_kept(changes: dict[str, Any], share: float) -> None:
    gibbs = preset().replace(**changes).gibbs
    assert gibbs is not None
    assert gibbs.overrelaxation == share
    assert preset().replace(sweeps=700).replace(kept_draws=600).gibbs.overrelaxation == 0.8  # type: ignore[union-attr]


def test_chains_that_are_thinned_draw_rows_anew() -> None:
    def found(n_ratings: int, **changes: Any) -> tuple[int, int, int, float]:
        gibbs = preset().replace(**changes).suited(n_ratings, 3_000).gibbs
        assert gibbs is not None
        return gibbs.chains, gibbs.sweeps, gibbs.kept_draws, gibbs.overrelaxation

    assert found(10_000) == (8, 200, 100, 0.8)
    assert found(70_000) == (3, 200, 100, 0.8)
    assert found(700_000) == (1, 205, 146, 0.8)
    assert found(1_500_000) == (1, 140, 100, 0.8)
    assert found(10_000, chains=1) == (1, 560, 400, 0.8)
    assert found(70_000, chains=1) == (1, 560, 200, 0.0)
    assert found(70_000, chains=1, overrelaxation=0.5) == (1, 560, 200, 0.5)


def test_what_an_object_was_given_stays_though_the_preset_has_the_same() -> None:
    given = preset().replace(then=Gibbs(sweeps=130, burn_in=30, kept_draws=50, overrelaxation=0.8))
    for settings in (given.replace(n_factors=2), given.replace(n_factors=2).replace(seed=3)):
        gibbs = settings.suited(441, 110).gibbs
        assert gibbs is not None
        assert (gibbs.sweeps, gibbs.kept_draws, gibbs.overrelaxation) == (130, 50, 0.8)


def test_given_settings_stay_given_over_two_replacements() -> None:
    gibbs = preset("gibbs").replace(kept_draws=30).replace(sweeps=40).method
    assert isinstance(gibbs, Gibbs)
    assert (gibbs.sweeps, gibbs.burn_in, gibbs.kept_draws) == (40, 10, 30)
    gibbs = preset("gibbs").replace(sweeps=40).replace(sweeps=150).method
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
        ("gibbs", {"method": CrossFeedback()}, {"implicit": False, "row_noise": "both"}),
        ("gibbs", {"method": CoordinateAscent()}, {"implicit": False, "row_noise": "none"}),
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
        ("gibbs", {"sweeps": 40, "kept_draws": 60}),
        ("gibbs", {"sweeps": 40, "burn_in": 40}),
        ("gibbs", {"burn_in": 10, "plain_sweeps": 15}),
        ("amortized", {"feedback": False, "attention": "sum"}),
        ("amortized", {"feedback": False, "n_bases": 2}),
        ("amortized", {"final_learning_rate": 1e-2}),
        ("amortized", {"max_iterations": 3, "stop_after": 5}),
        ("gibbs", {"sweeps": 0}),
        ("amortized", {"implicit": True}),
        ("gibbs", {"method": CoordinateAscent(), "row_noise": "user"}),
        ("paper", {"prior": "gamma", "prior_mean": 0.3}),
    ],
)
def test_given_settings_that_contradict_are_refused_by_name(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as error:
        preset(name).replace(**given)
    assert all(one in str(error.value) for one in given if one != "method")


@pytest.mark.parametrize(("name", "given", "expected"), [chain for chain in CHAINS if chain[0] == "gibbs"])
def test_the_class_gives_the_chain_that_a_replacement_gives(
    name: str, given: dict[str, int], expected: tuple[int, int, int, int]
) -> None:
    gibbs = Gibbs(**given)
    assert (gibbs.sweeps, gibbs.burn_in, gibbs.kept_draws, gibbs.plain_sweeps) == expected
    assert gibbs == preset(name).replace(**given).gibbs
    # Nobody asked for the rest: a likelihood that does not read it does not refuse it.
    settings = Settings(ModelSettings(likelihood="normal"), gibbs)
    assert settings.asked() <= given.keys()
    if "plain_sweeps" not in given:
        Case.of(settings).check()


def test_a_chain_without_anything_given_has_the_defaults() -> None:
    gibbs = Gibbs()
    assert (gibbs.sweeps, gibbs.burn_in, gibbs.kept_draws, gibbs.plain_sweeps) == (150, 50, 100, 15)
    assert gibbs == preset("gibbs").method


def test_a_class_refuses_what_was_given_and_contradicts_with_its_numbers() -> None:
    with pytest.raises(SettingsError, match="sweeps is 40, burn_in 30 and kept_draws 20"):
        Gibbs(sweeps=40, burn_in=30, kept_draws=20)
    # A default that was written down is given.
    with pytest.raises(SettingsError, match="sweeps is 40, burn_in 50"):
        Gibbs(sweeps=40, burn_in=50)
    with pytest.raises(SettingsError, match="sweeps is 40, burn_in 50"):
        Gibbs(40, 50)
    with pytest.raises(SettingsError, match="sweeps is 40, burn_in 50"):
        Settings(method=Gibbs()).replace(sweeps=40, burn_in=50)
    with pytest.raises(SettingsError, match="plain_sweeps is 15 and burn_in 10"):
        Gibbs(burn_in=10, plain_sweeps=15)
    with pytest.raises(SettingsError, match=r"final_learning_rate is 0\.01 and learning_rate 0\.001"):
        CrossFeedback(final_learning_rate=1e-2)
    with pytest.raises(SettingsError, match="stop_after is 5 and max_iterations 3"):
        CrossFeedback(max_iterations=3, stop_after=5)
    with pytest.raises(SettingsError, match="stop_after is 5 and max_iterations 3"):
        CoordinateAscent(max_iterations=3, stop_after=5)
    with pytest.raises(SettingsError, match="attention is 'sum' but feedback is off"):
        EncoderSettings(feedback=False, attention="sum")


def test_the_other_classes_follow_as_well() -> None:
    assert CrossFeedback(max_iterations=3).warmup_iterations == 1
    assert CrossFeedback(max_iterations=3, warmup_iterations=5).warmup_iterations == 5
    assert CrossFeedback(learning_rate=1e-5).final_learning_rate == pytest.approx(5e-7)
    assert CrossFeedback(learning_rate=1e-3, final_learning_rate=1e-2).final_learning_rate == 1e-2
    assert EncoderSettings(feedback=False).attention == "none"
    settings = Settings(
        method=CrossFeedback(EncoderSettings(feedback=False), learning_rate=1e-5, max_iterations=3)
    )
    assert settings.asked() == {"feedback", "learning_rate", "max_iterations"}
    Case.of(settings).check()


def test_what_an_object_was_not_given_follows_later_changes_and_the_rest_stays() -> None:
    assert replace(Gibbs(), sweeps=40) == Gibbs(sweeps=40)
    assert replace(Gibbs(sweeps=40), kept_draws=35) == Gibbs(sweeps=40, burn_in=5, kept_draws=35)
    settings = preset("gibbs").replace(method=Gibbs(sweeps=40), kept_draws=35)
    assert settings.gibbs == Gibbs(sweeps=40, burn_in=5, kept_draws=35)
    settings = Settings(method=Gibbs(sweeps=40)).replace(kept_draws=35).replace(seed=3)
    assert settings.gibbs == Gibbs(sweeps=40, burn_in=5, kept_draws=35)
    assert settings.asked() == {"sweeps", "kept_draws", "seed"}


def test_settings_read_from_a_file_are_those_that_were_written() -> None:
    for method in (
        Gibbs(sweeps=40),
        CoordinateAscent(max_iterations=3),
        CrossFeedback(learning_rate=1e-4, final_learning_rate=1e-3, max_iterations=3, warmup_iterations=5),
    ):
        settings = Settings(method=method)
        again = Settings.from_dict(settings.to_dict())
        assert again == settings
        # Going on with them to another end changes nothing else.
        assert again.replace(seed=1).method == settings.method
        assert not again.asked()


def lengths(settings: Settings) -> tuple[int, int, int, int]:
    gibbs = settings.gibbs
    assert gibbs is not None
    return gibbs.chains, gibbs.sweeps, gibbs.burn_in, gibbs.kept_draws


@pytest.mark.parametrize(
    ("n_ratings", "expected"),
    [
        (10, (8, 200, 100, 100)),
        (10_000, (8, 200, 100, 100)),
        (10_001, (3, 200, 100, 100)),
        (130_000, (3, 200, 100, 100)),
        (150_000, (2, 200, 100, 100)),
        (370_000, (2, 200, 100, 100)),
        (380_000, (1, 300, 100, 200)),
        (700_000, (1, 220, 73, 147)),
        (1_500_000, (1, 150, 50, 100)),
        (20_000_000, (1, 150, 50, 100)),
    ],
)
def test_fewer_ratings_take_more_sweeps(n_ratings: int, expected: tuple[int, int, int, int]) -> None:
    """In several chains where these can be long enough; after a guide a single one is a little shorter."""
    chains, sweeps, burn_in, kept = expected
    after = expected if chains > 1 else (1, sweeps * 140 / 150, burn_in * 40 / 50, kept)
    assert lengths(preset().suited(n_ratings, 20)) == pytest.approx(after, abs=1)
    assert preset().suited(n_ratings, 20).suited(n_ratings, 20) == preset().suited(n_ratings, 20)
    for start in (preset("gibbs"), preset("conjugate").replace(then=Gibbs())):
        longer = start.suited(n_ratings, 20)
        assert lengths(longer) == expected
        assert longer.gibbs is not None
        assert longer.gibbs.plain_sweeps == 15
        # Once they are as many as go with the ratings, they stay, and no one has asked for them.
        assert longer.suited(n_ratings, 20) == longer
        assert longer.asked() == start.asked()
        if chains > 1:
            assert longer.suited(900_000, 20) == longer


@pytest.mark.parametrize(
    ("n_ratings", "expected"),
    [
        (10_000, (600, 200, 400)),
        (10_001, (600, 200, 200)),
        (70_000, (600, 200, 200)),
        (900_000, (194, 65, 129)),
    ],
)
@pytest.mark.parametrize("chains", [1, 4])
def test_chains_that_were_asked_for_are_longer(
    n_ratings: int, expected: tuple[int, int, int], chains: int
) -> None:
    asked = preset("gibbs").replace(chains=chains)
    found = asked.suited(n_ratings, 20)
    assert lengths(found) == (chains, *expected)
    assert found.asked() == {"chains"}
    assert found.suited(n_ratings, 20) == found


@pytest.mark.parametrize(
    ("n_ratings", "expected"),
    [
        (70_000, (600, 200, 200)),
        (300_000, (300, 100, 100)),
        (900_000, (150, 50, 100)),
        (1_200_000, (150, 50, 100)),
    ],
)
def test_many_rows_keep_no_more_draws(n_ratings: int, expected: tuple[int, int, int]) -> None:
    found = preset("gibbs").suited(n_ratings, 60_000).gibbs
    assert found is not None
    assert (found.sweeps, found.burn_in, found.kept_draws) == expected
    assert found.chains == 1
    fewer = preset("gibbs").suited(n_ratings, 50_000).gibbs
    assert fewer is not None
    assert fewer.chains * fewer.sweeps >= found.sweeps
    assert fewer.chains * fewer.kept_draws >= found.kept_draws


@pytest.mark.parametrize("given", [{"sweeps": 150}, {"burn_in": 50}, {"kept_draws": 100}])
def test_sweeps_that_were_asked_for_stay(given: dict[str, int]) -> None:
    for start in (preset("gibbs").replace(**given), Settings(method=Gibbs(**given))):
        assert start.suited(1_000, 20) == start


@pytest.mark.parametrize("name", ["default", "guide", "gibbs"])
def test_few_ratings_a_row_leave_implicit_feedback_out(name: str) -> None:
    few, enough = (174, 100), (175, 100)
    assert preset(name).suited(*enough).model == replace(preset(name).model, n_factors=4)
    left = preset(name).suited(*few)
    assert not left.model.implicit
    assert left.model == replace(preset(name).replace(implicit=False).model, n_factors=3)
    assert left.too_few(*few)
    assert not preset(name).suited(*enough).too_few(*enough)
    # Nobody asked for it: the same settings go with more ratings, and are no reason to refuse another method.
    assert left.asked() == set()
    assert left.suited(*few) == left
    again = Settings.from_dict(left.to_dict())
    assert again.suited(*few) == again


@pytest.mark.parametrize("name", ["default", "guide", "gibbs"])
@pytest.mark.parametrize(
    ("n_ratings", "n_factors"),
    [(0, 1), (10, 1), (74, 1), (76, 2), (420, 8), (1_174, 23), (1_176, 24)],
)
def test_there_are_no_more_factors_than_a_row_has_ratings(name: str, n_ratings: int, n_factors: int) -> None:
    found = preset(name).suited(n_ratings, 100)
    assert found.model.n_factors == n_factors
    assert found.asked() == set()
    assert found.suited(n_ratings, 100) == found
    again = Settings.from_dict(found.to_dict())
    assert again.suited(n_ratings, 100) == again
    # With more ratings they are the preset's.
    assert preset(name).suited(9_000, 100).model == preset(name).model


def test_factors_that_were_asked_for_stay() -> None:
    for asked in (preset().replace(n_factors=24), preset().replace(n_factors=12)):
        assert asked.suited(10, 100).model.n_factors == asked.model.n_factors
        assert asked.factors_for(10, 100) is None
    own = Settings(ModelSettings(n_factors=12, implicit=True), Gibbs())
    assert own.suited(10, 100).model.n_factors == 12
    # What is measured is the presets whose model has implicit feedback: the others are as they are.
    for name in ("amortized", "paper", "literal", "conjugate"):
        assert preset(name).suited(10, 100).model == preset(name).model


@pytest.mark.parametrize("given", [{"n_factors": 2}, {"n_factors": 24, "implicit": True}, {}])
def test_a_model_that_was_recorded_stays(given: dict[str, Any]) -> None:
    """Whoever asked for what: the settings of a run are those that it was fitted with."""
    before = preset().replace(**given)
    for fitted in (before, before.suited(10, 100)):
        again = Settings.from_dict(fitted.to_dict())
        for few in ((10, 100), (430, 100)):
            assert again.suited(*few).model == fitted.model
            assert again.replace(seed=5).suited(*few).model == fitted.model


def test_implicit_feedback_that_was_asked_for_stays() -> None:
    asked = preset().replace(implicit=True)
    assert asked.suited(10, 100).model.implicit
    assert not asked.too_few(10, 100)
    own = Settings(ModelSettings(implicit=True), Gibbs())
    assert own.suited(10, 100).model.implicit
    without = preset().replace(implicit=False)
    assert not without.too_few(10, 100)


class _Notes(Silent):
    """A reporter that keeps what the user should read."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.mark.parametrize(
    ("changes", "left", "fewer"),
    [
        ({}, True, True),
        ({"implicit": True}, False, True),
        ({"implicit": False}, False, True),
        ({"n_factors": 24}, True, False),
        ({"n_factors": 24, "implicit": False}, False, False),
    ],
)
def test_a_fit_tells_what_few_ratings_leave_out(changes: dict[str, Any], left: bool, fewer: bool) -> None:
    short = {"sweeps": 3, "burn_in": 2, "kept_draws": 1, "max_iterations": 1, "plain_iterations": 1}
    ratings = synthetic_ratings(60, 50, 150, n_factors=2, scale="1:5:1", seed=0).ratings
    split, notes = random_split(ratings, seed=0), _Notes()
    fitted = fit(split, preset().replace(**short, **changes), progress=notes, threads=1)
    assert fitted.settings.model.implicit == changes.get("implicit", False)
    assert fitted.posterior.model.n_factors == changes.get("n_factors", 2)
    told = [one for one in notes.told if "training ratings on average" in one]
    assert len(told) == (left or fewer)
    density = 2 * len(split.train) / (split.train.n_users + split.train.n_items)
    for one in told:
        assert one.startswith(f"Users and items have {density:.1f} training ratings on average: ")
        assert ("implicit feedback, which takes 3.5, is left out (--implicit keeps it" in one) == left
        assert ("there are 2 factors in place of 24 (--factors N gives" in one) == fewer


@pytest.mark.parametrize(("n_ratings", "implicit"), [(150, False), (600, True)])
def test_a_simulation_draws_from_the_model_that_is_fitted(n_ratings: int, implicit: bool) -> None:
    ratings = synthetic_ratings(60, 50, n_ratings, n_factors=2, scale="1:5:1", seed=0).ratings
    split = random_split(ratings, seed=0)
    _, settings, _ = simulate_like(split, preset(), 0)
    assert settings.model.implicit == implicit


@pytest.mark.parametrize("name", ["default", "gibbs"])
def test_sweeps_that_were_recorded_before_rows_were_overrelaxed_go_on_drawing_them_anew(name: str) -> None:
    settings = preset(name)
    assert settings.gibbs is not None
    assert Settings.from_dict(settings.to_dict()) == settings
    earlier = settings.to_dict(lambda one, part: one != "overrelaxation")
    found = Settings.from_dict(earlier).gibbs
    assert found == replace(settings.gibbs, overrelaxation=0.0) != settings.gibbs
