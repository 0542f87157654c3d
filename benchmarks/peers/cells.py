"""A cell's files: what one system predicts of one split. Written whole or not at all, read with NumPy alone.

cell.json       settings, versions, times, memory, and `request`, by which a finished cell is known
predictions.npz for valid and test, in the order of the split's files: users, items, ratings, mean, sd, pmf
scores.npy      (n_users, n_items) float32 ranking scores, where they were made
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 2


def request(system: str, data: str, split_hash: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a cell the cell that was asked for."""
    asked = {"format": FORMAT, "system": system, "data": data, "split_hash": split_hash}
    found: dict[str, Any] = json.loads(json.dumps(asked | {"seed": seed, "settings": settings}))
    return found


def folder_of(cache: Path, data: str, system: str, seed: int) -> Path:
    """Return a cell's folder."""
    return cache / "cells" / data / f"{system}-{seed}"


def about(folder: Path) -> dict[str, Any] | None:
    """Return a finished cell's description, or None."""
    file = folder / "cell.json"
    if not file.exists():
        return None
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def write(folder: Path, description: dict[str, Any], arrays: dict[str, Any], scores: Any | None) -> None:
    """Write a cell: its description goes first and comes last, so that a folder with one is finished."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("cell.json", "scores.npy"):
        (folder / name).unlink(missing_ok=True)
    temporary = folder / "predictions.tmp.npz"
    np.savez_compressed(temporary, **arrays)
    temporary.replace(folder / "predictions.npz")
    if scores is not None:
        temporary = folder / "scores.tmp.npy"
        np.save(temporary, np.asarray(scores, dtype=np.float32), allow_pickle=False)
        temporary.replace(folder / "scores.npy")
    temporary = folder / "cell.json.tmp"
    temporary.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / "cell.json")


def read_predictions(folder: Path) -> dict[str, Any]:
    """Return a cell's arrays by name."""
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def read_scores(folder: Path) -> Any | None:
    """Return a cell's ranking scores, left on disk until they are used, or None."""
    file = folder / "scores.npy"
    return np.load(file, mmap_mode="r", allow_pickle=False) if file.exists() else None
