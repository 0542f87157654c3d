"""All figures of one system on one part of one split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from pyro_bmf.data import Ratings, Split
from pyro_bmf.errors import DataError, SettingsError
from pyro_bmf.evaluation import calibration as cal
from pyro_bmf.evaluation.metrics import (
    METRICS,
    CalibrationMetric,
    Metric,
    RatingMetric,
    Resampling,
    calibration_metrics,
    rating_metrics,
)
from pyro_bmf.evaluation.per_rating import PerRating, ask_all
from pyro_bmf.evaluation.plain_values import json_ready
from pyro_bmf.evaluation.protocols import (
    PROTOCOLS,
    Part,
    Ranking,
    check_ranking_settings,
    evaluate_ranking,
)
from pyro_bmf.evaluation.provenance import check_provenance
from pyro_bmf.systems.contract import Predictor

FittedOn = Literal["train", "train+valid"]


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
    figures
        By name: those of `metrics` that are of single ratings; None where one does not apply to the scale.
    calibration, ranking
        See `Calibration`, `Ranking`.
    per_rating
        The values behind the figures, for comparisons in pairs.
    metrics
        What was measured.
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
    figures: Mapping[str, float | int | None]
    calibration: cal.Calibration
    ranking: tuple[Ranking, ...]
    per_rating: PerRating = field(repr=False, compare=False)
    metrics: tuple[Metric, ...] = field(repr=False, compare=False)

    @property
    def rmse(self) -> float:
        """Root mean squared error, unclipped, rating units."""
        return self._number("rmse")

    @property
    def rmse_se(self) -> float:
        """Its standard error, by bootstrap over users."""
        return self._number("rmse_se")

    @property
    def mae(self) -> float:
        """Mean absolute error, unclipped, rating units."""
        return self._number("mae")

    @property
    def rmse_clipped(self) -> float:
        """Root mean squared error of predictions clipped to the scale."""
        return self._number("rmse_clipped")

    @property
    def mae_clipped(self) -> float:
        """Mean absolute error of predictions clipped to the scale."""
        return self._number("mae_clipped")

    @property
    def nll(self) -> float | None:
        """Mean negative log probability of the discrete ratings, nats; None on a continuous scale."""
        return self._figure("nll")

    @property
    def rps(self) -> float | None:
        """Mean ranked probability score; None on a continuous scale."""
        return self._figure("rps")

    @property
    def n_impossible(self) -> int | None:
        """Ratings given a probability below 2.2e-308; None on a continuous scale."""
        count = self._figure("n_impossible")
        return None if count is None else int(count)

    @property
    def density_nll(self) -> float | None:
        """Mean negative log density of a Normal predictive, nats; None on a discrete scale."""
        return self._figure("density_nll")

    def _number(self, name: str) -> float:
        value = self._figure(name)
        assert value is not None  # errors are measured on every scale
        return value

    def _figure(self, name: str) -> float | int | None:
        if name not in self.figures:
            raise SettingsError(f"{self.system} was not measured by {name!r}: put it among the metrics.")
        return self.figures[name]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single ratings, ready for JSON (undefined figures are None)."""
        head = {name: value for name, value in vars(self).items() if name not in _NOT_PLAIN}
        content = {
            **head,
            **self.figures,
            "calibration": self.calibration.to_dict(),
            "ranking": [ranking.to_dict() for ranking in self.ranking],
        }
        result: dict[str, Any] = json_ready(content)
        return result

    def row(self) -> dict[str, Any]:
        """Return the figures side by side that stand in a table of systems, but those that do not apply."""
        row: dict[str, Any] = {"system": self.system}
        for metric, value in self.named():
            if metric.in_systems:
                row[metric.name] = value
        for ranking in self.ranking:
            row |= ranking.row(self.metrics)
        return row

    def named(self) -> Iterator[tuple[Metric, float | int]]:
        """Give the metrics of ratings and of calibration that apply, with their figures."""
        for metric in self.metrics:
            value: float | int | None = None
            match metric:
                case RatingMetric():
                    value = self.figures[metric.name]
                case CalibrationMetric():
                    value = metric.figure(self.calibration)
            if value is not None:
                yield metric, value

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return tables ``ratings``, ``ranking``, ``coverage``, ``deciles`` and ``pit``."""
        counted = {
            "system": self.system,
            "part": self.part,
            "n_ratings": self.n_ratings,
            "n_users": self.n_users,
            "n_cold": self.n_cold,
        }
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
                        **{name: values[position] for name, values in group.measured.items()},
                    }
                )
            counts = {"count_low": group.count_low, "count_high": group.count_high}
            deciles.append(head | counts | {"rmse": group.rmse, "mean_sd": group.mean_sd})
        histogram = self.calibration.pit_histogram
        edges = np.arange(len(histogram)) / len(histogram)
        integers = {"decile": "Int64"}
        return {
            "ratings": pd.DataFrame([counted | dict(self.figures)]),
            "ranking": pd.DataFrame([ranking.to_dict() for ranking in self.ranking]),
            "coverage": pd.DataFrame(coverage).astype(integers),
            "deciles": pd.DataFrame(deciles).astype(integers | {"count_low": "Int64", "count_high": "Int64"}),
            "pit": pd.DataFrame({"low": edges, "high": edges + 1 / len(histogram), "n_ratings": histogram}),
        }


_NOT_PLAIN = ("figures", "calibration", "ranking", "per_rating", "metrics")


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
    metrics: Sequence[Metric] = METRICS,
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
    metrics
        What to measure; `pyro_bmf.evaluation.metrics.METRICS`, and your own.

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
    of_ratings = rating_metrics(metrics)
    per_rating = ask_all(predictor, held_out, of_ratings, seed=seed, chunk=max(1, chunk))
    counts_of_users = known.user_counts[held_out.users]
    counts_of_items = known.item_counts[held_out.items]
    resampling = Resampling(held_out.users, draws, seed)
    losses = per_rating.losses
    figures = {
        metric.name: metric.figure(losses[metric.name], resampling) if metric.name in losses else None
        for metric in of_ratings
    }
    calibration = cal.calibrate(
        cal.Outcomes(
            per_rating.pit,
            per_rating.mean - held_out.ratings,
            per_rating.sd,
            per_rating.width,
            interval_holds=per_rating.interval_holds,
            set_holds=per_rating.set_holds,
            set_sizes=per_rating.set_sizes,
        ),
        counts_of_users,
        counts_of_items,
        seed=seed,
    )
    figures |= {
        metric.name: metric.figure(calibration)
        for metric in calibration_metrics(metrics)
        if not metric.in_calibration
    }
    ranking = evaluate_ranking(
        predictor,
        split,
        part=part,
        n=n,
        threshold=threshold,
        protocols=protocols,
        advance=advance,
        metrics=metrics,
    )
    return Evaluation(
        system=name or predictor.name,
        part=part,
        fitted_on=fitted_on,
        data_name=split.ratings.name,
        data_hash=split.ratings.data_hash,
        split_hash=split.hash,
        split_scheme=split.scheme,
        scale=held_out.scale.to_dict(),
        n_ratings=len(held_out),
        n_users=int(np.unique(held_out.users).size),
        n_cold=int(((counts_of_users == 0) | (counts_of_items == 0)).sum()),
        seed=seed,
        threshold=float(threshold),
        figures=figures,
        calibration=calibration,
        ranking=ranking,
        per_rating=per_rating,
        metrics=tuple(metrics),
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
