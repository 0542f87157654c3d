"""Conjugate gradients for symmetric positive definite systems, as a CPU and as a card take them.

On a CPU the residual is looked at after every step. A card is asked for many steps before the first look, as
its host would wait for each: what comes after the last step that is needed leaves all as it is, so that
results do not depend on how many were asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..numerics import room

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Progress:
    """Where the solution of a system stands; steps change it in place.

    Attributes
    ----------
    x : Tensor
    left : Tensor
        The residual: the target less the image of x.
    direction : Tensor
        Of the next step.
    product : Tensor, shape ()
        Of the residual and the preconditioned residual.
    size : Tensor, shape ()
        Norm of the target.
    residual : Tensor, shape ()
        Norm of `left`, relative to the target's.
    taken : Tensor, shape ()
        Steps that moved x.
    """

    x: Tensor
    left: Tensor
    direction: Tensor
    product: Tensor
    size: Tensor
    residual: Tensor
    taken: Tensor

    @classmethod
    def begin(cls, operator: Operator, precondition: Operator, target: Tensor, start: Tensor) -> Progress:
        """Return the progress before the first step: at zero, and done, for a target of zeros."""
        size = target.norm()
        x = torch.where(size > 0.0, start, 0.0)
        left = torch.where(size > 0.0, target - operator(x), 0.0)
        residual = left.norm() / size.clamp_min(torch.finfo(size.dtype).tiny)
        moved = precondition(left)
        return cls(x, left, moved.clone(), (left * moved).sum(), size, residual, torch.zeros_like(size))


def take_step(operator: Operator, precondition: Operator, at: Progress, tolerance: float) -> None:
    """Take a step in place, or none where the residual is small enough."""
    going = at.residual > tolerance
    image = operator(at.direction)
    length = torch.where(going, at.product / (at.direction * image).sum(), 0.0)
    at.x.add_(length * at.direction)
    at.left.sub_(length * image)
    at.residual.copy_(torch.where(going, at.left.norm() / at.size, at.residual))
    moved = precondition(at.left)
    after = (at.left * moved).sum()
    at.direction.copy_(torch.where(going, moved + (after / at.product) * at.direction, at.direction))
    at.product.copy_(torch.where(going, after, at.product))
    at.taken.add_(going)


class Steps(Protocol):
    """How several steps are taken."""

    def __call__(
        self, operator: Operator, precondition: Operator, at: Progress, tolerance: float, times: int
    ) -> Progress:
        """Take so many steps, and return where they led: `at` itself, or a place of its own."""


def take_steps(
    operator: Operator, precondition: Operator, at: Progress, tolerance: float, times: int
) -> Progress:
    """Take so many steps, one after the other."""
    for _ in range(times):
        take_step(operator, precondition, at, tolerance)
    return at


def conjugate_gradient(
    operator: Operator,
    precondition: Operator,
    target: Tensor,
    start: Tensor,
    *,
    tolerance: float,
    max_steps: int,
    likely: int = 0,
    steps: Steps = take_steps,
    begun: Progress | None = None,
) -> tuple[Tensor, int, float]:
    """Solve ``operator(x) = target`` for a symmetric positive definite operator.

    Parameters
    ----------
    operator, precondition : callable
    target, start : Tensor
    tolerance : float
        Of the residual's norm, relative to the target's.
    max_steps : int
    likely : int
        How many steps it will probably take: a card is asked for so many before the first look. The result
        does not depend on this.
    steps : Steps
        How a card takes them.
    begun : Progress, optional
        Where a card begins, `Progress.begin` of the same system; it is changed in place.

    Returns
    -------
    x : Tensor
    steps : int
    residual : float
        Norm of what is left, relative to the target's.
    """
    if room.waits(target.device):
        at = Progress.begin(operator, precondition, target, start) if begun is None else begun
        return _ahead(operator, precondition, at, tolerance, max_steps, max(likely, 1), steps)
    x = start.clone()
    left = target - operator(x)
    size = float(target.norm())
    if size == 0.0:
        return torch.zeros_like(target), 0, 0.0
    residual = float(left.norm()) / size
    moved = precondition(left)
    direction, product = moved.clone(), (left * moved).sum()
    taken = 0
    while taken < max_steps and residual > tolerance:
        image = operator(direction)
        length = product / (direction * image).sum()
        x += length * direction
        left -= length * image
        taken += 1
        residual = float(left.norm()) / size
        moved = precondition(left)
        after = (left * moved).sum()
        direction = moved + (after / product) * direction
        product = after
    return x, taken, residual


def _ahead(
    operator: Operator,
    precondition: Operator,
    at: Progress,
    tolerance: float,
    max_steps: int,
    likely: int,
    steps: Steps,
) -> tuple[Tensor, int, float]:
    """Do as `conjugate_gradient` with a look at the residual after many steps, and not after each."""
    asked = taken = 0
    found = float("inf")
    while asked < max_steps:
        times = min(likely, max_steps - asked)
        at = steps(operator, precondition, at, tolerance, times)
        asked += times
        read: list[float] = torch.stack([at.taken, at.residual]).tolist()
        taken, found = int(read[0]), read[1]
        if not found > tolerance:
            break
        likely = max(likely // 4, 1)
    return at.x, taken, found
