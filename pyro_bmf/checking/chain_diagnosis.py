"""Has a chain been everywhere? R-hat and effective sample sizes of what has an identity, row by row.

Single factors rotate, so they are not looked at: predictors of pairs, biases less their mean, and noise are.
A row's figures are those of the predictors of its own rated pairs, at the middle of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..numerics.chunks import chunks
from ..numerics.convergence import bulk_ess, r_hat_limit, split_r_hat
from ..posterior.hyperparameters import identified_draws
from ..posterior.posterior import Posterior

Floats = NDArray[np.float64]
#: Rated pairs looked at of one row, at most.
PAIRS_A_ROW = 12
#: Share of a side's flagged rows that is worth a word.
MANY_FLAGGED = 0.05
_NUMBERS = 2_000_000


@dataclass(frozen=True, eq=False)
class ChainDiagnosis:
    """Convergence of one chain, or of several.

    Attributes
    ----------
    n_draws : int
        Of all chains.
    rows : dict of DataFrame
        By side; one line a row with ratings: ``row``, ``id``, ``n_ratings``, ``r_hat``, ``ess``, ``flagged``.
    hyperparameters : DataFrame
        ``name``, ``r_hat``, ``ess`` of noise, cut points, and the spreads of rows' noise and of effects.
    chains : int
    """

    n_draws: int
    rows: dict[str, pd.DataFrame]
    hyperparameters: pd.DataFrame
    chains: int = 1

    @property
    def r_hat_limit(self) -> float:
        """The R-hat above which a row is flagged."""
        return r_hat_limit(self.n_draws)

    def summary(self) -> list[dict[str, Any]]:
        """Return one line a side."""
        return [
            {
                "side": side,
                "rows": len(table),
                "flagged": int(table["flagged"].sum()),
                "median_r_hat": float(table["r_hat"].median()),
                "largest_r_hat": float(table["r_hat"].max()),
                "median_ess": float(table["ess"].median()),
                "smallest_ess": float(table["ess"].min()),
            }
            for side, table in self.rows.items()
        ]

    @property
    def largest_share(self) -> float:
        """The larger of the two sides' shares of flagged rows."""
        return max(float(table["flagged"].mean()) if len(table) else 0.0 for table in self.rows.values())


def diagnose_chain(
    posterior: Posterior, *, seed: int = 0, advance: Callable[[int], None] | None = None
) -> ChainDiagnosis:
    """Measure R-hat and ESS of each row's predictors, and of the hyperparameters.

    Parameters
    ----------
    posterior : Posterior
        Of a chain.
    seed : int
        Which pairs of a row with many ratings are looked at.
    advance : callable, optional
        Called with the number of pairs done.

    Raises
    ------
    SettingsError
        If the posterior is not of a chain.
    """
    n_draws = posterior.sampling.chain_length(
        "R-hat is of draws of a chain: a variational posterior has none."
    )
    train = posterior.train
    rng = np.random.default_rng([seed, 0xC4A1])
    chosen = {
        "user": _some_of_each(train.users, rng),
        "item": _some_of_each(train.items, rng),
    }
    pairs = np.unique(np.concatenate(list(chosen.values())))
    r_hat, ess = np.empty(len(pairs)), np.empty(len(pairs))
    draws = np.arange(n_draws)
    for part in chunks(len(pairs), max(1, _NUMBERS // n_draws)):
        at = pairs[part]
        eta = posterior.pairs.draw_eta(train.users[at], train.items[at], draws, 0).T.double().cpu().numpy()
        eta = posterior.sampling.by_chain(eta)
        r_hat[part], ess[part] = split_r_hat(eta), bulk_ess(eta)
        if advance is not None:
            advance(part.stop - part.start)
    rows = {}
    for side, vocabulary, own, counts in (
        ("user", posterior.user_vocabulary, train.users, train.user_counts),
        ("item", posterior.item_vocabulary, train.items, train.item_counts),
    ):
        at = np.searchsorted(pairs, chosen[side])
        table = pd.DataFrame({"row": own[chosen[side]], "r_hat": r_hat[at], "ess": ess[at]})
        table = table.groupby("row", as_index=False).median()
        table.insert(1, "id", vocabulary.raw(table["row"].to_numpy()))
        table.insert(2, "n_ratings", counts[table["row"].to_numpy()])
        table["flagged"] = table["r_hat"] > r_hat_limit(n_draws)
        rows[side] = table
    return ChainDiagnosis(n_draws, rows, _hyperparameters(posterior), posterior.sampling.chains)


def _some_of_each(rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return places of at most a few entries of each row."""
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows[order], kind="stable")]
    ordered = rows[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.concatenate([starts, [len(rows)]]))
    within = np.arange(len(rows)) - np.repeat(starts, sizes)
    return order[within < PAIRS_A_ROW]


def _hyperparameters(posterior: Posterior) -> pd.DataFrame:
    named = identified_draws(posterior)
    moving = {name: values for name, values in named.items() if values.std() > 0}
    if not moving:
        return pd.DataFrame({"name": [], "r_hat": [], "ess": []})
    values = posterior.sampling.by_chain(np.stack(list(moving.values())))
    return pd.DataFrame({"name": list(moving), "r_hat": split_r_hat(values), "ess": bulk_ess(values)})
