"""Held-out ratings that training cannot know: counted, and warned of where it is a slip."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_bmf.data import DataWarning, Ratings, Split, given_split, random_split, users_split
from pyro_bmf.data.overlap import spellings
from pyro_bmf.data.validation import ratings_from_arrays

Write = Callable[[str, str | bytes], Path]

# That two spellings stand in the data at all is said by itself, and tested in test_data_quotes.
pytestmark = pytest.mark.filterwarnings("ignore:.*differ from another only in blanks")


def lines(user: str, item: str, n: int = 12) -> str:
    """Ratings of 4 users on 3 items each, ids written by the two patterns."""
    return "".join(f"{user.format(k // 3)},{item.format(k % 3)},{k % 5 + 1}\n" for k in range(n))


SPELLED = {
    "a fraction": ("{0}.0", "{0}", r"'0\.0' is not in training, which has '0'"),
    "zeros in front": ("00{0}", "{0}", r"'000' is not in training, which has '0'"),
    "case": ("U{0}", "u{0}", r"'U0' is not in training, which has 'u0'"),
    "a blank inside": ("u {0}", "u{0}", r"'u 0' is not in training, which has 'u0'"),
    "Unicode form": ("e\u0301{0}", "\u00e9{0}", "is not in training, which has"),
    "nothing alike": ("x{0}", "u{0}", "check that the user column is the right one"),
}


@pytest.mark.parametrize("case", SPELLED)
def test_ids_written_in_two_ways(write: Write, case: str) -> None:
    other, usual, message = SPELLED[case]
    train, test = write("tr.csv", lines(usual, "i{0}")), write("te.csv", lines(other, "i{0}"))
    with pytest.warns(DataWarning, match=rf"12 of 12 test ratings \(100 %\) are of users .*{message}"):
        split = given_split(train, None, test, scale="1:5:1", header=False)
    assert [(one.part, one.kind, one.count, one.total) for one in split.unknown] == [("test", "user", 12, 12)]


def test_a_few_that_look_alike_are_named_and_a_few_new_ones_are_not(write: Write) -> None:
    train = write("tr.csv", lines("u{0}", "i{0}") + lines("v{0}", "j{0}"))
    rest = "".join(f"v{k},i0,3\n" for k in range(4))
    with pytest.warns(DataWarning, match=r"1 of 5 test ratings \(20 %\).*'U0' is not in training"):
        given_split(train, None, write("few.csv", "U0,i0,4\n" + rest), scale="1:5:1", header=False)
    new = given_split(train, None, write("new.csv", "w0,i0,4\n" + rest), scale="1:5:1", header=False)
    assert [(one.kind, one.count, one.alike) for one in new.unknown] == [("user", 1, None)]


def test_each_part_and_side_is_counted(small: Ratings) -> None:
    rows = np.arange(len(small))
    new = small.users >= 40
    split = Split(small, rows[~new][::2], rows[new][:30], np.r_[rows[~new][1::2], rows[new][30:]], "given")
    counted = {(one.part, one.kind): one.count for one in split.unknown}
    assert counted == {("valid", "user"): 30, ("test", "user"): int(new.sum()) - 30}
    with pytest.warns(DataWarning, match="30 of 30 validation ratings"):
        split.warn_of_unknown()
    split.warn_of_unknown()  # once a split


def test_a_split_that_means_it_gives_no_alarm(small: Ratings) -> None:
    split = users_split(small)
    split.warn_of_unknown()
    assert "holds them out on purpose" in str(split.unknown[-1])
    assert {one.share for one in split.unknown} == {1.0}
    random_split(small).warn_of_unknown()


def test_what_counts_as_the_same_id() -> None:
    for group in (
        ["1", "1.0", "01", " 1", "+1", "1.", "\uff11"],
        ["U1", "u1", "u 1", '"u1"'],
        ["-7", "-07.00"],
    ):
        assert spellings(np.array(group, object)).nunique() == 1, group
    assert spellings(np.array(["1", "10", "100", "1.5", "-1", "0", "u1", "u01"], object)).is_unique


def test_a_fit_and_an_evaluation_say_so() -> None:
    from pyro_bmf.baselines import GlobalMean
    from pyro_bmf.evaluation import evaluate

    made = ratings_from_arrays(
        [f"u{k % 8}" for k in range(32)], [k // 8 for k in range(32)], [1.0, 5] * 16, scale="1:5:1"
    )
    rows = np.arange(32)
    split = Split(made, rows[:16], rows[:0], rows[16:], "mine")
    with pytest.warns(DataWarning, match="16 of 16 test ratings"):
        evaluate(GlobalMean().fit(split), split, protocols=())
