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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.data import Ratings, RatingScale, Split
from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation.answers import checked_array
from pyro_bmf.evaluation.metrics import (
    METRICS,
    CatalogueMetric,
    Metric,
    RankingMetric,
    catalogue_metrics,
    ranking_metrics,
)
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
    figures
        By name: means of the ranking metrics over the evaluated users, NaN without any, and under the name
        with ``_se`` their standard errors over users.
    n_users
        Users evaluated.
    n_users_one_rating
        Users left out because they have one evaluated rating (or counted one, see `evaluate_ranking`).
    n_users_none_relevant
        Users left out because none of their evaluated items is relevant.
    of_catalogue
        By name: figures of the lists of all evaluated users together; None but for ``full``.
    users, user_values
        (n_users,) the evaluated users, and by name the value of each.
    """

    protocol: str
    n: int
    figures: Mapping[str, float]
    n_users: int
    n_users_one_rating: int
    n_users_none_relevant: int
    of_catalogue: Mapping[str, float | None]
    users: NDArray[np.int64] = field(repr=False, compare=False)
    user_values: Mapping[str, NDArray[np.float64]] = field(repr=False, compare=False)

    @property
    def recall(self) -> float:
        """Mean recall."""
        return self.figures["recall"]

    @property
    def recall_se(self) -> float:
        """Its standard error."""
        return self.figures["recall_se"]

    @property
    def ndcg(self) -> float:
        """Mean NDCG."""
        return self.figures["ndcg"]

    @property
    def ndcg_se(self) -> float:
        """Its standard error."""
        return self.figures["ndcg_se"]

    @property
    def catalogue_share(self) -> float | None:
        """Share of all items that is in the list of at least one evaluated user; None but for ``full``."""
        return self.of_catalogue["catalogue_share"]

    @property
    def user_recall(self) -> NDArray[np.float64]:
        """Recall of each evaluated user, (n_users,)."""
        return self.user_values["recall"]

    @property
    def user_ndcg(self) -> NDArray[np.float64]:
        """NDCG of each evaluated user, (n_users,)."""
        return self.user_values["ndcg"]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures without those of single users."""
        return {
            "protocol": self.protocol,
            "n": self.n,
            **self.figures,
            "n_users": self.n_users,
            "n_users_one_rating": self.n_users_one_rating,
            "n_users_none_relevant": self.n_users_none_relevant,
            **self.of_catalogue,
        }

    def named(self, metrics: Sequence[Metric]) -> Iterator[tuple[RankingMetric | CatalogueMetric, float]]:
        """Give the metrics of lists that apply, with their figures."""
        for metric in metrics:
            match metric:
                case RankingMetric():
                    yield metric, self.figures[metric.name]
                case CatalogueMetric():
                    value = self.of_catalogue[metric.name]
                    if value is not None:
                        yield metric, value

    def row(self, metrics: Sequence[Metric]) -> dict[str, float]:
        """Return the figures under the names that they have beside those of other protocols."""
        return {
            f"{self.protocol}:{metric.column(self.n)}": value
            for metric, value in self.named(metrics)
            if metric.in_systems
        }


def default_threshold(scale: RatingScale) -> float:
    """Return above which rating an item is relevant: a liked one."""
    return scale.liked_above


def evaluate_ranking(
    predictor: Predictor,
    split: Split,
    *,
    part: Part = "test",
    n: Sequence[int] = (20, 50),
    threshold: float = 3.0,
    protocols: Sequence[str] = PROTOCOLS,
    max_cells: int = 4_000_000,
    lists: bool = False,
    advance: Callable[[int], None] | None = None,
    metrics: Sequence[Metric] = METRICS,
    counted: Ratings | None = None,
    among: NDArray[np.int64] | None = None,
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
    lists
        Ask for lists, whatever the catalogue's size.
    advance
        Told of evaluated users that are done.
    metrics
        What to measure; those of other things than lists are passed over.
    counted
        Users with two of these ratings or more are evaluated; of the evaluated part when not given. All
        ratings of the split give the users of Jin et al. (arXiv 2002.09145), who rated two items anywhere.
    among : ndarray of int, optional
        Users to evaluate, of those that can be; a sample where lists of all would take too long.

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
    counted = held_out if counted is None else counted
    relevant = held_out.ratings > threshold
    relevant_counts = np.bincount(held_out.users[relevant], minlength=held_out.n_users)
    users = evaluated_users(held_out, threshold, counted)
    if among is not None:
        users = users[np.isin(users, among)]
    present, enough = counts > 0, counted.user_counts >= 2
    left_out = (int((present & ~enough).sum()), int((present & enough & (relevant_counts == 0)).sum()))

    asked = _Asked(predictor, held_out, seen, users, relevant, tuple(n), "full" in protocols, advance)
    screened = lists or (predictor.screens_catalogue and held_out.n_items > LARGE_CATALOGUE)
    made = asked.by_lists() if screened else asked.by_scores(max_cells)
    of_users = ranking_metrics(metrics)
    of_catalogue = catalogue_metrics(metrics)
    results = []
    for protocol in protocols:
        hits = made.full if protocol == "full" else made.rated
        totals = counts[users] if protocol == "rated-precision" else relevant_counts[users]
        for length in n:
            values = {metric.name: metric.values(hits, totals, length) for metric in of_users}
            figures: dict[str, float] = {}
            for name, own in values.items():
                figures[name], figures[f"{name}_se"] = _mean_and_se(own)
            shares = {
                metric.name: metric.figure(made.listed[length], length) if protocol == "full" else None
                for metric in of_catalogue
            }
            results.append(Ranking(protocol, length, figures, users.size, *left_out, shares, users, values))
    return tuple(results)


def evaluated_users(held_out: Ratings, threshold: float, counted: Ratings | None = None) -> NDArray[np.int64]:
    """Return the users with two evaluated ratings or more (or `counted` ones), one evaluated one relevant."""
    relevant = np.bincount(held_out.users[held_out.ratings > threshold], minlength=held_out.n_users)
    counts = (held_out if counted is None else counted).user_counts
    return np.flatnonzero((counts >= 2) & (relevant > 0))


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
    listed: dict[int, NDArray[np.int64]]  # by list length: in how many lists each item stands


@dataclass(frozen=True, eq=False)
class _Asked:
    """Whom lists are made for, and of what: `seen` are ratings that are no candidates."""

    predictor: Predictor
    held_out: Ratings
    seen: tuple[Ratings, ...]
    users: NDArray[np.int64]
    relevant: NDArray[np.bool_]
    lengths: tuple[int, ...]
    full: bool
    advance: Callable[[int], None] | None

    def by_scores(self, max_cells: int) -> _Lists:
        """Rank by the score of every item, `max_cells` at a time."""
        held_out, users, relevant = self.held_out, self.users, self.relevant
        n_items, longest = held_out.n_items, max(self.lengths)
        starts = row_starts(held_out.users, held_out.n_users)
        seen_starts = [row_starts(part.users, part.n_users) for part in self.seen]
        hits = np.zeros((users.size, longest), dtype=np.bool_)
        rated_hits = np.zeros((users.size, longest), dtype=np.bool_)
        listed = {length: np.zeros(n_items, dtype=np.int64) for length in self.lengths}
        step = max(1, max_cells // max(n_items, 1))
        for start in range(0, users.size, step):
            chunk = users[start : start + step]
            scores = checked_array(
                self.predictor.score_items(chunk), (chunk.size, n_items), "score_items", dtype=np.float32
            )
            local, rows = ragged_rows(starts, chunk)
            items, is_relevant = held_out.items[rows], relevant[rows]
            here = slice(start, start + chunk.size)
            _rated_hits(rated_hits[here], local, items, scores[local, items], is_relevant)
            if self.advance is not None:
                self.advance(chunk.size)
            if not self.full:
                continue
            scores = scores.copy()  # what the predictor gave stays its own
            for part, part_starts in zip(self.seen, seen_starts, strict=True):
                part_local, part_rows = ragged_rows(part_starts, chunk)
                scores[part_local, part.items[part_rows]] = -np.inf
            best = top_n(scores, longest)
            wanted = np.zeros((chunk.size, n_items), dtype=np.bool_)
            wanted[local[is_relevant], items[is_relevant]] = True
            # the place -1 (no candidate left) reads the last item, and is then struck out
            hits[here] = np.take_along_axis(wanted, best, axis=1) & (best >= 0)
            for length, counts in listed.items():
                counts += _counted(best[:, :length], n_items)
        return _Lists(hits, rated_hits, listed)

    def by_lists(self) -> _Lists:
        """Do the same with the predictor's own lists."""
        held_out, users, relevant = self.held_out, self.users, self.relevant
        n_items, longest = held_out.n_items, max(self.lengths)
        local, rows = ragged_rows(row_starts(held_out.users, held_out.n_users), users)
        items, is_relevant = held_out.items[rows], relevant[rows]
        scores = checked_array(self.predictor.predict_mean(users[local], items), items.shape, "predict_mean")
        rated_hits = np.zeros((users.size, longest), dtype=np.bool_)
        _rated_hits(rated_hits, local, items, scores, is_relevant)
        hits = np.zeros_like(rated_hits)
        listed = {length: np.zeros(n_items, dtype=np.int64) for length in self.lengths}
        if self.full and users.size:
            exclusion = Exclusion.of_pairs(
                np.concatenate([part.users for part in self.seen]),
                np.concatenate([part.items for part in self.seen]),
                held_out.n_users,
            )
            best = self.predictor.best_items(users, longest, exclusion, self.advance)
            if best.shape != (users.size, longest):
                raise SettingsError(
                    f"best_items gave an array of shape {best.shape}; {(users.size, longest)} is needed."
                )
            wanted = np.sort(local[is_relevant] * n_items + items[is_relevant])
            keys = np.arange(users.size)[:, None] * n_items + best
            found = np.searchsorted(wanted, keys)
            hits = (wanted[np.minimum(found, wanted.size - 1)] == keys) & (best >= 0)
            listed = {length: _counted(best[:, :length], n_items) for length in self.lengths}
        return _Lists(hits, rated_hits, listed)


def _counted(lists: NDArray[np.int64], n_items: int) -> NDArray[np.int64]:
    """Return in how many lists each item stands; -1 is none."""
    return np.bincount(lists[lists >= 0], minlength=n_items)


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


def _mean_and_se(values: NDArray[np.float64]) -> tuple[float, float]:
    if values.size == 0:
        return float("nan"), float("nan")
    se = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")
    return float(values.mean()), se
