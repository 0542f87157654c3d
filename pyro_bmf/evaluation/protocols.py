"""Ranking under three named protocols: which items a user's list is drawn from, and what a hit is divided by.

========================  ============================================  =========================
protocol                  candidates of a user                          denominators
========================  ============================================  =========================
``full`` (headline)       all items but those the user has in train     min(N, relevant)
                          (and in validation, when test is evaluated)
``rated``                 the user's evaluated items                    min(N, relevant)
``rated-precision``       the user's evaluated items                    min(N, evaluated items)
========================  ============================================  =========================

Recall and NDCG are those of Liang et al. 2018 (doi 10.1145/3178876.3186150) with these denominators.
Relevant means a rating above the threshold. Users with one evaluated rating, and users none of whose
evaluated items is relevant, are left out and counted. Equal scores are ordered by item index.

Of a catalogue of more than `LARGE_CATALOGUE` items a predictor that screens it is asked for its lists,
instead of for its score of every item; what a user's list is ordered by stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.data import Ratings, Split
from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation.answers import checked_array
from pyro_bmf.evaluation.metrics import ndcg_at, recall_at
from pyro_bmf.numerics.ragged_rows import ragged_rows, row_starts
from pyro_bmf.numerics.ranked_lists import Exclusion
from pyro_bmf.numerics.top_n import top_n
from pyro_bmf.systems.contract import Predictor

PROTOCOLS = ("full", "rated", "rated-precision")
#: Items above which lists are asked for where a predictor gives them.
LARGE_CATALOGUE = 50_000
Part = Literal["test", "valid"]


@dataclass(frozen=True)
class Ranking:
    """Recall and NDCG of one protocol at one list length.

    Attributes
    ----------
    protocol, n
        What was measured.
    recall, ndcg
        Means over the evaluated users; NaN without any.
    recall_se, ndcg_se
        Their standard errors over users.
    n_users
        Users evaluated.
    n_users_one_rating
        Users left out because they have one evaluated rating.
    n_users_none_relevant
        Users left out because none of their evaluated items (two or more) is relevant.
    catalogue_share
        Share of all items that is in the list of at least one evaluated user; None but for ``full``.
    users, user_recall, user_ndcg
        (n_users,) the evaluated users and the figures of each.
    """

    protocol: str
    n: int
    recall: float
    recall_se: float
    ndcg: float
    ndcg_se: float
    n_users: int
    n_users_one_rating: int
    n_users_none_relevant: int
    catalogue_share: float | None
    users: NDArray[np.int64] = field(repr=False, compare=False)
    user_recall: NDArray[np.float64] = field(repr=False, compare=False)
    user_ndcg: NDArray[np.float64] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures without those of single users."""
        left_out = ("users", "user_recall", "user_ndcg")
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}


def evaluate_ranking(
    predictor: Predictor,
    split: Split,
    *,
    part: Part = "test",
    n: Sequence[int] = (20, 50),
    threshold: float = 3.0,
    protocols: Sequence[str] = PROTOCOLS,
    max_cells: int = 4_000_000,
    advance: Callable[[int], None] | None = None,
) -> tuple[Ranking, ...]:
    """Rank for every user with something to find, and score the lists.

    Parameters
    ----------
    predictor
        Only its `score_items` is used, and only for the evaluated users; of a large catalogue that it
        screens, its `best_items` and `predict_mean`.
    split
        Ratings to evaluate on and to leave out of the candidates.
    part
        ``"test"`` or ``"valid"``. The test part never influences figures of the validation part.
    n
        Lengths of the lists.
    threshold
        An item is relevant to a user who rated it above this.
    protocols
        Some of `PROTOCOLS`.
    max_cells
        Scores held at once; bounds memory at about 10 bytes each.
    advance
        Told of evaluated users that are done.

    Returns
    -------
    tuple of Ranking
        One for each protocol and length, in the order asked for.

    Raises
    ------
    SettingsError
        For an unknown part, protocol or list length, a threshold that is not finite, or scores of the wrong
        shape.
    FitError
        If a score is not finite.
    """
    check_ranking_settings(part, n, protocols)
    if not np.isfinite(threshold):
        raise SettingsError(
            f"threshold is {threshold}: give a finite rating, above which an item is relevant."
        )
    if not protocols:
        return ()
    held_out = split.test if part == "test" else split.valid
    seen = (split.train, split.valid) if part == "test" else (split.train,)
    counts = held_out.user_counts
    relevant = held_out.ratings > threshold
    relevant_counts = np.bincount(held_out.users[relevant], minlength=held_out.n_users)
    users = evaluated_users(held_out, threshold)
    left_out = (int((counts == 1).sum()), int(((counts >= 2) & (relevant_counts == 0)).sum()))

    if predictor.screens_catalogue and held_out.n_items > LARGE_CATALOGUE:
        lists = _ask(predictor, held_out, seen, users, relevant, tuple(n), "full" in protocols, advance)
    else:
        lists = _rank(
            predictor, held_out, seen, users, relevant, tuple(n), "full" in protocols, max_cells, advance
        )
    results = []
    for protocol in protocols:
        hits = lists.full if protocol == "full" else lists.rated
        totals = counts[users] if protocol == "rated-precision" else relevant_counts[users]
        for length in n:
            recall, ndcg = recall_at(hits, totals, length), ndcg_at(hits, totals, length)
            share = lists.shares[length] if protocol == "full" else None
            moments = (*_mean_and_se(recall), *_mean_and_se(ndcg))
            results.append(
                Ranking(protocol, length, *moments, users.size, *left_out, share, users, recall, ndcg)
            )
    return tuple(results)


def evaluated_users(held_out: Ratings, threshold: float) -> NDArray[np.int64]:
    """Return the users with two evaluated ratings or more, one of them relevant."""
    relevant = np.bincount(held_out.users[held_out.ratings > threshold], minlength=held_out.n_users)
    return np.flatnonzero((held_out.user_counts >= 2) & (relevant > 0))


def check_ranking_settings(part: str, n: Sequence[int], protocols: Sequence[str]) -> None:
    """Raise `SettingsError` for an unknown part or protocol, or a list length below 1."""
    if part not in ("test", "valid"):
        raise SettingsError(f"part {part!r} cannot be evaluated: choose 'test' or 'valid'.")
    unknown = [name for name in protocols if name not in PROTOCOLS]
    if unknown:
        raise SettingsError(
            f"there is no ranking protocol {unknown[0]!r}: choose from {', '.join(PROTOCOLS)}."
        )
    if protocols and (not n or min(n) < 1):
        raise SettingsError(f"list lengths must be at least 1, not {list(n)}.")


@dataclass(frozen=True)
class _Lists:
    full: NDArray[np.bool_]  # (n_users, longest): is the item at this place relevant
    rated: NDArray[np.bool_]
    shares: dict[int, float]  # of the catalogue, by list length


def _rank(
    predictor: Predictor,
    held_out: Ratings,
    seen: tuple[Ratings, ...],
    users: NDArray[np.int64],
    relevant: NDArray[np.bool_],
    lengths: tuple[int, ...],
    full: bool,
    max_cells: int,
    advance: Callable[[int], None] | None,
) -> _Lists:
    n_items, longest = held_out.n_items, max(lengths)
    starts = row_starts(held_out.users, held_out.n_users)
    seen_starts = [row_starts(part.users, part.n_users) for part in seen]
    hits = np.zeros((users.size, longest), dtype=np.bool_)
    rated_hits = np.zeros((users.size, longest), dtype=np.bool_)
    recommended = {length: np.zeros(n_items, dtype=np.bool_) for length in lengths}
    step = max(1, max_cells // max(n_items, 1))
    for start in range(0, users.size, step):
        chunk = users[start : start + step]
        scores = checked_array(
            predictor.score_items(chunk), (chunk.size, n_items), "score_items", dtype=np.float32
        )
        local, rows = ragged_rows(starts, chunk)
        items, is_relevant = held_out.items[rows], relevant[rows]
        _rated_hits(rated_hits[start : start + chunk.size], local, items, scores[local, items], is_relevant)
        if advance is not None:
            advance(chunk.size)
        if not full:
            continue
        scores = scores.copy()  # what the predictor gave stays its own
        for part, part_starts in zip(seen, seen_starts, strict=True):
            part_local, part_rows = ragged_rows(part_starts, chunk)
            scores[part_local, part.items[part_rows]] = -np.inf
        best = top_n(scores, longest)
        wanted = np.zeros((chunk.size, n_items), dtype=np.bool_)
        wanted[local[is_relevant], items[is_relevant]] = True
        # the place -1 (no candidate left) reads the last item, and is then struck out
        hits[start : start + chunk.size] = np.take_along_axis(wanted, best, axis=1) & (best >= 0)
        for length, mask in recommended.items():
            mask[best[:, :length][best[:, :length] >= 0]] = True
    shares = {length: float(mask.mean()) if n_items else 0.0 for length, mask in recommended.items()}
    return _Lists(hits, rated_hits, shares)


def _rated_hits(
    hits: NDArray[np.bool_],
    local: NDArray[np.int64],
    items: NDArray[np.int64],
    scores: NDArray[Any],
    relevant: NDArray[np.bool_],
) -> None:
    """Mark the places of relevant items among a user's own, by score; `local` (ascending) says whose."""
    order = np.lexsort((items, -scores, local))  # `local` is ascending and stays in place
    first = np.searchsorted(local, np.arange(len(hits)))
    places = np.arange(local.size) - first[local]
    kept = places < hits.shape[1]
    hits[local[kept], places[kept]] = relevant[order][kept]


def _ask(
    predictor: Predictor,
    held_out: Ratings,
    seen: tuple[Ratings, ...],
    users: NDArray[np.int64],
    relevant: NDArray[np.bool_],
    lengths: tuple[int, ...],
    full: bool,
    advance: Callable[[int], None] | None,
) -> _Lists:
    """Do what `_rank` does with the predictor's own lists."""
    n_items, longest = held_out.n_items, max(lengths)
    local, rows = ragged_rows(row_starts(held_out.users, held_out.n_users), users)
    items, is_relevant = held_out.items[rows], relevant[rows]
    scores = checked_array(predictor.predict_mean(users[local], items), items.shape, "predict_mean")
    rated_hits = np.zeros((users.size, longest), dtype=np.bool_)
    _rated_hits(rated_hits, local, items, scores, is_relevant)
    hits = np.zeros_like(rated_hits)
    shares = dict.fromkeys(lengths, 0.0)
    if full and users.size:
        exclusion = Exclusion.of_pairs(
            np.concatenate([part.users for part in seen]),
            np.concatenate([part.items for part in seen]),
            held_out.n_users,
        )
        best = predictor.best_items(users, longest, exclusion, advance)
        if best.shape != (users.size, longest):
            raise SettingsError(
                f"best_items gave an array of shape {best.shape}; {(users.size, longest)} is needed."
            )
        wanted = np.sort(local[is_relevant] * n_items + items[is_relevant])
        keys = np.arange(users.size)[:, None] * n_items + best
        found = np.searchsorted(wanted, keys)
        hits = (wanted[np.minimum(found, wanted.size - 1)] == keys) & (best >= 0)
        for length in lengths:
            listed = best[:, :length]
            shares[length] = np.unique(listed[listed >= 0]).size / n_items
    return _Lists(hits, rated_hits, shares)


def _mean_and_se(values: NDArray[np.float64]) -> tuple[float, float]:
    if values.size == 0:
        return float("nan"), float("nan")
    se = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")
    return float(values.mean()), se
