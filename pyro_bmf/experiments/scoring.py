"""What a final cell measures: errors of the test ratings, and ranked lists under every protocol."""

from __future__ import annotations

from typing import Any

from pyro_bmf.data import Split
from pyro_bmf.evaluation import METRICS, evaluate, evaluate_ranking
from pyro_bmf.evaluation.plain_values import json_ready
from pyro_bmf.evaluation.protocols import PROTOCOLS, default_threshold
from pyro_bmf.systems.contract import Predictor

LENGTHS = (20, 50)
#: Whom lists are made for: two test ratings or more (design of this project), two rated items (the paper's).
USERS = ("two test ratings", "two rated items")
_FIGURES = ("rmse", "rmse_se", "mae", "rmse_clipped", "mae_clipped", "nll", "rps")


def score(system: Predictor, split: Split, seed: int) -> dict[str, Any]:
    """Measure a fitted system on the test part of a split, JSON-ready."""
    threshold = default_threshold(split.ratings.scale)
    found = evaluate(system, split, n=LENGTHS, threshold=threshold, protocols=(), seed=seed, metrics=METRICS)
    lists = []
    for users, counted in zip(USERS, (None, split.ratings), strict=True):
        for ranking in evaluate_ranking(
            system, split, n=LENGTHS, threshold=threshold, protocols=PROTOCOLS, counted=counted
        ):
            lists.append({"users": users, **ranking.to_dict()})
    found_all = {
        "n_ratings": found.n_ratings,
        "n_users": found.n_users,
        "n_cold": found.n_cold,
        "threshold": threshold,
        "figures": {name: found.figures.get(name) for name in _FIGURES},
        "ranking": lists,
    }
    ready: dict[str, Any] = json_ready(found_all)
    return ready
