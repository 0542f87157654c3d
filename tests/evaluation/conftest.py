"""Small ratings and splits for the tests of evaluation and baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pyro_bmf.data import Ratings, RatingScale, Split, Vocabulary

Triples = Sequence[tuple[int, int, float]]


def build_split(
    train: Triples,
    valid: Triples,
    test: Triples,
    n_users: int,
    n_items: int,
    scale: RatingScale | None = None,
) -> Split:
    """Make a split from (user, item, rating) triples over fixed vocabularies."""
    rows = [*train, *valid, *test]
    users, items, ratings = (np.array(column) for column in zip(*rows, strict=True))
    order = np.lexsort((items, users))
    together = Ratings(
        users[order].astype(np.int64),
        items[order].astype(np.int64),
        ratings[order].astype(np.float64),
        None,
        Vocabulary(np.arange(n_users), "user"),
        Vocabulary(np.arange(n_items), "item"),
        scale or RatingScale(1.0, 5.0, 1.0, "declared"),
        None,
        "small",
    )
    place = np.empty(order.size, dtype=np.int64)
    place[order] = np.arange(order.size)
    a, b = len(train), len(train) + len(valid)
    return Split(together, place[:a], place[a:b], place[b:], "given", {})


def build_random_split(
    seed: int,
    n_users: int = 40,
    n_items: int = 25,
    density: float = 0.5,
    scale: RatingScale | None = None,
    noise: float = 1.0,
) -> Split:
    """Make a split of ratings drawn from centre + user effect + item effect + noise, rounded to 1..5."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((n_users, n_items)) < density)
    eta = 3.3 + 0.5 * rng.normal(size=n_users)[users] + 0.6 * rng.normal(size=n_items)[items]
    ratings = eta + noise * rng.normal(size=users.size)
    if scale is None:
        ratings = np.clip(np.round(ratings), 1, 5)
    parts = rng.choice(3, size=users.size, p=[0.6, 0.15, 0.25])
    rows = list(zip(users.tolist(), items.tolist(), ratings.tolist(), strict=True))
    chosen = [[row for row, own in zip(rows, parts, strict=True) if own == part] for part in range(3)]
    return build_split(chosen[0], chosen[1], chosen[2], n_users, n_items, scale)


@pytest.fixture(scope="session")
def make_split() -> Callable[..., Split]:
    """The builder of splits from triples."""
    return build_split


@pytest.fixture(scope="session")
def make_random_split() -> Callable[..., Split]:
    """The builder of random splits."""
    return build_random_split
