"""A run finds its ratings as it read them: it records its way of reading."""

import json
from pathlib import Path

import pytest

from pyro_bmf.cli.options import READER, Reading, Splitting
from pyro_bmf.cli.runs.config import config_of_options
from pyro_bmf.cli.runs.folder import RunFolder
from pyro_bmf.data import DataWarning, load_ratings, random_split
from pyro_bmf.data.reading.layout import READERS
from pyro_bmf.errors import SavedFileError

TEXT = "userId, movieId, rating, timestamp\n" + "".join(
    f"{user}, {item}, {(user + item) % 5 + 1}, {1_000_000 + user + item / 8}\n"
    for user in range(6)
    for item in range(5)
    if item
)


def folder(tmp_path: Path, reader: int) -> RunFolder:
    """A run's folder as far as its data go; ids hold blanks when read the first way."""
    path = tmp_path / "r.csv"
    path.write_text(TEXT)
    run = RunFolder(tmp_path)
    config = config_of_options(str(path), Reading(scale="1:5:1", reader=reader), Splitting())
    running = {"device": "cpu", "threads": 1, "deterministic": False, "checkpoint_every": 1}
    run.write_config({**config, "settings": {}, "warm_start": None, "refit": False, "running": running})
    split = random_split(load_ratings(path, scale="1:5:1", reader=reader))
    run.write_split(split)
    return run


def test_a_run_of_the_first_way_reads_that_way(tmp_path: Path) -> None:
    run = folder(tmp_path, 1)
    content = json.loads(run.config.read_text())
    assert content["reading"]["reader"] == 1
    ratings = run.load_split().ratings
    assert ratings.item_vocabulary.ids.tolist() == [" 1", " 2", " 3", " 4"]
    assert ratings.ticks_per_second == 1
    # It is the record that tells: the ratings of the newest way are other ratings.
    content["reading"]["reader"] = 2
    run.config.write_text(json.dumps(content))
    with pytest.raises(SavedFileError, match="not those of the run"):
        run.load_split()


def test_a_new_run_records_the_newest_way(tmp_path: Path) -> None:
    assert READER == READERS[-1] == Reading().reader
    run = folder(tmp_path, READER)
    assert json.loads(run.config.read_text())["reading"]["reader"] == READER
    ratings = run.load_split().ratings
    assert ratings.item_vocabulary.ids.tolist() == [1, 2, 3, 4]
    assert ratings.ticks_per_second == 1000


def test_ids_that_look_alike_warn_in_older_runs_too(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("1, 7,3\n1,7,4\n2,7,5\n")
    with pytest.warns(DataWarning, match="blanks"):
        assert load_ratings(path, scale="1:5:1", reader=1).n_items == 2
