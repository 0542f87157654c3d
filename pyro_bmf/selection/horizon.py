"""Which ratings a probability of being chosen is about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Horizon:
    """Which ratings a probability of being chosen is about.

    Attributes
    ----------
    seen : float
        Share of the completed data that is known: the pair is not among it.
    share : float
        Share that it may be among.
    words : str
        What tables call it.
    """

    seen: float
    share: float
    words: str

    def chosen(self, rate: Floats) -> Floats:
        """Return the probability of being among the share, of pairs that are not among what is known."""
        found: Floats = self.share * rate / (1.0 - self.seen * rate)
        return found

    def steepness(self, rate: Floats) -> Floats:
        """Return the derivative of `chosen` by the logit of the rate."""
        found: Floats = self.share * rate * (1.0 - rate) / (1.0 - self.seen * rate) ** 2
        return found
