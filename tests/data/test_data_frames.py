"""Ratings in memory: the same as from columns, and each thing that is wrong said with its row."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp

from pyro_bmf.data import load_ratings
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import DataError

COLUMNS: dict[str, list[Any]] = {
    "user": ["b", "a", "b", "c"],
    "item": [7, 9, -2, 7],
    "rating": [1.0, 2.0, 3.0, 4.5],
    "timestamp": [5, 6, 7, 8],
}
EXPECTED = ratings_from_arrays(*COLUMNS.values(), scale="0:5:0.5").data_hash
FRAME = pd.DataFrame(COLUMNS)

FORMS: dict[str, tuple[Any, Any]] = {
    "a frame": (FRAME, None),
    "an index of its own": (FRAME.set_axis(["x", "x", "y", "z"]), None),
    "other order and columns": (
        FRAME.assign(note=None)[["note", "timestamp", "rating", "item", "user"]],
        None,
    ),
    "named columns": (FRAME.set_axis(["who", "what", "stars", "when"], axis=1), "who,what,stars,when"),
    "positions": (FRAME.set_axis([3, 2, 1, 0], axis=1), (0, 1, 2, 3)),
    "categories": (FRAME.astype({"user": "category", "item": "category"}), None),
    "nullable": (FRAME.convert_dtypes(), None),
    "known names": (FRAME.rename(columns={"user": "userId", "item": "movieId"}), None),
    "Arrow": (pa.table(COLUMNS), None),
    "Arrow, text as views, as Polars has it": (
        pa.table(COLUMNS | {"user": pa.array(COLUMNS["user"], pa.string_view())}),
        None,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_one_table(form: str) -> None:
    frame, columns = FORMS[form]
    assert load_ratings(frame, columns=columns, scale="0:5:0.5").data_hash == EXPECTED


def test_dates_become_times() -> None:
    made = load_ratings(
        FRAME.assign(timestamp=pd.to_datetime(COLUMNS["timestamp"], unit="s")), scale="0:5:0.5"
    )
    assert made.timestamps is not None
    assert made.timestamps.tolist() == [6, 7, 5, 8]


WRONG: dict[str, tuple[Any, str]] = {
    "a missing rating": (FRAME.assign(rating=[1, 2, np.nan, 4]), "the rating in row 2 .* is missing"),
    "a missing user": (FRAME.assign(user=["b", None, "b", "c"]), "the user id in row 1 .* is missing"),
    "a missing item": (FRAME.assign(item=[7, 9, np.nan, 7]), "the item id in row 2 .* is missing"),
    "ids with a fraction": (
        FRAME.assign(item=[7.0, 9, 2, 7]),
        "item id in row 0 .* is 7.0, and the column of type double",
    ),
    "mixed ids": (FRAME.assign(user=["b", 1, "b", "c"]), "the data frame .* cannot be read"),
    "words": (FRAME.assign(rating=list("abcd")), "rating in row 0 .* is 'a'"),
    "no such column": (FRAME.drop(columns="rating"), "cannot tell which column .* is the rating"),
    "two of a name": (pd.concat([FRAME, FRAME], axis=1), "two columns called 'user'"),
    "no rows": (FRAME[:0], "holds no ratings"),
    "a list": (COLUMNS["user"], "from a list: give a name, a path, a data frame"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case: str) -> None:
    frame, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        load_ratings(frame, scale="0:5:0.5")


def test_sparse_matrices() -> None:
    matrix = sp.csr_array(([5.0, 0.0, 3.0, 1.0], ([0, 0, 2, 9], [1, 4, 1, 0])), shape=(12, 6))
    for form in (matrix, matrix.tocoo(), sp.csc_matrix(matrix)):
        made = load_ratings(form, scale="0:5:1")
        ids = (made.user_vocabulary.raw(made.users), made.item_vocabulary.raw(made.items))
        assert [column.tolist() for column in ids] == [[0, 0, 2, 9], [1, 4, 1, 0]]
        assert made.ratings.tolist() == [5, 0, 3, 1]
    matrix.data[2] = np.nan
    with pytest.raises(DataError, match="row 2 and column 1 of ratings is missing"):
        load_ratings(matrix)
    with pytest.raises(DataError, match="columns are not for a sparse matrix"):
        load_ratings(matrix, columns="a,b,c")
    with pytest.raises(DataError, match="header is for files"):
        load_ratings(FRAME, header=True)
