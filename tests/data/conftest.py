"""Every test here has a cache folder of its own and no data folder from the environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from pyro_bmf.data import Ratings
from pyro_bmf.data.validation import ratings_from_arrays

# No deadline: a busy machine is slow for no fault of a case. The cases are the same every time.
settings.register_profile("data", deadline=None, derandomize=True)
settings.load_profile("data")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.delenv("PYRO_BMF_DATA_DIR", raising=False)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def writer(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return writer


@pytest.fixture
def small() -> Ratings:
    """60 users x 40 items, 800 ratings with timestamps."""
    rng = np.random.default_rng(5)
    cells = rng.permutation(60 * 40)[:800]
    return ratings_from_arrays(
        cells // 40 + 100,
        [f"i{item:02d}" for item in cells % 40],
        rng.integers(1, 6, 800).astype(float),
        rng.integers(1_000, 1_200, 800),
        scale="1:5:1",
        name="small",
    )
