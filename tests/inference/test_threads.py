"""How many threads of the CPU a fit takes, and that the process has its own number again afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pyro_bmf import process
from pyro_bmf.data import Split, random_split, synthetic_ratings
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.progress import Silent

SETTINGS = preset("conjugate").replace(n_factors=2, max_iterations=2, patience=None)


class _Counts(Silent):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def iteration(self, record: dict[str, Any]) -> None:
        self.seen.append(torch.get_num_threads())


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(synthetic_ratings(20, 15, 150, n_factors=2, seed=0).ratings, seed=0)


def _threads(split: Split, asked: int | None, **how: Any) -> set[int]:
    counts = _Counts()
    fit(split, SETTINGS, threads=asked, progress=counts, **how)
    assert torch.get_num_threads() == 3
    return set(counts.seen)


def test_few_ratings_take_one_thread_if_nobody_asks_for_more(split: Split) -> None:
    assert _threads(split, None) == {1}
    assert _threads(split, 2) == {2}


@pytest.mark.parametrize("refit", [False, True])
def test_many_ratings_take_as_many_as_torch_has(
    split: Split, monkeypatch: pytest.MonkeyPatch, refit: bool
) -> None:
    trained = len(split.train_valid if refit else split.train)
    monkeypatch.setattr(process, "FEW", trained)
    assert _threads(split, None, refit=refit) == {3}
    monkeypatch.setattr(process, "FEW", trained + 1)
    assert _threads(split, None, refit=refit) == {1}
