"""The state of a fit between two iterations, and its one file on disk.

A checkpoint is a single safetensors file, tensors and a JSON header together, written beside its name and
renamed: a crash at any moment leaves the previous one whole. Each iteration draws from generators seeded by
(seed, iteration), so the state between iterations holds no generator, and going on from it repeats what an
uninterrupted fit would have done, to the bit.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import SavedFileError
from ..files import atomic_write

FORMAT = "pyro-bmf checkpoint"
FORMAT_VERSION = 1

State = dict[str, Tensor]


@dataclass
class FitState:
    """What changes from iteration to iteration, beside the live weights and the optimizer.

    Attributes
    ----------
    iteration : int
        Number of iterations done.
    history : list of dict
        One record an iteration: parts of the objective, validation RMSE, seconds.
    best_iteration, best_rmse : int, float
        Where validation RMSE was lowest; 0 and infinity before the first iteration.
    best : dict of Tensor or None
        The weights and embeddings that the result will be made of.
    average : dict of Tensor or None
        Exponential moving average of the weights, once it has begun.
    """

    iteration: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_iteration: int = 0
    best_rmse: float = float("inf")
    best: State | None = None
    average: State | None = None


def save_checkpoint(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: FitState,
    identity: dict[str, Any],
) -> None:
    """Write everything that the next iteration depends on, atomically.

    Parameters
    ----------
    identity : dict
        What must be the same to go on: settings, split hash; and what should be, for the same bits.
    """
    tensors: State = {f"live.{name}": value for name, value in module.state_dict().items()}
    for index, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
    for kind, part in (("best", state.best), ("average", state.average)):
        tensors |= {f"{kind}.{name}": value for name, value in (part or {}).items()}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "identity": identity,
        "iteration": state.iteration,
        "history": state.history,
        "best_iteration": state.best_iteration,
        # Infinity, where nothing is validated, has no place in JSON.
        "best_rmse": state.best_rmse if math.isfinite(state.best_rmse) else None,
    }
    write_tensors(path, tensors, header)


def write_tensors(path: Path, tensors: State, header: dict[str, Any]) -> None:
    """Write tensors and a JSON header as one safetensors file, atomically."""
    # Copies: tensors that share memory cannot be saved together.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"pyro_bmf": json.dumps(header, allow_nan=False)})


def read_tensors(
    path: Path, kind: str, version: int, identity: dict[str, Any]
) -> tuple[dict[str, Any], State]:
    """Read what `write_tensors` wrote, for the fit that `identity` tells.

    Raises
    ------
    SavedFileError
        If the file is missing, damaged, of another kind, of a newer format, or of another fit.
    """
    header, tensors = _read(path, kind, version)
    for name, expected in identity.items():
        found = header["identity"].get(name)
        if found != expected:
            raise SavedFileError(
                f"{path} is a checkpoint of another fit: its {name} is {_short(found)}, here it is "
                f"{_short(expected)}. Give the same data and settings, or start anew without --resume."
            )
    return header, tensors


def kind_of(path: Path) -> str | None:
    """Return the format that a checkpoint's header names; None where there is no such file or header."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("pyro_bmf", "null"))
    except (SafetensorError, OSError, ValueError):
        return None
    return header.get("format") if isinstance(header, dict) else None


def load_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> FitState:
    """Put a checkpoint back into the module and the optimizer, and return the rest of the state.

    Raises
    ------
    SavedFileError
        If the file is damaged, foreign, of a newer format, or of another fit (settings or split).
    """
    header, tensors = read_tensors(path, FORMAT, FORMAT_VERSION, identity)
    # Every tensor is cloned into memory of its own: the alignment of a mapped file is not the allocator's,
    # and vector kernels may then round otherwise.
    try:
        module.load_state_dict(_part(tensors, "live"))
        saved = optimizer.state_dict()
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimizer").items():
            index, key = name.split(".", 1)
            entries.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": entries, "param_groups": saved["param_groups"]})
    except (RuntimeError, ValueError, KeyError) as error:
        raise SavedFileError(f"{path} does not fit this model: {error}.") from error
    device = next(module.parameters()).device
    best, average = _part(tensors, "best", device), _part(tensors, "average", device)
    return FitState(
        iteration=header["iteration"],
        history=header["history"],
        best_iteration=header["best_iteration"],
        best_rmse=float("inf") if header["best_rmse"] is None else header["best_rmse"],
        best=best or None,
        average=average or None,
    )


def _read(path: Path, kind: str, version: int) -> tuple[dict[str, Any], State]:
    if not path.is_file():
        raise SavedFileError(f"There is no checkpoint {path}: nothing to resume. Start without --resume.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("pyro_bmf", "null"))
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise SavedFileError(
            f"{path} cannot be read as a checkpoint ({error}). Delete it and start anew."
        ) from error
    if not isinstance(header, dict) or header.get("format") != kind:
        raise SavedFileError(f"{path} is a safetensors file, but not a checkpoint of pyro-bmf.")
    if header["format_version"] > version:
        raise SavedFileError(
            f"{path} has checkpoint format {header['format_version']}, this version reads up to "
            f"{version}: install the newer pyro-bmf that wrote it."
        )
    return header, tensors


def _part(tensors: State, kind: str, device: torch.device | None = None) -> State:
    prefix = f"{kind}."
    return {
        name[len(prefix) :]: value if device is None else value.to(device)
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
