"""What a user does with a fitted model: predict, sample, recommend, fold in, save, export."""

from .folding import FoldedRow, FoldedRows
from .posterior import Posterior
from .predictive import PairPredictive

__all__ = ["FoldedRow", "FoldedRows", "PairPredictive", "Posterior"]
