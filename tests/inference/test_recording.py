"""What a recording reads is found, copied to places of its own, and refused where it cannot be found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from recorders import Failing, OnTheSpot
from torch import Tensor

from pyro_bmf.methods.recording import Recording, at_own_places, copy_tensors, tensors_in


@dataclass(frozen=True)
class Inner:
    values: Tensor
    factor: float


@dataclass(frozen=True)
class Fixed:
    index: Tensor


@dataclass(frozen=True)
class Work:
    inner: Inner
    fixed: Fixed
    out: Tensor
    more: tuple[Tensor, ...]
    nothing: Tensor | None = None


def work_on(values: list[float]) -> Work:
    given = torch.tensor(values)
    return Work(Inner(given, 2.0), Fixed(torch.tensor([1, 0])), torch.zeros(2), (given + 1.0, given + 2.0))


def double(one: Work) -> None:
    one.out.copy_((one.inner.values * one.inner.factor + one.more[0] + one.more[1])[one.fixed.index])


def test_a_recording_does_the_same_work_on_what_it_is_filled_with() -> None:
    recorded = Recording(OnTheSpot(), lambda text: None).of(
        "Work", work_on([1.0, 2.0]), double, fixed=(Fixed,)
    )
    assert recorded is not None
    for values in ([3.0, 5.0], [-1.0, 0.5]):
        given, expected = work_on(values), work_on(values)
        double(expected)
        recorded.fill(given)
        recorded.replay()
        assert torch.equal(recorded.place.out, expected.out)
        assert torch.equal(given.out, torch.zeros(2))


def test_what_is_fixed_is_shared_and_all_else_has_its_own_place() -> None:
    given = work_on([1.0, 2.0])
    placed = at_own_places(given, (Fixed,))
    assert placed.fixed is given.fixed
    assert placed.inner.factor == 2.0
    theirs = list(tensors_in(given, (Fixed,)))
    assert len(theirs) == 4
    for own, one in zip(tensors_in(placed, (Fixed,)), theirs, strict=True):
        assert torch.equal(own, one)
        assert own.data_ptr() != one.data_ptr()


@pytest.mark.parametrize("hidden", [lambda: torch.ones(1), [torch.ones(1)], {"a": torch.ones(1)}])
def test_what_might_hide_tensors_is_refused(hidden: Any) -> None:
    with pytest.raises(TypeError, match="cannot be found"):
        list(tensors_in((torch.ones(1), hidden)))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\)"):
        copy_tensors([torch.zeros(2)], [torch.zeros(3)])


def test_a_recording_that_fails_is_told() -> None:
    told: list[str] = []
    assert Recording(Failing(), told.append).of("A step", (torch.ones(1),), lambda given: None) is None
    assert told == [
        "A step could not be recorded as a CUDA graph (operation not permitted when stream is capturing): "
        "it takes longer."
    ]
