"""What config.json says of a run: where its ratings are, how they are split, and its settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pyro_bmf.errors import SavedFileError
from pyro_bmf.files import is_stream

from ..options import Reading, Splitting
from . import schema as run_schema

#: Version 2 has settings by method.
FORMAT_VERSION = 2
AGAIN = "Take it from a copy, or fit again."


def read_config(path: Path) -> dict[str, Any]:
    """Read what a run is made of.

    Raises
    ------
    SavedFileError
        If the file is damaged, or of another format.
    """
    # Which format it is comes first: another one may hold other things.
    content = run_schema.read_json(path, run_schema.any_format, AGAIN)
    if content["format"] != "pyro-bmf run":
        raise SavedFileError(f"{path} is not the config of a pyro-bmf run: give a folder that fit wrote.")
    version = content["format_version"]
    if version > FORMAT_VERSION:
        raise SavedFileError(
            f"{path} has format {version}, this version reads format {FORMAT_VERSION}: install the newer "
            "pyro-bmf that wrote it."
        )
    if version < FORMAT_VERSION:
        raise SavedFileError(
            f"{path} has format {version}, this version reads format {FORMAT_VERSION}, whose settings have "
            "other names: fit again, or use the pyro-bmf that wrote it."
        )
    run_schema.check(content, run_schema.config(), str(path), AGAIN)
    return content


def fit_digest(config: dict[str, Any]) -> str:
    """Return a SHA-256 of what a config says of the fit; its data may move, and its machine may change."""
    told = {name: config[name] for name in ("settings", "refit", "warm_start")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by dotted name; the preset's name is none."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" != "preset":
            found[f"{prefix}{name}"] = value
    return found


def first_difference(
    some: dict[str, Any], others: dict[str, Any], apart: Collection[str]
) -> tuple[str | None, Any, Any]:
    """Return the first setting that both tell otherwise, with its two values; those `apart` may differ."""
    mine, its = flat(some), flat(others)
    for name in sorted(mine.keys() & its.keys()):
        if name.rpartition(".")[2] not in apart and mine[name] != its[name]:
            return name, mine[name], its[name]
    return None, None, None


def config_of_options(data: str | None, reading: Reading, splitting: Splitting) -> dict[str, Any]:
    """Return the options of data and split as JSON can hold them; a file is named by its whole path."""
    from pyro_bmf.data.sources import find_source

    if data is not None:
        path = Path(data)
        # A named set stays a name, though a folder of that name may lie here; a written split does not. A
        # pipe has no path that leads to it later.
        if is_stream(path) or data == "-":
            pass
        elif (path / "split.json").is_file() or (path.exists() and find_source(data) is None):
            data = str(path.resolve())
    return {
        "data": data,
        "reading": {name: _plain(value) for name, value in asdict(reading).items()},
        "splitting": {name: _plain(value) for name, value in asdict(splitting).items()},
    }


def options_from_config(config: dict[str, Any]) -> tuple[Reading, Splitting]:
    """Return the options that `config_of_options` wrote."""
    reading = dict(config["reading"])
    for name in ("data_dir", "titles"):
        if reading.get(name) is not None:
            reading[name] = Path(reading[name])
    splitting = dict(config["splitting"])
    for name in ("train", "valid", "test"):
        if splitting.get(name) is not None:
            splitting[name] = Path(splitting[name])
    for name in ("fractions", "points"):
        if splitting.get(name) is not None:
            splitting[name] = tuple(splitting[name])
    return Reading(**reading), Splitting(**splitting)


def _plain(value: Any) -> Any:
    return str(value.resolve()) if isinstance(value, Path) else value


def values(options: Reading | Splitting) -> dict[str, Any]:
    """Return options by name, as they are."""
    return {field.name: getattr(options, field.name) for field in fields(options)}
