"""What the draws of a posterior are: independent ones of a variational posterior, or those a chain kept.

Whatever depends on it asks one of these objects, which the rows of a posterior hold (`Rows.sampling`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import SettingsError
from ..numerics.convergence import relative_efficiency

#: Draws of a posterior that has any number of them, where none is asked for.
USUAL_DRAWS = 400


class Sampling(Protocol):
    """What is asked of the draws of a posterior."""

    @property
    def settles(self) -> bool:
        """Whether draws are a chain's, so that it can be judged whether they have settled."""

    @property
    def tempers(self) -> bool:
        """Whether a weight of KL in the fit decided the draws' spread."""

    def number(self, asked: int | None, usual: int = USUAL_DRAWS) -> int:
        """Return how many draws to take where `asked` are asked for; None asks for what is usual.

        Raises
        ------
        SettingsError
            If there are fewer.
        """

    def at_most(self, wanted: int) -> int:
        """Return how many draws to take where `wanted` would do and fewer are no fault."""

    def one(self, seed: int) -> int:
        """Return the number of one draw that stands for a try: which one depends on the seed."""

    def chain_length(self, refusal: str) -> int:
        """Return the number of draws that the chain kept.

        Raises
        ------
        SettingsError
            With `refusal`, where there is no chain.
        """

    def efficiency(self, likelihoods: Callable[[], NDArray[np.float64]]) -> float:
        """Return how many independent draws one draw is worth, for means of likelihoods (n, n_draws).

        The likelihoods are only made where the answer depends on them.
        """

    def attributes(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the draws are in types that netCDF has, with what `info` tells of the fit."""


@dataclass(frozen=True)
class IndependentDraws:
    """Independent draws of a variational posterior: any number of them, each from its own random numbers."""

    @property
    def settles(self) -> bool:
        """False: there is no chain."""
        return False

    @property
    def tempers(self) -> bool:
        """True: the weight of KL decides the spread."""
        return True

    def number(self, asked: int | None, usual: int = USUAL_DRAWS) -> int:
        """Return what is asked for, or the usual number."""
        return usual if asked is None else asked

    def at_most(self, wanted: int) -> int:
        """Return `wanted`."""
        return wanted

    def one(self, seed: int) -> int:
        """Return the first draw: it is another one for each seed."""
        del seed
        return 0

    def chain_length(self, refusal: str) -> int:
        """Raise SettingsError with `refusal`."""
        raise SettingsError(refusal)

    def efficiency(self, likelihoods: Callable[[], NDArray[np.float64]]) -> float:
        """Return one."""
        del likelihoods
        return 1.0

    def attributes(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return that there is no Markov chain."""
        del info
        return {"sampling": "independent draws of a variational posterior: no Markov chain"}


@dataclass(frozen=True)
class ChainDraws:
    """The draws that one Gibbs chain kept, in its order: neighbouring ones depend on each other.

    Attributes
    ----------
    kept : int
        Number of draws.
    """

    kept: int

    @property
    def settles(self) -> bool:
        """True: there is a chain to judge."""
        return True

    @property
    def tempers(self) -> bool:
        """False: a chain knows no weight of KL."""
        return False

    def number(self, asked: int | None, usual: int = USUAL_DRAWS) -> int:
        """Return what is asked for, or all kept draws; refuse to make more."""
        del usual
        if asked is not None and asked > self.kept:
            raise SettingsError(
                f"num_samples (--draws) is {asked}, but the chain kept {self.kept} draws: ask for at most "
                "that, or fit again with more draws kept (--kept-draws)."
            )
        return self.kept if asked is None else asked

    def at_most(self, wanted: int) -> int:
        """Return `wanted`, or all kept draws where they are fewer."""
        return min(wanted, self.kept)

    def one(self, seed: int) -> int:
        """Return one of the kept draws, chosen by the seed."""
        return int(np.random.default_rng(seed).integers(self.kept))

    def chain_length(self, refusal: str) -> int:
        """Return the number of kept draws."""
        del refusal
        return self.kept

    def efficiency(self, likelihoods: Callable[[], NDArray[np.float64]]) -> float:
        """Return the mean relative efficiency of the likelihoods (Vehtari et al. 2017)."""
        return float(relative_efficiency(likelihoods()).mean())

    def attributes(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return how many sweeps there were, after which of them draws were kept, and the chain's seed."""
        attributes: dict[str, Any] = {
            "sampling": "draws of one Gibbs chain, in the chain's order: neighbouring draws depend on each "
            "other",
            "sampler": "blocked Gibbs sweeps",
            "n_chains": 1,
            "kept_draws": self.kept,
        }
        settings = info.get("settings", {})
        gibbs = settings.get("gibbs", {})
        if {"sweeps", "burn_in", "kept_draws"} <= gibbs.keys():
            # Draws are evenly spaced and end with the last sweep; what does not divide is burnt in too.
            thinning = (gibbs["sweeps"] - gibbs["burn_in"]) // gibbs["kept_draws"]
            attributes |= {
                "n_sweeps": int(gibbs["sweeps"]),
                "burn_in": int(gibbs["sweeps"] - thinning * gibbs["kept_draws"]),
                "thinning": int(thinning),
            }
        if "seed" in settings:
            attributes["chain_seed"] = int(settings["seed"])
        if "iterations" in info:
            after = int(info["iterations"])
            attributes["started_from"] = (
                f"a guide fitted in {after} iterations" if after else "a random start"
            )
        return attributes
