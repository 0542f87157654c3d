from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_bmf.data import Vocabulary
from pyro_bmf.errors import DataError, PyroBmfError, UnknownIdError

INTEGERS = Vocabulary(np.array([30, 10, 20]), "user")
TEXT = Vocabulary(["b", "01", "1", "1.0"], "item")


def test_ids_are_sorted_and_frozen() -> None:
    assert INTEGERS.ids.tolist() == [10, 20, 30]
    assert INTEGERS.ids.dtype == np.int64
    assert TEXT.ids.tolist() == ["01", "1", "1.0", "b"]
    with pytest.raises(ValueError, match="read-only"):
        INTEGERS.ids[0] = 5


def test_the_callers_array_is_not_shared() -> None:
    mine = np.array([1, 2, 3])
    vocabulary = Vocabulary(mine, "user")
    mine[0] = 99
    assert vocabulary.ids.tolist() == [1, 2, 3]


def test_index_and_raw() -> None:
    assert INTEGERS.index([30, 10, 30]).tolist() == [2, 0, 2]
    assert INTEGERS.index(20).tolist() == [1]
    assert TEXT.index(["1.0", "01"]).tolist() == [2, 0]
    assert INTEGERS.index([]).tolist() == []
    assert TEXT.raw([3, 0]).tolist() == ["b", "01"]
    with pytest.raises(DataError, match=r"index 3 lies outside 0\.\.2"):
        INTEGERS.raw([3])
    with pytest.raises(DataError, match="index -1"):
        INTEGERS.raw([-1])


@pytest.mark.parametrize(
    ("vocabulary", "ids", "words"),
    [
        (INTEGERS, [10, 11, 12], ["user ids 11, 12", "integers such as 10, 20, 30"]),
        (INTEGERS, ["10"], ["'10' is text", "integers"]),
        (INTEGERS, [10.0], ["10.0 is a number with a fraction"]),
        (INTEGERS, [10, "20"], ["'20' is text"]),
        (INTEGERS, [True], ["truth value"]),
        (INTEGERS, np.array([10.0]), ["fraction"]),
        (INTEGERS, [1 << 70], ["64 bits"]),
        (TEXT, [1], ["1 is an integer", "text such as '01'"]),
        (TEXT, ["2"], ["item id '2'", "4 items"]),
        (TEXT, [None], ["NoneType"]),
    ],
)
def test_unknown_and_mixed_up_ids_are_named(vocabulary: Vocabulary, ids: Any, words: list[str]) -> None:
    with pytest.raises(UnknownIdError) as caught:
        vocabulary.index(ids)
    for word in words:
        assert word in str(caught.value)


def test_membership_does_not_mix_types() -> None:
    assert 10 in INTEGERS
    assert np.int32(10) in INTEGERS
    assert "10" not in INTEGERS
    assert 10.0 not in INTEGERS
    assert "1" in TEXT
    assert 1 not in TEXT
    assert True not in INTEGERS


def test_parse_gives_the_vocabularys_own_type() -> None:
    assert INTEGERS.parse("20") == 20
    assert TEXT.parse("01") == "01"
    for text in ("020", "20.0", "x", "21", " 20"):
        with pytest.raises(UnknownIdError, match="unknown user id"):
            INTEGERS.parse(text)
    with pytest.raises(UnknownIdError):
        TEXT.parse("001")


@pytest.mark.parametrize(
    "ids",
    [[1, 1], ["a", "a"], [1, "1"], [1.0, 2.0], [1, None], ["a", ""], [True, False], [[1, 2]], [1 << 70]],
)
def test_unfit_ids_are_refused(ids: Any) -> None:
    with pytest.raises(DataError, match="id"):
        Vocabulary(ids, "user")


def test_digest_tells_types_and_borders_apart() -> None:
    digests = {
        Vocabulary([1, 2], "user").digest,
        Vocabulary(["1", "2"], "user").digest,
        Vocabulary(["12"], "user").digest,
        Vocabulary([12], "user").digest,
        Vocabulary(["a", "bc"], "user").digest,
        Vocabulary(["ab", "c"], "user").digest,
    }
    assert len(digests) == 6
    assert Vocabulary([2, 1], "user") == Vocabulary([1, 2], "user")
    assert Vocabulary([1], "user") != Vocabulary([1], "item")


@given(
    st.sets(st.text(min_size=1), min_size=1) | st.sets(st.integers(-(2**63), 2**63 - 1), min_size=1),
    st.data(),
)
def test_every_id_comes_back(ids: set[Any], data: st.DataObject) -> None:
    vocabulary = Vocabulary(list(ids), "item")
    assert vocabulary.ids.tolist() == sorted(ids)
    asked = data.draw(st.lists(st.sampled_from(sorted(ids)), min_size=1))
    assert vocabulary.raw(vocabulary.index(asked)).tolist() == asked
    for raw_id in asked:
        assert vocabulary.parse(str(raw_id)) == raw_id


@given(st.sets(st.text(min_size=1, max_size=3), min_size=1, max_size=5), st.text(max_size=3))
def test_membership_agrees_with_a_set(ids: set[str], asked: str) -> None:
    vocabulary = Vocabulary(list(ids), "item")
    assert (asked in vocabulary) == (asked in ids)
    if asked not in ids:
        with pytest.raises(PyroBmfError):
            vocabulary.index([asked])
