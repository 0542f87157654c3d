"""Held-out inputs: in training an encoder reads everything except the block that it predicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from objective_tools import FixedDraws, Problem, make_objective
from torch import Tensor

SITES = ("user_factors", "user_bias", "item_factors", "item_bias")


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def located(problem: Problem, *, held_out: bool, attention: str, grad: bool = True) -> dict[str, Tensor]:
    """Locations and scales of q of the first block's rows, as the objective sees them."""
    objective = make_objective(held_out_input=held_out, attention=attention)
    block = problem.blocks(4, 3).block(0, 0)
    draws = FixedDraws.standard()
    with draws.at(block), torch.set_grad_enabled(grad):
        objective(block, beta=(1.0, 1.0))
    return {f"{s} {p}": getattr(draws.seen[s], p).detach() for s in SITES for p in ("mean", "stddev")}


def in_first_block(problem: Problem) -> Tensor:
    block = problem.blocks(4, 3).block(0, 0)
    inside = torch.isin(problem.users, block.users) & torch.isin(problem.items, block.items)
    assert 0 < int(inside.sum()) < len(inside)
    return inside


def with_other_ratings(problem: Problem, where: Tensor) -> Problem:
    return replace(problem, ratings=torch.where(where, 6.0 - problem.ratings + 0.25, problem.ratings))


def without(problem: Problem, where: Tensor) -> Problem:
    return Problem(problem.users[~where], problem.items[~where], problem.ratings[~where])


@pytest.mark.parametrize("attention", ["none", "sum", "softmax"])
def test_a_block_does_not_read_its_own_ratings(attention: str) -> None:
    problem = Problem.draw()
    inside = in_first_block(problem)
    before = located(problem, held_out=True, attention=attention)
    first = torch.zeros_like(inside)
    first[inside.nonzero()[0]] = True
    # Other values; and as if they, or one of them, had never been given.
    for changed in (with_other_ratings(problem, inside), without(problem, inside), without(problem, first)):
        after = located(changed, held_out=True, attention=attention)
        for name, value in before.items():
            torch.testing.assert_close(after[name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", ["user", "item"])
def test_it_reads_all_others(side: str) -> None:
    problem = Problem.draw()
    block = problem.blocks(4, 3).block(0, 0)
    own = torch.isin(problem.users, block.users) if side == "user" else torch.isin(problem.items, block.items)
    outside = own & ~in_first_block(problem)
    assert outside.any()
    before = located(problem, held_out=True, attention="sum")
    after = located(with_other_ratings(problem, outside), held_out=True, attention="sum")
    assert not torch.equal(before[f"{side}_factors mean"], after[f"{side}_factors mean"])


def test_without_it_and_at_evaluation_everything_is_read() -> None:
    problem = Problem.draw()
    changed = with_other_ratings(problem, in_first_block(problem))
    for held_out, grad in ((False, True), (False, False), (True, False)):
        before = located(problem, held_out=held_out, attention="sum", grad=grad)
        after = located(changed, held_out=held_out, attention="sum", grad=grad)
        for side in ("user", "item"):
            assert not torch.equal(before[f"{side}_factors mean"], after[f"{side}_factors mean"])
    plain = located(problem, held_out=False, attention="sum")
    evaluated = located(problem, held_out=True, attention="sum", grad=False)
    for name, value in plain.items():
        torch.testing.assert_close(evaluated[name], value, rtol=0, atol=1e-12)


def test_encoding_a_side_reads_everything() -> None:
    problem = Problem.draw()
    feedback = problem.blocks().user_feedback[0]
    other = with_other_ratings(problem, in_first_block(problem)).blocks().user_feedback[0]
    plain, held_out = (make_objective(held_out_input=on).guide for on in (False, True))
    assert torch.equal(plain.encode_side("user", feedback).loc, held_out.encode_side("user", feedback).loc)
    assert not torch.equal(
        held_out.encode_side("user", feedback).loc, held_out.encode_side("user", other).loc
    )


def test_entries_are_dropped_in_training_alone() -> None:
    problem = Problem.draw()
    block, draws = problem.blocks(4, 3).block(0, 0), FixedDraws.standard()
    plain, dropping = make_objective(), make_objective(input_dropout=0.5)
    losses = {}
    for grad in (True, False):
        for name, objective in (("plain", plain), ("dropping", dropping)):
            torch.manual_seed(0)
            with draws.at(block), torch.set_grad_enabled(grad):
                losses[name, grad] = float(objective(block, beta=(1.0, 1.0))[0].detach())
    assert losses["dropping", False] == losses["plain", False] == losses["plain", True]
    assert losses["dropping", True] != losses["plain", True]
