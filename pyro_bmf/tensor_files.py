"""Tensors and a JSON description in one safetensors file, under one checksum. Nothing is pickled.

The header's metadata hold one entry, named by the file's format. Its first line is the format version and a
SHA-256 over everything, so that a flipped bit anywhere is noticed; the rest is JSON. (One entry, as
safetensors writes several in random order, and the same content is to give the same file.)
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import SavedFileError
from .files import atomic_write

_VERSION = re.compile(r"[1-9][0-9]{0,5}")
_LOOKED_AT = 16_000_000  # numbers
_MAPPED = 100_000_000  # bytes read through one map of a file


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    format : str
        Under which name the header is filed.
    version : int
        That is written.
    noun : str
        What messages call it, as in "a saved posterior".
    remedy : str
        A sentence: what to do about a damaged one.
    oldest : int
        The oldest version that is read.
    outdated : str
        A sentence: what to do about an older one.
    """

    format: str
    version: int
    noun: str
    remedy: str
    oldest: int = 1
    outdated: str = ""


def write_tensors(path: Path, kind: Kind, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a file, atomically.

    Parameters
    ----------
    path
    kind
    document : mapping
        JSON-ready.
    tensors : mapping of Tensor
        On any device; none may share memory with another.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(document, ensure_ascii=True, allow_nan=False)
    head = f"{kind.version} {digest(kind.format, str(kind.version), text, plain)}"
    with atomic_write(path) as temporary:
        save_file(plain, temporary, {kind.format: f"{head}\n{text}"})


def read_tensors(path: Path, kind: Kind) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and check a file: its kind, its version, then its checksum.

    Returns
    -------
    document : dict
    tensors : dict of Tensor

    Raises
    ------
    SavedFileError
        If it is damaged, of another kind, or of a version that is not read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            version, checksum, text = _head(path, kind, file.metadata() or {})
            names = list(file.keys())
        tensors = _read_all(path, names)
    except PermissionError as error:
        raise SavedFileError(f"{path} cannot be read: permission denied.") from error
    except (SafetensorError, OSError, UnicodeError, MemoryError, RuntimeError, ValueError) as error:
        if isinstance(error, SavedFileError):
            raise
        raise SavedFileError(
            f"{path}: not a safetensors file, or a damaged one ({first_line(error)}). {kind.remedy}"
        ) from error
    if digest(kind.format, version, text, tensors) != checksum:
        raise SavedFileError(
            f"{path}: the content does not match its checksum, so the file is damaged. {kind.remedy}"
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SavedFileError(
            f"{path}: its description is not JSON ({first_line(error)}). {kind.remedy}"
        ) from error
    if not isinstance(document, dict):
        raise SavedFileError(f"{path}: its description is not a JSON object. {kind.remedy}")
    return document, tensors


def _read_all(path: Path, names: list[str]) -> dict[str, Tensor]:
    """Return a file's tensors, each in memory of its own.

    The file is mapped anew after so many bytes, within a large tensor too: what was read through a map counts
    as memory until the map is let go. Copies, as kernels may round differently where memory is not aligned as
    torch's own is.
    """
    tensors: dict[str, Tensor] = {}
    left = names[::-1]
    while left:
        read = 0
        with safe_open(path, framework="pt") as file:
            while left and read < _MAPPED:
                name = left.pop()
                shape = file.get_slice(name).get_shape()
                if len(shape) > 1 and math.prod(shape) > _MAPPED:
                    tensors[name] = _read_rows(path, name, shape)
                    continue
                tensors[name] = file.get_tensor(name).clone()
                read += tensors[name].nbytes
    return tensors


def _read_rows(path: Path, name: str, shape: list[int]) -> Tensor:
    """Return one large tensor, read some rows at a time."""
    rows = max(1, _MAPPED // math.prod(shape[1:]))
    found: Tensor | None = None
    for start in range(0, shape[0], rows):
        with safe_open(path, framework="pt") as file:
            part = file.get_slice(name)[start : start + rows]
            if found is None:
                found = torch.empty(shape, dtype=part.dtype)
            found[start : start + rows] = part
    assert found is not None
    return found


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU that can be saved together: none shares its memory with another.

    Copies are made of those that do, not of all: a chain's draws may fill half of the machine's memory.
    """
    seen: set[int] = set()
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        seen.add(tensor.untyped_storage().data_ptr())
        found[name] = tensor
    return found


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor's numbers are all finite, in memory that does not grow with it."""
    if not tensor.is_floating_point():
        return True
    flat = tensor.reshape(-1)
    return all(
        bool(torch.isfinite(flat[start : start + _LOOKED_AT]).all())
        for start in range(0, len(flat), _LOOKED_AT)
    )


def is_of_kind(path: Path, kind: Kind) -> bool:
    """Tell whether there is a file that says it is of a kind; it may be damaged."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return kind.format in (file.metadata() or {})
    except (SafetensorError, OSError, UnicodeError):
        return False


def digest(format: str, version: str, text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return SHA-256 over format, version, description, and every tensor's name, dtype, shape and bytes."""
    head = f"{format}\n{version}\n{len(text)}\n{text}\n"
    state = hashlib.sha256(head.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode("utf-8", "surrogatepass"))
        if tensor.numel():
            state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without the full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _head(path: Path, kind: Kind, metadata: Mapping[str, str]) -> tuple[str, str, str]:
    """Take version, checksum and description apart, and refuse another kind or version."""
    if kind.format not in metadata:
        raise SavedFileError(
            f"{path}: this is not a {kind.noun} of pyro-bmf in a format that is read, but another "
            f"safetensors file. {kind.outdated or kind.remedy}"
        )
    head, _, text = metadata[kind.format].partition("\n")
    version, _, checksum = head.partition(" ")
    if not _VERSION.fullmatch(version):
        shown = version if len(version) <= 20 else f"{version[:20]}…"
        raise SavedFileError(
            f"{path}: its format version {shown!r} is not a number of at most six digits, so the file is "
            f"damaged. {kind.remedy}"
        )
    if int(version) > kind.version:
        raise SavedFileError(
            f"{path}: format version {version} is newer than the {kind.version} that this pyro-bmf reads. "
            "Update it: pip install --upgrade pyro-bmf"
        )
    if int(version) < kind.oldest:
        raise SavedFileError(
            f"{path}: format version {version} is older than the {kind.oldest} that this pyro-bmf reads. "
            f"{kind.outdated}"
        )
    return version, checksum, text
