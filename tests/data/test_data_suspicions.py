"""Slips that can be read as ratings all the same: each said aloud, and nothing said of what is usual."""

from typing import Any

import numpy as np
import pytest

from pyro_bmf.data import DataNotice, DataWarning, load_ratings
from pyro_bmf.data.suspicions import stand_ins
from pyro_bmf.data.validation import ratings_from_arrays

FIVE = [1.0, 2, 3, 4, 5] * 4

FOUND: dict[str, tuple[list[float], list[tuple[float, int, float, float]]]] = {
    "99": ([*FIVE, 99, 99], [(99, 2, 1, 5)]),
    "99 once": ([*FIVE, 99], [(99, 1, 1, 5)]),
    "minus one": ([*FIVE, -1], [(-1, 1, 1, 5)]),
    "minus one beside zero": ([*FIVE, 0, -1], [(-1, 1, 0, 5)]),
    "both ends": ([*FIVE, -1, 99], [(99, 1, 1, 5), (-1, 1, 1, 5)]),
    "two at one end": ([*FIVE, 999, 9999], [(9999, 1, 1, 5), (999, 1, 1, 5)]),
    "zero far away": ([50.0, 60, 70, 80, 0], [(0, 1, 50, 80)]),
    "an unusual one, twice": ([*FIVE, 77, 77], [(77, 2, 1, 5)]),
    "continuous": ([*np.linspace(-10, 10, 300), 99], [(99, 1, -10, 10)]),
}
QUIET: dict[str, list[float]] = {
    "five levels": FIVE,
    "halves": [0.5, 1, 1.5, 2, 5],
    "zero to ten": [0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    "zero to five": [0.0, *FIVE],
    "likes": [-1.0, 0, 1],
    "about zero": [-2.0, -1, 0, 1, 2],
    "up to 99": [*np.arange(0.0, 100)],
    "heavy-tailed counts": [1.0, 2, 3, 5, 8, 40, 700, 1500],
    "nine of ten": [1.0, 2, 3, 4, 5, 6, 7, 9],
    "two values": [0.0, 99],
}


@pytest.mark.parametrize("case", FOUND)
def test_values_that_stand_for_no_rating(case: str) -> None:
    ratings, found = FOUND[case]
    assert stand_ins(np.array(ratings)) == found


@pytest.mark.parametrize("case", QUIET)
def test_usual_scales_are_not_suspected(case: str) -> None:
    assert stand_ins(np.array(QUIET[case])) == []


def columns(ratings: list[float]) -> tuple[Any, Any, Any]:
    return [k // 5 for k in range(len(ratings))], [k % 5 for k in range(len(ratings))], ratings


def test_it_is_said_with_count_and_remedy() -> None:
    with (
        pytest.warns(DataWarning, match=r"2 of 22 ratings are 99, .* \(1 to 5\).*1:5\) has them refused"),
        pytest.warns(DataNotice, match="inferred"),
    ):
        ratings_from_arrays(*columns([*FIVE, 99, 99]))
    ratings_from_arrays(*columns([*FIVE, 99, 99]), scale="1:99")  # said to be so


@pytest.mark.parametrize("first", [0, 1])
def test_a_column_that_counts_rows(tmp_path: Any, first: int) -> None:
    path = tmp_path / "r.csv"
    path.write_text("".join(f"{k + first},u{k % 3},{k % 5 + 1},4\n" for k in range(12)))
    with pytest.warns(
        DataWarning, match=r"user column counts the rows .*every user has one rating.*--columns"
    ):
        load_ratings(path, scale="1:5:1", columns=(0, 1, 2))
    load_ratings(path, scale="1:5:1", columns=(1, 2, 3), duplicates="mean")


def test_one_rating_each() -> None:
    users = np.random.default_rng(0).permutation(40) * 3
    with pytest.warns(DataWarning, match="every user has one rating, of which nothing"):
        ratings_from_arrays(users, np.arange(40) % 4, np.arange(40) % 5, scale="0:4:1")
    with pytest.warns(DataWarning, match="every item has one rating"):
        ratings_from_arrays(np.arange(40) % 4, users, np.arange(40) % 5, scale="0:4:1")


@pytest.mark.parametrize("kind", ["user", "item"])
@pytest.mark.parametrize("word", ["NaN", "null", "None", "n/a", "<NA>"])
def test_an_id_that_is_written_for_none_is_said(kind: str, word: str) -> None:
    users = [f"u{k // 5}" for k in range(20)]
    items = [f"i{k % 5}" for k in range(20)]
    given = users if kind == "user" else items
    replaced = [word if one == given[0] else one for one in given]
    count = replaced.count(word)
    ids = {"user": users, "item": items} | {kind: replaced}
    with (
        pytest.warns(DataWarning, match=f"{count} ratings have the {kind} id '{word}'.*leave these rows out"),
        pytest.warns(DataNotice, match="inferred"),
    ):
        found = ratings_from_arrays(ids["user"], ids["item"], FIVE)
    assert len(found) == 20


def test_ids_that_only_look_so_are_not_suspected() -> None:
    words = ("nan2", "Nanna", "Noned", "nullify", "0")
    users, items = [words[k // 5] for k in range(20)], [words[k % 5] for k in range(20)]
    ratings_from_arrays(users, items, FIVE, scale="1:5:1")
