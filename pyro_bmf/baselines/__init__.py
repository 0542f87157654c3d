"""Reference systems: one file a system, all used as the model's own posterior is."""

from __future__ import annotations

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.bias_only import BiasOnly
from pyro_bmf.baselines.global_mean import GlobalMean
from pyro_bmf.baselines.popularity import Popularity
from pyro_bmf.numerics.normal_cells import normal_pmf
from pyro_bmf.numerics.top_n import top_n

__all__ = ["Baseline", "BiasOnly", "GlobalMean", "Popularity", "normal_pmf", "top_n"]
