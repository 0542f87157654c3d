"""What lists of recommendations are like: how many items share them, how well known, how alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pyro_bmf.data import Ratings
from pyro_bmf.numerics.chunks import CELLS, chunks

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ListFigures:
    """Figures of the lists of many users.

    Attributes
    ----------
    catalogue_share
        Share of all items that stand in a list.
    gini
        Gini coefficient of how often the items are listed: 0 where all are equally often, near 1 where few
        are.
    novelty
        Mean of -log2 of the share of users who rated a listed item in training (an item without a rating
        counts as one with half a rating), in bits.
    intra_list_similarity
        Mean over lists of the mean cosine between the users of two listed items.
    """

    catalogue_share: float
    gini: float
    novelty: float
    intra_list_similarity: float

    def to_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


def list_figures(lists: Ints, train: Ratings) -> ListFigures:
    """Measure lists (n_users, n) of items, where -1 is none, against the training ratings.

    NaN where there is no list, or none with two items.
    """
    listed = lists[lists >= 0]
    counts = np.bincount(listed, minlength=train.n_items)
    share = float(np.count_nonzero(counts)) / max(train.n_items, 1)
    known = np.maximum(train.item_counts, 0.5) / max(train.n_users, 1)
    novelty = float(-np.log2(known[listed]).mean()) if listed.size else float("nan")
    return ListFigures(share, gini(counts), novelty, intra_list_similarity(lists, train))


def gini(counts: NDArray[Any]) -> float:
    """Return the Gini coefficient of counts, NaN where all are zero."""
    total = float(counts.sum())
    if not total:
        return float("nan")
    n = len(counts)
    places = np.arange(1, n + 1)
    return float(((2 * places - n - 1) * np.sort(counts)).sum() / (n * total))


def intra_list_similarity(lists: Ints, train: Ratings) -> float:
    r"""Return the mean over lists of the mean cosine of two items' columns of ones.

    The cosines of a list's pairs are had from its vectors' sum: :math:`|\sum z|^2 - n`, of unit vectors z.
    """
    ones = np.ones(len(train))
    columns = sparse.csr_matrix((ones, (train.items, train.users)), shape=(train.n_items, train.n_users))
    root = np.sqrt(np.maximum(train.item_counts, 1))
    unit = sparse.diags_array(1.0 / root).tocsr() @ columns
    found = []
    for part in chunks(len(lists), CELLS // max(train.n_users, 1)):
        own = lists[part]
        row, place = np.nonzero(own >= 0)
        member = sparse.csr_matrix(
            (np.ones(len(row)), (row, own[row, place])), shape=(len(own), train.n_items)
        )
        size = np.bincount(row, minlength=len(own))
        alone = np.asarray(member @ (train.item_counts > 0).astype(float)).reshape(-1)
        square = np.asarray((member @ unit).power(2).sum(axis=1)).reshape(-1)
        several = size > 1
        found.append((square - alone)[several] / (size * (size - 1))[several])
    joined = np.concatenate(found) if found else np.zeros(0)
    return float(joined.mean()) if joined.size else float("nan")
