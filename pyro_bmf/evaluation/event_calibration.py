"""Whether probabilities of events of pairs come true as often as they say, with errors clustered by user."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EventGroup:
    """Events of one group of pairs.

    Attributes
    ----------
    group : str
    n_pairs : int
    expected, observed : float
        Sum of the probabilities, and number of events.
    ratio, se : float
        Observed over expected, and its standard error, clustered by user.
    """

    group: str
    n_pairs: int
    expected: float
    observed: float
    ratio: float
    se: float

    @property
    def within(self) -> bool:
        """Whether the ratio is between 0.9 and 1.1, or within two standard errors of 1."""
        return 0.9 <= self.ratio <= 1.1 or abs(self.ratio - 1.0) <= 2.0 * self.se

    def to_dict(self) -> dict[str, Any]:
        """Return the content, with the verdict."""
        return asdict(self) | {"within": self.within}


def event_group(group: str, p: Floats, true: NDArray[np.bool_], users: Ints) -> EventGroup:
    """Compare probabilities (n,) of events with which of them came true; `users` are the clusters.

    The ratio's error is that of a ratio of sums over users: the root of the sum of squares of each user's
    events less the ratio times what was expected, over the sum of what was expected.
    """
    expected, observed = float(p.sum()), float(true.sum())
    if expected <= 0.0:
        return EventGroup(group, len(p), expected, observed, float("nan"), float("nan"))
    ratio = observed / expected
    of_user = np.bincount(users, true) - ratio * np.bincount(users, p)
    return EventGroup(group, len(p), expected, observed, ratio, float(np.sqrt((of_user**2).sum()) / expected))


def mass_groups(p: Floats, n: int = 10) -> Ints:
    """Return which of `n` groups of equal probability mass each pair is in, 0 for the most probable."""
    order = np.argsort(-p, kind="stable")
    mass = np.cumsum(p[order])
    found = np.empty(len(p), dtype=np.int64)
    if len(p):
        found[order] = np.minimum((mass - 0.5 * p[order]) / mass[-1] * n, n - 1).astype(np.int64)
    return found


def thirds(counts: Ints, weights: NDArray[Any]) -> Ints:
    """Return which third each row is in by its count, 0 for the lowest, thirds of equal weight."""
    order = np.argsort(counts, kind="stable")
    mass = np.cumsum(weights[order].astype(np.float64))
    found = np.zeros(len(counts), dtype=np.int64)
    if len(counts) and mass[-1] > 0:
        found[order] = np.minimum((mass - 0.5 * weights[order]) / mass[-1] * 3, 2).astype(np.int64)
    return found


def mean_log_score(p: Floats, true: NDArray[np.bool_]) -> float:
    """Return the mean log-probability of what happened, in nats a pair."""
    inside = np.clip(p, 1e-12, 1.0 - 1e-12)
    return float(np.where(true, np.log(inside), np.log1p(-inside)).mean())
