"""Reference systems: one file a system, all used as the model's own posterior is."""

from __future__ import annotations

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.bias_only import BiasOnly
from pyro_bmf.baselines.global_mean import GlobalMean
from pyro_bmf.baselines.new_users import NewUser, NewUserAnswers
from pyro_bmf.baselines.popularity import Popularity
from pyro_bmf.baselines.ranking_only import RankingOnly

#: Every baseline, in the order of tables.
BASELINES: tuple[type[Baseline], ...] = (GlobalMean, BiasOnly, Popularity)

__all__ = [
    "BASELINES",
    "Baseline",
    "BiasOnly",
    "GlobalMean",
    "NewUser",
    "NewUserAnswers",
    "Popularity",
    "RankingOnly",
]
