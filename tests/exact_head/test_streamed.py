"""Pairs that stay with the host: chunks of them on the device give the bits of all of them there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf.data import random_split, synthetic_ratings
from pyro_bmf.estimate import Needs, estimate_head
from pyro_bmf.methods.exact_head.run import ExactHeadRun, _tensors, pairs_stay
from pyro_bmf.methods.exact_head.updates import HeadUpdates
from pyro_bmf.methods.job import Job
from pyro_bmf.methods.settings import preset
from pyro_bmf.methods.streamed import row_parts, streamed
from pyro_bmf.progress import reporter_of


@pytest.fixture(scope="module")
def train() -> Any:
    made = synthetic_ratings(70, 40, 1200, n_factors=3, scale="1:5:1", seed=0)
    return random_split(made.ratings, seed=0).train


def updates(train: Any, likelihood: str, device: torch.device, host_chunk: int) -> HeadUpdates:
    changes = {"likelihood": likelihood, "n_factors": 3, "max_iterations": 8, "plain_iterations": 1}
    settings = preset("guide").replace(**changes)
    job = Job(train, None, settings, None, None, None, device, reporter_of(False))
    model = ExactHeadRun(job, settings.method).model
    model.start(train.ratings)
    model = model.to(device)
    return HeadUpdates(model, train, settings.method, seed=0, device=device, host_chunk=host_chunk)


@pytest.mark.parametrize("likelihood", ["normal", "ordered-probit"])
def test_a_fit_by_chunks_has_the_bits_of_one_without(
    train: Any, likelihood: str, device: torch.device
) -> None:
    """Chunks of 30 entries, among them rows that have more."""
    assert max(np.bincount(train.items)) > 30
    whole, parts = (updates(train, likelihood, device, chunk) for chunk in (0, 30))
    assert parts.entries.user.indices.device.type == parts.entries.item.rows.device.type == "cpu"
    for _ in range(3):
        assert whole.iteration() == parts.iteration()
    for name, value in _tensors(whole).items():
        assert torch.equal(_tensors(parts)[name], value), name


def test_pairs_stay_with_the_host_where_a_card_has_no_room_for_them() -> None:
    def needs(memory: int, device: str = "cuda") -> Needs:
        return Needs(1, memory, 100, device)

    assert pairs_stay(needs(120), needs(90))
    assert not pairs_stay(needs(90), needs(60))
    assert not pairs_stay(needs(120), needs(110))  # there is no room for the rest either
    assert not pairs_stay(needs(120, "cpu"), needs(90, "cpu"))
    whole, less = (
        estimate_head(10**8, 10**5, 10**4, 25, device="cpu", pairs_on_host=on_host)
        for on_host in (False, True)
    )
    assert less.memory < 0.8 * whole.memory


def test_chunks_are_those_of_the_tensors(device: torch.device) -> None:
    numbers, more = torch.arange(10), torch.arange(10).double()
    parts = [slice(0, 4), slice(4, 4), slice(4, 9), slice(9, 10)]
    for part, (one, other) in zip(parts, streamed(parts, (numbers, more), device), strict=True):
        assert torch.equal(one.cpu(), numbers[part])
        assert torch.equal(other.cpu(), more[part])
    assert list(streamed([], (numbers,), device)) == []


def test_rows_are_cut_by_their_entries() -> None:
    edges = np.array([0, 2, 2, 9, 10, 12, 12], dtype=np.int32)
    assert row_parts(edges, slice(0, 6), 4) == [slice(0, 2), slice(2, 3), slice(3, 6)]
    assert row_parts(edges, slice(1, 2), 4) == [slice(1, 2)]
    assert row_parts(edges, slice(2, 2), 4) == []
    assert row_parts(edges, slice(0, 6), 100) == [slice(0, 6)]
