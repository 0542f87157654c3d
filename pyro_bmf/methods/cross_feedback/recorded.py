"""Joint steps on memory that stays: a graphics card records one of them, and then runs it as one launch.

A step of the encoders is some hundreds of small operations; a card waits for the host to ask for each. A CUDA
graph asks once. It needs inputs of one shape at one place, so that every block is filled up: rows that have
no entries and no weight, entries and ratings of weight zero. What is filled in adds zeros to every sum, so
that loss and gradients are those of the block, to rounding.

Recording is what a `Recorder` does (`pyro_bmf.methods.recording`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...model.blocks import TrainingBlocks
from ...model.feedback import Feedback
from ...model.sides import SIDES, Side, Sides
from ...numerics import room
from ...numerics.segment_sums import PIECE, Pieces, Segments
from ...tensor_files import first_line
from ..recording import CudaRecorder, Recorder, start_adam
from .descent import Descent, JointDescent, Loss, StepInput
from .optimizer import rates
from .steps import Step


@dataclass(frozen=True)
class Shape:
    """Sizes that every block is filled up to: rows and entries of each side, pieces, ratings."""

    rows: Sides[int]
    entries: Sides[int]
    pieces: Sides[tuple[int, int]]
    ratings: int

    @classmethod
    def of(cls, blocks: TrainingBlocks, piece: int = PIECE) -> Shape:
        """Return the smallest shape that every block has room in."""

        def of_side(batches: list[Feedback]) -> tuple[int, int, tuple[int, int]]:
            rows, entries = max(one.n_rows for one in batches), max(one.nnz for one in batches)
            # An upper bound whatever the counts are: one for each row, and one for each full piece.
            most = entries // piece + 1
            return rows, entries, (rows + most, batches[0].n_columns + most)

        user, item = of_side(blocks.user_feedback), of_side(blocks.item_feedback)
        most = max(end - start for start, end in pairwise(blocks.starts))
        return cls(Sides(user[0], item[0]), Sides(user[1], item[1]), Sides(user[2], item[2]), most)


def filled_pieces(indptr: Tensor, n_pieces: int, most: int) -> Pieces:
    """Return a layout's pieces with empty ones behind them, `n_pieces` in all."""
    cut = Pieces.of(indptr, most)
    n = len(indptr) - 1
    if cut is None:
        numbers = torch.arange(n, dtype=torch.int32, device=indptr.device)
        outer = torch.arange(n + 1, dtype=torch.int32, device=indptr.device)
        cut = Pieces(indptr.int(), outer, numbers, outer.cpu())
    more = n_pieces - len(cut.numbers)
    inner = torch.cat([cut.inner, cut.inner[-1:].expand(more)])
    numbers = torch.arange(n_pieces, dtype=torch.int32, device=indptr.device)
    return Pieces(inner, cut.outer, numbers, cut.host_outer)


def filled_feedback(
    feedback: Feedback, rows: int, entries: int, pieces: tuple[int, int], piece: int
) -> tuple[Feedback, Tensor]:
    """Return rows filled up to a shape, and one for each row that was there before, zero for others.

    Entries that fill belong to the last row and the last column, with mask and value zero.
    """
    more_rows, more = rows - feedback.n_rows, entries - feedback.nnz
    mask = feedback.values.new_ones(feedback.nnz) if feedback.mask is None else feedback.mask
    indptr = pad(feedback.indptr, (0, more_rows), value=feedback.nnz)
    indptr[-1] = entries
    t_indptr = feedback.t_indptr.clone()
    t_indptr[-1] = entries
    places = torch.arange(feedback.nnz, entries, dtype=torch.int32, device=mask.device)
    found = Feedback(
        n_rows=rows,
        n_columns=feedback.n_columns,
        indptr=indptr,
        indices=pad(feedback.indices, (0, more)),
        values=pad(feedback.values, (0, more)),
        t_indptr=t_indptr,
        t_indices=pad(feedback.t_indices, (0, more), value=rows - 1),
        t_order=torch.cat([feedback.t_order, places]),
        mask=pad(mask, (0, more)),
        pieces=filled_pieces(indptr, pieces[0], piece),
        t_pieces=filled_pieces(t_indptr, pieces[1], piece),
    )
    return found, pad(mask.new_ones(feedback.n_rows), (0, more_rows))


def filled_segments(segments: Segments, rows: int, ratings: int) -> Segments:
    """Return rows as segments of ratings with more of both behind them: the last row's."""
    n, device = len(segments.index), segments.index.device
    order = segments.order
    if order is None:
        order = torch.arange(n, dtype=torch.int32, device=device)
    indptr = pad(segments.indptr, (0, rows - len(segments)), value=n)
    indptr[-1] = ratings
    return Segments(
        pad(segments.index, (0, ratings - n), value=rows - 1),
        indptr,
        torch.cat([order, torch.arange(n, ratings, dtype=torch.int32, device=device)]),
        None,
    )


def tensors_of(given: StepInput) -> list[Tensor]:
    """Return the tensors of a filled step's input, in an order of their own."""
    found = [given.ratings]
    for side in SIDES:
        feedback, segments = given.feedback.of(side), given.segments.of(side)
        found += [feedback.indptr, feedback.indices, feedback.values]
        found += [feedback.t_indptr, feedback.t_indices, feedback.t_order, given.t_values.of(side)]
        for pieces in (feedback.pieces, feedback.t_pieces):
            assert pieces is not None
            found += [pieces.inner, pieces.outer]
        found += [segments.index, segments.indptr]
        for one in (feedback.mask, segments.order, None if given.rows is None else given.rows.of(side)):
            assert one is not None
            found.append(one)
    assert given.seen is not None
    return [*found, given.seen]


class RecordedDescent:
    """Joint steps that are recorded once and run again for every block.

    Parameters
    ----------
    steps : JointDescent
        Whose optimizer can be recorded, and holds no state yet or that of a checkpoint.
    recorder : Recorder
    piece : int
        Entries of a piece.
    """

    def __init__(self, steps: JointDescent, recorder: Recorder, *, piece: int = PIECE) -> None:
        self.steps, self.piece = steps, piece
        self.shape = Shape.of(steps.blocks, piece)
        self.blocks = self._filled()
        device = steps.blocks.ratings.device
        # Weights of the KL, of users and items in a block; betas of both; learning rates by group.
        groups = steps.optimizer.param_groups
        self.numbers = torch.zeros(4 + len(groups), device=device)
        first = self.blocks[0]
        copies = {id(one): one.clone() for one in tensors_of(first)}
        self.place = self._at(first, copies)
        self.static = _by_type(tensors_of(self.place))
        start_adam(steps.optimizer)
        self.names: list[str] = []
        self.result = torch.zeros(0)
        for group, rate in zip(groups, self.numbers[4:], strict=True):
            group["lr"] = rate
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            self.replay = recorder.record(self._warm_up, self._work)

    def begin(self) -> None:
        """Take what the embeddings of the iteration give once, in place."""
        self.steps.begin()

    def __call__(self, step: Step, beta: tuple[float, float], rate: float) -> Loss:
        """Descend the loss of a block."""
        self.fill(step)
        p, q = step.user_batch, step.item_batch
        given_input = self.steps.input(p, q, beta)
        weights, betas = given_input.weights, given_input.beta
        numbers = [weights.user, weights.item, betas.user, betas.item, *rates(self.steps.optimizer, rate)]
        self.numbers.copy_(room.to_device(numbers, self.numbers.device))
        self.replay()
        loss, *parts = self.result.clone().unbind(0)
        return loss, dict(zip(self.names, parts, strict=True))

    def fill(self, step: Step) -> None:
        """Copy a block's tensors to where the recording reads them."""
        block = self.blocks[step.user_batch * len(self.steps.blocks.item_batches) + step.item_batch]
        for own, given in zip(self.static, _by_type(tensors_of(block)), strict=True):
            torch._foreach_copy_(own, given)

    def _warm_up(self) -> None:
        loss, _ = self.steps.loss(self.place)
        self.steps.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.steps.finish_gradients()
        self.steps.optimizer.zero_grad(set_to_none=True)

    def _work(self) -> None:
        loss, parts = self.steps.descend(self.place)
        self.names = list(parts)
        self.result = torch.stack([loss, *parts.values()])

    def _filled(self) -> list[StepInput]:
        """Return every block filled up; batches are filled once and shared by their blocks."""
        steps, shape = self.steps, self.shape
        blocks = steps.blocks

        def filled(side: Side, batches: list[Feedback]) -> list[tuple[Feedback, Tensor, Tensor]]:
            rows, entries, pieces = shape.rows.of(side), shape.entries.of(side), shape.pieces.of(side)
            found = []
            for feedback, t_values in zip(batches, steps.t_values.of(side), strict=True):
                whole, seen = filled_feedback(feedback, rows, entries, pieces, self.piece)
                found.append((whole, pad(t_values, (0, entries - feedback.nnz)), seen))
            return found

        users, items = filled("user", blocks.user_feedback), filled("item", blocks.item_feedback)
        found = []
        for p, user in enumerate(users):
            for q, item in enumerate(items):
                block = blocks.block(p, q)
                both = block.rating_segments
                n, more = len(block.ratings), shape.ratings - len(block.ratings)
                found.append(
                    StepInput(
                        feedback=Sides(user[0], item[0]),
                        t_values=Sides(user[1], item[1]),
                        segments=Sides(
                            filled_segments(both.user, shape.rows.user, shape.ratings),
                            filled_segments(both.item, shape.rows.item, shape.ratings),
                        ),
                        # What fills is a rating too, of weight zero: one that every likelihood knows.
                        ratings=torch.cat([block.ratings, blocks.ratings[:1].expand(more)]),
                        weights=Sides(1.0, 1.0),
                        beta=Sides(1.0, 1.0),
                        rows=Sides(user[2], item[2]),
                        seen=pad(block.ratings.new_ones(n), (0, more)),
                    )
                )
        return found

    def _at(self, given: StepInput, copies: dict[int, Tensor]) -> StepInput:
        """Return the same input on the copies of its tensors, with the numbers of this step."""

        def of(tensor: Tensor | None) -> Tensor:
            assert tensor is not None
            return copies[id(tensor)]

        def pieces_at(pieces: Pieces | None) -> Pieces:
            assert pieces is not None
            return Pieces(of(pieces.inner), of(pieces.outer), pieces.numbers, pieces.host_outer)

        def feedback_at(one: Feedback) -> Feedback:
            return Feedback(
                n_rows=one.n_rows,
                n_columns=one.n_columns,
                indptr=of(one.indptr),
                indices=of(one.indices),
                values=of(one.values),
                t_indptr=of(one.t_indptr),
                t_indices=of(one.t_indices),
                t_order=of(one.t_order),
                mask=of(one.mask),
                pieces=pieces_at(one.pieces),
                t_pieces=pieces_at(one.t_pieces),
            )

        def segments_at(one: Segments) -> Segments:
            return Segments(of(one.index), of(one.indptr), of(one.order), None)

        assert given.rows is not None
        return StepInput(
            feedback=Sides(feedback_at(given.feedback.user), feedback_at(given.feedback.item)),
            t_values=Sides(of(given.t_values.user), of(given.t_values.item)),
            segments=Sides(segments_at(given.segments.user), segments_at(given.segments.item)),
            ratings=of(given.ratings),
            weights=Sides(self.numbers[0], self.numbers[1]),
            beta=Sides(self.numbers[2], self.numbers[3]),
            rows=Sides(of(given.rows.user), of(given.rows.item)),
            seen=of(given.seen),
        )


def _by_type(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Group tensors by their type: each group is copied in one launch."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def descent_on(
    device: torch.device,
    steps: Descent,
    note: Callable[[str], None],
    recorder: Recorder | None = None,
) -> Descent:
    """Return steps as a device runs them best: joint ones are recorded on CUDA.

    Parameters
    ----------
    device : torch.device
    steps : Descent
    note : callable
        Told where recording failed, and why: steps are then run as they are.
    recorder : Recorder, optional
        In the place of CUDA's.
    """
    if not isinstance(steps, JointDescent) or (device.type != "cuda" and recorder is None):
        return steps
    try:
        return RecordedDescent(steps, CudaRecorder(device) if recorder is None else recorder)
    except RuntimeError as error:
        note(f"A step could not be recorded as a CUDA graph ({first_line(error)}): steps take longer.")
        return steps
