"""The rating scale: declared by a named set, given by the user, or inferred from the ratings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError

MAX_LEVELS = 101  # more distinct values than this are taken for a continuous scale when inferring
# Beyond, squares of ratings in single precision are infinite, or nothing.
_LARGEST, _SMALLEST = 1e30, 1e-30
_TOLERANCE = 1e-6  # of a step: how far a rating may lie from its level


@dataclass(frozen=True)
class RatingScale:
    """The range of the ratings and, when they are discrete, the step between levels.

    Attributes
    ----------
    low, high
        Smallest and largest rating, in rating units.
    step
        Distance of neighbouring levels; None for a continuous scale.
    source
        ``"declared"`` (by a named set), ``"given"`` (by the user) or ``"inferred"`` (from the ratings).
    """

    low: float
    high: float
    step: float | None
    source: str = "given"

    def __post_init__(self) -> None:
        """Check the three numbers against each other."""
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise DataError(f"rating scale {self}: low must be below high, both finite, as in 1:5:1")
        if max(abs(self.low), abs(self.high)) > _LARGEST or self.high - self.low < _SMALLEST:
            raise DataError(
                f"rating scale {self}: numbers beyond {_LARGEST:g}, or less than {_SMALLEST:g} apart, cannot "
                "be computed with: write the ratings in another unit"
            )
        if self.step is not None:
            steps = (self.high - self.low) / self.step if math.isfinite(self.step) and self.step > 0 else 0.5
            if abs(steps - round(steps)) > _TOLERANCE:
                raise DataError(
                    f"rating scale {self}: the step must be positive and lead from {self.low:g} to "
                    f"{self.high:g} in whole steps, as in 1:5:1 or 0.5:5:0.5"
                )
            if steps > 10_000:
                raise DataError(f"rating scale {self}: over 10,000 levels; leave the step out (continuous)")
        if self.source not in ("declared", "given", "inferred"):
            raise DataError(f"rating scale source {self.source!r}: use declared, given or inferred")

    def __str__(self) -> str:
        """Write the scale as it is given on the command line."""
        step = "" if self.step is None else f":{self.step:g}"
        return f"{self.low:g}:{self.high:g}{step}"

    @property
    def liked_above(self) -> float:
        """Above which rating an item counts as liked: 3 on a scale that ends at 5, else the middle."""
        return 3.0 if self.high == 5.0 else (self.low + self.high) / 2

    @cached_property
    def levels(self) -> NDArray[np.float64] | None:
        """Ascending levels, shape (n_levels,), or None for a continuous scale."""
        if self.step is None:
            return None
        count = round((self.high - self.low) / self.step) + 1
        levels = grid(self.low, self.step, np.arange(count))
        levels.flags.writeable = False
        return levels

    @classmethod
    def parse(cls, text: str, source: str = "given") -> RatingScale:
        """Read ``low:high`` (continuous) or ``low:high:step``; raises DataError with an example."""
        try:
            numbers = [float(part) for part in text.split(":")]
        except ValueError:
            numbers = []
        if len(numbers) not in (2, 3):
            raise DataError(
                f"rating scale {text!r}: write low:high:step as in 1:5:1, or low:high (continuous)"
            )
        return cls(numbers[0], numbers[1], numbers[2] if len(numbers) == 3 else None, source)

    @classmethod
    def infer(cls, ratings: NDArray[np.float64]) -> RatingScale:
        """Infer the scale: levels when the distinct values lie on a grid of at most 101, else continuous.

        Values that the ratings skip count as levels: 1, 2, 4, 5 gives 1:5:1. Raises DataError when all
        ratings are equal, as then nothing tells the scale.
        """
        distinct = _distinct(ratings)
        if distinct is None:
            return cls(float(ratings.min()), float(ratings.max()), None, "inferred")
        if len(distinct) == 1:
            raise DataError(
                f"all ratings are {distinct[0]:g}: the scale cannot be inferred; give it "
                "(--scale 1:5:1, in Python scale='1:5:1')"
            )
        step = float(f"{np.diff(distinct).min():.9g}")
        low, high = float(distinct[0]), float(distinct[-1])
        position = (distinct - low) / step
        on_grid = np.abs(position - np.round(position)).max() <= _TOLERANCE
        if on_grid and round(position[-1]) < MAX_LEVELS:
            return cls(low, high, step, "inferred")
        return cls(low, high, None, "inferred")

    def clip(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return `values` limited to [low, high], same shape."""
        return np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)

    def nearest_level(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the level nearest to each value (ties go up); on a continuous scale only clip."""
        values = self.clip(values)
        if self.step is None or self.levels is None:
            return values
        return self.levels[np.floor((values - self.low) / self.step + 0.5).astype(np.int64)]

    def off_scale(self, ratings: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which ratings lie outside [low, high] or, on a discrete scale, between its levels."""
        if self.step is None:
            return (ratings < self.low) | (ratings > self.high)
        position = (ratings - self.low) / self.step
        nearest = np.round(position)
        off: NDArray[np.bool_] = np.abs(position - nearest) > _TOLERANCE
        return off | (nearest < 0) | (nearest > round((self.high - self.low) / self.step))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {"low": self.low, "high": self.high, "step": self.step, "source": self.source}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RatingScale:
        """Rebuild what `to_dict` gave."""
        step = content["step"]
        return cls(
            float(content["low"]),
            float(content["high"]),
            None if step is None else float(step),
            str(content["source"]),
        )


def grid(low: float, step: float, places: NDArray[Any]) -> NDArray[np.float64]:
    """Return low + step * places, rounded to ten decimals of a step below one: 0.1 + 0.2 is 0.3."""
    decimals = 10 + max(0, -math.floor(math.log10(step)))
    result: NDArray[np.float64] = np.round(low + step * places, decimals)
    return result


def _distinct(ratings: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the sorted distinct values, or None when there are more than MAX_LEVELS."""
    # A first look at a part settles most continuous scales without sorting everything.
    head = np.unique(ratings[:10_000])
    if len(head) > MAX_LEVELS:
        return None
    rest = ratings[~np.isin(ratings, head)] if len(ratings) > 10_000 else ratings[:0]
    distinct: NDArray[np.float64] = np.union1d(head, rest)
    return distinct if len(distinct) <= MAX_LEVELS else None


def level_positions(ratings: ArrayLike, levels: ArrayLike) -> NDArray[np.int64]:
    """Return the (n,) position of each rating among `levels`, the ascending levels of a discrete scale.

    Raises
    ------
    DataError
        If a rating is none of the levels (to 1e-6 of the distance between them).
    """
    values = np.asarray(ratings, dtype=np.float64)
    grid = np.asarray(levels, dtype=np.float64)
    positions = np.searchsorted((grid[1:] + grid[:-1]) / 2, values).astype(np.int64)
    off = ~(np.abs(values - grid[positions]) <= 1e-6 * np.diff(grid).min())
    if off.any():
        raise DataError(
            f"the rating {values[off][0]:g} is not on the scale {grid[0]:g} to {grid[-1]:g} ({grid.size}"
            " levels); declare the scale that the ratings have, or a continuous one."
        )
    return positions
