"""Fit a selection model: heads to the training pairs, probabilities to validation pairs, on disjoint users.

The users are divided by a seed. With one half the head (and its settings) is chosen, candidates calibrated
on a part of them and scored on the rest; on the other half the chosen head is calibrated. New users have a
calibration of their own, on some of that half who are left out of the head. Where there are no validation
ratings, an eighth of the training ratings is kept aside for all this, and the head is then fitted to all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..data.ratings import Ratings
from ..data.splits import Split
from ..errors import SettingsError
from ..estimate import available_memory
from ..numerics.chunks import CELLS, chunks
from .both_heads import BothHeads
from .contract import Scorer, SelectionHead
from .dependence import Means, with_rating_term
from .factors import FactorSettings, SelectionFactors
from .horizon import Horizon
from .item_regression import DOUBLE_BYTES, SINGLE_BYTES, ItemRegression
from .predicted import Predicted
from .rate_map import Cells, RateMap
from .rated_sets import Indices, RatedSets
from .selection import Selection

if TYPE_CHECKING:
    from ..posterior import Posterior

#: Items beyond which the item regression is not tried, whatever memory is free: time grows with their cube.
MOST_ITEMS = 30_000
#: Items up to which its ridge is chosen among `RIDGES`; above, it is `USUAL_RIDGE`.
CHOSEN_ITEMS = 6_000
RIDGES = (150.0, 300.0, 600.0, 1200.0)
USUAL_RIDGE = 500.0
#: Candidate pairs that a calibration reads at most: whole users, all of their pairs.
MOST_CELLS = 6_000_000
_FEW_CELLS = 1_500_000
_HEADS = ("auto", "item-regression", "factors")
Note = Callable[[str], None]
_Head = TypeVar("_Head", bound=SelectionHead)


@dataclass(frozen=True)
class Plan:
    """Which heads are tried.

    Attributes
    ----------
    ridges : tuple of float
        Of the item regression; none where it is not tried.
    factors : tuple of FactorSettings
    double : bool
        Precision of the regression's inverse.
    note : str or None
        Why something is not tried.
    """

    ridges: tuple[float, ...]
    factors: tuple[FactorSettings, ...]
    double: bool = True
    note: str | None = None

    @classmethod
    def of(cls, n_items: int, head: str, free: int, seed: int) -> Plan:
        """Decide by the number of items and the bytes of free memory.

        Raises
        ------
        SettingsError
            If the head is unknown, or was asked for and does not fit.
        """
        if head not in _HEADS:
            raise SettingsError(f"the selection head is {head!r}: it may be {', '.join(_HEADS)}.")
        factors = (FactorSettings(seed=seed),)
        if head == "factors":
            return cls((), factors)
        double, single = (n_items**2 * size <= 0.8 * free for size in (DOUBLE_BYTES, SINGLE_BYTES))
        if n_items > MOST_ITEMS or not single:
            needs = n_items**2 * SINGLE_BYTES / 2**30
            why = (
                f"an item regression over {n_items:,} items would need {needs:.1f} GiB (at most 80 % of the "
                f"{free / 2**30:.1f} GiB that are free) and time that grows with the cube of the items (at "
                f"most {MOST_ITEMS:,})"
            )
            if head == "item-regression":
                raise SettingsError(f"{why}: take the head factors.")
            return cls((), factors, note=f"Which items get rated is modelled by factors: {why}.")
        ridges = RIDGES if n_items <= CHOSEN_ITEMS else (USUAL_RIDGE,)
        return cls(ridges, () if head == "item-regression" else factors, double)


def fit_selection(
    split: Split,
    *,
    refit: bool = False,
    head: str = "auto",
    seed: int = 0,
    posterior: Posterior | None = None,
    note: Note | None = None,
    advance: Callable[[int], None] | None = None,
) -> Selection:
    """Fit a selection model to the train part of a split; test ratings are never read.

    Parameters
    ----------
    split : Split
    refit : bool
        Fit the head to train and validation together, once it is chosen and calibrated on validation.
    head : {"auto", "item-regression", "factors"}
        ``auto`` chooses on validation.
    seed : int
        Of the division of validation users, and of the factors' start.
    posterior : Posterior, optional
        Of the ratings: with it, what will be liked is chosen more often, as far as validation shows. Without
        it, or where it has read what the calibration is fitted to, choices do not depend on predicted
        ratings.
    note : callable, optional
        Takes what the user should read.
    advance : callable, optional
        Told of steps that are done, of `n_steps`.

    Raises
    ------
    SettingsError
        If the head is unknown, or does not fit this machine.
    """
    started = time.perf_counter()
    n_all = len(split.ratings)
    rng = np.random.default_rng([seed, 16])
    plan = Plan.of(split.ratings.n_items, head, available_memory("cpu"), seed)
    if plan.note and note is not None:
        note(plan.note)
    step = advance if advance is not None else _nothing
    whole = split.train_valid if refit else split.train
    train, valid = split.train, split.valid
    if not len(valid):
        train, valid = _kept_aside(split.train, rng)
    shares = len(train) / n_all, len(valid) / n_all
    fold = _Folds.of(train, valid, shares, rng)
    found, scores = _choose(fold, plan, step)
    means = None if posterior is None else _means(posterior, train, note)
    known = fold.calibrated(found.scores, fold.calibrating, MOST_CELLS, rng, means)
    step(1)
    # As few as leave the head about what it is: it is asked of new users when it has seen all of these.
    some = fold.limited(fold.calibrating, MOST_CELLS, rng)[: max(1, len(fold.rated) // 5)]
    new = fold.calibrated(found.left_out(fold.rated, some), some, MOST_CELLS, rng, means, thinned=True)
    step(1)
    if len(whole) != len(train):
        found = found.refitted(RatedSets.of(whole))
    info: dict[str, Any] = {
        "tried": scores,
        "n_left_out": len(some),
        "rating_term": None if known.term is None else known.term.coefficients.tolist(),
        "calibrated_on": "validation" if len(split.valid) else "an eighth of train",
        "shares": list(shares),
        "seconds": round(time.perf_counter() - started, 3),
        "split_hash": split.hash,
        "period": split.period(*(("test",) if refit else ("valid", "test"))),
    }
    return Selection(found, known, new, len(whole) / n_all, replace(whole, timestamps=None), info)


def n_steps(split: Split, head: str = "auto") -> int:
    """Return how many steps `fit_selection` will tell of."""
    plan = Plan.of(split.ratings.n_items, head, available_memory("cpu"), 0)
    return len(plan.ridges) + len(plan.factors) + bool(plan.ridges and plan.factors) + 2


def _kept_aside(train: Ratings, rng: np.random.Generator) -> tuple[Ratings, Ratings]:
    """Divide training ratings into those to fit heads to, and those to calibrate on."""
    order = rng.permutation(len(train))
    n = max(1, len(train) // 8)
    return train.take(order[n:]), train.take(order[:n])


def _means(posterior: Posterior, train: Ratings, note: Note | None) -> Means | None:
    """Return what predicts mean ratings; nothing if it has read what the calibration is fitted to."""
    same = replace(posterior.train, timestamps=None).data_hash == replace(train, timestamps=None).data_hash
    # Implicit feedback of other pairs than the training ratings' may tell which of validation were rated.
    if same and "implicit" not in posterior.info:
        return Predicted(posterior.pairs, posterior.scale).mean
    if note is not None:
        note(
            "P(chosen) does not depend on predicted ratings: the posterior has read the ratings that this "
            "would be fitted to (a refit, no validation part, or implicit feedback of other pairs)."
        )
    return None


def _nothing(done: int) -> None:
    del done


@dataclass(frozen=True, eq=False)
class _Folds:
    """Training and validation pairs, and users for each purpose, which have none in common."""

    rated: RatedSets
    held_out: RatedSets
    item_counts: Any
    shares: tuple[float, float]
    choosing: tuple[Indices, Indices]
    calibrating: Indices

    @classmethod
    def of(
        cls, train: Ratings, valid: Ratings, shares: tuple[float, float], rng: np.random.Generator
    ) -> _Folds:
        # Every user has candidates, those without a validation rating as well.
        users = rng.permutation(train.n_users)
        quarter = len(users) // 4
        parts = users[:quarter], users[quarter : 2 * quarter], users[2 * quarter :]
        first, second, third = (np.sort(part) for part in parts)
        if not quarter:
            first = second = third
        rated, held_out = RatedSets.of(train), RatedSets.of(valid)
        return cls(rated, held_out, train.item_counts / shares[0], shares, (first, second), third)

    def limited(self, users: Indices, most: int, rng: np.random.Generator) -> Indices:
        """Return as many of the users as have at most so many pairs."""
        n = max(1, most // max(self.rated.matrix.shape[1], 1))
        return users if len(users) <= n else np.sort(rng.permutation(users)[:n])

    def cells(self, score: Scorer, users: Indices) -> Cells:
        """Return the candidate pairs of some users."""
        return self._cells(score, self.rated.take(users), self.held_out.take(users))

    def thinned(self, score: Scorer, users: Indices, rng: np.random.Generator) -> Cells:
        """Return the candidate pairs that users would have had with fewer ratings.

        Of each user the same share of both parts is kept, between all and what leaves one training rating,
        uniform in its logarithm: how much of a user is known, and how much is held out, stays as it is.
        """
        counts = np.maximum(self.rated.counts[users], 1)
        shares = counts ** -rng.random(len(users))
        rated, held_out = (sets.take(users).thinned(shares, rng) for sets in (self.rated, self.held_out))
        return self._cells(score, rated, held_out)

    def _cells(self, score: Scorer, rated: RatedSets, held_out: RatedSets) -> Cells:
        n_items = rated.matrix.shape[1]
        scores = np.empty((len(rated), n_items), dtype=np.float32)
        for part in chunks(len(rated), CELLS // max(n_items, 1)):
            some = rated.take(np.arange(part.start, part.stop))
            scores[part] = score(some) / np.float32(self.shares[0])
            entries = some.matrix.tocoo()
            scores[part.start + entries.row, entries.col] = np.nan
        return Cells(scores, held_out.matrix, rated.counts / self.shares[0], self.item_counts)

    def calibrated(
        self,
        score: Scorer,
        users: Indices,
        most: int,
        rng: np.random.Generator,
        means: Means | None = None,
        *,
        thinned: bool = False,
    ) -> RateMap:
        """Fit a map to the pairs of some users, and what predicted mean ratings add to it.

        With `thinned`, the map is fitted to the same users with fewer ratings, too: new users may have one.
        """
        own = self.limited(users, most, rng)
        cells = self.cells(score, own)
        # Numbers of their own, as for the means below.
        fewer = [self.thinned(score, own, np.random.default_rng(len(own)))] if thinned else []
        found = RateMap.fit(Cells.joined([cells, *fewer]), seen=self.shares[0], share=self.shares[1])
        if means is None:
            return found
        about = Horizon(*self.shares, "validation")
        # Numbers of their own: which users are taken does not depend on whether there is a posterior.
        return with_rating_term(found, cells, own, means, about, np.random.default_rng(len(own)))

    def value(self, score: Scorer) -> float:
        """Return the log score on the second part of the choosing users, calibrated on the first."""
        rng = np.random.default_rng(0)  # the same users for every candidate
        found = self.calibrated(score, self.choosing[0], _FEW_CELLS, rng)
        cells = self.cells(score, self.limited(self.choosing[1], _FEW_CELLS, rng))
        return found.log_score(cells, seen=self.shares[0], share=self.shares[1])


def _choose(fold: _Folds, plan: Plan, step: Callable[[int], None]) -> tuple[SelectionHead, list[Any]]:
    """Return the candidate with the best log score on the choosing users, and what was tried.

    The best regression and the best factors are candidates together, too.
    """
    alone = len(plan.ridges) + len(plan.factors) == 1
    tried: list[Any] = []

    def best(heads: Iterable[_Head]) -> tuple[float, _Head | None]:
        found: tuple[float, _Head | None] = (-np.inf, None)
        for head in heads:
            value = 0.0 if alone else fold.value(head.scores)
            tried.append({"head": head.word, **head.settings(), "log_score": None if alone else value})
            if value > found[0]:
                found = value, head
            step(1)
        return found

    regressions = (ItemRegression.fit(fold.rated, ridge, double=plan.double) for ridge in plan.ridges)
    regression_value, regression = best(regressions)
    factors_value, factors = best(SelectionFactors.fit(fold.rated, one) for one in plan.factors)
    if regression is None or factors is None:
        chosen: SelectionHead | None = factors if regression is None else regression
        assert chosen is not None
        return chosen, tried
    both_value, both = best([BothHeads(regression, factors)])
    if both is not None and both_value >= max(regression_value, factors_value):
        return both, tried
    return (regression if regression_value >= factors_value else factors), tried
