"""Sums over the entries of each segment (a row's ratings, say), the same bits at every run on any device.

A CUDA `index_add` is either in no fixed order (atomics) or, in torch's deterministic mode, sorts its entries
at every call. Here the order of the entries is stored: a segment is added up by one thread, block of threads
or fixed tree, so that determinism costs nothing. On a CPU every sum is taken in the order of the entries,
whichever kernel takes it: all of them give the same bits there.

Long segments (the ratings of a popular item) would keep one thread of a graphics card busy while all others
wait: on such devices they are cut into `Pieces`, which are summed for themselves and then together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Entries that one thread of a device adds up, one after the other: more, and it waits longer than it adds.
PIECE = 64
#: Numbers that are made at once where classes are summed: beyond, one class is summed after the other.
_MASKED = 2**28


@dataclass(frozen=True, eq=False)
class Pieces:
    """Segments cut into pieces of bounded length.

    Attributes
    ----------
    inner : Tensor, shape (n_pieces + 1,), int32
        Piece p owns entries ``inner[p]:inner[p + 1]``.
    outer : Tensor, shape (n + 1,), int32
        Segment i owns pieces ``outer[i]:outer[i + 1]``.
    numbers : Tensor, shape (n_pieces,), int32
        0, 1, ... n_pieces - 1.
    host_outer : Tensor, shape (n + 1,)
        `outer` where the host reads it without waiting for the device.
    """

    inner: Tensor
    outer: Tensor
    numbers: Tensor
    host_outer: Tensor

    @classmethod
    def of(cls, indptr: Tensor, most: int = PIECE) -> Pieces | None:
        """Cut the segments of a compressed layout (n + 1,); None where all are short enough as they are."""
        starts, counts = indptr[:-1].long(), indptr.diff().long()
        if not len(counts) or int(counts.max()) <= most:
            return None
        each = (counts + most - 1) // most
        outer = torch.cat([each.new_zeros(1), each.cumsum(0)])
        segment = torch.repeat_interleave(torch.arange(len(each), device=each.device), each)
        numbers = torch.arange(len(segment), device=each.device)
        inner = starts[segment] + (numbers - outer[segment]) * most
        inner = torch.cat([inner.int(), indptr[-1:].int()])
        return cls(inner, outer.int(), numbers.int(), outer.int().cpu())

    def part(self, rows: slice, first: int) -> Pieces:
        """Return those of some segments, whose entries begin with the entry `first`."""
        begin, end = int(self.host_outer[rows.start]), int(self.host_outer[rows.stop])
        edges = slice(rows.start, rows.stop + 1)
        return Pieces(
            self.inner[begin : end + 1] - first,
            self.outer[edges] - begin,
            self.numbers[: end - begin],
            self.host_outer[edges] - begin,
        )


def device_pieces(indptr: Tensor) -> Pieces | None:
    """Return the pieces of a layout where its device needs them: None on a CPU."""
    return None if indptr.device.type == "cpu" else Pieces.of(indptr)


def bag_sum(
    table: Tensor, indices: Tensor, indptr: Tensor, weights: Tensor | None, pieces: Pieces | None = None
) -> Tensor:
    """Weighted sum of a table's rows over each bag, without a gradient of its own.

    Parameters
    ----------
    table : Tensor, shape (m, width), contiguous
    indices : Tensor, shape (nnz,)
        Row of the table of each entry.
    indptr : Tensor, shape (n + 1,)
        Bag i owns entries ``indptr[i]:indptr[i + 1]``; of the dtype of `indices`.
    weights : Tensor or None, shape (nnz,)
        None for ones.
    pieces : Pieces, optional
        Of `indptr`: sums are then taken by piece first.

    Returns
    -------
    Tensor, shape (n, width)
        Zero for an empty bag.
    """
    if indices.numel() == 0:
        return table.new_zeros(indptr.numel() - 1, table.shape[1])
    if pieces is not None:
        parts = _bags(table, indices, pieces.inner.to(indices.dtype), weights)
        return _bags(parts, pieces.numbers, pieces.outer, None)
    return _bags(table, indices, indptr, weights)


def _bags(table: Tensor, indices: Tensor, indptr: Tensor, weights: Tensor | None) -> Tensor:
    return F.embedding_bag(
        indices, table, indptr, mode="sum", include_last_offset=True, per_sample_weights=weights
    )


@dataclass(frozen=True, eq=False)
class Segments:
    """Which segment each of a number of entries is in, with the order that brings segments together.

    Attributes
    ----------
    index : Tensor, shape (nnz,), int32 or int64
        Segment of each entry.
    indptr : Tensor, shape (n + 1,), int32
        In the order `order`, segment i owns entries ``indptr[i]:indptr[i + 1]``.
    order : Tensor or None, shape (nnz,), int32
        Entries by segment, in their own order within each; None where they stand so already.
    pieces : Pieces or None
        Of `indptr`, on devices that need them.
    """

    index: Tensor
    indptr: Tensor
    order: Tensor | None = None
    pieces: Pieces | None = None

    @classmethod
    def of_index(cls, index: Tensor, n: int) -> Segments:
        """Make them of the segment (nnz,) of each entry, in any order, and the number of segments."""
        order = torch.argsort(index, stable=True)
        edges = torch.arange(n + 1, device=index.device)
        indptr = torch.searchsorted(index[order], edges).int()
        return cls(index, indptr, order.int(), device_pieces(indptr))

    @classmethod
    def of_sorted(cls, index: Tensor, n: int) -> Segments:
        """Do as `of_index` for entries that stand in the order of their segments."""
        indptr = torch.searchsorted(index, torch.arange(n + 1, device=index.device)).int()
        return cls(index, indptr, None, device_pieces(indptr))

    @classmethod
    def of_indptr(cls, indptr: Tensor, n_entries: int) -> Segments:
        """Make them of entries that stand in the order of their segments, of a compressed layout (n + 1,)."""
        rows = torch.arange(len(indptr) - 1, device=indptr.device)
        index = torch.repeat_interleave(rows, indptr.diff().long(), output_size=n_entries)
        return cls(index, indptr.int(), None, device_pieces(indptr))

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def part(self, entries: slice) -> Segments:
        """Return all segments with some of the entries, which stand in the segments' order."""
        indptr = (self.indptr - entries.start).clamp(0, entries.stop - entries.start)
        return Segments(self.index[entries], indptr, None, device_pieces(indptr))


def segment_sum(values: Tensor, segments: Segments) -> Tensor:
    """Sum the entries of each segment.

    Parameters
    ----------
    values : Tensor, shape (nnz,) or (nnz, width)
    segments : Segments

    Returns
    -------
    Tensor, shape (n,) or (n, width)
        In the dtype of `values`; zero for an empty segment. Differentiable, any number of times.
    """
    result: Tensor = _SegmentSum.apply(values, segments)  # type: ignore[no-untyped-call]
    return result


def segment_gather(table: Tensor, segments: Segments) -> Tensor:
    """Return each entry's row of a table with one row a segment: ``table[segments.index]``.

    Parameters
    ----------
    table : Tensor, shape (n,) or (n, width)
    segments : Segments

    Returns
    -------
    Tensor, shape (nnz,) or (nnz, width)
        Differentiable, any number of times; the gradient is a `segment_sum`.
    """
    result: Tensor = _SegmentGather.apply(table, segments)  # type: ignore[no-untyped-call]
    return result


def gather_entries(rows: Tensor, segments: Segments, dim: int) -> Tensor:
    """Do as `segment_gather` along a negative `dim`; whatever stands in front of it are draws."""
    if rows.dim() == -dim:
        return segment_gather(rows, segments)
    return rows.index_select(dim, segments.index)


def add_segments(onto: Tensor, values: Tensor, segments: Segments, part: slice) -> Tensor:
    """Return totals plus the sums of some of the entries, which stand in the order of their segments.

    Parameters
    ----------
    onto : Tensor, shape (n, width)
    values : Tensor, shape (n_part, width)
        Of the entries of `part`. Differentiable.
    segments : Segments
    part : slice
    """
    if values.device.type == "cpu":
        return onto.index_add(0, segments.index[part], values)
    return onto + segment_sum(values, segments.part(part))


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segments: Segments) -> Tensor:
        ctx.segments = segments
        return (
            sum_on_host(values, segments) if values.device.type == "cpu" else sum_in_order(values, segments)
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return segment_gather(grads[0], ctx.segments), None


class _SegmentGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, segments: Segments) -> Tensor:
        ctx.segments = segments
        return table.index_select(0, segments.index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return segment_sum(grads[0], ctx.segments), None


def sum_on_host(values: Tensor, segments: Segments) -> Tensor:
    """Do as `segment_sum` by the kernel that is fastest on a CPU; all of them add up in the same order."""
    if values.dim() == 1 and segments.order is None:
        return _runs(values, segments.indptr)
    if values.dim() == 2 and values.dtype == torch.float32 and values.numel():
        # Three to twelve times faster than the other two; there is no such kernel for doubles.
        return _bags(values.contiguous(), _places(segments), segments.indptr, None)
    total = values.new_zeros(len(segments), *values.shape[1:])
    return total.index_add_(0, segments.index, values)


def sum_in_order(values: Tensor, segments: Segments) -> Tensor:
    """Do as `segment_sum` without `index_add`, whose CUDA form is either in no order or sorts."""
    if values.dim() == 1:
        ordered = values if segments.order is None else values.index_select(0, segments.order)
        return _runs(ordered, segments.indptr)
    return bag_sum(values.contiguous(), _places(segments), segments.indptr, None, segments.pieces)


def _places(segments: Segments) -> Tensor:
    if segments.order is not None:
        return segments.order
    return torch.arange(len(segments.index), dtype=torch.int32, device=segments.index.device)


def _runs(values: Tensor, indptr: Tensor) -> Tensor:
    """Sum the runs of a vector (nnz,)."""
    return torch.segment_reduce(values, "sum", offsets=indptr.long(), unsafe=True, initial=0.0)


def class_sums(values: Tensor, classes: Tensor, onto: Tensor) -> Tensor:
    """Add vectors up by a few classes (the levels of a scale): each is a large share of the entries.

    Parameters
    ----------
    values : Tensor, shape (nnz,)
    classes : Tensor, shape (nnz,), integer
    onto : Tensor, shape (n_classes,)
        What the sums are added to; it stays as it is.

    Returns
    -------
    Tensor, shape (n_classes,)
    """
    if values.device.type == "cpu":
        return onto.index_add(0, classes, values)
    return class_sums_by_mask(values, classes, onto)


def class_sums_by_mask(values: Tensor, classes: Tensor, onto: Tensor) -> Tensor:
    """Do as `class_sums` by masked sums, each a fixed tree: no sort, no atomics."""
    nothing, n = values.new_zeros(()), len(onto)
    if n * len(values) <= _MASKED:
        own = torch.arange(n, device=values.device).unsqueeze(1)
        return onto + torch.where(classes == own, values, nothing).sum(1)
    # One class after the other, where all of them would take gigabytes.
    sums = [torch.where(classes == one, values, nothing).sum() for one in range(n)]
    return onto + torch.stack(sums)
