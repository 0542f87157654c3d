"""Which items get rated: a model of choices beside the model of ratings, and recommendations by both."""

from __future__ import annotations

from .fitting import fit_selection
from .rate_map import Horizon
from .selection import Selection

__all__ = ["Horizon", "Selection", "fit_selection"]
