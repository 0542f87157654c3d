"""The variational side: encoders, the cross-feedback guide and its sparse kernels."""

from ..data.feedback import Feedback
from .chain import ChainGuide
from .conjugate import ConjugateGuide
from .cross_feedback import CrossFeedbackGuide
from .encoder import Encoder
from .rows import RowDraws, RowPosterior, Rows
from .settings import GuideSettings

__all__ = [
    "ChainGuide",
    "ConjugateGuide",
    "CrossFeedbackGuide",
    "Encoder",
    "Feedback",
    "GuideSettings",
    "RowDraws",
    "RowPosterior",
    "Rows",
]
