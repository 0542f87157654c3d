"""A baseline's file, of `pyro_bmf.tensor_files`: its training ratings, hashes and what it learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.data import Ratings
from pyro_bmf.errors import PyroBmfError, SavedFileError

FILE_NAME = "baseline.safetensors"
_STATE = "state."
# What is raised when a description names things that are not there, or of another type or size.
_MISFITS = (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError, ArithmeticError)


@dataclass(frozen=True, eq=False)
class SavedBaseline:
    """What a file holds.

    Attributes
    ----------
    settings : dict
        The keyword arguments of the class.
    train : Ratings
    info : dict
    state : dict of ndarray
        What `Baseline.state` gave.
    """

    settings: dict[str, Any]
    train: Ratings
    info: dict[str, Any]
    state: dict[str, NDArray[Any]]


def write_baseline(
    path: Path | str,
    about: Mapping[str, Any],
    train: Ratings,
    info: Mapping[str, Any],
    state: Mapping[str, NDArray[Any]],
) -> Path:
    """Write a file, atomically; see `Baseline.save`."""
    import torch  # what is not saved or loaded does not need it

    from pyro_bmf.systems.saved_ratings import ratings_document, ratings_tensors
    from pyro_bmf.tensor_files import write_tensors

    target = Path(path)
    if target.suffix != ".safetensors":
        target.mkdir(parents=True, exist_ok=True)
        target = target / FILE_NAME
    tensors = ratings_tensors(train)
    tensors |= {f"{_STATE}{name}": torch.from_numpy(np.array(value)) for name, value in state.items()}
    document = {**about, **ratings_document(train), "info": dict(info)}
    write_tensors(target, _kind(), document, tensors)
    return target


@contextmanager
def read_baseline(path: Path | str, system: str, version: int) -> Iterator[SavedBaseline]:
    """Read a file of a system; what is wrong with the content, within the block too, is a `SavedFileError`.

    Raises
    ------
    SavedFileError
        If there is no such file, or it is damaged, or of another system or version.
    """
    from pyro_bmf.systems.saved_ratings import saved_ratings
    from pyro_bmf.tensor_files import first_line, read_tensors

    source = Path(path)
    if source.is_dir():
        source = source / FILE_NAME
    if not source.is_file():
        raise SavedFileError(
            f"{source}: there is no such file. Give the file or the folder of a saved baseline."
        )
    document, tensors = read_tensors(source, _kind())
    try:
        if document["system"] != system:
            raise SavedFileError(
                f"it holds the system {document['system']!r}, not {system!r}: load it with the class of that "
                "name."
            )
        if document["version"] != version:
            raise SavedFileError(
                f"it was written by version {document['version']!r} of {system}, this is version {version}: "
                "fit and save it again."
            )
        state = {
            name.removeprefix(_STATE): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith(_STATE)
        }
        for name, value in state.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise SavedFileError(
                    f"{name} holds numbers that are not finite: fit and save the system again."
                )
        train = saved_ratings(document, tensors)
        yield SavedBaseline(dict(document["settings"]), train, dict(document["info"]), state)
    except PyroBmfError as error:
        raise SavedFileError(f"{source}: {error}") from error
    except _MISFITS as error:
        raise SavedFileError(
            f"{source}: its description and its tensors do not fit together ({first_line(error)}). "
            "Fit and save the system again."
        ) from error


def _kind() -> Any:
    from pyro_bmf.tensor_files import Kind

    return Kind("pyro-bmf baseline", 1, "saved baseline", "Copy it again, or fit and save the system again.")
