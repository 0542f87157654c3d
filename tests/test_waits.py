"""What a card's host waits for in an iteration: counted by the profiler, with the way of a card on a CPU."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_bmf.data import random_split, synthetic_ratings
from pyro_bmf.methods.conjugate_gradients import conjugate_gradient
from pyro_bmf.methods.gibbs.hyper_draws import draw_noise_shape
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.sides import SIDES
from pyro_bmf.numerics.cuts.density import CutDensity
from pyro_bmf.numerics.cuts.draws import draw_cuts_and_utilities
from pyro_bmf.numerics.cuts.newton import fit_cuts
from pyro_bmf.numerics.slice_draw import slice_draw

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import launches  # noqa: E402

SMALL = {"n_factors": 3, "weight_steps": 1}


@pytest.fixture(scope="module")
def train() -> Any:
    return random_split(
        synthetic_ratings(60, 40, 900, n_factors=3, scale="1:5:1", seed=0).ratings, seed=0
    ).train


@pytest.fixture(autouse=True)
def one_generator() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize("likelihood", ["normal", "ordered-probit"])
def test_an_iteration_of_the_exact_head_waits_for_its_figures_alone(train: Any, likelihood: str) -> None:
    work = launches.iterations(train, "head", likelihood, **SMALL)
    with launches.as_on_a_card():
        work()
        # And for what its priors' precisions are made of, one look a side.
        assert launches.count(work)["waits"] == 3


def test_every_kind_of_wait_is_counted() -> None:
    at = torch.ones(2)
    kinds = (
        lambda: at[0].item(),
        lambda: bool(at[0]),
        at.tolist,
        at.nonzero,
        lambda: at[at > 0],
        lambda: torch.tensor(1.0),
        lambda: torch.linalg.cholesky(torch.eye(2)),
    )
    for kind in kinds:
        assert launches.count(kind)["waits"] == 1


@pytest.mark.parametrize("likelihood", ["normal", "ordered-probit"])
def test_the_way_of_a_card_computes_the_same(train: Any, likelihood: str) -> None:
    """Among it the cut points, which are found an iteration ahead, with one look at whether they are good."""
    assert preset("guide").method.plain_iterations > 3
    ways = [launches.iterations(train, "head", likelihood, **SMALL) for _ in range(2)]
    for _ in range(3):
        expected = ways[0]()
        with launches.as_on_a_card():
            found = ways[1]()
        assert found == pytest.approx(expected, rel=1e-5)
    one, other = (way.__self__ for way in ways)
    for side in SIDES:
        torch.testing.assert_close(other.guide.of(side).loc, one.guide.of(side).loc, rtol=0, atol=1e-4)
    torch.testing.assert_close(other.guide.cuts, one.guide.cuts, rtol=0, atol=1e-6)
    assert one._cuts is None
    assert (other._cuts is not None) == (likelihood == "ordered-probit")
    if other._cuts is not None:
        # They are those that the next iteration of the other way takes.
        one.iteration()
        torch.testing.assert_close(other._cuts + other.centre, one.guide.cuts, rtol=0, atol=1e-6)


@pytest.mark.parametrize("card", [False, True])
def test_what_cannot_be_factorised_ends_as_a_loss_of_nan(train: Any, card: bool) -> None:
    updates = launches.iterations(train, "head", "normal", **SMALL).__self__
    updates.guide.item.precision.neg_().mul_(1e6)
    if card:
        with launches.as_on_a_card():
            figures = updates.iteration()
    else:
        figures = updates.iteration()
    assert figures["loss"] != figures["loss"]


#: Of a sweep: its slices are of Python's arithmetic, one look each, two where the density is a sum over rows;
#: the solver is asked once whether it is done.
SWEEP = {
    # Factors against partners, all in one look; amplitudes, of all factors in one; shapes and levels of
    # noise; weights; solver.
    "normal": 1 + 3 * 1 + 2 * 2 + 2 * 1 + 2 * 1 + 2 * 1,
    # And cuts and scales in the place of levels.
    "ordered-probit": 1 + 3 * 1 + 4 * 1 + 2 * 2 + 2 * 1 + 2 * 1,
}


@pytest.mark.parametrize("likelihood", ["normal", "ordered-probit"])
def test_a_sweep_waits_once_a_slice(train: Any, likelihood: str) -> None:
    work = launches.iterations(train, "chain", likelihood, n_factors=3)
    with launches.as_on_a_card():
        work()  # which levels have few ratings is asked in the first sweep
        for system in (work.func.__self__.means.user, work.func.__self__.means.item):
            system.last = 12
        torch.manual_seed(1)
        assert launches.count(work)["waits"] == SWEEP[likelihood]


def test_a_sweep_by_the_way_of_a_card_draws_the_same(train: Any) -> None:
    work = launches.iterations(train, "chain", "normal", n_factors=3)
    states = work.args[0], copy.deepcopy(work.args[0])
    torch.manual_seed(3)
    work.func(states[0])
    with launches.as_on_a_card():
        torch.manual_seed(3)
        work.func(states[1])
    for name, expected in states[0].tensors().items():
        torch.testing.assert_close(states[1].tensors()[name], expected, rtol=2e-3, atol=1e-4, msg=name)


def test_cuts_and_utilities_are_drawn_the_same() -> None:
    """Both where a proposal is taken and where it is not; among the ratings are some far from their cell."""
    generator = torch.Generator().manual_seed(0)
    eta = 2.0 * torch.randn(300, generator=generator, dtype=torch.float64)
    eta[:3] = torch.tensor([-30.0, 30.0, 12.0])
    place = torch.randint(0, 4, (300,), generator=generator)
    cuts, scale = torch.tensor([-1.0, 0.2, 1.1], dtype=torch.float64), torch.ones_like(eta)
    moved, prior = [], CutDensity([1.5, 2.5, 3.5], 2.0, 0.3)
    cuts = fit_cuts(cuts, eta, scale, place, prior, steps=30)  # elsewhere next to no proposal is taken
    for seed in range(40):
        torch.manual_seed(seed)
        expected = draw_cuts_and_utilities(cuts, eta, scale, place, prior)
        with launches.as_on_a_card():
            torch.manual_seed(seed)
            found = draw_cuts_and_utilities(cuts, eta, scale, place, prior)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-10, atol=1e-10)
        near = torch.arange(3, 300)  # those that are far are drawn by other uniforms
        torch.testing.assert_close(found[1][near], expected[1][near], rtol=1e-8, atol=1e-8)
        assert bool((found[1][1] < cuts.max() + 40.0) & found[1].isfinite().all())
        moved.append(not torch.equal(expected[0], cuts))
    assert set(moved) == {True, False}


def test_densities_known_beforehand_change_no_slice() -> None:
    calls = []

    def density(t: float) -> float:
        return 3.0 * t - math.exp(t)

    def densities(ts: list[float]) -> list[float]:
        calls.append(len(ts))
        return [density(t) for t in ts]

    for width in (0.01, 1.0, 50.0):
        for seed in range(20):
            torch.manual_seed(seed)
            expected = slice_draw(density, width, 0.4)
            torch.manual_seed(seed)
            assert slice_draw(density, width, 0.4, many=densities) == expected
    assert sum(calls) > len(calls) > 0


def test_the_shape_of_the_noise_is_drawn_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 40, (200,), generator=generator).double()
    squares = counts * (0.5 + torch.rand(200, generator=generator, dtype=torch.float64))
    shape = torch.tensor(10.0, dtype=torch.float64)
    for seed in range(5):
        torch.manual_seed(seed)
        expected = draw_noise_shape(counts, squares, shape)
        with launches.as_on_a_card():
            torch.manual_seed(seed)
            found = draw_noise_shape(counts, squares, shape)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("likely", [1, 7, 90])
def test_the_solver_stops_where_it_would_stop_if_it_was_watched(likely: int) -> None:
    root = torch.randn(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = root @ root.mT + torch.eye(30, dtype=torch.float64)
    target = torch.ones(30, dtype=torch.float64)
    for right, most in ((target, 100), (target, 5), (torch.zeros_like(target), 100)):
        given = (lambda x: matrix @ x, lambda x: x / matrix.diagonal(), right, 0.1 * target)
        x, steps, left = conjugate_gradient(*given, tolerance=1e-6, max_steps=most)
        with launches.as_on_a_card():
            found = conjugate_gradient(*given, tolerance=1e-6, max_steps=most, likely=likely)
        torch.testing.assert_close(found[0], x, rtol=1e-12, atol=1e-12)
        assert found[1] == steps
        assert found[2] == pytest.approx(left, rel=1e-6)


def test_a_recorded_step_waits_for_nothing() -> None:
    """And its copies and sums are a small part of a millisecond of the host, of blocks this small."""
    ratings = synthetic_ratings(60, 40, 900, n_factors=3, scale="1:5:1", seed=0).ratings
    found = launches.measure_host(launches.algorithm("paper", ratings), 2)
    assert found["waits"] == 0
    assert found["launches"] <= 5
    assert 0.0 < found["copies_ms"] < found["host_ms"] < 20.0
