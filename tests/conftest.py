"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder with real ratings, or a skip that says how to have one."""
    value = os.environ.get("PYRO_BMF_DATA_DIR")
    if not value or not Path(value).is_dir():
        pytest.skip("real ratings: set PYRO_BMF_DATA_DIR to a folder that holds them")
    return Path(value)
