"""Ours against each peer on the same ratings: per seed, and over seeds by a joint bootstrap of users."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_bmf.evaluation import Evaluation, PerRating, paired_difference

METRICS = ("rmse", "nll", "rps")
DRAWS = 2000


def per_seed(ours: Evaluation, peer: Evaluation) -> dict[str, dict[str, float]]:
    """Return `pyro_bmf.evaluation.paired_difference` of each metric: ours less the peer."""
    found = {}
    for metric in METRICS:
        one = paired_difference(metric, ours, peer, draws=DRAWS)
        found[metric] = {"difference": one.difference, "se": one.se, "low": one.low, "high": one.high}
    return found


def over_seeds(pairs: list[tuple[PerRating, PerRating]], n_users: int) -> dict[str, dict[str, Any]]:
    """Pool the seeds' paired differences.

    The figure is the mean over seeds of each seed's difference. A draw of the bootstrap resamples the users
    once and applies that to every seed's test ratings (a user's ratings go in or out together, in all splits
    at once, as a user who suits one system does so in every split); the difference is taken per seed and then
    averaged.

    Parameters
    ----------
    pairs
        Ours and the peer's values, one pair a seed, on that seed's test ratings.
    n_users
        Users of the data set.
    """
    weights = np.random.default_rng([0, 3]).multinomial(n_users, np.full(n_users, 1 / n_users), size=DRAWS)
    found: dict[str, dict[str, Any]] = {}
    for metric in METRICS:
        values, draws = [], np.zeros(DRAWS)
        for left, right in pairs:
            n = np.bincount(left.users, minlength=n_users)
            figures, drawn = [], []
            for side in (left, right):
                losses = side.values(metric, "")
                sums = np.bincount(side.users, losses, n_users)
                figure, resampled = losses.mean(), (weights @ sums) / (weights @ n)
                root = np.sqrt if metric == "rmse" else np.asarray
                figures.append(float(root(figure)))
                drawn.append(root(resampled))
            values.append(figures[0] - figures[1])
            draws += (drawn[0] - drawn[1]) / len(pairs)
        low, high = np.quantile(draws, [0.025, 0.975])
        found[metric] = {
            "difference": float(np.mean(values)),
            "by_seed": values,
            "se": float(draws.std(ddof=1)),
            "low": float(low),
            "high": float(high),
            "upper_95": float(np.quantile(draws, 0.95)),
        }
    return found
