"""Which items get rated: a model of choices beside the model of ratings, and recommendations by both."""

from __future__ import annotations

from .fitting import fit_selection
from .horizon import Horizon
from .product import BY, SHORTLIST
from .ranker import ProductRanker
from .recommender import NewUsers, Recommender
from .selection import Selection

__all__ = [
    "BY",
    "SHORTLIST",
    "Horizon",
    "NewUsers",
    "ProductRanker",
    "Recommender",
    "Selection",
    "fit_selection",
]
