"""A finished final cell of another experiment, fitted again: to the same bits on the same machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_bmf.errors import SavedFileError, SettingsError
from pyro_bmf.experiments.contender import Contender, Fitted, Running
from pyro_bmf.experiments.contenders import OurPreset, contender, start_of
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.files import read_json
from pyro_bmf.progress import Silent


@dataclass(frozen=True)
class Final:
    """A final cell that was found in a folder.

    Attributes
    ----------
    key : str
    model : str
    data : str
    seed : int
    split_hash : str
    settings : mapping
    rmse : float
        That it measured on its test part.
    """

    key: str
    model: str
    data: str
    seed: int
    split_hash: str
    settings: Mapping[str, Any]
    rmse: float


def finals(folder: Path) -> Iterator[Final]:
    """Give the final cells of an experiment's folder that did not fail.

    Raises
    ------
    SavedFileError
        If one is damaged.
    """
    for file in sorted((folder / "cells").glob("final-*.json")):
        try:
            content = read_json(file)
            told, result = content["identity"], content["result"]
            if "failed" in result:
                continue
            yield Final(
                content["key"],
                told["model"],
                told["data"],
                int(told["seed"]),
                told["split_hash"],
                told["settings"],
                float(result["figures"]["rmse"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SavedFileError(
                f"{file} is damaged ({error}): delete it, and the cell is run again."
            ) from error


def refit(final: Final, data: DataSet, *, device: str, threads: int | None) -> Fitted:
    """Fit a final cell's model again.

    Raises
    ------
    SettingsError
        If its split is not that of the data here, or its settings cannot be had by this version.
    """
    split = data.split(final.seed)
    if split.hash != final.split_hash:
        raise SettingsError(
            f"{final.model} was fitted to another split of {final.data} (seed {final.seed}) than the data "
            "here give: run the table again, or take the data that it was of."
        )
    model = contender(final.model)
    values = _values(model, final.settings)
    again, told = _flat(model.settings(values, final.seed)), _flat(final.settings)
    # Settings that are younger than the cell stand at what was done before.
    other = [
        name for name, value in told.items() if name not in again or _plain(again[name]) != _plain(value)
    ]
    if other:
        raise SettingsError(
            f"{final.model} of {final.data} has settings that this version does not give again "
            f"({', '.join(other)}): run the table with this version."
        )
    return model.fit(split, values, seed=final.seed, running=Running(Silent(), device, threads))


def _values(model: Contender, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a contender is to be told to have these settings."""
    if not isinstance(model, OurPreset):
        return {name: value for name, value in settings.items() if name != "seed"}
    flat = _flat(settings)
    start = start_of(model.base).values()
    return {
        name: value
        for name, value in flat.items()
        if name in start and name != "seed" and start[name] != value
    }


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings by the name of each alone."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value)
        else:
            found[name] = value
    return found
