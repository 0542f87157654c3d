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

import torch
from torch import Tensor

from ...numerics import factorise
from ..kernel import Entries, conjugate_gradient
from .chain_state import SideState
from .coarse_level import CoarseLevel
from .mean_information import Information


@dataclass(frozen=True)
class Solver:
    """When conjugate gradients end: at a residual relative to the target, or after so many steps."""

    tolerance: float = 1e-3
    max_steps: int = 100


class MeansSystem:
    """The system for one side's location and implicit weights.

    Attributes
    ----------
    steps : int
        Steps of conjugate gradients so far.
    last : int
        Those of the last draw, before which nobody looks whether they are enough.
    """

    def __init__(self, entries: Entries, coarse: CoarseLevel, solver: Solver) -> None:
        self.entries, self.coarse, self.solver = entries, coarse, solver
        self.steps = self.last = 0

    def draw(
        self,
        own: SideState,
        information: Information,
        said: Tensor,
        location_precision: Tensor,
        implicit: bool,
    ) -> None:
        """Draw location and, if there is implicit feedback, its weights, in place.

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
        implicit : bool
        """
        entries, n = self.entries, len(own.rows)
        location_prior = location_precision / n
        location_noise = factorise.cholesky(location_prior) @ torch.randn_like(own.location)
        location_block = information.total() / n + location_prior

        def back(rows: Tensor) -> Tensor:
            return rows.sum(0, keepdim=True) / math.sqrt(n)

        if not implicit:
            solved = factorise.solve(location_block, back(said)[0] + location_noise)
            own.location = solved / math.sqrt(n)
            return

        weights_noise = own.weights_precision.sqrt() * torch.randn_like(own.weights)
        target = torch.cat([entries.means_back(said) + weights_noise, back(said) + location_noise])

        def operator(joined: Tensor) -> Tensor:
            weights, location = joined[:-1], joined[-1:]
            means = entries.means(weights) + location / math.sqrt(n)
            image = information.apply(means)
            return torch.cat(
                [
                    entries.means_back(image) + own.weights_precision * weights,
                    back(image) + location @ location_prior,
                ]
            )

        blocks = information.block_solver(own.weights_precision, location_block)
        coarse_root = self.coarse.factor(information, own.weights_precision, location_prior)

        def precondition(left: Tensor) -> Tensor:
            return blocks(left) + self.coarse.solve(left, coarse_root)

        joined, steps, _ = conjugate_gradient(
            operator,
            precondition,
            target,
            torch.cat([own.weights, own.location.unsqueeze(0) * math.sqrt(n)]),
            tolerance=self.solver.tolerance,
            max_steps=self.solver.max_steps,
            likely=self.last,
        )
        own.weights, own.location = joined[:-1].contiguous(), joined[-1] / math.sqrt(n)
        self.steps += steps
        self.last = steps
