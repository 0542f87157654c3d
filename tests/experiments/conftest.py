"""Small ratings under a known name, in a working folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_place import write_ratings

from pyro_bmf.data import Split, load_ratings, random_split


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_ratings(folder)
    return folder / "data"


@pytest.fixture
def here(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with the small set as ml100k."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYRO_BMF_DATA_DIR", str(small_data))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path


@pytest.fixture
def small_split(small_data: Path) -> Split:
    torch.set_num_threads(1)
    return random_split(load_ratings(small_data.parent / "ratings.csv", scale="1:5:1"))
