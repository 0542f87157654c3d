"""Every example in every command's help runs, as it stands there, on fits with default settings."""

from __future__ import annotations

import glob
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from pyro_bmf.cli.main import root

# So few that the encoders' blocks are few, and quick with default settings.
USERS = [*range(1, 10), 22, 196]
ITEMS = [*range(1, 27), 50, 127, 181, 258]
#: What takes the default settings many fits.
SLOW = ("calibrate",)


def commands(command: click.Command, context: click.Context) -> Iterator[click.Command]:
    """Give a command and all below it."""
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, context)


def examples() -> list[str]:
    found = []
    for command in commands(root, click.Context(root)):
        lines = (command.help or "").splitlines()
        found += [line.strip() for line in lines if line.strip().startswith("pyro-bmf ")]
    return sorted(set(found))


EXAMPLES = examples()


def write_ratings(folder: Path) -> None:
    """Write a small set under two known names, and as the files that the examples name."""
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
    write("mine.csv", ",", [(50, 5), (181, 4)], "item_id,rating")
    write("new_film.csv", ",", [(196, 5), (3, 4)], "user_id,rating")


@pytest.fixture(scope="module")
def workplace(cli: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the examples name: data, files, runs."""
    folder = tmp_path_factory.mktemp("examples")
    write_ratings(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYRO_BMF_DATA_DIR", str(folder / "data"))
        quick = ("--preset", "amortized", "--iterations", 3)
        for name, options in {
            "ml100k": ("--data", "ml100k"),
            "ml1m": ("--data", "ml1m"),
            "ratings": ("--data", "ratings.csv", *quick),
            "amortized": ("--data", "ml100k", *quick),
            "normal": ("--data", "ml100k", *quick),
            "ordered": ("--data", "ml100k", *quick, "--likelihood", "ordered-logistic"),
        }.items():
            outcome = cli("fit", *options, "--out", f"runs/{name}", "--threads", 1, "--quiet")
            assert outcome.code == 0, outcome.err
    return folder


def test_every_command_has_examples() -> None:
    named = {line.split()[1] for line in EXAMPLES}
    leaves = set(root.list_commands(click.Context(root)))
    assert leaves <= named


@pytest.mark.parametrize(
    "example",
    [pytest.param(line, marks=[pytest.mark.slow] * (line.split()[1] in SLOW)) for line in EXAMPLES],
)
def test_an_example_of_the_help_runs(
    cli: Any, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    shutil.copytree(workplace, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYRO_BMF_DATA_DIR", str(tmp_path / "here" / "data"))
    if "*" in example:  # runs are compared on one split
        for other in ("ml1m", "ratings"):
            shutil.rmtree(f"runs/{other}")
    words = [
        name
        for word in shlex.split(example, comments=True)[1:]
        for name in (sorted(glob.glob(word)) if "*" in word else [word])
    ]
    outcome = cli(*words)
    assert outcome.code == 0, outcome.err
