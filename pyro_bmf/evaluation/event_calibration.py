r"""Whether probabilities of events of pairs come true as often as they say.

The ratio of a group is observed over expected, :math:`\hat\rho = \sum_u o_u / \sum_u e_u` over users. Its
standard error is the larger of two. The one that is clustered by user,

.. math:: \Big(\sum_u (o_u - \hat\rho\, e_u)^2\Big)^{1/2} \Big/ \sum_u e_u,

knows that a user's events come together; but it is about what was observed, and is zero where nothing came
true, however little was expected. The other is the standard deviation that the ratio has if every
probability p is right and events are independent, :math:`(\sum p (1 - p))^{1/2} / \sum p`: no ratio says
anything against the probabilities by being nearer to 1 than that.

Of right probabilities at most one verdict in twenty is then "no", however few events are expected, where they
are spread over users: one event where 0.17 were expected, which happens one time in six, has a clustered
error of about one event.
"""

from __future__ import annotations

import math
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
        Observed over expected, and its standard error: clustered by user, and no less than what it is if the
        probabilities are right.
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

    The ratio's error is the larger of that of a ratio of sums over users (the root of the sum of squares of
    each user's events less the ratio times what was expected, over the sum of what was expected) and of the
    root of the sum of p (1 - p) over the same, which does not vanish where nothing came true.
    """
    expected, observed = float(p.sum()), float(true.sum())
    if expected <= 0.0:
        return EventGroup(group, len(p), expected, observed, float("nan"), float("nan"))
    ratio = observed / expected
    of_user = np.bincount(users, true) - ratio * np.bincount(users, p)
    variance = max(float((of_user**2).sum()), float((p * (1.0 - p)).sum()))
    return EventGroup(group, len(p), expected, observed, ratio, math.sqrt(variance) / expected)


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
