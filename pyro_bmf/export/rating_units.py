"""What an export says in the ratings' own unit, where the fit was in standard units.

A rating being the product of two factors, a factor is in units of the root of one; biases and noise are in
units of a rating, and predictors and cut points are ratings.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.units import Units

#: By which power of the unit numbers are multiplied.
_POWERS = {
    **{f"{side}_factors": 0.5 for side in ("user", "item")},
    **{f"{side}_factors_location": 0.5 for side in ("user", "item")},
    **{f"{side}_factors_precision": -1.0 for side in ("user", "item")},
    **{
        f"{side}_{name}": 1.0 for side in ("user", "item") for name in ("bias", "bias_location", "bias_scale")
    },
    "uv": 1.0,
    "noise": 1.0,
}
#: What is moved too.
_PLACES = ("eta", "cuts", "centre")


def in_ratings(name: str, values: NDArray[Any], units: Units) -> NDArray[Any]:
    """Return numbers of a site, hyperparameter or functional in the ratings' unit, of the same type."""
    if units.identity:
        return values
    if name in _PLACES:
        moved: NDArray[Any] = (values * units.scale + units.shift).astype(values.dtype)
        return moved
    if name in _POWERS:
        scaled: NDArray[Any] = (values * units.scale ** _POWERS[name]).astype(values.dtype)
        return scaled
    return values


def log_jacobian(site: str, n_factors: int, units: Units) -> float:
    """Return what a row's log-density in the ratings' unit has more than in standard units."""
    width = 1 if site.endswith("_bias") else n_factors
    return -width * _POWERS[site] * math.log(units.scale)


class InRatings:
    """A sink of groups that takes numbers in standard units and passes them on in the ratings'."""

    def __init__(self, sink: Any, units: Units, n_factors: int) -> None:
        self._sink, self._units, self._n_factors = sink, units, n_factors

    def put(
        self, group: str, name: str, draws: slice | None, values: NDArray[Any], pairs: slice | None = None
    ) -> None:
        """Pass a block on."""
        if group == "log_prior":
            more = log_jacobian(name, self._n_factors, self._units)
            values = (values + more).astype(values.dtype) if more else values
        elif group in ("posterior", "prior", "constant_data"):
            values = in_ratings(name, np.asarray(values), self._units)
        self._sink.put(group, name, draws, values, pairs)
