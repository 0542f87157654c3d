r"""The draw of a side's location and implicit weights together, with the side's rows integrated out.

It is what lets a chain mix: location and weights given rows barely move, as a row's prior mean and its
residual explain each other. The draw is from a Normal with precision

.. math:: A^T G A + \mathrm{diag}(\lambda),

A the scaled mask beside a column of ones and G block-diagonal (`mean_information`). It is made by solving one
perturbed system (Papandreou and Yuille 2010) by conjugate gradients: nothing is ever factorised that is
larger than D x D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...numerics import factorise, room
from ...numerics.segment_sums import Segments
from ..conjugate_gradients import Progress, Steps, conjugate_gradient, take_step, take_steps
from ..few_entries import RowPlan
from ..kernel import Entries
from ..recording import NOT_RECORDED, Recorded, Recording
from .chain_state import SideState
from .coarse_level import CoarseLevel, CoarseSolver
from .mean_information import ColumnPlan, Information
from .mean_information import Solver as BlockSolver


@dataclass(frozen=True)
class Solver:
    """When conjugate gradients end: at a residual relative to the target, or after so many steps."""

    tolerance: float = 1e-3
    max_steps: int = 100


def _back(rows: Tensor) -> Tensor:
    """Return what the transpose of the location's column makes of rows (n, D): (1, D)."""
    return rows.sum(0, keepdim=True) / math.sqrt(len(rows))


@dataclass(frozen=True, eq=False)
class Operator:
    """The system's matrix, applied to weights and, last, the scaled location: (n_columns + 1, D).

    Attributes
    ----------
    entries : Entries
    information : Information
        G_i.
    weights_precision : Tensor, shape (D,)
    location_prior : Tensor, shape (D, D)
        Of the scaled location.
    """

    entries: Entries
    information: Information
    weights_precision: Tensor
    location_prior: Tensor

    def __call__(self, joined: Tensor) -> Tensor:
        """Return the image."""
        weights, location = joined[:-1], joined[-1:]
        means = self.entries.means(weights) + location / math.sqrt(self.entries.n_rows)
        image = self.information.apply(means)
        return torch.cat(
            [
                self.entries.means_back(image) + self.weights_precision * weights,
                _back(image) + location @ self.location_prior,
            ]
        )


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """Block Jacobi, and what a coarse level adds to it."""

    blocks: BlockSolver
    coarse: CoarseSolver

    def __call__(self, left: Tensor) -> Tensor:
        """Return what is left of the system, preconditioned: (n_columns + 1, D)."""
        return self.blocks(left) + self.coarse(left)


@dataclass(frozen=True, eq=False)
class Begun:
    """A system that is to be solved, (n_columns + 1, D).

    Attributes
    ----------
    operator : Operator
    precondition : Preconditioner
    target, start : Tensor
        Its right side, perturbed, and where solving begins.
    at : Progress or None
        The progress at that start, on devices whose hosts wait.
    """

    operator: Operator
    precondition: Preconditioner
    target: Tensor
    start: Tensor
    at: Progress | None


#: A system and where its solution stands.
_Step = tuple[Any, Any, Progress]


class RecordedSteps:
    """Steps of conjugate gradients, recorded at the first draw and run again in all others.

    A system is copied to where the recording reads it. Where nothing is recorded, steps are taken as they
    are.
    """

    #: What is the same in every draw.
    FIXED = (Entries, Segments, RowPlan, ColumnPlan, CoarseLevel)

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.recorded: Recorded[_Step] | None = None

    def __call__(
        self, operator: Any, precondition: Any, at: Progress, tolerance: float, times: int
    ) -> Progress:
        """Take so many steps, and return where they led."""
        given = (operator, precondition, at)
        if self.recorded is None and self.recording.recorder is not None:
            self.recorded = self.recording.of(
                "A step of the solver", given, lambda own: take_step(*own, tolerance), fixed=self.FIXED
            )
            if self.recorded is None:
                self.recording = NOT_RECORDED
        if self.recorded is None or not self.recorded.usable:
            return take_steps(operator, precondition, at, tolerance, times)
        placed: Progress = self.recorded.place[2]
        if at is not placed:
            self.recorded.fill(given)
        for _ in range(times):
            self.recorded.replay()
        return placed


class MeansSystem:
    """The system for one side's location and implicit weights.

    Attributes
    ----------
    steps : int
        Steps of conjugate gradients so far.
    last : int
        Those of the last draw, before which nobody looks whether they are enough.
    """

    def __init__(
        self, entries: Entries, solver: Solver | None = None, recording: Recording = NOT_RECORDED
    ) -> None:
        self.entries, self.solver = entries, Solver() if solver is None else solver
        self.steps = self.last = 0
        self._steps: Steps = RecordedSteps(recording)

    @cached_property
    def coarse(self) -> CoarseLevel:
        """The preconditioner's second level: built for the first draw of weights."""
        return CoarseLevel.build(self.entries)

    def draw_location(
        self, own: SideState, information: Information, said: Tensor, location_precision: Tensor
    ) -> Tensor:
        """Draw the location (D,) of a side without implicit feedback; parameters as of `begin`."""
        n = len(own.rows)
        block, noise = self._location(own, information, location_precision / n)
        solved = factorise.solve(block, _back(said)[0] + noise)
        return solved / math.sqrt(n)

    def begin(
        self, own: SideState, information: Information, said: Tensor, location_precision: Tensor
    ) -> Begun:
        """Return the system whose solution is a draw of location and weights.

        The location is the weight of one more column that every row has, scaled by the root of the number
        of rows as popular columns are.

        Parameters
        ----------
        own : SideState
        information : Information
            G_i: what each row's ratings say of its prior mean.
        said : Tensor, shape (n, D)
            G_i times what they say it is, perturbed.
        location_precision : Tensor, shape (D, D)
            Of the location's prior.
        """
        entries, n = self.entries, len(own.rows)
        location_prior = location_precision / n
        location_block, location_noise = self._location(own, information, location_prior)
        weights_noise = own.weights_precision.sqrt() * torch.randn_like(own.weights)
        target = torch.cat([entries.means_back(said) + weights_noise, _back(said) + location_noise])

        blocks, restricted = information.block_solver(
            own.weights_precision, location_block, self.coarse.pairs()
        )
        operator = Operator(entries, information, own.weights_precision, location_prior)
        coarse = self.coarse.solver(information, own.weights_precision, location_prior, restricted)
        precondition = Preconditioner(blocks, coarse)
        start = torch.cat([own.weights, own.location.unsqueeze(0) * math.sqrt(n)])
        waits = room.waits(start.device)
        at = Progress.begin(operator, precondition, target, start) if waits else None
        return Begun(operator, precondition, target, start, at)

    def finish(self, own: SideState, begun: Begun) -> None:
        """Solve a system, and put location and weights in their place."""
        joined, steps, _ = conjugate_gradient(
            begun.operator,
            begun.precondition,
            begun.target,
            begun.start,
            tolerance=self.solver.tolerance,
            max_steps=self.solver.max_steps,
            likely=self.last,
            steps=self._steps,
            begun=begun.at,
        )
        # Copies, as a recorded solver's next draw is at the same place.
        own.weights, own.location = joined[:-1].clone(), joined[-1] / math.sqrt(len(own.rows))
        self.steps += steps
        self.last = steps

    @staticmethod
    def _location(own: SideState, information: Information, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scaled location's block of the system, (D, D), and noise of its prior, (D,)."""
        noise = factorise.cholesky(prior) @ torch.randn_like(own.location)
        return information.total() / len(own.rows) + prior, noise
