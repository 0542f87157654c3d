"""What ranked lists are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation.metrics.base import CatalogueMetric, RankingMetric

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_NEEDS = "a score of every item"
_LIANG = "Liang et al. 2018, doi 10.1145/3178876.3186150"


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


def _lists(hits: ArrayLike, totals: ArrayLike, n: int) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    if n < 1:
        raise SettingsError(f"the length of a list must be at least 1, not {n}.")
    found = np.asarray(hits, dtype=np.bool_)[:, :n]
    return found, np.minimum(np.asarray(totals, dtype=np.int64), n)


class Recall(RankingMetric):
    """Recall of lists of length n."""

    name = "recall"
    label = "recall"
    better = "higher"
    needs = _NEEDS
    definition = "mean over users of relevant items among the first n, over what the protocol divides by"
    source = _LIANG
    screen = "main"

    def values(self, hits: NDArray[np.bool_], totals: NDArray[Any], n: int) -> Floats:
        """Return `recall_at`."""
        return recall_at(hits, totals, n)


class NDCG(RankingMetric):
    """Normalised discounted cumulative gain of lists of length n."""

    name = "ndcg"
    label = "NDCG"
    better = "higher"
    needs = _NEEDS
    definition = "mean over users of Σ 1/log2(place + 1) over relevant items, over that of the best list"
    source = _LIANG
    screen = "main"

    def values(self, hits: NDArray[np.bool_], totals: NDArray[Any], n: int) -> Floats:
        """Return `ndcg_at`."""
        return ndcg_at(hits, totals, n)


class CatalogueShare(CatalogueMetric):
    """How much of the catalogue is ever recommended."""

    name = "catalogue_share"
    label = "share of items in a list"
    better = "neither"
    needs = _NEEDS
    definition = "share of all items that stand in the list of at least one evaluated user"

    def figure(self, listed: Ints, n: int) -> float:
        """Return the share of items with a list."""
        del n
        return np.count_nonzero(listed) / listed.size if listed.size else 0.0

    def column(self, n: int) -> str:
        """Return ``catalogue@20`` for 20."""
        return f"catalogue@{n}"

    def words(self, n: int) -> str:
        """Return ``share of items in a top 20`` for 20."""
        return f"share of items in a top {n}"
