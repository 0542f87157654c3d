"""What is said of ratings that nothing was learned of, and of users who cannot be ranked for."""

import numpy as np
import pytest

from pyro_bmf.baselines import Popularity
from pyro_bmf.cli.printing.report import _legend, _tell_unknown
from pyro_bmf.data import Ratings, Split, leave_last_split, users_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.evaluation import compare, evaluate


@pytest.fixture(scope="module")
def made() -> Ratings:
    cells = np.flatnonzero(np.random.default_rng(0).random(30 * 12) < 0.7)
    return ratings_from_arrays(cells // 12, cells % 12, cells % 5 + 1, cells * 7 % 101, scale="1:5:1")


def test_shares_of_unknown_users_and_items(made: Ratings, capsys: pytest.CaptureFixture[str]) -> None:
    _tell_unknown(users_split(made), "test", "train")
    assert (
        "(100 %) are of users without a training rating: this split holds them out" in capsys.readouterr().err
    )
    rows = np.arange(len(made))
    first = made.users == 0
    split = Split(made, rows[~first][::2], rows[first], rows[~first][1::2][:40], "random")
    _tell_unknown(split, "test", "train")
    assert capsys.readouterr().err == ""
    _tell_unknown(Split(made, split.train_rows, split.test_rows, rows[first], "users"), "test", "train+valid")
    words = capsys.readouterr().err
    assert f"{first.sum()} of {first.sum()} test ratings (100 %) are of users" in words


def test_why_nobody_is_ranked_for(made: Ratings) -> None:
    def words(split: Split, threshold: float) -> str:
        found = evaluate(Popularity().fit(split), split, threshold=threshold, draws=10)
        return _legend(compare([found]), ("full", 20), ends_are_levels=True)

    one = leave_last_split(made)
    assert "There is none (–)" in words(one, 3.0)
    assert f"{len(one.test)} users have one test rating, of at least two; --n 2 leaves two" in words(one, 3.0)
    two = leave_last_split(made, n=2)
    assert f"of {len(two.test) // 2} users none of the ratings is relevant" in words(two, 5.0)
    assert "none (–)" not in words(two, 3.0)
