r"""Leave-one-out predictive accuracy of training ratings, streamed at full size.

:math:`\mathrm{elpd}_{loo} = \sum_{ij} \log p(x_{ij} \mid \text{all other ratings})`, by Pareto-smoothed
importance sampling (`psis`) from draws of the posterior that has seen all of them (Vehtari, Gelman and Gabry
2017, doi 10.1007/s11222-016-9696-4). Only chunks of ratings by draws are ever held: small ones where draws
of both rows are in hand, and as many ratings as `_HELD` allows where each takes all draws of a chain.

Draws of a chain that has conditionals of its rows are not weighted as they are: both rows that a rating is in
are integrated out (`fitted.LeftOut`), as they have followed it. Ratings that are given, and not the
posterior's own, are weighted by draws of both rows.

The draws of a variational posterior are taken as draws of the posterior itself; where q is too narrow, the
estimate is too high and k-hat too low, by more than models differ: some pairs of such
guides are clearly ranked the wrong way round (docs/checking.md). `compare_loo` ranks none of them.
Held-out ratings do not have that fault.

A sum of leave-one-out terms is no better than its worst terms: one rating whose k-hat is too large can be
wrong by more than two models differ. Where more than `MOST_HIGH_K` of them are, `compare_loo` ranks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.ratings import Ratings
from ..evaluation.elpd import ElpdRow, compare_elpd
from ..model.fitted import LeftOut
from ..numerics.chunks import chunks
from ..numerics.psis import count_k_hats, good_k, leave_one_out
from ..posterior.encoding import side_feedback
from ..posterior.pair_draws import PairDraws
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices
from ..systems.raw_ids import check_count

Floats = NDArray[np.float64]
#: Ratings by draws in a chunk: a few megabytes, which stay in a processor's cache.
_CELLS = 200_000
#: Ratings by draws held at once where rows are integrated out: a few hundred megabytes.
_HELD = 80_000_000
#: Share of ratings with a k-hat above its limit up to which a comparison may be believed.
MOST_HIGH_K = 0.01
#: Ratings whose likelihoods say how efficient the draws of a chain are.
_EFFICIENCY_RATINGS = 500


@dataclass(frozen=True, eq=False)
class LooResult:
    """PSIS-LOO of some ratings.

    Attributes
    ----------
    users, items : ndarray, shape (n,)
        Indices of the ratings' rows.
    elpd : ndarray, shape (n,)
        Log predictive probability of each rating given the rest (density on a continuous scale), nats.
    k_hat : ndarray, shape (n,)
        NaN where all tail weights are equal.
    p_loo : ndarray, shape (n,)
        What the rating itself adds: log predictive under the whole posterior less `elpd`.
    n_draws : int
        That were weighted: several for each draw of a chain whose rows are integrated out.
    efficiency : float
        Effective sample size over draws: measured for a chain unless it was given, 1 for independent draws.
    of : {"probability", "density"}
    tempered, variational : bool
        Of the posterior.
    integrated : bool
        Whether the rows that the ratings are in were integrated out.
    """

    users: Indices
    items: Indices
    elpd: Floats
    k_hat: Floats
    p_loo: Floats
    n_draws: int
    efficiency: float
    of: str
    tempered: bool
    variational: bool
    integrated: bool = False

    @property
    def n_high_k(self) -> int:
        """Number of ratings whose k-hat is above what so many draws allow."""
        return int((self.k_hat > good_k(self.n_draws)).sum())

    @property
    def share_high_k(self) -> float:
        """Share of ratings whose k-hat is above min(0.7, 1 - 1/log10 S), S the number of draws."""
        return self.n_high_k / max(len(self.k_hat), 1)

    @property
    def reliable(self) -> bool:
        """Whether at most `MOST_HIGH_K` of the ratings have such a k-hat."""
        return self.share_high_k <= MOST_HIGH_K

    def k_counts(self) -> dict[str, int]:
        """Return how many k-hats are in each range."""
        return count_k_hats(self.k_hat)

    def to_dict(self) -> dict[str, Any]:
        """Return the sums and counts as plain values."""
        n = len(self.elpd)
        return {
            "n_ratings": n,
            "elpd": float(self.elpd.sum()),
            "elpd_se": float(np.sqrt(n * self.elpd.var())),
            "elpd_per_rating": float(self.elpd.mean()),
            "p_loo": float(self.p_loo.sum()),
            "n_draws": self.n_draws,
            "efficiency": self.efficiency,
            "good_k": good_k(self.n_draws),
            "n_high_k": self.n_high_k,
            "share_high_k": self.share_high_k,
            "reliable": self.reliable,
            **self.k_counts(),
            "of": self.of,
            "tempered": self.tempered,
            "variational": self.variational,
            "integrated": self.integrated,
        }


def psis_loo(
    posterior: Posterior,
    ratings: Ratings | None = None,
    *,
    num_samples: int | None = None,
    seed: int = 0,
    subset: int | None = None,
    efficiency: float | None = None,
    draws: PairDraws | None = None,
    advance: Callable[[int], None] | None = None,
) -> LooResult:
    """Leave each training rating out by importance sampling.

    Parameters
    ----------
    posterior : Posterior
    ratings : Ratings, optional
        Ratings that the posterior was fitted to; its own training ratings when not given.
    num_samples, seed : int
        Draws of the posterior: 400 when not given, those that it kept for a chain.
    subset : int, optional
        Take so many ratings at random instead of all.
    efficiency : float, optional
        Effective sample size over draws, which sets the length of the smoothed tail. When not given: 1 for
        the independent draws of a variational posterior; for a chain the mean, over some of the ratings, of
        the effective sample sizes of their likelihoods, as of the formula's means (Vehtari et al. 2017).
    draws : PairDraws, optional
        Draws of all rows in hand, instead of new ones.
    advance : callable, optional
        Called with the number of ratings done.

    Raises
    ------
    SettingsError
        If there are too few draws.
    """
    observed = posterior.train if ratings is None else ratings
    rows = np.arange(len(observed))
    if subset is not None and subset < len(rows):
        rows = np.sort(np.random.default_rng(seed).permutation(len(rows))[: check_count("subset", subset)])
    n, n_draws = len(rows), posterior.number_of_draws(num_samples) if draws is None else draws.n_draws
    left_out = _left_out(posterior, n_draws, seed) if ratings is None and draws is None else None
    each = 1
    if left_out is None:
        if draws is None:
            users, items = observed.users[rows], observed.items[rows]
            draws = PairDraws.draw(posterior.pairs, users, items, n_draws, seed)
        if efficiency is None:
            some = _some(rows, seed)
            efficiency = posterior.sampling.efficiency(lambda: _likelihoods(draws.of(observed, some)))
        parts = _drawn(draws, observed, rows, advance)
    else:
        each, n_draws = left_out.width // n_draws, left_out.width
        parts = _integrated(left_out, observed, rows, advance)
    elpd, k_hat, within = np.empty(n), np.empty(n), np.empty(n)
    with torch.no_grad():
        for held, fitted, scored in parts:
            if efficiency is None:
                chosen = torch.from_numpy(_some(np.arange(len(fitted)), seed)).to(fitted.device)
                efficiency = posterior.sampling.efficiency(partial(_likelihoods, fitted[chosen]), each)
            for part in chunks(len(fitted), _CELLS // n_draws):
                chances = None if scored is None else scored[part].double()
                found = leave_one_out(fitted[part].double(), efficiency, chances)
                place = slice(held.start + part.start, held.start + part.stop)
                elpd[place], k_hat[place], within[place] = (one.cpu().numpy() for one in found)
    return LooResult(
        observed.users[rows],
        observed.items[rows],
        elpd,
        k_hat,
        within - elpd,
        n_draws,
        1.0 if efficiency is None else efficiency,
        "density" if observed.scale.levels is None else "probability",
        posterior.tempered,
        not posterior.sampling.settles,
        left_out is not None,
    )


def _left_out(posterior: Posterior, n_draws: int, seed: int) -> LeftOut | None:
    """Return the training ratings with their rows integrated out, where the posterior's method has it."""
    if "implicit" in posterior.info:
        return None  # prior means of rows come from pairs that the posterior does not hold
    feedback, levels = side_feedback(posterior.train, posterior.model, "user"), posterior.train.scale.levels
    given = (
        None if levels is None else torch.tensor(levels, dtype=torch.float64, device=feedback.values.device)
    )
    return posterior.guide.left_out(posterior.model, feedback, given, n_draws, seed)


#: Places among the chosen ratings; what each draw says of them under what was fitted; and of what is scored.
_Parts = Iterator[tuple[slice, Tensor, Tensor | None]]


def _drawn(
    draws: PairDraws, observed: Ratings, rows: Indices, advance: Callable[[int], None] | None
) -> _Parts:
    """Give what draws of both rows say of ratings, some ratings at a time."""
    for part in chunks(len(rows), _CELLS // draws.n_draws):
        yield part, draws.of(observed, rows[part]), None
        if advance is not None:
            advance(part.stop - part.start)


def _integrated(
    left_out: LeftOut, observed: Ratings, rows: Indices, advance: Callable[[int], None] | None
) -> _Parts:
    """Give what draws of all else say of ratings: as many ratings as are held, since each takes all draws."""
    # Feedback is in the order of users, then of items.
    order = np.lexsort((observed.items, observed.users))
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    for part in chunks(len(rows), _HELD // left_out.width):
        yield part, *left_out.log_chances(torch.from_numpy(places[rows[part]]), advance)


def _some(rows: Indices, seed: int) -> Indices:
    """Return some rows at random, by which the efficiency of draws is told."""
    if len(rows) <= _EFFICIENCY_RATINGS:
        return rows
    return np.random.default_rng([seed, 0xEFF]).choice(rows, _EFFICIENCY_RATINGS, replace=False)


def _likelihoods(log_prob: Tensor) -> Floats:
    """Return likelihoods up to a factor each, (n, n_draws)."""
    found: Floats = (log_prob - log_prob.amax(1, keepdim=True)).exp().double().cpu().numpy()
    return found


@dataclass(frozen=True, eq=False)
class LooComparison:
    """Leave-one-out figures of several models beside each other.

    Attributes
    ----------
    rows : list of ElpdRow
        Best first; in the order given, without differences (NaN), where nothing is ranked.
    ranked : bool
        Whether every model's share of high k-hats is small enough to rank them, and none is variational.
    shares : dict
        By model, the share of ratings whose k-hat is above its limit.
    variational : tuple of str
        Models whose draws are of a variational posterior.
    """

    rows: list[ElpdRow]
    ranked: bool
    shares: dict[str, float]
    variational: tuple[str, ...] = ()

    def refusal(self) -> str | None:
        """Return in a sentence why nothing is ranked and what to do instead; None where it is."""
        if self.ranked:
            return None
        if self.variational:
            return (
                f"Not ranked by PSIS-LOO: the draws of {', '.join(self.variational)} are of a variational "
                "posterior, which is too narrow, and so too good at the ratings that it has seen, by more "
                "than models differ. Go by the held-out ELPD, or by folds (fit --scheme k-fold)."
            )
        high = [f"{name} {100 * share:.1f} %" for name, share in self.shares.items() if share > MOST_HIGH_K]
        return (
            f"Not ranked by PSIS-LOO: too many k-hats are above their limit ({', '.join(high)} of the "
            f"ratings, where {100 * MOST_HIGH_K:g} % is the most that can be believed). Go by the held-out "
            "ELPD, or by folds (fit --scheme k-fold); more draws (--kept-draws, --draws) may help."
        )


def compare_loo(names: Sequence[str], results: Sequence[LooResult]) -> LooComparison:
    """Rank models by their leave-one-out sums, if these can be believed.

    Parameters
    ----------
    names : sequence of str
    results : sequence of LooResult
        Of the same ratings.

    Raises
    ------
    SettingsError
        If they are of different ratings, or densities meet probabilities.
    """
    variational = tuple(name for name, one in zip(names, results, strict=True) if one.variational)
    ranked = not variational and all(one.reliable for one in results)
    shares = {name: one.share_high_k for name, one in zip(names, results, strict=True)}
    rows = compare_elpd(names, [one.elpd for one in results], results[0].users, [one.of for one in results])
    if not ranked:
        by_name = {row.name: row for row in rows}
        rows = [
            replace(
                by_name[name],
                difference=np.nan,
                difference_se=np.nan,
                difference_se_by_user=np.nan,
                clear=False,
            )
            for name in names
        ]
    return LooComparison(rows, ranked, shares, variational)
