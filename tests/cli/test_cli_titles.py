"""`--titles FILE`: read once by a fit, stored with the ratings, shown by every later command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
_QUICK = ("--preset", "conjugate", "--factors", 2, "--iterations", 2, "--quiet")
Run = Any


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ratings and titles, which is the current one."""
    shutil.copy(RUNS / "ratings.csv", tmp_path)
    rows = (tmp_path / "ratings.csv").read_text(encoding="utf-8").splitlines()[1:]
    items = sorted({row.split(",")[1] for row in rows})
    lines = [f"{item},Film {item}" for item in items[1:]]
    (tmp_path / "films.csv").write_text("\n".join(["item_id,title", *lines, "nothing,Unseen"]), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_titles_are_stored_and_shown_when_the_file_is_gone(cli: Run, here: Path) -> None:
    outcome = cli("fit", "--data", "ratings.csv", "--titles", "films.csv", *_QUICK, "--out", "run")
    assert outcome.code == 0, outcome.err
    assert "1 are of items that have no rating and are left out; 1 items have no title" in outcome.err
    Path("films.csv").unlink()
    shown = cli("recommend", "run", "--user", "u1", "--n", 3)
    assert shown.code == 0, shown.err
    assert "Film i" in shown.out
    assert cli("evaluate", "run").code == 0
    plain = cli("fit", "--data", "ratings.csv", *_QUICK, "--out", "plain")
    assert plain.code == 0
    assert (here / "plain/split-hash.json").read_bytes() == (here / "run/split-hash.json").read_bytes()


def test_a_fit_that_goes_on_reads_them_again(cli: Run, here: Path) -> None:
    assert cli("fit", "--data", "ratings.csv", "--titles", "films.csv", *_QUICK, "--out", "run").code == 0
    (here / "run/model.safetensors").unlink()
    outcome = cli("fit", "--resume", "run", "--quiet")
    assert outcome.code == 0, outcome.err
    assert "Film i" in cli("recommend", "run", "--user", "u1", "--n", 3).out


def test_where_no_titles_are_read_they_are_refused(cli: Run, here: Path) -> None:
    assert cli("data", "split", "ratings.csv", "--out", "split").code == 0
    outcome = cli("fit", "--data", "split", "--titles", "films.csv", *_QUICK, "--out", "a")
    assert outcome.code == 2
    assert "is a written split: it takes no options of reading or splitting" in outcome.err
    given = ("--train", "split/train.csv", "--valid", "split/valid.csv", "--test", "split/test.csv")
    outcome = cli("fit", *given, "--titles", "films.csv", *_QUICK, "--out", "b")
    assert outcome.code == 0, outcome.err
    assert "Film i" in cli("recommend", "b", "--user", "u1", "--n", 3).out
