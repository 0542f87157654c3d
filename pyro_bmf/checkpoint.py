"""The state of a fit between two iterations, and its one file on disk.

A checkpoint is a single safetensors file, tensors and a JSON header together, written beside its name and
renamed: a crash at any moment leaves the previous one whole. Each iteration draws from generators seeded by
(seed, iteration), so the state between iterations holds no generator, and going on from it repeats what an
uninterrupted fit would have done, to the bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import tensor_files
from .errors import SavedFileError
from .tensor_files import Kind, first_line

_REMEDY = (
    "Delete it and start over: a fit that is resumed without its checkpoint begins anew, with its own data "
    "and settings."
)

#: Between two iterations. Version 1 had no checksum, version 2 other names of tensors.
CHECKPOINT = Kind("pyro-bmf checkpoint", 3, "checkpoint", _REMEDY, oldest=3, outdated=_REMEDY)
#: Between two sweeps of a chain. Version 2 had other names of tensors.
CHAIN_CHECKPOINT = Kind("pyro-bmf chain checkpoint", 3, "checkpoint", _REMEDY, oldest=3, outdated=_REMEDY)

#: Settings that are younger than checkpoints of this format and the first cells of experiments, with what
#: fits did before there were any.
LATER: Mapping[str, Any] = MappingProxyType(
    {
        "chains": 1,
        "composite_prior": 0.0,
        "iteration_order": "nested",
        "latent_input": "concatenation",
        "optimizer": "adam",
        "overrelaxation": 0.0,
        "weight_scale": None,
    }
)

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
    steps : {"plain", "joint"}
        How its steps are computed: to the same bits, a fit goes on as it began.
    best : dict of Tensor or None
        The weights and embeddings that the result will be made of.
    average : dict of Tensor or None
        Exponential moving average of the weights, once it has begun.
    """

    iteration: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_iteration: int = 0
    best_rmse: float = float("inf")
    steps: Literal["plain", "joint"] = "plain"
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
        "identity": identity,
        "iteration": state.iteration,
        "history": state.history,
        "best_iteration": state.best_iteration,
        # Infinity, where nothing is validated, has no place in JSON.
        "best_rmse": state.best_rmse if math.isfinite(state.best_rmse) else None,
        "steps": state.steps,
    }
    write_tensors(path, CHECKPOINT, tensors, header)


def write_tensors(path: Path, kind: Kind, tensors: State, header: dict[str, Any]) -> None:
    """Write tensors and a JSON header as one file under a checksum, atomically."""
    tensor_files.write_tensors(path, kind, header, tensor_files.apart(tensors))


def read_tensors(path: Path, kind: Kind, identity: dict[str, Any]) -> tuple[dict[str, Any], State]:
    """Read what `write_tensors` wrote, for the fit that `identity` tells.

    Raises
    ------
    SavedFileError
        If the file is missing, damaged, of another kind or format version, or of another fit.
    """
    if not path.is_file():
        raise SavedFileError(f"There is no checkpoint {path}: nothing to resume. Start without --resume.")
    header, tensors = tensor_files.read_tensors(path, kind)
    known = header.get("identity")
    if not isinstance(known, dict):
        raise SavedFileError(f"{path} does not say of which fit it is. {_REMEDY}")
    for name, expected in identity.items():
        if not _agrees(known.get(name), expected):
            raise SavedFileError(
                f"{path} is a checkpoint of another fit: its {name} is {_short(known.get(name))}, here it is "
                f"{_short(expected)}. Give the same data and settings, or start anew without --resume."
            )
    return header, tensors


def _agrees(known: Any, expected: Any) -> bool:
    """Return whether a part of an identity is what it must be, settings of later versions apart."""
    if not (isinstance(known, dict) and isinstance(expected, dict)):
        return bool(known == expected)
    later = {name: value for name, value in expected.items() if name not in known}
    return (
        known.keys() <= expected.keys()
        and all(name in LATER and LATER[name] == value for name, value in later.items())
        and all(_agrees(value, expected[name]) for name, value in known.items())
    )


@contextmanager
def put_back(path: Path) -> Iterator[None]:
    """Turn what goes wrong when a checkpoint's content is put back into a SavedFileError that names it."""
    try:
        yield
    except SavedFileError:
        raise
    except (
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        OverflowError,
    ) as error:
        raise SavedFileError(f"{path} does not fit this model ({first_line(error)}). {_REMEDY}") from error


def checked(header: dict[str, Any], **kinds: type | tuple[type, ...]) -> None:
    """Refuse a header whose entries are of other types.

    Raises
    ------
    TypeError
        Naming the first.
    """
    for name, kind in kinds.items():
        value = header[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{name} is {_short(value)}")
        if isinstance(value, int) and value < 0:
            raise TypeError(f"{name} is {value}, below 0")
    if not all(isinstance(record, dict) for record in header["history"]):
        raise TypeError("history holds something else than records")


def all_finite(tensors: State) -> None:
    """Refuse tensors with numbers that are not finite, or whose squares are not.

    Raises
    ------
    ValueError
        Naming the first.
    """
    for name, value in tensors.items():
        if not tensor_files.is_finite(value):
            raise ValueError(f"the tensor {name} holds numbers that are not finite")
        if value.is_floating_point() and value.numel():
            limit = torch.finfo(torch.float64 if value.dtype == torch.float64 else torch.float32).max ** 0.5
            largest = max(-float(value.min()), float(value.max()))
            if largest > limit:
                raise ValueError(f"the tensor {name} holds {largest:g}, whose square is infinite")


def load_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> FitState:
    """Put a checkpoint back into the module and the optimizer, and return the rest of the state.

    Raises
    ------
    SavedFileError
        If the file is damaged, foreign, of a newer format, or of another fit (settings or split).
    """
    header, tensors = read_tensors(path, CHECKPOINT, identity)
    # Every tensor has memory of its own: the alignment of a mapped file is not the allocator's, and vector
    # kernels may then round otherwise.
    with put_back(path):
        checked(header, iteration=int, history=list, best_iteration=int, best_rmse=(float, int, type(None)))
        all_finite(tensors)
        live = _part(tensors, "live")
        same_kinds(live, module.state_dict(), "live")
        if best := _part(tensors, "best"):
            same_kinds(best, module.state_dict(), "best")
        if average := _part(tensors, "average"):
            same_kinds(average, dict(module.named_parameters()), "average")
        module.load_state_dict(live)
        saved = optimizer.state_dict()
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimizer").items():
            index, key = name.split(".", 1)
            entries.setdefault(int(index), {})[key] = value
        rprop = isinstance(optimizer, torch.optim.Rprop)
        remembered = ("prev", "step_size") if rprop else ("exp_avg", "exp_avg_sq")
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, entry in entries.items():
            parameter = parameters[number]
            needed = {"step": torch.zeros(()), **dict.fromkeys(remembered, parameter)}
            same_kinds(entry, needed, f"optimizer.{number}")
        optimizer.load_state_dict({"state": entries, "param_groups": saved["param_groups"]})
        # Checkpoints from before there were joint steps do not say.
        if header.setdefault("steps", "plain") not in ("plain", "joint"):
            raise ValueError(f"its steps are {_short(header['steps'])}, which this version does not know")
        if header["iteration"] != len(header["history"]):
            raise ValueError(f"{header['iteration']} iterations with {len(header['history'])} records")
        _check_best(header, best)
    device = next(module.parameters()).device
    best, average = _part(tensors, "best", device), _part(tensors, "average", device)
    return FitState(
        iteration=header["iteration"],
        history=header["history"],
        best_iteration=header["best_iteration"],
        best_rmse=float("inf") if header["best_rmse"] is None else header["best_rmse"],
        steps=header["steps"],
        best=best or None,
        average=average or None,
    )


def _check_best(header: Mapping[str, Any], best: State) -> None:
    """Refuse a best iteration, or its figure, that is not in the history."""
    number, figure = header["best_iteration"], header["best_rmse"]
    if number > header["iteration"] or bool(best) != bool(number):
        raise ValueError(f"its best iteration is {number} of {header['iteration']}")
    record = header["history"][number - 1] if number else {}
    # A figure that should be high is remembered by its negative.
    known = {abs(value) for value in record.values() if isinstance(value, float)}
    wrong = record.get("valid_rmse") is not None if figure is None else abs(figure) not in known
    if wrong:
        raise ValueError(f"its best figure is {figure}, iteration {number} has another")


def same_kinds(found: State, expected: State, part: str) -> None:
    """Refuse tensors of other names, types or shapes than those that are needed.

    Raises
    ------
    ValueError
        Naming the first.
    """
    if odd := sorted(found.keys() ^ expected.keys()):
        raise ValueError(f"the tensor {part}.{odd[0]} is {'missing' if odd[0] in expected else 'unknown'}")
    for name, value in found.items():
        needed = expected[name]
        if (value.dtype, value.shape) != (needed.dtype, needed.shape):
            raise ValueError(
                f"the tensor {part}.{name} is {value.dtype} of shape {tuple(value.shape)}, {needed.dtype} of "
                f"shape {tuple(needed.shape)} is needed"
            )


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
