"""What a card's host waits for in an iteration: counted by the profiler, with the way of a card on a CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_bmf.data import random_split, synthetic_ratings
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.sides import SIDES

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
        assert launches.count(work)["waits"] == 1


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
