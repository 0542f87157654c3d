"""A folder with everything that examples name: small data under known names, files, runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# So few that the encoders' blocks are few, and quick with default settings.
USERS = [*range(1, 10), 22, 186, 196]
ITEMS = [*range(1, 27), 50, 121, 127, 172, 181, 258]

#: Runs by the names that examples give them, and the options of `fit` that make them.
RUNS: dict[str, tuple[str, ...]] = {
    "ml100k": ("--data", "ml100k"),
    "ml1m": ("--data", "ml1m"),
    "ratings": ("--data", "ratings.csv", "--preset", "amortized", "--iterations", "3"),
    "amortized": ("--data", "ml100k", "--preset", "amortized", "--iterations", "3"),
    "normal": ("--data", "ml100k", "--preset", "amortized", "--iterations", "3", "--likelihood", "normal"),
    "ordered": (
        *("--data", "ml100k", "--preset", "amortized", "--iterations", "3"),
        *("--likelihood", "ordered-logistic"),
    ),
}


def write_ratings(folder: Path) -> None:
    """Write a small set under two known names, and as the files that examples name."""
    rng = np.random.default_rng(0)
    rated = rng.random((len(USERS), len(ITEMS))) < 0.5
    scores = rng.normal(0, 1, (len(USERS), 3)) @ rng.normal(0, 1, (3, len(ITEMS))) * 0.6
    stars = np.clip(np.round(3.3 + scores), 1, 5).astype(int)
    rows = [
        (USERS[u], ITEMS[i], stars[u, i], 1000 + 7 * u + i) for u, i in zip(*np.nonzero(rated), strict=True)
    ]

    def write(name: str, separator: str, lines: list[Any], header: str = "") -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join([header] * bool(header) + [separator.join(map(str, line)) for line in lines])
        (folder / name).write_text(text + "\n", encoding="latin-1")

    write("data/ml-100k/u.data", "\t", rows)
    titles = [(item, f"Film [{item}] (1990)", "01-Jan-1990", "", "http") for item in ITEMS]
    write("data/ml-100k/u.item", "|", titles)
    write("data/ml-1m/ratings.dat", "::", rows)
    write("data/ml-1m/movies.dat", "::", [(item, f"Film {item} (1990)", "Drama") for item in ITEMS])
    write("ratings.csv", ",", [row[:3] for row in rows], "user,item,stars")
    write("more_ratings.csv", ",", [(u + 1000 * (u > 6), *rest) for u, *rest, _ in rows], "user,item,stars")
    write("my_ratings.csv", ",", [row[:3] for row in rows], "user,film,stars")
    write("my.csv", ",", rows, "user,item,rating,timestamp")
    write("u1.base", "\t", rows[: len(rows) * 4 // 5])
    write("u1.test", "\t", rows[len(rows) * 4 // 5 :])
    write("pairs.csv", ",", [(196, 50), (3, 181)], "user_id,item_id")
    write("some_users.csv", ",", [(196,), (3,)], "user_id")
    write("new_films.csv", ",", [(50,), (127,), (181,), (258,), (3,), (4,)], "item_id")
    write("watched.csv", ",", [(50,), (4,)], "item_id")
    write("mine.csv", ",", [(50, 5), (181, 4)], "item_id,rating")
    write("new_film.csv", ",", [(196, 5), (3, 4)], "user_id,rating")


def make_runs(cli: Callable[..., Any], folder: Path, names: Iterable[str] = RUNS) -> None:
    """Fit the named runs in a folder that has its ratings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYRO_BMF_DATA_DIR", str(folder / "data"))
        for name in names:
            outcome = cli("fit", *RUNS[name], "--out", f"runs/{name}", "--threads", 1, "--quiet")
            assert outcome.code == 0, outcome.err
