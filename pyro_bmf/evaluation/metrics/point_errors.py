"""Errors of predicted ratings, in rating units."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyro_bmf.data import RatingScale
from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation.bootstrap import bootstrap_by_user
from pyro_bmf.evaluation.metrics.base import Better, RatingMetric, Resampling, Said, Screen

Floats = NDArray[np.float64]
_NEEDS = "a predicted rating"


def rmse(ratings: ArrayLike, predictions: ArrayLike, *, clip: RatingScale | None = None) -> float:
    """Root mean squared error, rating units; predictions clipped to the scale `clip` if one is given."""
    errors = _errors(ratings, predictions, clip)
    return float(np.sqrt(np.mean(errors**2)))


def mae(ratings: ArrayLike, predictions: ArrayLike, *, clip: RatingScale | None = None) -> float:
    """Mean absolute error, rating units; predictions clipped to the scale `clip` if one is given."""
    return float(np.mean(np.abs(_errors(ratings, predictions, clip))))


def _errors(ratings: ArrayLike, predictions: ArrayLike, clip: RatingScale | None) -> Floats:
    observed = np.asarray(ratings, dtype=np.float64)
    predicted = np.asarray(predictions, dtype=np.float64)
    if observed.shape != predicted.shape or observed.size == 0:
        raise SettingsError(
            f"{observed.size} ratings and {predicted.size} predictions: one each is needed, at least one."
        )
    if clip is not None:
        predicted = clip.clip(predicted)
    return predicted - observed


class RMSE(RatingMetric):
    """Root mean squared error."""

    name = "rmse"
    label = "RMSE"
    better: ClassVar[Better] = "lower"
    unit = "rating"
    needs = _NEEDS
    definition = "√ of the mean of (prediction − rating)², over all ratings of the part; unclipped"
    screen: ClassVar[Screen] = "main"
    root = True
    compared = True

    def losses(self, said: Said) -> Floats:
        """Return squared errors."""
        return said.errors**2


class RMSEStandardError(RMSE):
    """Standard error of the RMSE."""

    name = "rmse_se"
    label = "standard error of RMSE"
    better = "neither"
    definition = "standard deviation of the RMSE over resampled users, each with all of its ratings"
    source = "Efron and Tibshirani 1993, bootstrap by cluster"
    screen = "more"
    pairable = False
    compared = False

    def figure(self, losses: Floats, resampling: Resampling) -> float:
        """Return the standard deviation of the bootstrap's draws."""
        drawn = bootstrap_by_user(
            losses, resampling.users, root=True, draws=resampling.draws, seed=resampling.seed
        )
        return float(drawn.std(ddof=1))


class MAE(RatingMetric):
    """Mean absolute error."""

    name = "mae"
    label = "MAE"
    better: ClassVar[Better] = "lower"
    unit = "rating"
    needs = _NEEDS
    definition = "mean of |prediction − rating|; unclipped"
    screen: ClassVar[Screen] = "main"

    def losses(self, said: Said) -> Floats:
        """Return absolute errors."""
        return np.abs(said.errors)


class ClippedRMSE(RMSE):
    """Root mean squared error of clipped predictions."""

    name = "rmse_clipped"
    label = "RMSE, clipped to the scale"
    definition = "the RMSE of predictions limited to the rating scale"
    screen = "more"
    compared = False

    def losses(self, said: Said) -> Floats:
        """Return squared errors."""
        return said.clipped_errors**2


class ClippedMAE(MAE):
    """Mean absolute error of clipped predictions."""

    name = "mae_clipped"
    label = "MAE, clipped to the scale"
    definition = "the MAE of predictions limited to the rating scale"
    screen = "more"
    in_systems = False

    def losses(self, said: Said) -> Floats:
        """Return absolute errors."""
        return np.abs(said.clipped_errors)
