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
    CNNCFSettings,
    DAECFSettings,
    NCFSettings,
    NetworkSettings,
    VAECFSettings,
)
from pyro_bmf.baselines.new_users import NewUser, NewUserAnswers
from pyro_bmf.baselines.popularity import Popularity
from pyro_bmf.baselines.ranking_only import RankingOnly

if TYPE_CHECKING:
    from pyro_bmf.baselines.neural.auto_rec import IRec, URec
    from pyro_bmf.baselines.neural.cnn_cf import CNNCF
    from pyro_bmf.baselines.neural.dae_cf import DAECF
    from pyro_bmf.baselines.neural.ncf import NCF
    from pyro_bmf.baselines.neural.network_baseline import NetworkBaseline
    from pyro_bmf.baselines.neural.vae_cf import VAECF

    #: The networks of the paper's Table 3, in its order.
    NEURAL_BASELINES: tuple[type[NetworkBaseline[Any]], ...]

#: Every simple baseline, in the order of tables.
BASELINES: tuple[type[Baseline], ...] = (GlobalMean, BiasOnly, Popularity)

#: Settings of the networks of the paper's Table 3 by their systems' names, in its order.
NEURAL_SETTINGS: Mapping[str, type[NetworkSettings]] = MappingProxyType(
    {
        "ncf": NCFSettings,
        "cnn-cf": CNNCFSettings,
        "u-rec": AutoRecSettings,
        "i-rec": AutoRecSettings,
        "dae-cf": DAECFSettings,
        "vae-cf": VAECFSettings,
    }
)

_NEURAL = {
    "NCF": "ncf",
    "CNNCF": "cnn_cf",
    "URec": "auto_rec",
    "IRec": "auto_rec",
    "DAECF": "dae_cf",
    "VAECF": "vae_cf",
}

__all__ = [
    "BASELINES",
    "CNNCF",
    "DAECF",
    "NCF",
    "NEURAL_BASELINES",
    "NEURAL_SETTINGS",
    "VAECF",
    "AutoRecSettings",
    "Baseline",
    "BiasOnly",
    "CNNCFSettings",
    "DAECFSettings",
    "GlobalMean",
    "IRec",
    "NCFSettings",
    "NetworkSettings",
    "NewUser",
    "NewUserAnswers",
    "Popularity",
    "RankingOnly",
    "URec",
    "VAECFSettings",
]


def __getattr__(name: str) -> Any:
    if name == "NEURAL_BASELINES":
        return tuple(__getattr__(one) for one in _NEURAL)
    if name in _NEURAL:
        return getattr(import_module(f"pyro_bmf.baselines.neural.{_NEURAL[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
