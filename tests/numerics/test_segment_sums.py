"""Segment sums against dense products, on the path of a CPU and on that of a device."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import pyro_bmf
from pyro_bmf.numerics.segment_sums import (
    Pieces,
    Segments,
    bag_sum,
    class_sums,
    class_sums_by_mask,
    segment_gather,
    segment_sum,
    sum_in_order,
    sum_on_host,
)

PATHS = pytest.mark.parametrize("path", [sum_on_host, sum_in_order])


def dense(index: Tensor, n: int) -> Tensor:
    """Return the 0/1 matrix (n, nnz) whose product is the sum."""
    return (index == torch.arange(n).unsqueeze(1)).double()


def cut(segments: Segments, most: int) -> Segments:
    """Return segments as a device with threads of `most` entries has them."""
    return Segments(segments.index, segments.indptr, segments.order, Pieces.of(segments.indptr, most))


@PATHS
@pytest.mark.parametrize("width", [None, 1, 3])
@given(
    entries=st.lists(st.integers(0, 6), max_size=40),
    n=st.integers(7, 9),
    most=st.integers(1, 9),
    is_sorted=st.booleans(),
)
def test_against_a_dense_product(
    path: Callable[[Tensor, Segments], Tensor],
    width: int | None,
    entries: list[int],
    n: int,
    most: int,
    is_sorted: bool,
) -> None:
    index = torch.tensor(sorted(entries) if is_sorted else entries, dtype=torch.int64)
    counts = torch.bincount(index, minlength=n)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    segments = Segments.of_indptr(indptr, len(index)) if is_sorted else Segments.of_index(index, n)
    assert torch.equal(segments.index, index)
    shape = (len(index),) if width is None else (len(index), width)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(len(index)), dtype=torch.float64)
    expected = (dense(index, n) @ values.reshape(len(index), width or 1)).reshape(n, *shape[1:])
    torch.testing.assert_close(path(values, cut(segments, most)), expected, rtol=1e-13, atol=1e-13)
    single = path(values.float(), cut(segments, most))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [None, 5])
def test_a_cpu_adds_up_in_the_order_of_the_entries(dtype: torch.dtype, width: int | None) -> None:
    """Whichever kernel is taken there, the bits are those of adding one entry after the other."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, 50, (4000,), generator=generator)
    shape = (4000,) if width is None else (4000, width)
    values = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    for places in (index, index.sort()[0]):
        expected = values.new_zeros(50, *shape[1:])
        for place, value in zip(places.tolist(), values, strict=True):
            expected[place] += value
        counts = torch.bincount(places, minlength=50)
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        found = [segment_sum(values, Segments.of_index(places, 50))]
        if places is not index:
            found.append(segment_sum(values, Segments.of_indptr(indptr, 4000)))
        for one in found:
            assert torch.equal(one, expected)


def test_pieces_are_short_and_keep_the_order() -> None:
    indptr = torch.tensor([0, 0, 3, 11, 11, 12])
    assert Pieces.of(indptr, 8) is None
    pieces = Pieces.of(indptr, 3)
    assert pieces is not None
    assert pieces.inner.tolist() == [0, 3, 6, 9, 11, 12]
    assert pieces.outer.tolist() == [0, 0, 1, 4, 4, 5]
    part = pieces.part(slice(2, 5), 3)
    assert part.inner.tolist() == [0, 3, 6, 8, 9]
    assert part.outer.tolist() == [0, 3, 3, 4]


@pytest.mark.parametrize("weighted", [False, True])
def test_bags_by_pieces(weighted: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    counts = torch.tensor([0, 30, 1, 7, 0, 12])
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
    indices = torch.randint(0, 9, (50,), generator=generator).int()
    weights = torch.rand(50, generator=generator, dtype=torch.float64) if weighted else None
    whole = bag_sum(table, indices, indptr, weights)
    for most in (1, 5, 12):
        torch.testing.assert_close(bag_sum(table, indices, indptr, weights, Pieces.of(indptr, most)), whole)


@pytest.mark.parametrize("width", [None, 2])
def test_gradients(width: int | None) -> None:
    """Sum and gather are each other's adjoint: both have first and second derivatives."""
    index = torch.tensor([2, 0, 2, 4, 4, 2, 1])
    segments = Segments.of_index(index, 6)
    more = () if width is None else (width,)
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(7, *more, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(6, *more, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.equal(segment_gather(table, segments), table[index])
    for function, given_ in ((segment_sum, values), (segment_gather, table)):

        def cubed(x: Tensor, function: Callable[[Tensor, Segments], Tensor] = function) -> Tensor:
            return function(x, segments) ** 3

        assert torch.autograd.gradcheck(cubed, (given_,))
        assert torch.autograd.gradgradcheck(cubed, (given_,))


def test_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    classes = torch.randint(0, 4, (1000,), generator=generator)
    values = torch.randn(1000, generator=generator, dtype=torch.float64)
    values[7] = torch.inf
    onto = torch.arange(6.0, dtype=torch.float64)
    expected = onto.clone()
    for place, value in zip(classes.tolist(), values, strict=True):
        expected[place] += value
    assert torch.equal(class_sums(values, classes, onto), expected)
    torch.testing.assert_close(class_sums_by_mask(values, classes, onto), expected)
    monkeypatch.setattr("pyro_bmf.numerics.segment_sums._MASKED", 5_999)  # one class after the other
    torch.testing.assert_close(class_sums_by_mask(values, classes, onto), expected)
    assert onto.tolist() == list(range(6))


def test_nothing_else_adds_up_by_index() -> None:
    """Sums by index are in no fixed order on CUDA, or sort: the package takes them here alone."""
    package = Path(pyro_bmf.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\.(index_add|scatter_add|scatter_reduce|index_reduce)_?\(", path.read_text("utf-8"))
    }
    assert found == {"numerics/segment_sums.py"}
