"""A draw of one number from a density known up to a constant, from where a chain stands: slice sampling.

Neal (2003), doi 10.1214/aos/1056562461: an interval steps out from the current point until both its ends are
below the slice, and shrinks to the current point until a draw of it is above. Exact whatever the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

#: Steps outwards and inwards: never needed where the density falls off and the width is of its order.
STEPS = 1_000
#: Draws from an interval, and steps outwards at either end, that are computed at once.
_AHEAD, _STEPS_AHEAD = 24, 3


class _Ahead:
    """A density that is known beforehand where it will probably be asked for."""

    def __init__(self, many: Callable[[list[float]], list[float]]) -> None:
        self.many, self.known = many, dict[float, float]()

    def look(self, likely: list[float]) -> None:
        """Compute it at several numbers at once."""
        self.known |= zip(likely, self.many(likely), strict=True)

    def __call__(self, t: float) -> float:
        """Return it at a number."""
        if t not in self.known:
            self.look([t])
        return self.known[t]


def slice_draw(
    log_density: Callable[[float], float],
    width: float,
    at: float = 0.0,
    *,
    many: Callable[[list[float]], list[float]] | None = None,
) -> float:
    """Draw a number that leaves the density as it is.

    Parameters
    ----------
    log_density : callable
        Up to a constant; finite at `at`, and falling at both ends.
    width : float
        Of the first interval: about the density's own, and not a function of where the chain stands.
    at : float
        The current number.
    many : callable, optional
        Gives the density at several numbers, where a call is dear and costs hardly less for one: those that
        are probably asked for are then computed at once, twice a draw.
    """
    # The host's generator, whatever the device: none is waited for.
    drawn = torch.rand(STEPS, dtype=torch.float64).numpy()
    uniforms = map(float, drawn)  # as a rule one or two dozen of them are asked for
    chance = math.log(max(next(uniforms), 1e-300))
    left = at - width * next(uniforms)
    right = left + width
    ahead = None if many is None else _Ahead(many)
    if ahead is not None:
        log_density = ahead
        ahead.look([at, *_steps(left, -width), *_steps(right, width)])
    height = log_density(at) + chance
    for _ in range(STEPS):
        if log_density(left) <= height:
            break
        left -= width
    for _ in range(STEPS):
        if log_density(right) <= height:
            break
        right += width
    if ahead is not None:
        ahead.look(_shrinking(left, right, at, drawn[2 : 2 + _AHEAD].tolist()))
    for share in uniforms:
        there = left + share * (right - left)
        if log_density(there) > height:
            return there
        if there < at:
            left = there
        else:
            right = there
    return at


def _steps(end: float, width: float) -> list[float]:
    """Return an end of an interval and the next steps outwards."""
    found = [end]
    for _ in range(_STEPS_AHEAD):
        found.append(found[-1] + width)
    return found


def _shrinking(left: float, right: float, at: float, shares: list[float]) -> list[float]:
    """Return what is drawn from an interval that shrinks to `at` as long as nothing is above the slice."""
    found = []
    for share in shares:
        found.append(left + share * (right - left))
        if found[-1] < at:
            left = found[-1]
        else:
            right = found[-1]
    return found
