"""What a fitted peer answers, and helpers that several peers share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr


@dataclass(frozen=True)
class Prediction:
    """Of pairs: mean and sd of the rating, and each level's probability (None where a system has none)."""

    mean: Any
    sd: Any | None
    pmf: Any | None


@dataclass(frozen=True)
class Fitted:
    """What a fitted system can be asked.

    `scores` gives (n_users, n_items) float32 ranking scores, or None when that would take too long.
    """

    predict: Callable[[Any, Any], Prediction]
    scores: Callable[[], Any]


class Clock:
    """Wall and processor seconds of what runs inside ``with clock:``; imports and conversions do not."""

    def __init__(self) -> None:
        self.wall, self.cpu = 0.0, 0.0

    def __enter__(self) -> Clock:
        self._started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall += time.perf_counter() - self._started[0]
        self.cpu += time.process_time() - self._started[1]


def normal_cells(mean: Any, sd: Any, levels: Any) -> Any:
    """Probability of each level under Normals: cuts midway, tails to the ends, shape (n, n_levels)."""
    cuts = (levels[1:] + levels[:-1]) / 2
    below = ndtr((cuts - mean[:, None]) / np.asarray(sd).reshape(-1, 1))
    return np.diff(np.hstack([np.zeros((len(mean), 1)), below, np.ones((len(mean), 1))]), axis=1)


def biased(mean: float, bu: Any, bi: Any, pu: Any, qi: Any) -> Fitted:
    """Return a fitted model of biases and factors, without a distribution of its own; unclipped."""

    def predict(u: Any, i: Any) -> Prediction:
        return Prediction(mean + bu[u] + bi[i] + np.einsum("nk,nk->n", pu[u], qi[i]), None, None)

    def scores() -> Any:
        return (pu @ qi.T + bu[:, None] + bi + mean).astype(np.float32)

    return Fitted(predict, scores)
