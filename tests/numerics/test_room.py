"""Chunks by what is free on a card, with the free memory given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pyro_bmf.numerics import room
from pyro_bmf.numerics.room import cells_on, free_bytes


def test_a_cpu_keeps_its_chunks() -> None:
    assert cells_on(torch.device("cpu"), 8_000_000, free=lambda device: 0) == 8_000_000


def test_a_cpu_in_the_way_of_a_card_takes_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "waits", lambda device: True)
    assert cells_on(torch.device("cpu"), 8_000_000, free=lambda device: 0) == 2**29


def test_a_card_takes_an_eighth_of_what_is_free() -> None:
    card = torch.device("cuda:1")
    asked: list[torch.device] = []

    def free(device: torch.device) -> int:
        asked.append(device)
        return 3_200_000_000

    assert cells_on(card, 8_000_000, free=free) == 2**26 <= 100_000_000
    assert cells_on(card, 8_000_000, free=free, itemsize=8) == 2**25 <= 50_000_000
    assert asked == [card, card]


def test_rows_are_cut_alike_where_what_is_free_varies() -> None:
    card = torch.device("cuda")
    free = (2_400_000_000, 3_200_000_000, 4_000_000_000)
    assert {cells_on(card, 10, free=lambda device, bytes_=one: bytes_) for one in free} == {2**26}


def test_it_never_asks_for_nothing_or_for_everything() -> None:
    card = torch.device("cuda")
    assert cells_on(card, 10, free=lambda device: 7) == 1
    assert cells_on(card, 10, free=lambda device: 10**13) == 2**29


def test_what_torch_keeps_unused_is_free_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = {kind: {"all": {"current": n}} for kind, n in (("reserved_bytes", 900), ("allocated_bytes", 250))}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10_000, 80_000))
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda device: stats)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert free_bytes(torch.device("cuda:0")) == 10_650
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda device: {})  # nothing asked for yet
    assert free_bytes(torch.device("cuda:0")) == 10_000


def test_a_card_that_records_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question would end the recording."""
    stats = {kind: {"all": {"current": n}} for kind, n in (("reserved_bytes", 900), ("allocated_bytes", 250))}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: pytest.fail("asked"))
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda device: stats)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    card = SimpleNamespace(total_memory=80_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert free_bytes(torch.device("cuda:0")) == 79_750
