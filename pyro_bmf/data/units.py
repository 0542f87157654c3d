"""The unit that inference works in: ratings less their training mean, by their standard deviation.

Priors, the start of noise and the steps of an optimiser are numbers, and what they mean must not depend on
whether ratings are written from 1 to 5 or from 100 to 500. A fit converts ratings to standard units in
float64 before anything else, and its posterior converts back at its border.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from .ratings import Ratings
from .scale import RatingScale, grid

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """What standard units of ratings are.

    Attributes
    ----------
    centre, spread : float
        What is taken away, and what is divided by: of ratings, or of their levels' positions where there is a
        step, so that the same positions give the same bits whatever the levels are called.
    low, step : float
        Lowest level, and distance of levels; a step of 0 for ratings that are taken as they are.
    """

    centre: float = 0.0
    spread: float = 1.0
    low: float = 0.0
    step: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that convert nothing."""
        numbers = (self.centre, self.spread, self.low, self.step)
        if not all(math.isfinite(number) for number in numbers) or self.spread <= 0.0 or self.step < 0.0:
            raise DataError(f"{self} are not units: the spread must be positive, and every number finite.")

    @classmethod
    def of(cls, train: Ratings, *, centred: bool = True) -> Units:
        """Return the units of training ratings; `centred` says whether their mean is taken away.

        Ratings that are all equal, or none, keep their spread: it is one.
        """
        low, step = (train.scale.low, train.scale.step or 0.0) if centred else (0.0, 0.0)
        values = cls(low=low, step=step)._places(train.ratings)
        centre = float(values.mean()) if centred and len(values) else 0.0
        # In two passes: of a large shift nothing is left in the squares.
        spread = math.sqrt(float(np.mean((values - values.mean()) ** 2))) if len(values) else 0.0
        rounding = 1e-12 * float(np.abs(values).max()) if len(values) else 0.0
        if not spread > rounding:
            spread = 1.0 if step or not centred else (train.scale.high - train.scale.low) / 2.0
        return cls(centre, spread, low, step)

    @property
    def identity(self) -> bool:
        """Whether standard units are the ratings' own."""
        return self == Units()

    @property
    def shift(self) -> float:
        """The rating that is nought in standard units."""
        return self.low + self.step * self.centre if self.step else self.centre

    @property
    def scale(self) -> float:
        """How many units of the ratings one standard unit is."""
        return self.step * self.spread if self.step else self.spread

    def standard(self, ratings: ArrayLike) -> Floats:
        """Return ratings, which are levels where there is a step, in standard units, float64."""
        if self.identity:
            return np.asarray(ratings, dtype=np.float64)
        result: Floats = (self._places(ratings) - self.centre) / self.spread
        return result

    def raw(self, values: ArrayLike) -> Floats:
        """Return ratings whose standard units are given; next to a level, with a step, is that level."""
        given = np.asarray(values, dtype=np.float64)
        if self.identity:
            return given
        if not self.step:
            return given * self.spread + self.centre
        places = given * self.spread + self.centre
        level = np.round(places)
        places = np.where(np.abs(places - level) < 1e-6, level, places)
        return grid(self.low, self.step, places)

    def of_ratings(self, ratings: Ratings) -> Ratings:
        """Return ratings, and their scale, in standard units."""
        if self.identity:
            return ratings
        scale = ratings.scale
        low, high = self.standard([scale.low, scale.high]).tolist()
        step = None if scale.step is None else scale.step / self.scale
        if step is not None:
            high = low + step * round((scale.high - scale.low) / scale.step)  # type: ignore[operator]
        return replace(
            ratings,
            ratings=self.standard(ratings.ratings),
            scale=RatingScale(low, high, step, scale.source),
        )

    def to_dict(self) -> dict[str, float]:
        """Return the content as a plain dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Units:
        """Rebuild what `to_dict` gave."""
        return cls(**{name: float(content[name]) for name in ("centre", "spread", "low", "step")})

    def _places(self, ratings: ArrayLike) -> Floats:
        values = np.asarray(ratings, dtype=np.float64)
        if not self.step:
            return values
        places: Floats = np.round((values - self.low) / self.step)
        return places


#: Of ratings that are left as they are.
AS_GIVEN = Units()
