"""A draw of one number from a density known up to a constant, from where a chain stands: slice sampling.

Neal (2003), doi 10.1214/aos/1056562461: an interval steps out from the current point until both its ends are
below the slice, and shrinks to the current point until a draw of it is above. Exact whatever the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

#: Steps outwards and inwards: never needed where the density falls off and the width is of its order.
_STEPS = 1_000


def slice_draw(log_density: Callable[[float], float], width: float, at: float = 0.0) -> float:
    """Draw a number that leaves the density as it is.

    Parameters
    ----------
    log_density : callable
        Up to a constant; finite at `at`, and falling at both ends.
    width : float
        Of the first interval: about the density's own, and not a function of where the chain stands.
    at : float
        The current number.
    """
    drawn: list[float] = torch.rand(_STEPS, dtype=torch.float64).tolist()
    uniforms = iter(drawn)
    height = log_density(at) + math.log(max(next(uniforms), 1e-300))
    left = at - width * next(uniforms)
    right = left + width
    for _ in range(_STEPS):
        if log_density(left) <= height:
            break
        left -= width
    for _ in range(_STEPS):
        if log_density(right) <= height:
            break
        right += width
    for share in uniforms:
        there = left + share * (right - left)
        if log_density(there) > height:
            return there
        if there < at:
            left = there
        else:
            right = there
    return at
