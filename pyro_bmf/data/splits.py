"""Splits of ratings into train, validation and test rows: frozen, seeded, each with a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .overlap import Unknown, unknown_ratings, warn_of_unknown
from .ratings import Ratings
from .reading.times import first_at, in_seconds, period_words

PARTS = ("train", "valid", "test")
# Against a part without ratings.
_REMEDIES = {
    "random": "other fractions (--fractions)",
    "users": "other fractions (--fractions)",
    "time": "other fractions or points (--fractions, --points)",
    "leave-last": "a lower n (--n): a user needs 2n + 1 of them",
    "subsample": "another percentage (--percent)",
}


@dataclass(frozen=True, eq=False)
class Split:
    """Ratings and the rows that make up train, validation and test.

    Attributes
    ----------
    ratings
        All ratings, canonical order.
    train_rows, valid_rows, test_rows
        Positions in `ratings`, int64, sorted, disjoint.
    scheme
        Which rule made the split.
    settings
        The rule's settings, JSON-ready.

    Raises
    ------
    DataError
        When rows lie outside the ratings, overlap, or train or test is empty.
    """

    ratings: Ratings
    train_rows: NDArray[np.int64]
    valid_rows: NDArray[np.int64]
    test_rows: NDArray[np.int64]
    scheme: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the rows, check that they are disjoint, and freeze them."""
        taken = np.zeros(len(self.ratings), dtype=bool)
        checked = {}
        for part, given in self.rows.items():
            rows = np.sort(np.asarray(given, dtype=np.int64))
            if len(rows) and (rows[0] < 0 or rows[-1] >= len(taken)):
                raise DataError(f"{part} rows lie outside 0..{len(taken) - 1}")
            if bool((rows[1:] == rows[:-1]).any()) or bool(taken[rows].any()):
                raise DataError(
                    f"{part} rows repeat or overlap with another part: a rating may be in one part only"
                )
            taken[rows] = True
            rows.flags.writeable = False
            checked[part] = rows
        object.__setattr__(self, "train_rows", checked["train"])
        object.__setattr__(self, "valid_rows", checked["valid"])
        object.__setattr__(self, "test_rows", checked["test"])
        for part in ("train", "test"):
            if len(checked[part]) == 0:
                remedy = _REMEDIES.get(self.scheme)
                raise DataError(
                    f"the {self.scheme} split leaves no {part} ratings out of {len(self.ratings):,}: "
                    f"use more ratings{'' if remedy is None else f' or {remedy}'}"
                )

    @property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """Rows of each part, by its name in `PARTS`."""
        return {"train": self.train_rows, "valid": self.valid_rows, "test": self.test_rows}

    @cached_property
    def train(self) -> Ratings:
        """The train ratings, under the vocabularies of all ratings."""
        return self.ratings.take(self.train_rows)

    @cached_property
    def valid(self) -> Ratings:
        """The validation ratings (there may be none), under the vocabularies of all ratings."""
        return self.ratings.take(self.valid_rows)

    @cached_property
    def test(self) -> Ratings:
        """The test ratings, under the vocabularies of all ratings."""
        return self.ratings.take(self.test_rows)

    @cached_property
    def train_valid(self) -> Ratings:
        """Train and validation together, for a refit with settings already chosen."""
        return self.ratings.take(np.concatenate((self.train_rows, self.valid_rows)))

    def period(self, *parts: str) -> str | None:
        """Return the time of some parts in words; None where it is not after that of those before.

        Parameters
        ----------
        *parts
            Of `PARTS`, in that order.
        """
        stamps = self.ratings.timestamps
        rows = np.concatenate([self.rows[part] for part in parts])
        if stamps is None or not len(rows):
            return None
        own = stamps[rows]
        before = [self.rows[part] for part in PARTS[: PARTS.index(parts[0])]]
        if any(len(earlier) and stamps[earlier].max() >= own.min() for earlier in before):
            return None
        return period_words(int(own.min()), int(own.max()), self.ratings.ticks_per_second)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the data hash and the three row sets, as hexadecimal digits."""
        state = hashlib.sha256(f"pyro-bmf split 1\n{self.ratings.data_hash}\n".encode())
        for part, rows in self.rows.items():
            state.update(f"{part} {len(rows)}\n".encode())
            state.update(np.ascontiguousarray(rows, dtype="<i8").data)
        return state.hexdigest()

    @cached_property
    def unknown(self) -> tuple[Unknown, ...]:
        """What of validation and test no training rating tells of, by part and side."""
        return unknown_ratings(self)

    def warn_of_unknown(self) -> None:
        """Warn, once, where most of a held-out part is of users or items unknown in training."""
        if "_warned" not in self.__dict__:
            self.__dict__["_warned"] = True
            warn_of_unknown(self)

    def __repr__(self) -> str:
        sizes = " / ".join(f"{len(rows):,}" for rows in self.rows.values())
        return f"Split({self.ratings.name!r}, {self.scheme}: {sizes} train / valid / test, {self.hash[:12]})"


def random_split(ratings: Ratings, *, seed: int = 0, fractions: Sequence[float] = (0.7, 0.15, 0.15)) -> Split:
    """Split at random; the same ratings and seed give the same split, whatever the file's row order.

    Parameters
    ----------
    ratings
        What to split.
    seed
        Of the permutation, at least 0.
    fractions
        Shares of train, validation and test, summing to 1; validation may be 0.
    """
    shares = _fractions(fractions)
    n = len(ratings)
    first, second = round(n * shares[0]), round(n * (shares[0] + shares[1]))
    permutation = seeded(seed).permutation(n)
    return Split(
        ratings,
        permutation[:first],
        permutation[first:second],
        permutation[second:],
        "random",
        {"seed": int(seed), "fractions": list(shares)},
    )


def users_split(ratings: Ratings, *, seed: int = 0, fractions: Sequence[float] = (0.8, 0.1, 0.1)) -> Split:
    """Hold whole users out (strong generalisation): a test user has no rating in train.

    Parameters
    ----------
    ratings
        What to split.
    seed
        Of the permutation of users, at least 0.
    fractions
        Shares of the users in train, validation and test, summing to 1; validation may be 0.
    """
    shares = _fractions(fractions)
    n = ratings.n_users
    part = np.zeros(n, dtype=np.int64)
    permutation = seeded(seed).permutation(n)
    first, second = round(n * shares[0]), round(n * (shares[0] + shares[1]))
    part[permutation[first:second]] = 1
    part[permutation[second:]] = 2
    of_rating = part[ratings.users]
    train, valid, test = (np.flatnonzero(of_rating == which).astype(np.int64) for which in range(3))
    return Split(ratings, train, valid, test, "users", {"seed": int(seed), "fractions": list(shares)})


def leave_last_split(ratings: Ratings, *, n: int = 1) -> Split:
    """Give each user's last `n` ratings in time to test and the `n` before them to validation.

    A user with fewer than 2n + 1 ratings stays in train entirely. Ratings of one instant are ordered by
    item id, so the split does not depend on the file's row order.

    Raises
    ------
    DataError
        Without timestamps, for `n` below 1, or when every user has too few ratings.
    """
    timestamps = _timestamps(ratings, "leave-last")
    if n < 1:
        raise DataError(f"leave-last with n={n}: n must be at least 1")
    order = np.lexsort((ratings.items, timestamps, ratings.users))
    counts = ratings.user_counts
    ends = np.cumsum(counts)
    # Ratings are grouped by user, so the place from the end is that of the row in its group.
    from_end = np.repeat(ends, counts) - np.arange(len(ratings)) - 1
    enough = np.repeat(counts, counts) >= 2 * n + 1
    test, valid = enough & (from_end < n), enough & (from_end >= n) & (from_end < 2 * n)
    return Split(ratings, order[~(test | valid)], order[valid], order[test], "leave-last", {"n": int(n)})


def time_split(
    ratings: Ratings,
    *,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    points: tuple[float | Fraction, float | Fraction] | None = None,
) -> Split:
    """Split at global points in time: train before the first, validation between, test from the second on.

    Ratings of one instant never fall on both sides, so parts differ from `fractions` where many share it.

    Parameters
    ----------
    ratings
        What to split; must have timestamps.
    fractions
        Shares of train, validation and test, from which the two points follow.
    points
        The two points themselves (first instant of validation, first instant of test), instead of fractions:
        in seconds (or whatever the file counts in). A float means its shortest decimals; a
        `fractions.Fraction` is exact.

    Raises
    ------
    DataError
        Without timestamps, or when a part would be empty.
    """
    timestamps = _timestamps(ratings, "time")
    if points is None:
        shares = _fractions(fractions)
        ordered = np.sort(timestamps)
        cuts = [round(len(ratings) * shares[0]), round(len(ratings) * (shares[0] + shares[1]))]
        first, second = (int(ordered[min(cut, len(ordered) - 1)]) for cut in cuts)
        settings: dict[str, Any] = {"fractions": list(shares)}
    else:
        if points[0] > points[1]:
            raise DataError(f"time points {points[0]}, {points[1]}: the first must not lie after the second")
        first, second = (first_at(point, ratings.ticks_per_second) for point in points)
        settings = {}
    settings["points"] = [in_seconds(point, ratings.ticks_per_second) for point in (first, second)]
    test = timestamps >= second
    train = timestamps < first
    return Split(
        ratings,
        np.flatnonzero(train),
        np.flatnonzero(~train & ~test),
        np.flatnonzero(test),
        "time",
        settings,
    )


def kfold_splits(
    ratings: Ratings, k: int = 5, seed: int = 0, *, valid_fraction: float = 0.15
) -> tuple[Split, ...]:
    """Give k splits whose test parts are disjoint and together hold every rating once.

    Parameters
    ----------
    ratings
        What to split.
    k
        Number of folds, at least 2.
    seed
        Of the permutation.
    valid_fraction
        Share of the ratings outside the test fold that goes to validation, in [0, 1).
    """
    if not 2 <= k <= len(ratings):
        raise DataError(f"k-fold with k={k}: k must lie in 2..{len(ratings)} (the number of ratings)")
    if not 0 <= valid_fraction < 1:
        raise DataError(f"valid_fraction={valid_fraction}: must lie in [0, 1)")
    permutation = seeded(seed).permutation(len(ratings))
    edges = np.round(np.linspace(0, len(ratings), k + 1)).astype(np.int64)
    splits = []
    for fold in range(k):
        test = permutation[edges[fold] : edges[fold + 1]]
        rest = np.concatenate((permutation[edges[fold + 1] :], permutation[: edges[fold]]))
        n_valid = round(len(rest) * valid_fraction)
        settings = {"k": int(k), "fold": fold, "seed": int(seed), "valid_fraction": float(valid_fraction)}
        splits.append(Split(ratings, rest[n_valid:], rest[:n_valid], test, "k-fold", settings))
    return tuple(splits)


def subsample_split(ratings: Ratings, percent: float, seed: int = 0) -> Split:
    """Train on a random `percent` of the ratings; the rest is halved into validation and test.

    The sparsity experiments use 1, 2, 3, 5 and 10 percent. With one seed the train parts are nested.
    """
    if not 0 < percent < 100:
        raise DataError(f"subsample of {percent} percent: must lie strictly between 0 and 100")
    n = len(ratings)
    first = round(n * percent / 100)
    second = first + (n - first) // 2
    permutation = seeded(seed).permutation(n)
    return Split(
        ratings,
        permutation[:first],
        permutation[first:second],
        permutation[second:],
        "subsample",
        {"percent": float(percent), "seed": int(seed)},
    )


def seeded(seed: int) -> np.random.Generator:
    """Return the generator of a seed; raises DataError for a seed that is no whole number of at least 0."""
    whole = isinstance(seed, Real) and not isinstance(seed, bool) and seed == seed // 1
    if not whole or seed < 0:
        raise DataError(f"seed {seed!r}: must be a whole number of at least 0")
    return np.random.default_rng(int(seed))


def _fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    shares = tuple(float(share) for share in fractions)
    if len(shares) != 3 or not all(0 <= share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        raise DataError(
            f"fractions {tuple(fractions)}: give three shares of train, validation and test, each below 1, "
            "that sum to 1, as 0.7,0.15,0.15"
        )
    return shares[0], shares[1], shares[2]


def _timestamps(ratings: Ratings, scheme: str) -> NDArray[np.int64]:
    if ratings.timestamps is None:
        raise DataError(
            f"a {scheme} split needs timestamps, and {ratings.name} has none: use a random or k-fold "
            "split, or give a file with a timestamp column"
        )
    return ratings.timestamps
