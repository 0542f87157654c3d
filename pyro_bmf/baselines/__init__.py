"""Reference systems: one file a system, all used as the model's own posterior is.

`BASELINES` are the simple ones that every evaluation stands beside. `NEURAL_BASELINES` are the networks that
the paper compares with; they are loaded on first use, with torch, while `NEURAL_SETTINGS` needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.bias_only import BiasOnly
from pyro_bmf.baselines.global_mean import GlobalMean
from pyro_bmf.baselines.neural.settings import (
    AutoRecSettings,
    NetworkSettings,
)
from pyro_bmf.baselines.new_users import NewUser, NewUserAnswers
from pyro_bmf.baselines.popularity import Popularity
from pyro_bmf.baselines.ranking_only import RankingOnly

if TYPE_CHECKING:
    from pyro_bmf.baselines.neural.auto_rec import IRec, URec
    from pyro_bmf.baselines.neural.network_baseline import NetworkBaseline

    #: The networks of the paper's Table 3, in its order.
    NEURAL_BASELINES: tuple[type[NetworkBaseline[Any]], ...]

#: Every simple baseline, in the order of tables.
BASELINES: tuple[type[Baseline], ...] = (GlobalMean, BiasOnly, Popularity)

#: Settings of the networks of the paper's Table 3 by their systems' names, in its order.
NEURAL_SETTINGS: Mapping[str, type[NetworkSettings]] = MappingProxyType(
    {
        "u-rec": AutoRecSettings,
        "i-rec": AutoRecSettings,
    }
)

_NEURAL = {
    "URec": "auto_rec",
    "IRec": "auto_rec",
}

__all__ = [
    "BASELINES",
    "NEURAL_BASELINES",
    "NEURAL_SETTINGS",
    "AutoRecSettings",
    "Baseline",
    "BiasOnly",
    "GlobalMean",
    "IRec",
    "NetworkSettings",
    "NewUser",
    "NewUserAnswers",
    "Popularity",
    "RankingOnly",
    "URec",
]


def __getattr__(name: str) -> Any:
    if name == "NEURAL_BASELINES":
        return tuple(__getattr__(one) for one in _NEURAL)
    if name in _NEURAL:
        return getattr(import_module(f"pyro_bmf.baselines.neural.{_NEURAL[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
