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
    def chains(self) -> int:
        """Number of chains that draws are of: one of independent draws."""

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

    def by_chain(self, draws: NDArray[np.float64], each: int = 1) -> NDArray[np.float64]:
        """Return draws (n, S) of the posterior, numbered as it numbers them, as (n, chains, S / chains).

        `each` of them in a row are of one draw.
        """

    def efficiency(self, likelihoods: Callable[[], NDArray[np.float64]], each: int = 1) -> float:
        """Return how many independent draws one draw is worth, for means of likelihoods (n, n_draws).

        The likelihoods are only made where the answer depends on them; `each` as in `by_chain`.
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
    def chains(self) -> int:
        """One: there is nothing to keep apart."""
        return 1

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

    def by_chain(self, draws: NDArray[np.float64], each: int = 1) -> NDArray[np.float64]:
        """Return them as of one chain."""
        del each
        return draws[:, None]

    def efficiency(self, likelihoods: Callable[[], NDArray[np.float64]], each: int = 1) -> float:
        """Return one."""
        del likelihoods, each
        return 1.0

    def attributes(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return that there is no Markov chain."""
        del info
        return {"sampling": "independent draws of a variational posterior: no Markov chain"}


@dataclass(frozen=True)
class ChainDraws:
    """The draws that Gibbs chains kept, in their order: neighbouring ones of a chain depend on each other.

    Draws of several chains stand alternately: the first of each chain, then the second of each.

    Attributes
    ----------
    kept : int
        Number of draws, of all chains together.
    chains : int
        Number of chains.
    """

    kept: int
    chains: int = 1

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

    def efficiency(self, likelihoods: Callable[[], NDArray[np.float64]], each: int = 1) -> float:
        """Return the mean relative efficiency of the likelihoods (Vehtari et al. 2017)."""
        return float(relative_efficiency(self.by_chain(likelihoods(), each)).mean())

    def by_chain(self, draws: NDArray[np.float64], each: int = 1) -> NDArray[np.float64]:
        """Return draws (n, S) as (n, chains, S / chains); the last ones are left out where chains differ."""
        n, s = len(draws), draws.shape[1] // (self.chains * each)
        even = draws[:, : s * self.chains * each].reshape(n, s, self.chains, each)
        return even.swapaxes(1, 2).reshape(n, self.chains, s * each)

    def attributes(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return how long each chain was, from which sweep on it kept draws, the seed, and the start."""
        attributes: dict[str, Any] = {
            "sampling": f"draws of {'one Gibbs chain' if self.chains == 1 else 'Gibbs chains'}, in "
            f"{'the' if self.chains == 1 else 'each'} chain's order: neighbouring draws depend on each other",
            "sampler": "blocked Gibbs sweeps",
            "n_chains": self.chains,
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
            start = f"a guide fitted in {after} iterations" if after else "a random start"
            if after and self.chains > 1:
                start += " (the first chain), random starts (the others)"
            attributes["started_from"] = start
        return attributes
