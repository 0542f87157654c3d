import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_bmf.data import (
    Ratings,
    Split,
    kfold_splits,
    leave_last_split,
    load_ratings,
    random_split,
    subsample_split,
    time_split,
)
from pyro_bmf.data.reading.times import period_words
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import DataError

PARTS = ("train", "valid", "test")


def sizes(split: Split) -> tuple[int, ...]:
    return tuple(len(getattr(split, f"{part}_rows")) for part in PARTS)


def is_partition(split: Split) -> bool:
    rows = np.concatenate([getattr(split, f"{part}_rows") for part in PARTS])
    return np.array_equal(np.sort(rows), np.arange(len(split.ratings)))


def test_random_split(small: Ratings) -> None:
    split = random_split(small, seed=3)
    assert sizes(split) == (560, 120, 120)
    assert is_partition(split)
    assert split.hash == random_split(small, seed=3).hash
    assert split.hash != random_split(small, seed=4).hash
    assert (split.scheme, split.settings) == ("random", {"seed": 3, "fractions": [0.7, 0.15, 0.15]})
    assert sizes(random_split(small, fractions=(0.5, 0, 0.5))) == (400, 0, 400)
    # Not the first rows: every part reaches over the users.
    assert min(len(np.unique(getattr(split, part).users)) for part in PARTS) > 45


def test_the_files_row_order_does_not_matter(small: Ratings, tmp_path: Path) -> None:
    users = small.user_vocabulary.raw(small.users)
    items = small.item_vocabulary.raw(small.items)
    assert small.timestamps is not None
    lines = [
        f"{u},{i},{r},{t}"
        for u, i, r, t in zip(users, items, small.ratings.tolist(), small.timestamps.tolist(), strict=True)
    ]
    hashes: dict[str, set[str]] = {}
    for seed in range(3):
        np.random.default_rng(seed).shuffle(lines)
        path = tmp_path / f"{seed}.csv"
        path.write_text("\n".join(lines))
        ratings = load_ratings(path, scale="1:5:1")
        for split in (
            random_split(ratings, seed=1),
            leave_last_split(ratings),
            time_split(ratings),
            kfold_splits(ratings, 3)[1],
            subsample_split(ratings, 10),
        ):
            hashes.setdefault(split.scheme, set()).add(split.hash)
    assert {scheme: len(found) for scheme, found in hashes.items()} == dict.fromkeys(hashes, 1)
    assert len({next(iter(found)) for found in hashes.values()}) == 5


def test_parts_share_the_vocabularies(small: Ratings) -> None:
    split = random_split(small)
    assert split.train.user_vocabulary is small.user_vocabulary
    assert (split.test.n_users, split.test.n_items) == (60, 40)
    assert split.train is split.train
    assert len(split.train_valid) == 680
    np.testing.assert_array_equal(split.test.ratings, small.ratings[split.test_rows])
    assert np.sort(np.r_[split.train.ratings, split.valid.ratings]).sum() == split.train_valid.ratings.sum()


def test_a_split_is_frozen(small: Ratings) -> None:
    split = random_split(small)
    with pytest.raises(ValueError, match="read-only"):
        split.train_rows[0] = 1
    with pytest.raises(AttributeError):
        split.scheme = "other"  # type: ignore[misc]


def test_the_hash_covers_ratings_and_parts(small: Ratings) -> None:
    a, b, c = np.arange(500), np.arange(500, 600), np.arange(600, 800)
    base = Split(small, a, b, c, "mine")
    assert Split(small, a[::-1], b, c, "other", {"x": 1}).hash == base.hash
    changed = small.ratings.copy()
    changed[0] = 6 - changed[0] if changed[0] != 3 else 4
    other = ratings_from_arrays(
        small.user_vocabulary.raw(small.users), small.item_vocabulary.raw(small.items), changed,
        small.timestamps, scale="1:5:1",
    )  # fmt: skip
    hashes = {
        base.hash,
        Split(small, a, c, b, "mine").hash,
        Split(small, a, b, c[1:], "mine").hash,
        Split(small, np.r_[a, b], [], c, "mine").hash,  # type: ignore[arg-type]
        Split(other, a, b, c, "mine").hash,
    }
    assert len(hashes) == 5


def test_rows_must_be_disjoint_and_exist(small: Ratings) -> None:
    for rows in (([0, 1], [1], [2]), ([0, 0], [], [2]), ([0], [], [800]), ([0], [], [-1])):
        with pytest.raises(DataError, match="rows"):
            Split(small, *map(np.array, rows), "mine")
    for rows in (([], [1], [2]), ([0], [1], [])):
        with pytest.raises(DataError, match="leaves no"):
            Split(small, *map(np.array, rows), "mine")


def test_leave_last_by_hand() -> None:
    ratings = ratings_from_arrays(
        [1, 1, 1, 1, 2, 2, 2, 3, 3],
        [1, 2, 3, 4, 1, 2, 3, 1, 2],
        [1, 2, 3, 4, 5, 1, 2, 3, 4],
        [40, 10, 30, 20, 7, 7, 7, 1, 2],
        scale="1:5:1",
    )
    split = leave_last_split(ratings, n=1)
    assert split.test_rows.tolist() == [
        0,
        6,
    ]  # user 1: time 40; user 2: of one instant the last item; user 3: too few
    assert split.valid_rows.tolist() == [2, 5]
    assert split.train_rows.tolist() == [1, 3, 4, 7, 8]
    with pytest.raises(DataError, match="leaves no test"):
        leave_last_split(ratings, n=2)
    with pytest.raises(DataError, match="at least 1"):
        leave_last_split(ratings, n=0)


@given(st.integers(1, 4), st.integers(0, 1000))
def test_leave_last_against_a_loop(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.permutation(8 * 12)[:70]
    ratings = ratings_from_arrays(
        cells // 12, cells % 12, rng.integers(1, 6, 70), rng.integers(0, 20, 70), scale="1:5:1"
    )
    assert ratings.timestamps is not None
    expected: dict[str, list[int]] = {part: [] for part in PARTS}
    for user in range(ratings.n_users):
        rows = np.flatnonzero(ratings.users == user)
        rows = np.array(sorted(rows, key=lambda row: (ratings.timestamps[row], ratings.items[row])))
        if len(rows) < 2 * n + 1:
            expected["train"] += rows.tolist()
        else:
            expected["test"] += rows[-n:].tolist()
            expected["valid"] += rows[-2 * n : -n].tolist()
            expected["train"] += rows[: -2 * n].tolist()
    if not expected["test"]:
        return
    split = leave_last_split(ratings, n=n)
    for part in PARTS:
        assert getattr(split, f"{part}_rows").tolist() == sorted(expected[part])


def test_time_split(small: Ratings) -> None:
    split = time_split(small)
    assert small.timestamps is not None
    times = [getattr(split, part).timestamps for part in PARTS]
    assert times[0].max() < times[1].min()
    assert times[1].max() < times[2].min()
    assert is_partition(split)
    assert abs(len(split.train_rows) - 560) < 10
    chosen = time_split(small, points=(1_050, 1_100))
    assert chosen.settings == {"points": [1_050, 1_100]}
    assert (chosen.train.timestamps.max(), chosen.test.timestamps.min()) == (1_049, 1_100)  # type: ignore[union-attr]
    assert split.hash == time_split(small, points=tuple(split.settings["points"])).hash
    with pytest.raises(DataError, match="first must not lie after"):
        time_split(small, points=(2, 1))
    with pytest.raises(DataError, match="leaves no test"):
        time_split(small, points=(1_050, 9_999))


def test_a_period_is_that_of_parts_after_all_before_them(small: Ratings) -> None:
    split = time_split(small, points=(1_050, 1_100))
    assert small.timestamps is not None
    assert split.period("valid", "test") == f"from time 1050 to {small.timestamps.max()}"
    assert split.period("valid") == "from time 1050 to 1099"
    assert split.period("test") == f"from time 1100 to {small.timestamps.max()}"
    # Nothing is after the rest in a random split, nor at the same instant after it.
    assert random_split(small).period("test") is None
    rows = np.arange(len(small))
    at_once = replace(small, timestamps=np.zeros(len(small), dtype=np.int64))
    assert Split(at_once, rows[:400], rows[400:600], rows[600:], "given").period("test") is None
    untimed = replace(small, timestamps=None)
    assert random_split(untimed).period("valid", "test") is None
    assert time_split(small, fractions=(0.7, 0.0, 0.3)).period("valid") is None


@pytest.mark.parametrize(
    ("first", "last", "ticks", "words"),
    [
        (889_000_000, 891_000_000, 1, "from 1998-03-04 to 1998-03-27"),
        (889_000_000_000, 889_000_000_500, 1_000, "of 1998-03-04"),
        (5, 9, 1, "from time 5 to 9"),
        (7, 7, 1, "of time 7"),
        (-1_500, 2_250, 1_000, "from time -1.5 to 2.25"),
        (5, 889_000_000, 1, "from time 5 to 889000000"),
    ],
)
def test_a_period_in_words(first: int, last: int, ticks: int, words: str) -> None:
    assert period_words(first, last, ticks) == words


@pytest.mark.filterwarnings("ignore:.* has one rating")
def test_one_instant_is_never_cut() -> None:
    ratings = ratings_from_arrays(
        range(10), [1, 2] * 5, [3] * 10, [1, 2, 2, 2, 2, 2, 2, 2, 2, 3], scale="1:5:1"
    )
    split = time_split(ratings, fractions=(0.5, 0.0, 0.5))
    assert sizes(split) == (1, 0, 9)


@pytest.mark.parametrize("make", [leave_last_split, time_split])
def test_schemes_in_time_need_timestamps(make: Callable[[Ratings], Split]) -> None:
    ratings = ratings_from_arrays([1, 1, 2], [1, 2, 1], [1, 2, 3], scale="1:5:1", name="bare")
    with pytest.raises(DataError, match="needs timestamps, and bare has none"):
        make(ratings)


def test_kfold(small: Ratings) -> None:
    folds = kfold_splits(small, 3, seed=2)
    assert [sizes(fold) for fold in folds] == [(453, 80, 267), (454, 80, 266), (453, 80, 267)]
    assert all(is_partition(fold) for fold in folds)
    assert np.array_equal(np.sort(np.concatenate([fold.test_rows for fold in folds])), np.arange(800))
    assert [fold.settings["fold"] for fold in folds] == [0, 1, 2]
    assert sizes(kfold_splits(small, 2, valid_fraction=0.0)[0]) == (400, 0, 400)
    for k in (1, 801):
        with pytest.raises(DataError, match=f"k={k}"):
            kfold_splits(small, k)


@pytest.mark.parametrize("percent", [1, 2, 3, 5, 10])
def test_subsample(small: Ratings, percent: float) -> None:
    split = subsample_split(small, percent, seed=1)
    train = 8 * percent
    assert sizes(split) == (train, (800 - train) // 2, 800 - train - (800 - train) // 2)
    assert is_partition(split)
    larger = subsample_split(small, percent + 5, seed=1)
    assert set(split.train_rows) < set(larger.train_rows)


def test_unfit_settings(small: Ratings) -> None:
    for fractions in ((0.7, 0.3), (0.7, 0.2, 0.2), (1.0, 0, 0), (-0.1, 0.6, 0.5)):
        with pytest.raises(DataError, match="sum to 1"):
            random_split(small, fractions=fractions)
    for percent in (0, 100, -1):
        with pytest.raises(DataError, match="percent"):
            subsample_split(small, percent)
    for seed in (-1, 0.5):
        with pytest.raises(DataError, match="seed"):
            random_split(small, seed=seed)  # type: ignore[arg-type]


def test_nothing_warns(small: Ratings) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        random_split(small)


@pytest.mark.parametrize("seed", ["x", "1", None, 1.5, -1, True, float("nan")])
def test_a_seed_that_is_no_whole_number_is_refused(seed: Any) -> None:
    given = ratings_from_arrays([0, 1, 2, 3], [0, 0, 1, 1], [1.0, 2.0, 3.0, 4.0], scale="1:5:1")
    with pytest.raises(DataError, match="whole number of at least 0"):
        random_split(given, seed=seed)
    assert random_split(given, seed=np.int64(3)).hash == random_split(given, seed=3).hash
