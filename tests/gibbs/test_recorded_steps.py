"""What is recorded once is the work of every sweep: it leads to the same bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from recorders import Failing, OnTheSpot
from tiny_chain import ITEMS, USERS, random_state, tiny_model, tiny_pairs

from pyro_bmf.methods.gibbs.coarse_level import CoarseLevel
from pyro_bmf.methods.gibbs.collapsed_means import Solver
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.methods.recorded_utilities import UtilityDraws
from pyro_bmf.methods.recording import NOT_RECORDED, Looks, Recording, Repeated
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.numerics import room
from pyro_bmf.numerics.cuts.stretch import Stretch


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
    # Once for all sweeps, of either side: solver, priors, system and scales of weights; amplitudes;
    # and densities of noise's shapes at nine places, at two dozen, and, it may be, at one.
    of_side = 3 + (dense_cells > 0)
    assert recorder.recorded - 2 * of_side - 3 in range(4, 7)
    assert recorder.runs >= ends[1][1] > 16
    assert ends[0][1] == ends[1][1]
    for name, value in ends[0][0].items():
        assert torch.equal(value, ends[1][0][name]), name


def test_a_recording_that_fails_leaves_the_steps_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "waits", lambda device: True)
    told: list[str] = []
    sweeps = sweeps_of(Recording(Failing(), told.append), 10**9)
    state = random_state(sweeps)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        sweeps.sweep(state)
        sweeps.sweep(state)
    assert bool(torch.isfinite(state.user.rows).all())
    assert sum("step of the solver" in text for text in told) == 2  # once a side
    assert all("not permitted" in text for text in told)


def ordered_sweeps(recording: Recording, ratings: torch.Tensor) -> Sweeps:
    """Sweeps of an ordered probit over 30 users and 20 items."""
    pairs = torch.arange(len(ratings)) % 600
    feedback = Feedback.from_coo(pairs // 20, pairs % 20, ratings, 30, 20)
    likelihood = OrderedProbitLikelihood([1.0, 2.0, 3.0, 4.0])
    return Sweeps(tiny_model(likelihood), feedback, feedback.values, recording=recording)


def ends_of(sweeps: Sweeps, n_sweeps: int = 5) -> dict[str, torch.Tensor]:
    """Return where a chain is after some sweeps."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        rows = torch.randn(30, 3), torch.randn(20, 3)
        state = sweeps.start(*rows, 1.0)
        sweeps.sweep(state, latent=False)
        sweeps.begin_cuts(state)
        for number in range(n_sweeps):
            torch.manual_seed(number)
            sweeps.sweep(state)
    return state.tensors()


@pytest.fixture
def stars() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(1, 5, (600,), generator=generator).double()


@pytest.mark.parametrize("scale_moves", [True, False])
def test_draws_of_utilities_are_the_same_to_the_bit(
    stars: torch.Tensor, monkeypatch: pytest.MonkeyPatch, scale_moves: bool
) -> None:
    """Though a recording runs the work beforehand: that takes nothing from the generator."""
    monkeypatch.setattr(room, "waits", lambda device: True)
    recorder, ends = OnTheSpot(), []
    for recording in (NOT_RECORDED, Recording(recorder, pytest.fail)):
        sweeps = ordered_sweeps(recording, stars)
        sweeps.scale_moves = scale_moves
        ends.append(ends_of(sweeps))
    # As of a Normal likelihood, and utilities; noise's spreads, and three scales.
    assert recorder.recorded - 2 * 4 - 3 - 1 - 4 * scale_moves in range(4, 7)
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


def test_what_asks_the_device_is_not_recorded(stars: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A level of three ratings has its cuts moved by slices; a likelihood of one's own may do anything."""
    monkeypatch.setattr(room, "waits", lambda device: True)
    recorder = OnTheSpot()
    sweeps = ordered_sweeps(Recording(recorder, pytest.fail), stars)
    rare = torch.where((stars == 4.0) & (torch.arange(600) > 20), 3.0, stars)
    assert sweeps.utilities.asks_nothing(sweeps.utilities.observe(stars))
    assert not sweeps.utilities.asks_nothing(sweeps.utilities.observe(rare))
    known = NormalLikelihood().utilities()
    assert known is not None
    assert not known.asks_nothing(stars)
    for of_ratings, drawn in ((stars, 2), (rare, 0)):
        told: list[str] = []
        ends_of(ordered_sweeps(Recording(Failing(), told.append), of_ratings))
        named = [
            text for text in told if text.startswith(("A draw of utilities", "A draw of noise's spreads"))
        ]
        assert len(named) == drawn


def test_a_number_that_is_another_is_not_that_of_the_recording(stars: torch.Tensor) -> None:
    """The slope of the scale's prior is a number of Python's: part of what was recorded."""
    recorder = OnTheSpot()
    utilities = ordered_sweeps(NOT_RECORDED, stars).utilities
    observed = utilities.observe(stars)
    draws = UtilityDraws(utilities, Recording(recorder, pytest.fail))
    zeros, ones = torch.zeros(600, dtype=torch.float64), torch.ones(600, dtype=torch.float64)
    given = utilities.start_cuts() - 2.5, zeros, ones, observed

    def stretch(slope: float) -> Stretch:
        return Stretch(slope, torch.tensor(2.0).double(), zeros[:1], zeros[:1])

    found = []
    for slope in (1.0, 1.0, 500.0):
        torch.manual_seed(7)
        found.append(draws.draw(*given, stretch(slope)))
        found[-1] = type(found[-1])(*(one.clone() for one in found[-1]))
    assert (recorder.recorded, recorder.runs) == (1, 2)
    torch.manual_seed(7)
    alone = utilities.draw(*given, stretch(500.0))
    for one, other in ((found[0], found[1]), (found[2], alone)):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_utilities_that_cannot_be_recorded_are_drawn_all_the_same(stars: torch.Tensor) -> None:
    told: list[str] = []
    alone = ends_of(ordered_sweeps(NOT_RECORDED, stars))
    found = ends_of(ordered_sweeps(Recording(Failing(), told.append), stars))
    names = [text.split(" could")[0] for text in told]
    assert {"A draw of noise's spreads", "A draw of utilities", "A draw of priors"} <= set(names)
    assert all(names.count(name) <= 2 for name in names if "Densities" not in name)  # once a side
    for name, value in alone.items():
        assert torch.equal(value, found[name]), name


def test_other_ratings_are_not_those_of_the_recording(stars: torch.Tensor) -> None:
    recorder = OnTheSpot()
    utilities = ordered_sweeps(NOT_RECORDED, stars).utilities
    draws = UtilityDraws(utilities, Recording(recorder, pytest.fail))
    zeros, ones = torch.zeros(600, dtype=torch.float64), torch.ones(600, dtype=torch.float64)
    given = utilities.start_cuts() - 2.5, zeros, ones
    for observed in (utilities.observe(stars), utilities.observe(5.0 - stars)):
        torch.manual_seed(7)
        found = draws.draw(*given, observed, None)
        torch.manual_seed(7)
        assert torch.equal(found.utilities, utilities.draw(*given, observed, None).utilities)
    assert (recorder.recorded, recorder.runs) == (1, 1)


def test_results_lie_outside_of_what_recordings_share() -> None:
    """What work makes may be written over by any other recording."""
    made: list[torch.Tensor] = []

    def work(given: tuple[torch.Tensor]) -> Stretch:
        made.append(2.0 * given[0])
        return Stretch(3.0, made[-1].sum(), made[-1], given[0].mT)

    doubled = Repeated(Recording(OnTheSpot(), pytest.fail), "Twice")
    for value in (1.0, 4.0):
        given = torch.full((2, 3), value)
        found = doubled(work, (given,))
        for tensor in made:
            tensor.fill_(torch.nan)
        assert found.slope == 3.0
        assert float(found.rate) == 12.0 * value
        assert found.tails.tolist() == [[2.0 * value] * 3] * 2
        assert found.powers.stride() == given.mT.stride()


def test_nothing_that_was_recorded_is_run_when_something_could_not_be() -> None:
    """A card's recordings have a generator that the failure took from them."""

    class Spoilt(OnTheSpot):
        def record(self, warm_up: Callable[[], object], work: Callable[[], object]) -> Callable[[], object]:
            if self.recorded:
                self.usable = False
                raise RuntimeError("operation not permitted")
            return super().record(warm_up, work)

    recorder, told = Spoilt(), list[str]()
    recording = Recording(recorder, told.append)
    looks, given = Looks(recording), (torch.ones(3),)
    for expected in (1, 2, 2, 2):
        assert torch.equal(looks("first", lambda given: given[0] + 1.0, given), torch.full((3,), 2.0))
        assert recorder.runs == min(expected, 2)
        if expected == 2:
            assert torch.equal(looks("second", lambda given: given[0] - 1.0, given), torch.zeros(3))
            looks("third", lambda given: given[0], given)
    assert (recorder.recorded, recorder.runs, len(told)) == (1, 2, 1)
