"""The variational side: encoders, the cross-feedback guide and its sparse kernels."""

from ..data.feedback import Feedback
from .cross_feedback import CrossFeedbackGuide
from .encoder import Encoder
from .rows import RowPosterior
from .settings import GuideSettings

__all__ = ["CrossFeedbackGuide", "Encoder", "Feedback", "GuideSettings", "RowPosterior"]
