"""Checkpoints from before a setting existed are of a fit that does as fits did then, and of no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_bmf.checkpoint import CHECKPOINT, read_tensors, write_tensors
from pyro_bmf.errors import SavedFileError

OLD: dict[str, Any] = {"settings": {"seed": 0, "cross-feedback": {"encoder": {"n_units": 5}}}, "threads": 1}


def now(**changes: Any) -> dict[str, Any]:
    encoder = {"n_units": 5, "latent_input": "concatenation"} | changes.pop("encoder", {})
    method = {"encoder": encoder, "iteration_order": "nested", "composite_prior": 0.0} | changes
    return {"settings": {"seed": 0, "cross-feedback": method}, "threads": 1}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "checkpoint", CHECKPOINT, {"one": torch.ones(1)}, {"identity": OLD})
    return tmp_path / "checkpoint"


def test_settings_that_came_later_stand_as_fits_did_before(file: Path) -> None:
    assert torch.equal(read_tensors(file, CHECKPOINT, now())[1]["one"], torch.ones(1))
    assert read_tensors(file, CHECKPOINT, OLD)


@pytest.mark.parametrize(
    "changes",
    [
        {"iteration_order": "sequential"},
        {"composite_prior": 0.5},
        {"encoder": {"latent_input": "average"}},
        {"encoder": {"n_units": 6}},
        {"unheard_of": 1},
    ],
    ids=str,
)
def test_anything_else_is_another_fit(file: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(SavedFileError, match="of another fit: its settings is"):
        read_tensors(file, CHECKPOINT, now(**changes))


def test_a_setting_that_is_no_more_is_another_fit(file: Path) -> None:
    with pytest.raises(SavedFileError, match="of another fit"):
        read_tensors(file, CHECKPOINT, {"settings": {"seed": 0, "cross-feedback": {}}, "threads": 1})
