from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_bmf.data import DataNotice, Ratings, load_ratings
from pyro_bmf.data.validation import _stable_order, ratings_from_arrays
from pyro_bmf.errors import DataError

Write = Callable[[str, str | bytes], Path]


def test_canonical_order_and_types() -> None:
    made = ratings_from_arrays(["b", "a", "b"], [7, 9, -2], [1, 2, 3], [5, 6, 7], scale="1:5:1")
    assert made.users.tolist() == [0, 1, 1]
    assert made.items.tolist() == [2, 0, 1]
    assert made.ratings.tolist() == [2, 3, 1]
    assert made.timestamps is not None
    assert made.timestamps.tolist() == [6, 7, 5]
    assert made.user_vocabulary.ids.tolist() == ["a", "b"]
    assert made.item_vocabulary.ids.tolist() == [-2, 7, 9]
    assert (made.users.dtype, made.ratings.dtype) == (np.int64, np.float64)
    for array in (made.users, made.items, made.ratings, made.timestamps):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_hash_depends_on_content_only() -> None:
    base = ratings_from_arrays([1, 2, 2], [1, 1, 2], [1, 2, 3], scale="1:5:1")
    shuffled = ratings_from_arrays(
        [2, 1, 2], [2, 1, 1], [3, 1, 2], scale="0:9", name="other", item_titles={1: "x"}
    )
    assert shuffled.data_hash == base.data_hash
    others = [
        ratings_from_arrays([1, 2, 2], [1, 1, 2], [1, 2, 4], scale="1:5:1"),
        ratings_from_arrays([1, 2, 2], [1, 1, 3], [1, 2, 3], scale="1:5:1"),
        ratings_from_arrays(["1", "2", "2"], [1, 1, 2], [1, 2, 3], scale="1:5:1"),
        ratings_from_arrays([1, 2, 2], [1, 1, 2], [1, 2, 3], [0, 0, 0], scale="1:5:1"),
        ratings_from_arrays([1, 2, 2], [1, 1, 2], [1, 2, 3], [0, 0, 1], scale="1:5:1"),
    ]
    assert len({base.data_hash, *(other.data_hash for other in others)}) == 6
    zero = ratings_from_arrays([1, 2, 2], [1, 1, 2], [0.0, 2, 3], scale="0:5:1")
    assert zero.data_hash == ratings_from_arrays([1, 2, 2], [1, 1, 2], [-0.0, 2, 3], scale="0:5:1").data_hash


def test_take_keeps_the_vocabularies() -> None:
    base = ratings_from_arrays(
        [1, 2, 2], [1, 1, 2], [1, 2, 3], [4, 5, 6], scale="1:5:1", item_titles={2: "two"}
    )
    part = base.take([2, 0])
    assert (part.ratings.tolist(), part.n_users, part.n_items) == ([1, 3], 2, 2)
    assert part.item_titles is not None
    assert part.item_titles.tolist() == ["", "two"]
    assert len(base.take([])) == 0
    for rows in ([3], [-1], [0, 0]):
        with pytest.raises(DataError):
            base.take(rows)


def test_ratings_refuse_what_is_not_canonical() -> None:
    base = ratings_from_arrays([1, 2, 2], [1, 1, 2], [1, 2, 3], scale="1:5:1")
    users, items = base.user_vocabulary, base.item_vocabulary

    def make(u: list[int], i: list[int], r: list[float]) -> Ratings:
        return Ratings(np.array(u), np.array(i), np.array(r), None, users, items, base.scale)

    make([0, 1, 1], [1, 0, 1], [1.0, 2.0, 3.0])
    for u, i, r in (
        ([1, 0], [0, 0], [1.0, 1.0]),
        ([0, 0], [1, 0], [1.0, 1.0]),
        ([0, 0], [1, 1], [1.0, 1.0]),
        ([0, 2], [0, 0], [1.0, 1.0]),
        ([0, 1], [0, -1], [1.0, 1.0]),
        ([0, 1], [0, 0], [1.0, np.nan]),
        ([0, 1], [0], [1.0, 1.0]),
    ):
        with pytest.raises(DataError):
            make(u, i, r)


CASES = {
    "a missing rating": ("1,1,5\n1,2,\n2,1,3\n", "line 2 of r.csv is missing"),
    "nan": ("1,1,5\n1,2,nan\n2,1,3\n", r"line 2 of r.csv is .*nan.*finite"),
    "infinite": ("1,1,5\n1,2,3\n2,1,-inf\n", r"line 3 of r.csv is .*inf"),
    "a word": ("1,1,5\n1,2,good\n2,1,3\n", "line 2 of r.csv is 'good'"),
    "several": ("1,1,5\n1,2,x\n2,1,y\n", r"line 2 .*'x'.*and 1 more"),
    "after a header and blank lines": (
        "user,item,rating\n1,1,5\n\n1,2,\n2,1,1\n",
        "line 4 of r.csv is missing",
    ),
    "after a quoted line end": (
        'user,item,rating,review\n1,b,5,"a\nb"\n1,c,?,x\n2,d,1,y\n',
        r"line 4 of r.csv is '\?'",
    ),
    "a quoted line end in an id": (
        'user,item,rating\n1,"a\nb",5\n2,d,1\n',
        r"item in line 2 of r.csv holds a line end",
    ),
    "an empty file": ("", "empty"),
    "blank lines only": ("\n\n", "empty"),
    "a header only": ("user,item,rating\n", "no ratings"),
    "one user": ("1,1,5\n1,2,4\n", "one user only"),
    "one item": ("1,1,5\n2,1,4\n", "one item only"),
    "an empty user id": ("1,1,5\n,2,4\n2,2,3\n", "user id in line 2 of r.csv is empty"),
    "an empty item id": ("1,1,5\n1,,4\n2,2,3\n", "item id in line 2"),
    "a short line": ("1,1,5\n1,2\n2,2,3\n", "line 2 of r.csv has 2 fields where the first line has 3"),
    "a long line": ("1,1,5\n1,2,3,4\n2,2,3\n", "line 2 of r.csv has 4 fields"),
    "a duplicate": (
        "1,1,5\n2,2,4\n1,1,3\n",
        r"1 duplicate .*user 1 and item 1 in line 1 of r.csv and line 3",
    ),
    "off the scale": ("1,1,5\n1,2,6\n2,2,3\n", "rating 6 in line 2 of r.csv is not on the given scale 1:5:1"),
    "between levels": ("1,1,5\n1,2,2.5\n2,2,3\n", "rating 2.5 in line 2"),
    "a bad timestamp": ("1,1,5,10\n1,2,3,11\n2,2,3,later\n", None),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_said_with_its_line(write: Write, case: str) -> None:
    content, message = CASES[case]
    path = write("r.csv", content)
    columns = (0, 1, 2, 3) if case == "a bad timestamp" else None
    with pytest.raises(DataError, match=message or "timestamp in line 3 of r.csv is 'later'"):
        load_ratings(path, scale="1:5:1", columns=columns)


def test_duplicates_without_timestamps(write: Write) -> None:
    path = write("r.csv", "1,1,5\n2,2,4\n1,1,2\n2,2,1\n1,2,3\n1,1,4\n")
    with pytest.warns(DataNotice, match=r"3 duplicate .* the last in the file"):
        last = load_ratings(path, scale="1:5:1", duplicates="last")
    assert last.ratings.tolist() == [4, 3, 1]
    with pytest.warns(DataNotice, match=r"3 duplicate .* mean .* rounded to the scale 1:5:1"):
        mean = load_ratings(path, scale="1:5:1", duplicates="mean")
    assert mean.ratings.tolist() == [4, 3, 3]  # 11/3 and 2.5, the half up
    with pytest.warns(DataNotice, match="mean"):
        exact = load_ratings(path, scale="1:5", duplicates="mean")
    np.testing.assert_allclose(exact.ratings, [11 / 3, 3, 2.5], rtol=1e-15)
    with pytest.raises(DataError, match="error, last, mean"):
        load_ratings(path, duplicates="first", scale="1:5")


def test_duplicates_with_timestamps(write: Write) -> None:
    path = write("r.csv", "1,1,5,30\n2,2,4,7\n1,1,2,10\n1,1,1,30\n")
    with pytest.warns(DataNotice, match="the latest of each pair"):
        last = load_ratings(path, scale="1:5:1", duplicates="last")
    assert last.ratings.tolist() == [1, 4]  # of the two at 30 the later line
    assert last.timestamps is not None
    assert last.timestamps.tolist() == [30, 7]
    with pytest.warns(DataNotice, match="mean"):
        mean = load_ratings(path, scale="1:5", duplicates="mean")
    assert mean.timestamps is not None
    assert (mean.ratings[0], mean.timestamps[0]) == (pytest.approx(8 / 3), 30)


def test_filter_is_one_pass_on_the_full_file(write: Write) -> None:
    # Item z has two ratings, one of them by user c, who has one: after the pass z keeps a single one.
    path = write("r.csv", "a,x,1\na,y,2\nb,x,3\nb,y,4\nb,z,5\nc,z,1\n")
    with pytest.warns(DataNotice, match="5 of 6 ratings"):
        kept = load_ratings(path, min_ratings=2, scale="1:5:1")
    assert kept.user_vocabulary.ids.tolist() == ["a", "b"]
    assert kept.item_counts.tolist() == [2, 2, 1]
    with pytest.raises(DataError, match="at least 9"):
        load_ratings(path, min_ratings=9, scale="1:5:1")


def test_arrays_of_unequal_length_or_unfit_type() -> None:
    with pytest.raises(DataError, match="differ in length"):
        ratings_from_arrays([1, 2], [1, 2], [1, 2, 3])
    with pytest.raises(DataError, match="numbers"):
        ratings_from_arrays([1, 2], [1, 2], ["x", "y"])
    with pytest.raises(DataError, match="timestamps must be numbers"):
        ratings_from_arrays([1, 2], [1, 2], [1, 2], ["x", object()])
    with pytest.raises(DataError, match="row 1"):
        ratings_from_arrays([1, 2], [1, 2], [1, np.nan])


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=60))
def test_stable_order_is_numpys(keys: list[int]) -> None:
    array = np.array(keys)
    assert _stable_order(array).tolist() == np.argsort(array, kind="stable").tolist()


@given(st.data())
def test_merging_agrees_with_a_dictionary(data: st.DataObject) -> None:
    rows = data.draw(
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 5), st.integers(0, 3)), max_size=30
        )
    )
    rows += [(3, 3, 1, 0), (4, 4, 5, 0)]  # at least two users and items
    columns = [list(column) for column in zip(*rows, strict=True)]
    expected: dict[tuple[int, int], tuple[int, int]] = {}
    groups: dict[tuple[int, int], list[int]] = {}
    for user, item, rating, time in rows:
        if (user, item) not in expected or time >= expected[user, item][1]:
            expected[user, item] = (rating, time)
        groups.setdefault((user, item), []).append(rating)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNotice)
        last = ratings_from_arrays(*columns, scale="1:5:1", duplicates="last")
        mean = ratings_from_arrays(*columns, scale="1:5", duplicates="mean")
    for made, values in (
        (last, [float(expected[pair][0]) for pair in sorted(expected)]),
        (mean, [float(np.mean(groups[pair])) for pair in sorted(groups)]),
    ):
        users = made.user_vocabulary.raw(made.users).tolist()
        items = made.item_vocabulary.raw(made.items).tolist()
        assert list(zip(users, items, strict=True)) == sorted(expected)
        np.testing.assert_allclose(made.ratings, values, rtol=1e-12)


def test_ids_that_look_the_same_are_told_apart() -> None:
    from pyro_bmf.data.notices import DataWarning

    with pytest.warns(DataWarning, match=r"as 'e\\u0301' and '\\xe9': they are kept"):
        ratings_from_arrays(["e\u0301", "\xe9", "z", "z"], [1, 2, 1, 2], [1.0, 2.0, 3.0, 4.0], scale="1:5:1")
