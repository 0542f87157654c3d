"""A small data set with titles, one fitted run, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Cli, Outcome, call

N_USERS, N_ITEMS = 40, 30
#: Quick settings: one block, narrow layers.
QUICK = (
    *("--preset", "amortized", "--threads", "1", "--batch-users", "100", "--batch-items", "100"),
    *("--factors", "4", "--tower-outputs", "8"),
)


@pytest.fixture(scope="session")
def cli() -> Iterator[Cli]:
    """Call the command line on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield call
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("PYRO_BMF_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a small set under the name of a known one: with titles and timestamps."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    kept = rng.random((N_USERS, N_ITEMS)) < 0.6
    scores = rng.normal(0, 1, (N_USERS, 3)) @ rng.normal(0, 1, (3, N_ITEMS)) * 0.6
    stars = np.clip(np.round(3.3 + scores), 1, 5).astype(int)
    (folder / "ml-100k").mkdir()
    lines = [
        f"{user + 1}\t{item + 1}\t{stars[user, item]}\t{1000 + 7 * user + item}"
        for user, item in zip(*np.nonzero(kept), strict=True)
    ]
    (folder / "ml-100k" / "u.data").write_text("\n".join(lines) + "\n", encoding="utf-8")
    films = [f"{item + 1}|Film [{item + 1}] (1990)|01-Jan-1990||http" for item in range(N_ITEMS)]
    (folder / "ml-100k" / "u.item").write_text("\n".join(films) + "\n", encoding="latin-1")
    return folder


@pytest.fixture(scope="session")
def fitted(cli: Cli, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run, and what `fit` printed."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    outcome = cli(
        *("fit", "--data", "ml100k", "--data-dir", data_dir, "--out", path, "--iterations", 3),
        *("--recommend-for", 7, *QUICK),
    )
    assert outcome.code == 0, outcome.err
    return path, outcome


@pytest.fixture(scope="session")
def tiny_run(fitted: tuple[Path, Outcome]) -> Path:
    """The folder of a small fitted run."""
    return fitted[0]


@pytest.fixture
def own_csv(tmp_path: Path) -> Path:
    """A ratings file with text ids and no titles."""
    rng = np.random.default_rng(1)
    lines = ["user,item,stars"]
    for user in range(30):
        items = rng.permutation(25)[:14]
        lines += [f"u {user},film {item},{rng.integers(1, 6)}" for item in items]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
