"""pyro-bmf: Bayesian matrix factorization in Pyro, by SVI, Gibbs sweeps, coordinate ascent or encoders.

By default a factorization with implicit feedback, an ordered probit and noise by row is fitted by SVI with an
exact head, and Gibbs sweeps go on from there, of few ratings in several chains. The encoders read each
other's embeddings, as in Jin et al., arXiv 2002.09145.

The public names are loaded on first use, so that ``import pyro_bmf`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("pyro-bmf")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_HOMES = {
    "load_ratings": "pyro_bmf.data",
    "random_split": "pyro_bmf.data",
    "Ratings": "pyro_bmf.data",
    "Split": "pyro_bmf.data",
    "fit": "pyro_bmf.fitting",
    "Settings": "pyro_bmf.methods.settings",
    "preset": "pyro_bmf.methods.settings",
    "ModelSettings": "pyro_bmf.methods.model_settings",
    "CrossFeedback": "pyro_bmf.methods.cross_feedback.settings",
    "EncoderSettings": "pyro_bmf.methods.cross_feedback.settings",
    "ExactHead": "pyro_bmf.methods.exact_head.settings",
    "Gibbs": "pyro_bmf.methods.gibbs.settings",
    "CoordinateAscent": "pyro_bmf.methods.coordinate_ascent.settings",
    "MatrixFactorization": "pyro_bmf.estimator",
    "Posterior": "pyro_bmf.posterior",
    "Recommender": "pyro_bmf.selection",
    "fit_selection": "pyro_bmf.selection",
    "to_arviz": "pyro_bmf.export.arviz",
    "evaluate": "pyro_bmf.evaluation",
    "PyroBmfError": "pyro_bmf.errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
