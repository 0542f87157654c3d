r"""What a pair's predicted rating says of whether it gets rated.

Ratings are missing not at random: of pairs that the selection head and the counts hold for equally probable,
those that would be liked are rated more often. A rate r becomes

.. math:: \mathrm{logit}\, r'_{ij} = s\, \mathrm{logit}\, r_{ij} + a + b z_{ij},
          \qquad z_{ij} = \mathrm{clip}\big((\bar x_{ij} - c) / d,\, -3,\, 3\big),

with :math:`\bar x_{ij}` the mean rating that a posterior of the training ratings predicts, and c and d its
mean and standard deviation over held-out ratings. s and a keep the rates calibrated where the head is large
and where it is small. As z is bounded, r' is at most what it would be at the better end of z: lists by r' are
searched exactly without predicting the ratings of all items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit

from .horizon import Floats, Horizon

#: Where z ends.
FAR = 3.0
#: Precision of the Normal prior of (s, a, b) about (1, 0, 0).
PRIOR = 10.0
_START = (1.0, 0.0, 0.0)
_STEPS = 50
_LEAST, _MOST = 1e-26, 1.0 - 1e-15


@dataclass(frozen=True, eq=False)
class RatingTerm:
    """A fitted term.

    Attributes
    ----------
    coefficients : ndarray, shape (3,)
        s, a and b.
    scale : ndarray, shape (2,)
        c and d, in ratings.
    """

    coefficients: Floats
    scale: Floats

    @classmethod
    def fit(cls, rates: Floats, means: Floats, true: Floats, weights: Floats, horizon: Horizon) -> RatingTerm:
        """Maximise the weighted Bernoulli likelihood of held-out choices, by Fisher scoring.

        Parameters
        ----------
        rates : ndarray, shape (n,)
            r of pairs that are not in the training ratings.
        means : ndarray, shape (n,)
            Their predicted mean ratings, by a posterior that has not read the held-out ratings.
        true : ndarray, shape (n,)
            1 where a pair was held out, 0 where it was not rated.
        weights : ndarray, shape (n,)
            How many pairs each stands for.
        horizon : Horizon
            The shares of the training and of the held-out ratings.
        """
        held = weights * true
        if held.sum() > 0:
            centre = float(np.average(means, weights=held))
            spread = float(np.sqrt(np.average((means - centre) ** 2, weights=held)))
        else:
            centre, spread = float(means.mean()) if len(means) else 0.0, 0.0
        found = cls(np.array(_START), np.array([centre, spread if spread > 1e-9 else 1.0]))
        features = np.stack([found._logit(rates), np.ones(len(rates)), found._z(means)], axis=1)
        value, slope, curvature = found._sums(features, true, weights, horizon)
        for _ in range(_STEPS):
            step = np.linalg.solve(curvature, slope)
            length = 1.0
            while True:
                there = cls(found.coefficients + length * step, found.scale)
                new = there._sums(features, true, weights, horizon)
                if (new[0] >= value and there.coefficients[0] > 0.0) or length < 1e-6:
                    break
                length /= 2
            if new[0] < value or there.coefficients[0] <= 0.0:
                break
            gain = new[0] - value
            found, (value, slope, curvature) = there, new
            if gain < 1e-9:
                break
        return found

    def rate(self, rates: Floats, means: Floats) -> Floats:
        """Return r' of pairs with these rates and predicted mean ratings; the shapes broadcast."""
        s, a, b = self.coefficients
        found: Floats = expit(s * self._logit(rates) + a + b * self._z(means))
        return found

    def most(self, rates: Floats) -> Floats:
        """Return the largest r' that pairs with these rates can have, whatever their predicted ratings."""
        s, a, b = self.coefficients
        found: Floats = expit(s * self._logit(rates) + a + abs(b) * FAR)
        return found

    def tensors(self) -> Mapping[str, Floats]:
        """Return the arrays that rebuild it."""
        return {"coefficients": self.coefficients, "scale": self.scale}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Any]) -> RatingTerm:
        """Rebuild it."""
        for name, shape in {"coefficients": (3,), "scale": (2,)}.items():
            if tensors[name].shape != shape:
                raise ValueError(f"{name} has the shape {tensors[name].shape}, {shape} is needed")
        if not (tensors["coefficients"][0] > 0.0 and tensors["scale"][1] > 0.0):
            raise ValueError("its slope or its scale is not positive")
        return cls(tensors["coefficients"], tensors["scale"])

    def _z(self, means: Floats) -> Floats:
        found: Floats = np.clip((means - self.scale[0]) / self.scale[1], -FAR, FAR)
        return found

    @staticmethod
    def _logit(rates: Floats) -> Floats:
        found: Floats = logit(np.clip(rates, _LEAST, _MOST))
        return found

    def _sums(
        self, features: Floats, true: Floats, weights: Floats, horizon: Horizon
    ) -> tuple[float, Floats, Floats]:
        """Return log posterior, its gradient and the Fisher information."""
        away = self.coefficients - np.array(_START)
        rate = np.clip(expit(features @ self.coefficients), _LEAST, _MOST)
        p, steep = horizon.chosen(rate), horizon.steepness(rate)
        value = float((weights * np.where(true > 0, np.log(p), np.log1p(-p))).sum())
        steered = steep / (p * (1.0 - p))
        slope = (weights * (true - p) * steered) @ features - PRIOR * away
        curvature = (features * (weights * steep * steered)[:, None]).T @ features + PRIOR * np.eye(3)
        return value - 0.5 * PRIOR * float(away @ away), slope, curvature
