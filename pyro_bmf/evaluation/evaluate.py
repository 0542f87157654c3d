"""All figures of one system on one part of one split."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyro_bmf.data import Ratings, RatingScale, Split
from pyro_bmf.data.scale import level_positions
from pyro_bmf.errors import DataError, FitError, SettingsError
from pyro_bmf.evaluation import calibration as cal
from pyro_bmf.evaluation import metrics
from pyro_bmf.evaluation.answers import checked_array
from pyro_bmf.evaluation.bootstrap import RATING_METRICS, bootstrap_by_user
from pyro_bmf.evaluation.protocols import (
    PROTOCOLS,
    Part,
    Ranking,
    check_ranking_settings,
    evaluate_ranking,
)
from pyro_bmf.evaluation.provenance import check_provenance
from pyro_bmf.numerics.level_sets import smallest_sets
from pyro_bmf.systems.contract import Predictor

Floats = NDArray[np.float64]
FittedOn = Literal["train", "train+valid"]
#: Smallest standard deviation that a log density is taken at, as a share of the scale's range.
_SMALLEST_SD = 1e-9


@dataclass(frozen=True)
class PerRating:
    """What one system says of each evaluated rating; (n,) arrays, those of intervals and sets (n, 4).

    `nll`, `rps` are None on a continuous scale and `density_nll` on a discrete one: they are not comparable.
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
    nll: Floats | None
    rps: Floats | None
    density_nll: Floats | None

    def values(self, metric: str, system: str) -> Floats:
        """Return the (n,) losses behind one of `RATING_METRICS`; squared errors for ``rmse``.

        Raises
        ------
        SettingsError
            If the ratings' scale has no such figure.
        """
        if metric in ("rmse", "mae"):
            errors = self.mean - self.ratings
            return errors**2 if metric == "rmse" else np.abs(errors)
        chosen: Floats | None = getattr(self, metric) if metric in RATING_METRICS else None
        if chosen is None:
            raise SettingsError(f"{system} has no {metric!r} on this rating scale.")
        return chosen


@dataclass(frozen=True)
class Evaluation:
    """Figures of one system; NaN where one is undefined, None where it does not apply.

    Attributes
    ----------
    system, part, fitted_on
        Its name; the part evaluated; the ratings that it and the train counts rest on.
    data_name, data_hash, split_hash, split_scheme, scale
        What it was evaluated on.
    n_ratings, n_users
        Evaluated ratings, and their users.
    n_cold
        Evaluated ratings whose user or item has no train rating.
    seed, threshold
        Of the randomised PIT, the deciles and the bootstrap; of relevance.
    rmse, rmse_se, mae
        Unclipped, rating units; the standard error by bootstrap over users.
    rmse_clipped, mae_clipped
        Predictions clipped to the scale.
    nll, rps
        Means over ratings: nats of the discrete rating, and `metrics.rps`; None on a continuous scale.
    n_impossible
        Ratings given a probability below 2.2e-308 (708 nats each in `nll`); None on a continuous scale.
    density_nll
        On a continuous scale only: mean negative log density of a Normal predictive, nats; its standard
        deviation is taken for no less than a 10^9th of the scale's range.
    calibration, ranking
        See `Calibration`, `Ranking`.
    per_rating
        The values behind the figures, for comparisons in pairs.
    """

    system: str
    part: str
    fitted_on: str
    data_name: str
    data_hash: str
    split_hash: str
    split_scheme: str
    scale: dict[str, Any]
    n_ratings: int
    n_users: int
    n_cold: int
    seed: int
    threshold: float
    rmse: float
    rmse_se: float
    mae: float
    rmse_clipped: float
    mae_clipped: float
    nll: float | None
    rps: float | None
    n_impossible: int | None
    density_nll: float | None
    calibration: cal.Calibration
    ranking: tuple[Ranking, ...]
    per_rating: PerRating = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single ratings, ready for JSON (undefined figures are None)."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "per_rating"}
        content["calibration"] = self.calibration.to_dict()
        content["ranking"] = [ranking.to_dict() for ranking in self.ranking]
        result: dict[str, Any] = json_ready(content)
        return result

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return tables ``ratings``, ``ranking``, ``coverage``, ``deciles`` and ``pit``."""
        levels = self.calibration.levels
        coverage, deciles = [], []
        for group in (self.calibration.overall, *self.calibration.deciles):
            head = {"by": group.by, "decile": group.decile, "n_ratings": group.n_ratings}
            for position, level in enumerate(levels):
                coverage.append(
                    head
                    | {
                        "nominal": level,
                        "pit_coverage": group.pit_coverage[position],
                        "se": group.coverage_se[position],
                        "within": group.within[position],
                        "width": group.width[position],
                        **{
                            name: values[position]
                            for name in ("interval_coverage", "set_coverage", "set_size")
                            if (values := getattr(group, name)) is not None
                        },
                    }
                )
            counts = {"count_low": group.count_low, "count_high": group.count_high}
            deciles.append(head | counts | {"rmse": group.rmse, "mean_sd": group.mean_sd})
        histogram = self.calibration.pit_histogram
        edges = np.arange(len(histogram)) / len(histogram)
        integers = {"decile": "Int64"}
        return {
            "ratings": pd.DataFrame([{name: getattr(self, name) for name in _RATING_COLUMNS}]),
            "ranking": pd.DataFrame([ranking.to_dict() for ranking in self.ranking]),
            "coverage": pd.DataFrame(coverage).astype(integers),
            "deciles": pd.DataFrame(deciles).astype(integers | {"count_low": "Int64", "count_high": "Int64"}),
            "pit": pd.DataFrame({"low": edges, "high": edges + 1 / len(histogram), "n_ratings": histogram}),
        }


_RATING_COLUMNS = (
    *("system", "part", "n_ratings", "n_users", "n_cold"),
    *("rmse", "rmse_se", "mae", "rmse_clipped", "mae_clipped"),
    *("nll", "rps", "n_impossible", "density_nll"),
)


def evaluate(
    predictor: Predictor,
    split: Split,
    *,
    part: Part = "test",
    n: Sequence[int] = (20, 50),
    threshold: float = 3.0,
    protocols: Sequence[str] = PROTOCOLS,
    seed: int = 0,
    name: str | None = None,
    fitted_on: FittedOn | None = None,
    chunk: int = 100_000,
    draws: int = 1000,
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure a fitted system on held-out ratings.

    Parameters
    ----------
    predictor
        A posterior, a baseline, or any `pyro_bmf.systems.contract.Predictor` over the split's indices;
        `pyro_bmf.systems.contract.BasePredictor` makes one of four methods.
    split
        Its `part` is evaluated; its train ratings give the counts behind the deciles.
    part
        ``"test"`` or ``"valid"``.
    n, threshold, protocols
        Of the ranking figures, see `evaluate_ranking`; no protocols: no ranking.
    seed
        Of the randomised PIT, the order of equal counts at decile borders, and the bootstrap.
    name
        What to call the system; its own name when None.
    fitted_on
        ``"train+valid"`` when the system was fitted to both (then only the test part can be evaluated). None
        for what a posterior says of itself, else train.
    chunk
        Ratings predicted at a time.
    draws
        Of the bootstrap behind `rmse_se`.
    advance
        Told of users whose lists are done.

    Returns
    -------
    Evaluation
        All figures, with the hashes of what they were measured on.

    Raises
    ------
    DataError
        If the part holds no rating, or one off the declared scale.
    SettingsError
        For unknown settings, answers of the wrong shape, or a posterior that was fitted to another split.
    FitError
        If an answer is not finite, or a distribution no distribution.
    """
    check_ranking_settings(part, n, protocols)
    if fitted_on not in (None, "train", "train+valid"):
        raise SettingsError(f"fitted_on {fitted_on!r} is unknown: choose 'train' or 'train+valid'.")
    own = check_provenance(predictor, split, part=part, fitted_on=fitted_on, name=name or "the model")
    fitted_on = cast(FittedOn, own)
    known = known_ratings(split, part, fitted_on)
    split.warn_of_unknown()
    held_out = split.test if part == "test" else split.valid
    if len(held_out) == 0:
        raise DataError(f"the split's {part} part holds no ratings: there is nothing to evaluate.")
    per_rating = _predict_all(predictor, held_out, seed, max(1, chunk))
    errors = per_rating.mean - held_out.ratings
    counts_of_users = known.user_counts[held_out.users]
    counts_of_items = known.item_counts[held_out.items]
    spread = bootstrap_by_user(errors**2, held_out.users, root=True, draws=draws, seed=seed)
    scale = held_out.scale
    nll = per_rating.nll
    return Evaluation(
        system=name or predictor.name,
        part=part,
        fitted_on=fitted_on,
        data_name=split.ratings.name,
        data_hash=split.ratings.data_hash,
        split_hash=split.hash,
        split_scheme=split.scheme,
        scale=scale.to_dict(),
        n_ratings=len(held_out),
        n_users=int(np.unique(held_out.users).size),
        n_cold=int(((counts_of_users == 0) | (counts_of_items == 0)).sum()),
        seed=seed,
        threshold=float(threshold),
        rmse=metrics.rmse(held_out.ratings, per_rating.mean),
        rmse_se=float(spread.std(ddof=1)),
        mae=metrics.mae(held_out.ratings, per_rating.mean),
        rmse_clipped=metrics.rmse(held_out.ratings, per_rating.mean, clip=scale),
        mae_clipped=metrics.mae(held_out.ratings, per_rating.mean, clip=scale),
        nll=_mean(nll),
        rps=_mean(per_rating.rps),
        n_impossible=None if nll is None else int((nll >= -np.log(metrics.SMALLEST_PROBABILITY)).sum()),
        density_nll=_mean(per_rating.density_nll),
        calibration=cal.calibrate(
            per_rating.pit,
            errors,
            per_rating.sd,
            per_rating.width,
            counts_of_users,
            counts_of_items,
            seed=seed,
            interval_holds=per_rating.interval_holds,
            set_holds=per_rating.set_holds,
            set_sizes=per_rating.set_sizes,
        ),
        ranking=evaluate_ranking(
            predictor, split, part=part, n=n, threshold=threshold, protocols=protocols, advance=advance
        ),
        per_rating=per_rating,
    )


def known_ratings(split: Split, part: Part, fitted_on: FittedOn) -> Ratings:
    """Return the ratings that a system fitted on `fitted_on` has seen.

    Raises
    ------
    SettingsError
        If that is unknown, or contains the part to be evaluated.
    """
    if fitted_on == "train":
        return split.train
    if fitted_on != "train+valid":
        raise SettingsError(f"fitted_on {fitted_on!r} is unknown: choose 'train' or 'train+valid'.")
    if part == "valid":
        raise SettingsError("a system fitted on train+valid cannot be evaluated on valid: evaluate test.")
    return split.train_valid


def json_ready(value: Any) -> Any:
    """Return `value` with plain containers and numbers, and None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): json_ready(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(one) for one in value]
    if isinstance(value, np.generic):
        return json_ready(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _predict_all(predictor: Predictor, held_out: Ratings, seed: int, chunk: int) -> PerRating:
    scale, levels = held_out.scale, held_out.scale.levels
    uniforms = cal.pit_uniforms(len(held_out), seed)
    n = len(held_out)
    mean, sd, pit = np.empty(n), np.empty(n), np.empty(n)
    width = np.empty((n, len(cal.COVERAGE_LEVELS)))
    interval_holds, set_holds = np.empty(width.shape, dtype=bool), np.empty(width.shape, dtype=bool)
    set_sizes = np.empty(width.shape, dtype=np.int64)
    discrete = levels is not None
    grid = None if levels is None else levels.copy()
    nll, rps, density = np.empty(n), np.empty(n), np.empty(n)
    positions = None if levels is None else level_positions(held_out.ratings, levels)
    for start in range(0, n, chunk):
        rows = slice(start, start + chunk)
        ratings = held_out.ratings[rows]
        # copies: the ratings' own arrays are read-only, which not every array library takes
        users, items = held_out.users[rows].copy(), held_out.items[rows].copy()
        size = (users.size,)
        said = predictor.predict_pairs(users, items, grid)
        mean[rows] = checked_array(said.mean, size, "predict_mean")
        sd[rows] = checked_array(said.sd, size, "predict_sd")
        if (sd[rows] < 0).any():
            raise FitError("predict_sd gave a negative standard deviation.")
        pmf = None
        if grid is None or positions is None:
            # A sure prediction has no density: it gets that of the narrowest Normal that is told apart here.
            spread = np.maximum(sd[rows], _SMALLEST_SD * (scale.high - scale.low))
            z = (ratings - mean[rows]) / spread
            density[rows] = 0.5 * z**2 + np.log(spread) + 0.5 * np.log(2 * np.pi)
            pit[rows] = cal.normal_pit(ratings, mean[rows], spread)
        else:
            if said.pmf is None:
                raise SettingsError("predict_pairs gave no probabilities of the levels of a discrete scale.")
            pmf = _checked_pmf(said.pmf, (users.size, grid.size), scale)
            nll[rows] = metrics.nll(pmf, positions[rows])
            rps[rows] = metrics.rps(pmf, positions[rows])
            pit[rows] = cal.randomized_pit(pmf, positions[rows], uniforms[rows])
        said = replace(said, mean=mean[rows], sd=sd[rows], pmf=pmf)
        for column, level in enumerate(cal.COVERAGE_LEVELS):
            low, high = said.interval(level)
            width[rows, column] = high - low
            interval_holds[rows, column] = (low <= ratings) & (ratings <= high)
            if pmf is not None and positions is not None:
                inside, _ = smallest_sets(pmf, level)
                set_holds[rows, column] = inside[np.arange(len(ratings)), positions[rows]]
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
        set_holds=set_holds if discrete else None,
        set_sizes=set_sizes if discrete else None,
        nll=nll if discrete else None,
        rps=rps if discrete else None,
        density_nll=None if discrete else density,
    )


def _checked_pmf(values: NDArray[Any], shape: tuple[int, int], scale: RatingScale) -> Floats:
    pmf: Floats = np.asarray(checked_array(values, shape, "predict_pmf"), dtype=np.float64)
    sums = pmf.sum(axis=1)
    if (pmf < 0).any() or (np.abs(sums - 1) > 1e-3).any():
        raise FitError(
            f"predict_pmf gave rows that are no distribution over the scale {scale.low:g} to {scale.high:g}:"
            " every probability must be at least 0 and every row sum to 1."
        )
    pmf = pmf / sums[:, None]  # float32 rows miss 1 by rounding
    return pmf


def _mean(values: Floats | None) -> float | None:
    return None if values is None else float(values.mean())
