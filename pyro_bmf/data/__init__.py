"""Ratings: read, checked once at the border, canonical, split. Nothing here needs torch."""

from __future__ import annotations

from .given_files import given_split
from .loading import load_ratings
from .notices import DataNotice, DataWarning
from .ratings import Ratings
from .scale import RatingScale
from .sources import SOURCES, Source
from .split_files import read_split, write_split
from .splits import (
    Split,
    kfold_splits,
    leave_last_split,
    random_split,
    subsample_split,
    time_split,
    users_split,
)
from .synthetic import SyntheticRatings, SyntheticTruth, generated_counts, generated_pairs, synthetic_ratings
from .validation import ratings_from_arrays
from .vocabulary import Vocabulary

__all__ = [
    "SOURCES",
    "DataNotice",
    "DataWarning",
    "RatingScale",
    "Ratings",
    "Source",
    "Split",
    "SyntheticRatings",
    "SyntheticTruth",
    "Vocabulary",
    "generated_counts",
    "generated_pairs",
    "given_split",
    "kfold_splits",
    "leave_last_split",
    "load_ratings",
    "random_split",
    "ratings_from_arrays",
    "read_split",
    "subsample_split",
    "synthetic_ratings",
    "time_split",
    "users_split",
    "write_split",
]
