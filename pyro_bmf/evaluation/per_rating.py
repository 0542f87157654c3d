"""What one system says of every evaluated rating, asked in parts and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.data import Ratings, RatingScale
from pyro_bmf.data.scale import level_positions
from pyro_bmf.errors import FitError, SettingsError
from pyro_bmf.evaluation import calibration as cal
from pyro_bmf.evaluation.answers import checked_array
from pyro_bmf.evaluation.metrics import RatingMetric, Said
from pyro_bmf.numerics.level_sets import smallest_sets
from pyro_bmf.systems.contract import Predictor
from pyro_bmf.systems.predictions import PairPredictions

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PerRating:
    """What one system says of each evaluated rating; (n,) arrays, those of intervals and sets (n, 4).

    `losses` holds the values behind each figure by its name; one that does not apply to the rating scale is
    not among them.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: Floats
    mean: Floats
    sd: Floats
    pit: Floats
    width: Floats
    interval_holds: NDArray[np.bool_]
    set_holds: NDArray[np.bool_] | None
    set_sizes: NDArray[np.int64] | None
    losses: Mapping[str, Floats]

    def values(self, metric: str, system: str) -> Floats:
        """Return the (n,) losses behind a figure; squared errors for ``rmse``.

        Raises
        ------
        SettingsError
            If the ratings' scale has no such figure.
        """
        if metric not in self.losses:
            raise SettingsError(f"{system} has no {metric!r} on this rating scale.")
        return self.losses[metric]


def ask_all(
    predictor: Predictor, held_out: Ratings, metrics: Sequence[RatingMetric], *, seed: int, chunk: int
) -> PerRating:
    """Ask a system for every held-out rating, `chunk` at a time.

    Raises
    ------
    SettingsError
        For answers of the wrong shape.
    FitError
        If an answer is not finite, or a distribution no distribution.
    """
    levels, n = held_out.scale.levels, len(held_out)
    uniforms = cal.pit_uniforms(n, seed)
    positions = None if levels is None else level_positions(held_out.ratings, levels)
    mean, sd, pit = np.empty(n), np.empty(n), np.empty(n)
    width = np.empty((n, len(cal.COVERAGE_LEVELS)))
    interval_holds, set_holds = np.empty(width.shape, dtype=bool), np.empty(width.shape, dtype=bool)
    set_sizes = np.empty(width.shape, dtype=np.int64)
    losses: dict[str, Floats] = {}
    for start in range(0, n, chunk):
        rows = slice(start, start + chunk)
        ratings = held_out.ratings[rows]
        here = None if positions is None else positions[rows]
        pairs = _asked(predictor, held_out, rows)
        mean[rows], sd[rows] = pairs.mean, pairs.sd
        said = Said(ratings, mean[rows], sd[rows], pairs.pmf, here, held_out.scale)
        for metric in metrics:
            found = metric.losses(said)
            if found is not None:
                losses.setdefault(metric.name, np.empty(n))[rows] = found
        if pairs.pmf is None or here is None:
            pit[rows] = cal.normal_pit(ratings, said.mean, said.spread)
        else:
            pit[rows] = cal.randomized_pit(pairs.pmf, here, uniforms[rows])
        for column, level in enumerate(cal.COVERAGE_LEVELS):
            low, high = pairs.interval(level)
            width[rows, column] = high - low
            interval_holds[rows, column] = (low <= ratings) & (ratings <= high)
            if pairs.pmf is not None and here is not None:
                inside, _ = smallest_sets(pairs.pmf, level)
                set_holds[rows, column] = inside[np.arange(len(ratings)), here]
                set_sizes[rows, column] = inside.sum(axis=1)
    return PerRating(
        users=held_out.users,
        items=held_out.items,
        ratings=held_out.ratings,
        mean=mean,
        sd=sd,
        pit=pit,
        width=width,
        interval_holds=interval_holds,
        set_holds=None if levels is None else set_holds,
        set_sizes=None if levels is None else set_sizes,
        losses=losses,
    )


def _asked(predictor: Predictor, held_out: Ratings, rows: slice) -> PairPredictions:
    """Return a part's predictions, checked and in double precision."""
    scale = held_out.scale
    # copies: the ratings' own arrays are read-only, which not every array library takes
    users, items = held_out.users[rows].copy(), held_out.items[rows].copy()
    size = (users.size,)
    levels = None if scale.levels is None else scale.levels.copy()
    said = predictor.predict_pairs(users, items, levels)
    mean = checked_array(said.mean, size, "predict_mean").astype(np.float64)
    sd = checked_array(said.sd, size, "predict_sd").astype(np.float64)
    if (sd < 0).any():
        raise FitError("predict_sd gave a negative standard deviation.")
    if levels is None:
        return replace(said, mean=mean, sd=sd, pmf=None)
    if said.pmf is None:
        raise SettingsError("predict_pairs gave no probabilities of the levels of a discrete scale.")
    return replace(said, mean=mean, sd=sd, pmf=_checked_pmf(said.pmf, (users.size, levels.size), scale))


def _checked_pmf(values: NDArray[Any], shape: tuple[int, int], scale: RatingScale) -> Floats:
    pmf: Floats = np.asarray(checked_array(values, shape, "predict_pmf"), dtype=np.float64)
    sums = pmf.sum(axis=1)
    if (pmf < 0).any() or (np.abs(sums - 1) > 1e-3).any():
        raise FitError(
            f"predict_pmf gave rows that are not distributions over {scale.low:g} to {scale.high:g}:"
            " every probability must be at least 0 and every row sum to 1."
        )
    pmf = pmf / sums[:, None]  # float32 rows miss 1 by rounding
    return pmf
