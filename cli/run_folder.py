"""A run's folder: what `fit` writes and the other commands read.

``model.safetensors``  the posterior (all that predictions need)
``config.json``        data, split and settings: what ``fit --resume`` and ``evaluate`` start from
``split-hash.json``    the split's scheme, sizes and hash
``history.csv``        one line an iteration, every part of the objective by name
``metrics.json``       the test metrics beside the references
``environment.json``   versions, device, threads
``checkpoint.safetensors``  the state between two iterations, while the fit is not done
``selection.json``     of ``fit --refit``: the iterations chosen on validation

The model is written after everything else that the fit gives, so a folder that holds it is finished.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import pyro_bmf
from pyro_bmf.errors import SavedFileError, SettingsError
from pyro_bmf.files import atomic_write, clean_leftovers, write_json

from .options import Reading, Splitting, make_split

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.inference import FitResult, Preset
    from pyro_bmf.posterior import Posterior

FORMAT_VERSION = 1
_CONTENT = ("data", "reading", "splitting", "settings", "warm_start", "refit", "running")
#: The argument that names a run.
RUN = click.Path(exists=True, file_okay=False, path_type=Path)


class RunFolder:
    """The files of one run.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model.safetensors"
        self.config = path / "config.json"
        self.split = path / "split-hash.json"
        self.history = path / "history.csv"
        self.metrics = path / "metrics.json"
        self.environment = path / "environment.json"
        self.selection = path / "selection.json"

    def checkpoint(self, *, refit: bool = False) -> Path:
        """Return the checkpoint's path; a refit on train and validation has its own."""
        return self.path / ("checkpoint-refit.safetensors" if refit else "checkpoint.safetensors")

    @classmethod
    def check_free(cls, out: Path) -> None:
        """Refuse a folder for a new run that holds one.

        Raises
        ------
        SettingsError
            If `out` holds a run, or is no folder.
        """
        if out.exists() and not out.is_dir():
            raise SettingsError(f"{out} is a file: give a folder for the run.")
        if (out / "config.json").exists():
            raise SettingsError(
                f"{out} holds a run already: give another --out, delete it, or go on with --resume {out}."
            )

    @classmethod
    def create(cls, out: Path | None, data_name: str) -> RunFolder:
        """Make a new folder: `out`, or the first free one of ``runs/NAME``, ``runs/NAME-2`` and so on.

        Raises
        ------
        SettingsError
            If `out` holds a run, or is no folder.
        """
        if out is None:
            stem = Path("runs") / (Path(data_name).resolve().stem or "run")
            out, number = stem, 2
            while out.exists():
                out, number = stem.with_name(f"{stem.name}-{number}"), number + 1
        cls.check_free(out)
        out.mkdir(parents=True, exist_ok=True)
        return cls(out)

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Open a folder that `fit` wrote.

        Raises
        ------
        SavedFileError
            If it is none.
        """
        folder = cls(path)
        if not folder.config.is_file():
            raise SavedFileError(f"{path} is no run folder (it has no config.json): give one that fit wrote.")
        return folder

    def write_config(self, content: dict[str, Any]) -> None:
        """Write what the run is made of, before it begins."""
        write_json(self.config, {"format": "pyro-bmf run", "format_version": FORMAT_VERSION, **content})

    def read_config(self) -> dict[str, Any]:
        """Read what the run is made of.

        Raises
        ------
        SavedFileError
            If the file is damaged or of a newer format.
        """
        content = _read_json(self.config, "Take it from a copy, or fit again.")
        if content.get("format") != "pyro-bmf run":
            raise SavedFileError(
                f"{self.config} is no config of a pyro-bmf run: give a folder that fit wrote."
            )
        version = content.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise SavedFileError(
                f"{self.config} has format {version}, this version reads up to {FORMAT_VERSION}: install "
                "the newer pyro-bmf that wrote it."
            )
        missing = [name for name in _CONTENT if name not in content]
        if missing:
            raise SavedFileError(
                f"{self.config} lacks {', '.join(missing)}: take it from a copy, or fit again."
            )
        return content

    def settings(self, config: dict[str, Any]) -> Preset:
        """Return the settings in a config.

        Raises
        ------
        SavedFileError
            If this version does not know them.
        """
        from pyro_bmf.inference import Preset

        try:
            return Preset.from_dict(config["settings"])
        except (TypeError, KeyError) as error:
            raise SavedFileError(self._foreign(error)) from error

    def _foreign(self, error: Exception) -> str:
        return (
            f"{self.config} holds settings that this version does not know ({error}): use the pyro-bmf that "
            "wrote it, or fit again."
        )

    def load_posterior(self) -> Posterior:
        """Load the fitted posterior.

        Raises
        ------
        SavedFileError
            If the run is not finished, or the file is damaged.
        """
        from pyro_bmf.posterior import Posterior

        if not self.model.is_file():
            raise SavedFileError(
                f"{self.path} has no model yet: the fit is not done. Go on with "
                f"'pyro-bmf fit --resume {self.path}'."
            )
        return Posterior.load(self.model)

    def load_split(self, data_dir: Path | None = None) -> Split:
        """Load the run's ratings and split them again, as the run did.

        Raises
        ------
        SavedFileError
            If the data has changed since: the split's hash is another.
        """
        config = self.read_config()
        try:
            reading, splitting = options_from_config(config)
        except (TypeError, KeyError, ValueError) as error:
            raise SavedFileError(self._foreign(error)) from error
        if data_dir is not None:
            reading = Reading(**{**_values(reading), "data_dir": data_dir})
        split = make_split(config["data"], reading, splitting)
        if self.split.is_file():
            recorded = str(_read_json(self.split, "Take it from a copy, or fit again.").get("hash"))
            if recorded != split.hash:
                raise SavedFileError(
                    f"The ratings are not those of the run: their split has hash {split.hash[:12]}, "
                    f"{self.split} says {recorded[:12]}. Give the data that the run was fitted to."
                )
        return split

    def split_hash(self) -> str:
        """Return the hash of the run's split.

        Raises
        ------
        SavedFileError
            If the file that holds it is missing or damaged.
        """
        return str(_read_json(self.split, "Take it from a copy, or fit again.").get("hash"))

    def caveat(self) -> str | None:
        """Return what makes the run's test figures better than they should be, if anything does."""
        if not self.split.is_file():
            return None
        seen = _read_json(self.split, "Take it from a copy, or fit again.").get("n_test_seen_by_warm_start")
        return f"the warm start was trained on {seen:,} of them" if seen else None

    def chosen_iterations(self) -> int | None:
        """Return the iterations that the first part of a refit chose, once it has."""
        if not self.selection.is_file():
            return None
        return int(_read_json(self.selection, "Delete it: they are then chosen again.")["iterations"])

    def write_split(self, split: Split, *, seen: int = 0) -> None:
        """Write the split's identity, and how many test ratings an earlier fit was trained on."""
        write_json(
            self.split,
            {
                "data": split.ratings.name,
                "data_hash": split.ratings.data_hash,
                "hash": split.hash,
                "scheme": split.scheme,
                "settings": split.settings,
                "n_train": len(split.train_rows),
                "n_valid": len(split.valid_rows),
                "n_test": len(split.test_rows),
                "n_test_seen_by_warm_start": seen,
            },
        )

    def write_result(self, result: FitResult, running: dict[str, Any]) -> None:
        """Write the history, the environment and at last the model, and drop the checkpoints."""
        import pandas as pd

        with atomic_write(self.history) as temporary:
            pd.DataFrame(result.history).to_csv(temporary, index=False)
        write_json(self.environment, environment(result, running))
        result.posterior.save(self.model)
        self.tidy()

    def tidy(self) -> None:
        """Remove what a killed fit left half written, and the checkpoints once the model is there."""
        checkpoints = [self.checkpoint(refit=refit) for refit in (False, True)]
        results = [self.model, self.config, self.split, self.history, self.metrics, self.environment]
        for file in (*checkpoints, *results, self.selection):
            clean_leftovers(file)
        if self.model.is_file():
            _remove(checkpoints)

    def discard(self) -> None:
        """Remove the folder of a fit that failed before it had anything to keep."""
        for refit in (False, True):
            if self.model.exists() or self.checkpoint(refit=refit).exists():
                return
        _remove((self.config, self.split))
        if not any(self.path.iterdir()):
            self.path.rmdir()


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _read_json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SavedFileError(f"{path} cannot be read ({error}). {remedy}") from error
    if not isinstance(content, dict):
        raise SavedFileError(f"{path} holds no JSON object. {remedy}")
    return content


def environment(result: FitResult, running: dict[str, Any]) -> dict[str, Any]:
    """Return versions, device and threads of a fit."""
    import numpy as np
    import pandas as pd
    import pyro
    import torch

    return {
        "pyro_bmf": pyro_bmf.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "numpy": np.__version__,
        "pandas": pd.__version__,
        "device": result.device,
        "device_name": torch.cuda.get_device_name(result.device) if "cuda" in result.device else None,
        "threads": running["threads"],
        "deterministic": running["deterministic"],
        "seconds": result.seconds,
        "iterations": len(result.history),
        "kept_iteration": result.best_iteration,
        "stopped": result.stopped,
    }


def config_of_options(data: str | None, reading: Reading, splitting: Splitting) -> dict[str, Any]:
    """Return the options of data and split as JSON can hold them; a file is named by its whole path."""
    from pyro_bmf.data.sources import find_source

    if data is not None:
        path = Path(data)
        # A named set stays a name, though a folder of that name may lie here; a written split does not.
        if (path / "split.json").is_file() or (path.exists() and find_source(data) is None):
            data = str(path.resolve())
    return {
        "data": data,
        "reading": {name: _plain(value) for name, value in asdict(reading).items()},
        "splitting": {name: _plain(value) for name, value in asdict(splitting).items()},
    }


def options_from_config(config: dict[str, Any]) -> tuple[Reading, Splitting]:
    """Return the options that `config_of_options` wrote."""
    # A run that names no reader is older than the choice: its ratings were read the first way.
    reading = {"reader": 1, **config["reading"]}
    if reading.get("data_dir") is not None:
        reading["data_dir"] = Path(reading["data_dir"])
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


def _values(options: Reading | Splitting) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in fields(options)}
