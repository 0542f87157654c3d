"""The systems that are compared, by name, with their settings before tuning.

A peer's fit is a function of (split, settings, seed, clock) that gives a `prediction.Fitted`. Its settings
are those that validation RMSE chose (`tuning.json`); myFM's ranks and sweeps are published ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peer_bivae
import peer_myfm
import peer_sgd_als
from prediction import Fitted

FITS: dict[str, Callable[..., Fitted]] = {
    "myfm": peer_myfm.fit,
    "surprise_svd": peer_sgd_als.surprise_svd,
    "cornac_mf": peer_sgd_als.cornac_mf,
    "cornac_bivae": peer_bivae.fit,
    "lenskit_als": peer_sgd_als.lenskit_als,
}
#: What myFM itself leaves out; on validation, a longer burn-in is worse.
BURN_IN = 5


def _gibbs(rank: int, sweeps: int, *, implicit: bool = False, probit: bool = False) -> dict[str, Any]:
    kept = sweeps - BURN_IN
    settings = {"rank": rank, "sweeps": sweeps, "kept": kept, "implicit": implicit, "probit": probit}
    return {"fit": "myfm", "settings": settings | {"grouped": True}}


PEERS: dict[str, dict[str, Any]] = {
    "myfm-svdpp-32": _gibbs(32, 300, implicit=True),
    "myfm-svdpp-10": _gibbs(10, 200, implicit=True),
    "myfm-bmf-10": _gibbs(10, 200),
    "myfm-bmf-32": _gibbs(32, 300),
    "myfm-probit-10": _gibbs(10, 200, probit=True),
    "myfm-svdpp-probit-10": _gibbs(10, 200, implicit=True, probit=True),
    "myfm-svdpp-probit-32": _gibbs(32, 300, implicit=True, probit=True),
    "surprise-svd": {
        "fit": "surprise_svd",
        "settings": {"factors": 50, "epochs": 30, "rate": 0.005, "penalty": 0.05},
    },
    "cornac-mf": {
        "fit": "cornac_mf",
        "settings": {"factors": 50, "epochs": 50, "rate": 0.01, "penalty": 0.05},
    },
    "cornac-bivae": {
        "fit": "cornac_bivae",
        "settings": {
            "factors": 20,
            "units": 40,
            "likelihood": "pois",
            "epochs": 50,
            "rate": 0.001,
            "beta": 1.0,
        },
    },
    "lenskit-als": {
        "fit": "lenskit_als",
        "settings": {"factors": 50, "epochs": 20, "penalty": 0.1, "damping": 5.0},
    },
}

#: Ours: a preset, and settings to change in it. Any other name that begins with pyro-bmf- needs --settings.
OURS: dict[str, dict[str, Any]] = {
    "pyro-bmf": {"preset": "default"},
    "pyro-bmf-amortized": {"preset": "amortized"},
    "pyro-bmf-paper": {"preset": "paper"},
}


def is_ours(system: str) -> bool:
    """Tell whether a system runs in the project's environment."""
    return system == "pyro-bmf" or system.startswith("pyro-bmf-")


def settings_of(system: str, tuned: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a system's settings: its own, over them the tuned ones, over them `changes`."""
    if is_ours(system):
        return {**OURS.get(system, OURS["pyro-bmf"]), **changes}
    return {**PEERS[system]["settings"], **tuned, **changes}
