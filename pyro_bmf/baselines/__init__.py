"""Reference systems: one file a system, all used as the model's own posterior is.

`BASELINES` are the simple ones that every evaluation stands beside. `NEURAL_BASELINES` are the networks that
the paper compares with, `RANKING_BASELINES` networks that rank and predict no rating, and
`CollaborativeVAE` reads items' content; all are loaded on first use, with torch, while `NEURAL_SETTINGS` and
`RANKING_SETTINGS` need none.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.bias_only import BiasOnly
from pyro_bmf.baselines.global_mean import GlobalMean
from pyro_bmf.baselines.item_content import ItemContent
from pyro_bmf.baselines.neural.content_settings import CollaborativeVAESettings
from pyro_bmf.baselines.neural.ranking_settings import (
    CDAESettings,
    LightGCNSettings,
    NGCFSettings,
    RankerSettings,
)
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
    from pyro_bmf.baselines.neural.cdae import CDAE
    from pyro_bmf.baselines.neural.cnn_cf import CNNCF
    from pyro_bmf.baselines.neural.collaborative_vae import CollaborativeVAE
    from pyro_bmf.baselines.neural.dae_cf import DAECF
    from pyro_bmf.baselines.neural.graph_ranker import NGCF, LightGCN
    from pyro_bmf.baselines.neural.ncf import NCF
    from pyro_bmf.baselines.neural.network_baseline import NetworkBaseline
    from pyro_bmf.baselines.neural.network_ranker import NetworkRanker
    from pyro_bmf.baselines.neural.vae_cf import VAECF

    #: The networks of the paper's Table 3, in its order.
    NEURAL_BASELINES: tuple[type[NetworkBaseline[Any]], ...]
    #: Networks that rank.
    RANKING_BASELINES: tuple[type[NetworkRanker[Any]], ...]

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

#: Settings of the networks that rank by their systems' names.
RANKING_SETTINGS: Mapping[str, type[RankerSettings]] = MappingProxyType(
    {"cdae": CDAESettings, "ngcf": NGCFSettings, "lightgcn": LightGCNSettings}
)

_CONTENT = {"CollaborativeVAE": "collaborative_vae"}
_RANKING = {"CDAE": "cdae", "NGCF": "graph_ranker", "LightGCN": "graph_ranker"}
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
    "CDAE",
    "CNNCF",
    "DAECF",
    "NCF",
    "NEURAL_BASELINES",
    "NEURAL_SETTINGS",
    "NGCF",
    "RANKING_BASELINES",
    "RANKING_SETTINGS",
    "VAECF",
    "AutoRecSettings",
    "Baseline",
    "BiasOnly",
    "CDAESettings",
    "CNNCFSettings",
    "CollaborativeVAE",
    "CollaborativeVAESettings",
    "DAECFSettings",
    "GlobalMean",
    "IRec",
    "ItemContent",
    "LightGCN",
    "LightGCNSettings",
    "NCFSettings",
    "NGCFSettings",
    "NetworkSettings",
    "NewUser",
    "NewUserAnswers",
    "Popularity",
    "RankerSettings",
    "RankingOnly",
    "URec",
    "VAECFSettings",
]


def __getattr__(name: str) -> Any:
    if name == "NEURAL_BASELINES":
        return tuple(__getattr__(one) for one in _NEURAL)
    if name == "RANKING_BASELINES":
        return tuple(__getattr__(one) for one in _RANKING)
    if name in (files := {**_NEURAL, **_RANKING, **_CONTENT}):
        return getattr(import_module(f"pyro_bmf.baselines.neural.{files[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
