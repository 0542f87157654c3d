"""Figures of merit: of predicted ratings, of predicted distributions, of ranked lists.

All are pure functions of arrays, vectorised, without state. Those of distributions return one value a rating,
so that they can be averaged, grouped and compared in pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyro_bmf.data import RatingScale
from pyro_bmf.errors import SettingsError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SMALLEST_PROBABILITY = float(np.finfo(np.float64).tiny)


def rmse(ratings: ArrayLike, predictions: ArrayLike, *, clip: RatingScale | None = None) -> float:
    """Root mean squared error, rating units; predictions clipped to the scale `clip` if one is given."""
    errors = _errors(ratings, predictions, clip)
    return float(np.sqrt(np.mean(errors**2)))


def mae(ratings: ArrayLike, predictions: ArrayLike, *, clip: RatingScale | None = None) -> float:
    """Mean absolute error, rating units; predictions clipped to the scale `clip` if one is given."""
    return float(np.mean(np.abs(_errors(ratings, predictions, clip))))


def nll(pmf: ArrayLike, positions: ArrayLike) -> Floats:
    """Negative log probability of each observed rating, in nats.

    Parameters
    ----------
    pmf
        (n, L) probability of each level.
    positions
        (n,) position of the observed level.

    Returns
    -------
    numpy.ndarray
        (n,) values >= 0. A probability below 2.2e-308 counts as that, i.e. 708 nats, so that one rating
        that a system calls impossible does not make every average infinite.
    """
    probabilities, observed = _pmf(pmf, positions)
    chosen = np.take_along_axis(probabilities, observed[:, None], axis=1)[:, 0]
    # a row may sum to 1 + rounding: no negative values from that
    return -np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1.0))


def rps(pmf: ArrayLike, positions: ArrayLike) -> Floats:
    r"""Ranked probability score of each rating: smaller is better, 0 is certain and right.

    .. math:: \mathrm{RPS} = \sum_{l=1}^{L-1} \left(F_l - 1[y \le l]\right)^2,
              \qquad F_l = \sum_{m \le l} p_m

    (Epstein 1969), the plain sum over the L − 1 thresholds, **not** divided by L − 1. With levels one apart
    it is the continuous ranked probability score in rating units, hence comparable with the MAE: a point
    prediction scores its absolute error. Half stars have twice as many thresholds.

    Parameters
    ----------
    pmf
        (n, L) probability of each level.
    positions
        (n,) position of the observed level.

    Returns
    -------
    numpy.ndarray
        (n,) values in [0, L − 1].
    """
    probabilities, observed = _pmf(pmf, positions)
    cumulative = np.cumsum(probabilities, axis=1)[:, :-1]
    reached = observed[:, None] <= np.arange(cumulative.shape[1])
    scores: Floats = np.sum((cumulative - reached) ** 2, axis=1)
    return scores


def recall_at(hits: ArrayLike, totals: ArrayLike, n: int) -> Floats:
    """Recall@n of each user: relevant items among the first `n`, over min(n, total).

    Liang et al. 2018, doi 10.1145/3178876.3186150, with total = the user's relevant items: 1 means that the
    list could not be better. Another total gives another denominator (see the protocols).

    Parameters
    ----------
    hits
        (n_users, m) whether the item at each place of the list is relevant; a list with m < n places ends
        there.
    totals
        (n_users,) what the denominator counts; NaN comes out where it is 0.
    n
        Length of the list, at least 1.

    Returns
    -------
    numpy.ndarray
        (n_users,) values in [0, 1], as long as `totals` is no less than the user's hits.
    """
    found, denominators = _lists(hits, totals, n)
    counts = found.sum(axis=1).astype(np.float64)
    recall: Floats = np.full(counts.shape, np.nan)
    np.divide(counts, denominators, out=recall, where=denominators > 0)
    return recall


def ndcg_at(hits: ArrayLike, totals: ArrayLike, n: int) -> Floats:
    r"""Normalised discounted cumulative gain of each user: binary relevance, truncated at `n`.

    .. math:: \mathrm{NDCG@}n = \frac{\sum_{r=1}^{n} h_r / \log_2(r + 1)}
              {\sum_{r=1}^{\min(n, \mathrm{total})} 1 / \log_2(r + 1)}

    with h_r = 1 if the item at place r is relevant (Liang et al. 2018, doi 10.1145/3178876.3186150, with
    total = the user's relevant items, so that the denominator is the gain of the best list).

    Parameters and result are those of `recall_at`.
    """
    found, denominators = _lists(hits, totals, n)
    discounts = 1 / np.log2(np.arange(2, n + 2))
    # A running sum adds place by place, as the denominator does; a matrix product may round equal lists
    # apart, depending on where they stand in it.
    gains = np.cumsum(found * discounts[: found.shape[1]], axis=1)
    gain = gains[:, -1] if gains.shape[1] else np.zeros(len(gains))
    best = np.concatenate([[0.0], np.cumsum(discounts)])[denominators]
    ndcg: Floats = np.full(gain.shape, np.nan)
    np.divide(gain, best, out=ndcg, where=best > 0)
    return ndcg


def _errors(ratings: ArrayLike, predictions: ArrayLike, clip: RatingScale | None) -> Floats:
    observed = np.asarray(ratings, dtype=np.float64)
    predicted = np.asarray(predictions, dtype=np.float64)
    if observed.shape != predicted.shape or observed.size == 0:
        raise SettingsError(
            f"{observed.size} ratings and {predicted.size} predictions: one each is needed, at least one."
        )
    if clip is not None:
        predicted = clip.clip(predicted)
    return predicted - observed


def _pmf(pmf: ArrayLike, positions: ArrayLike) -> tuple[Floats, Ints]:
    probabilities = np.asarray(pmf, dtype=np.float64)
    observed = np.asarray(positions, dtype=np.int64)
    if probabilities.ndim != 2 or observed.shape != probabilities.shape[:1]:
        raise SettingsError(
            f"probabilities of shape {probabilities.shape} do not fit {observed.size} ratings: one row each."
        )
    return probabilities, observed


def _lists(hits: ArrayLike, totals: ArrayLike, n: int) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    if n < 1:
        raise SettingsError(f"the length of a list must be at least 1, not {n}.")
    found = np.asarray(hits, dtype=np.bool_)[:, :n]
    return found, np.minimum(np.asarray(totals, dtype=np.int64), n)
