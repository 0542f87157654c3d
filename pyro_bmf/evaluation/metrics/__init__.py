"""Figures of merit: of predicted ratings, of predicted distributions, of ranked lists; one class each.

The functions are pure, of arrays, vectorised; the classes put them into evaluations, tables and documents.
"""

from __future__ import annotations

from pyro_bmf.evaluation.metrics.base import (
    CalibrationMetric,
    CatalogueMetric,
    Metric,
    RankingMetric,
    RatingMetric,
    Resampling,
    Said,
    calibration_metrics,
    catalogue_metrics,
    ranking_metrics,
    rating_metrics,
)
from pyro_bmf.evaluation.metrics.coverage import (
    IntervalCoverage,
    PITCoverage,
    SdErrorCorrelation,
    SetCoverage,
    SetSize,
    Width,
)
from pyro_bmf.evaluation.metrics.point_errors import (
    MAE,
    RMSE,
    ClippedMAE,
    ClippedRMSE,
    RMSEStandardError,
    mae,
    rmse,
)
from pyro_bmf.evaluation.metrics.probabilities import (
    NLL,
    RPS,
    SMALLEST_PROBABILITY,
    DensityNLL,
    Impossible,
    nll,
    rps,
)
from pyro_bmf.evaluation.metrics.ranked_lists import NDCG, CatalogueShare, Recall, ndcg_at, recall_at

#: Every figure that is measured, in the order of tables and JSON.
METRICS: tuple[Metric, ...] = (
    RMSE(),
    RMSEStandardError(),
    MAE(),
    ClippedRMSE(),
    ClippedMAE(),
    NLL(),
    RPS(),
    Impossible(),
    DensityNLL(),
    PITCoverage(),
    Width(),
    SdErrorCorrelation(),
    IntervalCoverage(),
    SetCoverage(),
    SetSize(),
    Recall(),
    NDCG(),
    CatalogueShare(),
)

__all__ = [
    "METRICS",
    "SMALLEST_PROBABILITY",
    "CalibrationMetric",
    "CatalogueMetric",
    "Metric",
    "RankingMetric",
    "RatingMetric",
    "Resampling",
    "Said",
    "calibration_metrics",
    "catalogue_metrics",
    "mae",
    "ndcg_at",
    "nll",
    "ranking_metrics",
    "rating_metrics",
    "recall_at",
    "rmse",
    "rps",
]
