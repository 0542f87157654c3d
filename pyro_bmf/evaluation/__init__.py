"""Evaluation of fitted systems: errors, probabilities, calibration, ranking, beside trivial references."""

from __future__ import annotations

from pyro_bmf.data.scale import level_positions
from pyro_bmf.evaluation.bootstrap import bootstrap_by_user
from pyro_bmf.evaluation.calibration import Calibration, CalibrationGroup, Outcomes, calibrate, normal_pmf
from pyro_bmf.evaluation.comparison import Comparison, compare, evaluate_with_references
from pyro_bmf.evaluation.evaluate import Evaluation, evaluate
from pyro_bmf.evaluation.metrics import METRICS, mae, ndcg_at, nll, recall_at, rmse, rps
from pyro_bmf.evaluation.paired import PairedDifference, paired_difference
from pyro_bmf.evaluation.per_rating import PerRating
from pyro_bmf.evaluation.protocols import PROTOCOLS, Ranking, evaluate_ranking
from pyro_bmf.evaluation.stacking import StackedPredictor, Stacking, stack, stacking_weights
from pyro_bmf.numerics.level_sets import set_words, smallest_sets
from pyro_bmf.systems.contract import Predictor

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Calibration",
    "CalibrationGroup",
    "Comparison",
    "Evaluation",
    "Outcomes",
    "PairedDifference",
    "PerRating",
    "Predictor",
    "Ranking",
    "StackedPredictor",
    "Stacking",
    "bootstrap_by_user",
    "calibrate",
    "compare",
    "evaluate",
    "evaluate_ranking",
    "evaluate_with_references",
    "level_positions",
    "mae",
    "ndcg_at",
    "nll",
    "normal_pmf",
    "paired_difference",
    "recall_at",
    "rmse",
    "rps",
    "set_words",
    "smallest_sets",
    "stack",
    "stacking_weights",
]
