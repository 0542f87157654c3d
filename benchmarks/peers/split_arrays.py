"""An exported split as index arrays, read without pyro-bmf: the peers' environment does not have it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Part:
    """Ratings of one part: index arrays and values, in the order of the file."""

    users: Any
    items: Any
    ratings: Any


@dataclass(frozen=True)
class SplitArrays:
    """What `pyro-bmf data split` wrote, with raw ids turned into places in users.csv and items.csv."""

    name: str
    hash: str
    n_users: int
    n_items: int
    levels: Any
    train: Part
    valid: Part
    test: Part


def read(folder: Path) -> SplitArrays:
    """Read the folder of a split on a discrete scale."""
    about = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    users = pd.read_csv(folder / "users.csv")["user_id"]
    items = pd.read_csv(folder / "items.csv")["item_id"]
    place_u = pd.Series(np.arange(len(users)), index=users)
    place_i = pd.Series(np.arange(len(items)), index=items)

    def part(name: str) -> Part:
        table = pd.read_csv(folder / f"{name}.csv")
        return Part(
            place_u.loc[table["user_id"]].to_numpy(),
            place_i.loc[table["item_id"]].to_numpy(),
            table["rating"].to_numpy(dtype=np.float64),
        )

    parts = {name: part(name) for name in ("train", "valid", "test")}
    low, high, step = (about["scale"][key] for key in ("low", "high", "step"))
    levels = np.arange(low, high + step / 2, step)
    return SplitArrays(about["name"], about["hash"], len(users), len(items), levels, **parts)
