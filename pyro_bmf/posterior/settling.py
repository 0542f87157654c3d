r"""Has a chain settled? One sentence, from the draws that it kept.

Looked at is what has an identity: cut points, noise and its spread over rows, the spreads of effects and of
interactions, and the predictors and interactions of a fixed sample of pairs. An interaction is the product of
factors about their means, :math:`(u_i - \bar u) \cdot (v_j - \bar v)`: what a product has of an effect trades
with the biases, and no rating tells how much that is (`gibbs.moves.shift_moves`). Each has a split R-hat,
with ranks normalised, and a bulk effective sample size (`convergence`). A hundred draws of a chain that *has*
settled have an R-hat above 1.1 about once in five hundred quantities: so a named quantity is judged by its
own, and the sample of pairs by the share above it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..numerics.convergence import bulk_ess, r_hat_limit, split_r_hat
from .hyperparameters import identified_draws
from .posterior import Posterior

Floats = NDArray[np.float64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]

#: Share of the sampled pairs above that R-hat which is beyond chance.
MOST_PAIRS = 0.05
#: Effective draws below which a mean's Monte-Carlo error is above a fifth of its standard deviation.
LEAST_ESS = 25.0
#: Draws below which halves cannot be told apart.
LEAST_DRAWS = 8
#: Pairs looked at.
N_PAIRS = 500


@dataclass(frozen=True)
class Quantity:
    """What R-hat and effective sample size say of one quantity, or of the sampled pairs together.

    Attributes
    ----------
    name : str
    r_hat : float
        Of the pairs: the quantile that `MOST_PAIRS` of them are above.
    ess : float
        Of the pairs: their median.
    settled : bool
    """

    name: str
    r_hat: float
    ess: float
    settled: bool


@dataclass(frozen=True)
class Settling:
    """Whether a chain has settled.

    Attributes
    ----------
    n_draws : int
        Kept draws.
    r_hat_limit : float
        NaN where the draws are too few to tell.
    quantities : tuple of Quantity
        Empty where the draws are too few.
    sweeps, burn_in : int
        Of the chain, or of each.
    chains : int
        How many there are, whose draws R-hat compares.
    """

    n_draws: int
    r_hat_limit: float
    quantities: tuple[Quantity, ...]
    sweeps: int
    burn_in: int
    chains: int = 1

    @property
    def settled(self) -> bool | None:
        """Whether everything has settled; None where the draws are too few to tell."""
        return all(one.settled for one in self.quantities) if self.quantities else None

    @property
    def unsettled(self) -> tuple[Quantity, ...]:
        """What has not settled, the largest R-hat first."""
        return tuple(sorted((q for q in self.quantities if not q.settled), key=lambda q: -q.r_hat))

    def longer(self) -> tuple[int, int]:
        """Return sweeps and burn-in to try next, from what the least effective quantity lacks.

        Twice to ten times the sweeps that there were, half of them burn-in.
        """
        kept = self.sweeps - self.burn_in
        least = min((one.ess for one in self.unsettled), default=LEAST_ESS)
        times = min(max(math.ceil(4.0 * LEAST_ESS / max(least, 1.0)), 2), 10)
        # A chain that kept few of its sweeps is not told to make fewer.
        wanted = max(2 * times * kept, 2 * self.sweeps) if times < 10 else 10 * self.sweeps
        sweeps = _round(min(wanted, 10 * self.sweeps))
        return sweeps, sweeps // 2

    def words(self) -> str | None:
        """Return in a few words that the chain has not settled; None where it has."""
        if self.settled is None:
            whose = "the chain" if self.chains == 1 else f"{self.chains} chains"
            return f"{self.n_draws} draws of {whose} are too few to tell whether {self._it} settled"
        if self.settled:
            return None
        worst = self.unsettled[0]
        return f"{self._not_settled} (R-hat of {worst.name} {worst.r_hat:.2f})"

    def sentence(self) -> str | None:
        """Return in a sentence what has not settled and what to do; None where all has."""
        if self.settled is None:
            return (
                f"The {self._kept} {self.n_draws} draws, too few to tell whether {self._it} settled: keep "
                f"{LEAST_DRAWS} or more{' of each' if self.chains > 1 else ''} (--kept-draws)."
            )
        if self.settled:
            return None
        names = [one.name for one in self.unsettled]
        named = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        worst = self.unsettled[0]
        least = min(self.unsettled, key=lambda one: one.ess)
        sweeps, burn_in = self.longer()
        # Whoever gives a length and no number of chains has one chain.
        many = f"--chains {self.chains} " if self.chains > 1 else ""
        return (
            f"{self._not_settled.capitalize()}: {named} (worst R-hat {worst.r_hat:.2f}, {worst.name}, where "
            f"{self.r_hat_limit:g} is the most; fewest effective draws {least.ess:.0f} of {self.n_draws}, "
            f"{least.name}, where {LEAST_ESS:g} is the least). Means are hardly touched, intervals and "
            f"hyperparameters are: fit longer, {many}--sweeps {sweeps} --burn-in {burn_in} instead of "
            f"{self.sweeps} and {self.burn_in}."
        )

    @property
    def _not_settled(self) -> str:
        return (
            "the chain has not settled" if self.chains == 1 else f"the {self.chains} chains have not settled"
        )

    @property
    def _kept(self) -> str:
        return "chain kept" if self.chains == 1 else f"{self.chains} chains kept"

    @property
    def _it(self) -> str:
        return "it has" if self.chains == 1 else "they have"

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain values, with the sentence."""
        return {
            "settled": self.settled,
            "n_draws": self.n_draws,
            "r_hat_limit": None if math.isnan(self.r_hat_limit) else self.r_hat_limit,
            "least_ess": LEAST_ESS,
            "sweeps": self.sweeps,
            "burn_in": self.burn_in,
            "chains": self.chains,
            "quantities": [
                {"name": q.name, "r_hat": round(q.r_hat, 4), "ess": round(q.ess, 1), "settled": q.settled}
                for q in self.quantities
            ],
            "words": self.words(),
            "sentence": self.sentence(),
        }


def check_settling(posterior: Posterior, pairs: Pairs, *, sweeps: int, burn_in: int) -> Settling:
    """Judge by its kept draws whether a chain has settled.

    Parameters
    ----------
    posterior : Posterior
        Of a chain.
    pairs : tuple of ndarray
        Users and items of pairs to sample from, shape (n,) each; always the same ones are taken of them.
    sweeps, burn_in : int
        Of the chain, for the remedy.

    Raises
    ------
    SettingsError
        If the posterior is not of a chain.
    """
    n_draws = posterior.sampling.chain_length(
        "Whether draws have settled is asked of a chain: this posterior has none."
    )
    chains = posterior.sampling.chains
    if n_draws < LEAST_DRAWS * chains:
        return Settling(n_draws, math.nan, (), sweeps, burn_in, chains)
    limit, by_chain = r_hat_limit(n_draws), posterior.sampling.by_chain
    users, items = (side[_sampled(len(side))] for side in pairs)
    eta, interactions = _pair_draws(posterior, users, items, n_draws)
    named = identified_draws(posterior)
    if len(users) > 1:
        named["spread of interactions"] = interactions.std(0)
    named = {name: values for name, values in named.items() if np.ptp(values) > 0}
    found = []
    if named:
        values = by_chain(np.stack(list(named.values())))
        for name, r_hat, ess in zip(named, split_r_hat(values), bulk_ess(values), strict=True):
            fine = bool(r_hat <= limit and ess >= LEAST_ESS)
            found.append(Quantity(name, float(r_hat), float(ess), fine))
    for name, values in (("predictors of pairs", eta), ("interactions of pairs", interactions)):
        values = by_chain(values[np.ptp(values, axis=1) > 0])
        if len(values):
            r_hat, ess = split_r_hat(values), bulk_ess(values)
            typical = float(np.median(ess))
            fine = float((r_hat > limit).mean()) <= MOST_PAIRS and typical >= LEAST_ESS
            found.append(Quantity(name, float(np.quantile(r_hat, 1.0 - MOST_PAIRS)), typical, fine))
    return Settling(n_draws, limit, tuple(found), sweeps, burn_in, chains)


def settling_of(posterior: Posterior) -> Mapping[str, Any] | None:
    """Return what a posterior's fit said of its chain; looked at anew where the fit said nothing.

    None for a posterior that is not of a chain.
    """
    if not posterior.sampling.settles:
        return None
    said = posterior.info.get("chain")
    if isinstance(said, Mapping):
        return said
    settings = posterior.info.get("settings", {}).get("gibbs", {})
    train = posterior.train
    kept = posterior.sampling.number(None)
    sweeps = int(settings.get("sweeps", kept))
    burn_in = int(settings.get("burn_in", 0))
    return check_settling(posterior, (train.users, train.items), sweeps=sweeps, burn_in=burn_in).to_dict()


def _sampled(n: int) -> NDArray[np.int64]:
    if n <= N_PAIRS:
        return np.arange(n)
    return np.sort(np.random.default_rng([n, 0x5E77]).choice(n, N_PAIRS, replace=False))


def _pair_draws(
    posterior: Posterior, users: NDArray[np.int64], items: NDArray[np.int64], n_draws: int
) -> tuple[Floats, Floats]:
    """Return the draws of predictors and of interactions of some pairs, (n, n_draws) each."""
    draws = np.arange(n_draws)
    rows, at_users = np.unique(users, return_inverse=True)
    columns, at_items = np.unique(items, return_inverse=True)
    u, b = posterior.pairs.draw_rows("user", rows, draws, 0)
    v, c = posterior.pairs.draw_rows("item", columns, draws, 0)
    eta = (u[:, at_users] * v[:, at_items]).sum(-1).double()
    if b is not None and c is not None:
        eta = eta + b[:, at_users].double() + c[:, at_items].double()
    mean_u, mean_v = (
        torch.stack([factors.mean(0) for factors, _ in rows.factor_moments()])
        for rows in (posterior.user_rows, posterior.item_rows)
    )
    u, v = u.double() - mean_u.unsqueeze(1), v.double() - mean_v.unsqueeze(1)
    interactions = (u[:, at_users] * v[:, at_items]).sum(-1)
    return eta.T.cpu().numpy(), interactions.T.cpu().numpy()


def _round(value: float) -> int:
    """Return a number of two digits and noughts that is at least `value`."""
    step = 10 ** max(math.floor(math.log10(max(value, 1.0))) - 1, 0)
    return int(math.ceil(value / step) * step)
