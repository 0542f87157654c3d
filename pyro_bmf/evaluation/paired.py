"""Differences between two systems on the same test ratings, paired and bootstrapped by user."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation.bootstrap import Floats, bootstrap_by_user
from pyro_bmf.evaluation.evaluate import Evaluation
from pyro_bmf.evaluation.metrics import RatingMetric, ranking_metrics, rating_metrics


@dataclass(frozen=True)
class PairedDifference:
    """How much a figure of system `a` differs from that of `b` on identical ratings.

    Attributes
    ----------
    metric
        The figure; smaller is better but for ``recall`` and ``ndcg``.
    a, b
        Names of the systems.
    value_a, value_b
        Their figures.
    difference
        a less b.
    se
        Bootstrap standard error of the difference.
    low, high
        2.5 and 97.5 percentiles of the bootstrap distribution of the difference.
    n_users
        Users resampled.
    draws, seed
        Settings of the bootstrap.
    """

    metric: str
    a: str
    b: str
    value_a: float
    value_b: float
    difference: float
    se: float
    low: float
    high: float
    n_users: int
    draws: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the content as a plain dict."""
        return asdict(self)


def paired_difference(
    metric: str, a: Evaluation, b: Evaluation, *, draws: int = 1000, seed: int = 0
) -> PairedDifference:
    """Compare two systems evaluated on the same ratings, by a paired bootstrap over users.

    Parameters
    ----------
    metric
        ``rmse``, ``mae`` (unclipped), ``nll``, ``rps``, ``density_nll``; or a ranking figure as
        ``full:recall@20``, ``rated:ndcg@50``.
    a, b
        Two evaluations of one part of one split.
    draws, seed
        Settings of the bootstrap.

    Raises
    ------
    SettingsError
        If the evaluations are of different splits, parts or ratings, or one lacks the metric.
    """
    if a.split_hash != b.split_hash or a.part != b.part:
        raise SettingsError(
            f"{a.system} and {b.system} were evaluated on different splits or parts"
            f" ({a.split_hash[:12]} {a.part}, {b.split_hash[:12]} {b.part}): evaluate both on one."
        )
    users, left, right = _paired_values(metric, a, b)
    pair = np.column_stack([left, right])
    root = any(one.root for one in _of_ratings(a) if one.name == metric)
    means = bootstrap_by_user(pair, users, root=root, draws=draws, seed=seed)
    values = np.sqrt(pair.mean(axis=0)) if root else pair.mean(axis=0)
    differences = means[:, 0] - means[:, 1]
    low, high = np.quantile(differences, [0.025, 0.975])
    return PairedDifference(
        metric=metric,
        a=a.system,
        b=b.system,
        value_a=float(values[0]),
        value_b=float(values[1]),
        difference=float(values[0] - values[1]),
        se=float(differences.std(ddof=1)),
        low=float(low),
        high=float(high),
        n_users=int(np.unique(users).size),
        draws=draws,
        seed=seed,
    )


def _paired_values(metric: str, a: Evaluation, b: Evaluation) -> tuple[NDArray[np.int64], Floats, Floats]:
    if any(one.name == metric for one in _of_ratings(a)):
        left, right = a.per_rating, b.per_rating
        same = np.array_equal(left.users, right.users) and np.array_equal(left.items, right.items)
        if not (same and np.array_equal(left.ratings, right.ratings)):
            raise SettingsError(f"{a.system} and {b.system} were evaluated on different ratings.")
        return left.users, left.values(metric, a.system), right.values(metric, b.system)
    first, second = _ranking_values(metric, a), _ranking_values(metric, b)
    if not np.array_equal(first[0], second[0]):
        raise SettingsError(
            f"{metric} of {a.system} and {b.system} was measured on different users: use one threshold."
        )
    return first[0], first[1], second[1]


def _ranking_values(metric: str, evaluation: Evaluation) -> tuple[NDArray[np.int64], Floats]:
    for ranking in evaluation.ranking:
        for one in ranking_metrics(evaluation.metrics):
            if metric == f"{ranking.protocol}:{one.column(ranking.n)}":
                return ranking.users, ranking.user_values[one.name]
    names = ", ".join(one.name for one in _of_ratings(evaluation))
    raise SettingsError(
        f"{evaluation.system} was not evaluated by {metric!r}: choose from {names}, or a ranking figure that "
        "was measured, such as 'full:recall@20'."
    )


def _of_ratings(evaluation: Evaluation) -> list[RatingMetric]:
    """Return what two systems can be compared by, rating by rating."""
    return [one for one in rating_metrics(evaluation.metrics) if one.pairable]
