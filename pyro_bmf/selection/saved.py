"""A selection model as one file of `pyro_bmf.tensor_files`, beside the posterior of its fit.

The training ratings are not in it, but their hash: it goes with the posterior of the same ratings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data.ratings import Ratings
from ..errors import PyroBmfError, SavedFileError
from ..tensor_files import Kind, first_line, is_finite, read_tensors, write_tensors
from .both_heads import BothHeads
from .contract import SelectionHead
from .factors import SelectionFactors
from .item_regression import ItemRegression
from .rate_map import RateMap

FILE_NAME = "selection.safetensors"
_FIT_AGAIN = "Delete it, and fit it again: pyro-bmf fit --resume RUN."
# Of version 1 are those without what predicted ratings say.
FILE = Kind("pyro-bmf selection", 2, "saved selection model", _FIT_AGAIN)
#: Kinds of head that a file may name.
HEADS: Mapping[str, Any] = MappingProxyType(
    {ItemRegression.word: ItemRegression, SelectionFactors.word: SelectionFactors, BothHeads.word: BothHeads}
)
# Products of three such numbers are finite in single precision.
_LARGEST = 1e12
# What the parts raise when a description names things that are not there, or of another type or size.
_MISFITS = (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError, ArithmeticError)


class SelectionParts(NamedTuple):
    """What a selection model is made of, in the order of its attributes."""

    head: SelectionHead
    known: RateMap
    new: RateMap
    seen: float
    train: Ratings
    info: Mapping[str, Any]


def save_parts(path: Path, parts: SelectionParts) -> Path:
    """Write a selection model, atomically; `path` is a file, or a folder for ``selection.safetensors``."""
    target = path if path.suffix == ".safetensors" else path / FILE_NAME
    target.parent.mkdir(parents=True, exist_ok=True)
    head = parts.head
    arrays = {f"head.{name}": value for name, value in head.tensors().items()}
    for name, mapped in (("known", parts.known), ("new", parts.new)):
        arrays |= {f"{name}.{part}": value for part, value in mapped.tensors().items()}
    document = {
        "head": head.word,
        "settings": head.settings(),
        "seen": parts.seen,
        "data_hash": _hash(parts.train),
        "n_users": parts.train.n_users,
        "n_items": parts.train.n_items,
        "info": dict(parts.info),
    }
    write_tensors(target, FILE, document, {name: torch.from_numpy(np.array(a)) for name, a in arrays.items()})
    return target


def load_parts(path: Path, train: Ratings) -> SelectionParts:
    """Read a selection model; see `Selection.load`."""
    source = path / FILE_NAME if path.is_dir() else path
    if not source.is_file():
        raise SavedFileError(
            f"{source}: there is no such file: which items get rated was not fitted. Fit it: pyro-bmf fit "
            "--resume RUN. (Rankings by predicted rating, --by rating, do without.)"
        )
    document, tensors = read_tensors(source, FILE)
    try:
        if document["data_hash"] != _hash(train):
            raise SavedFileError(f"it was fitted to other ratings than the posterior. {_FIT_AGAIN}")
        if document["head"] not in HEADS:
            raise SavedFileError(f"its head {document['head']!r} is not known. {_FIT_AGAIN}")
        seen = document["seen"]
        if isinstance(seen, bool) or not isinstance(seen, (int, float)) or not 0.0 < seen <= 1.0:
            raise SavedFileError(f"the share that it was fitted to is {seen!r}. {_FIT_AGAIN}")
        for name, tensor in tensors.items():
            _check(name, tensor)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        head = HEADS[document["head"]].from_saved(document["settings"], _part(arrays, "head"))
        if head.n_items != train.n_items:
            raise SavedFileError(
                f"it knows {head.n_items:,} items, the ratings have {train.n_items:,}. {_FIT_AGAIN}"
            )
        known, new = (RateMap.from_saved(_part(arrays, name)) for name in ("known", "new"))
        return SelectionParts(head, known, new, float(seen), train, dict(document["info"]))
    except PyroBmfError as error:
        raise SavedFileError(f"{source}: {error}") from error
    except _MISFITS as error:
        raise SavedFileError(
            f"{source}: its description and its tensors do not fit together ({first_line(error)}). "
            f"{_FIT_AGAIN}"
        ) from error


def _check(name: str, tensor: torch.Tensor) -> None:
    """Refuse a tensor of another type than its part computes with, or with numbers that it cannot use."""
    needed = torch.float32 if name.startswith("head.") else torch.float64
    if tensor.dtype != needed:
        raise SavedFileError(f"{name} is {tensor.dtype}, {needed} is needed. {_FIT_AGAIN}")
    if not is_finite(tensor):
        raise SavedFileError(f"{name} holds numbers that are not finite. {_FIT_AGAIN}")
    if tensor.numel() and float(tensor.abs().max()) > _LARGEST:
        raise SavedFileError(f"{name} holds {float(tensor.abs().max()):g}, too large to use. {_FIT_AGAIN}")


def _part(arrays: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")
    }


def _hash(train: Ratings) -> str:
    return replace(train, timestamps=None).data_hash
