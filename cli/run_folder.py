"""A run's folder: what `fit` writes and the other commands read.

``model.safetensors``  the posterior (all that predictions need)
``config.json``        data, split and settings: what ``fit --resume`` and ``evaluate`` start from
``split.json``         the split's scheme, sizes and hash
``history.csv``        one line an iteration, every part of the objective by name
``metrics.json``       the test metrics beside the references
``environment.json``   versions, device, threads
``checkpoint.safetensors``  the state between two iterations, while the fit is not done
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro_bmf
from pyro_bmf.errors import SavedFileError, SettingsError
from pyro_bmf.files import atomic_write, write_json

from .options import Reading, Splitting, make_split

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.inference import FitResult
    from pyro_bmf.posterior import Posterior

FORMAT_VERSION = 1


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
        self.split = path / "split.json"
        self.history = path / "history.csv"
        self.metrics = path / "metrics.json"
        self.environment = path / "environment.json"
        self.selection = path / "selection.json"

    def checkpoint(self, *, refit: bool = False) -> Path:
        """Return the checkpoint's path; a refit on train and validation has its own."""
        return self.path / ("checkpoint-refit.safetensors" if refit else "checkpoint.safetensors")

    @classmethod
    def create(cls, out: Path | None, data_name: str) -> RunFolder:
        """Make a new folder: `out`, or the first free one of ``runs/NAME``, ``runs/NAME-2``, …

        Raises
        ------
        SettingsError
            If `out` holds a run, or is no folder.
        """
        if out is None:
            stem = Path("runs") / (Path(data_name).stem or "run")
            out, number = stem, 2
            while out.exists():
                out, number = stem.with_name(f"{stem.name}-{number}"), number + 1
        elif out.exists() and not out.is_dir():
            raise SettingsError(f"{out} is a file: give a folder for the run.")
        elif (out / "config.json").exists():
            raise SettingsError(
                f"{out} holds a run already: give another --out, delete it, or go on with --resume {out}."
            )
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
        try:
            content = json.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SavedFileError(f"{self.config} cannot be read ({error}).") from error
        if not isinstance(content, dict) or content.get("format") != "pyro-bmf run":
            raise SavedFileError(f"{self.config} is no config of a pyro-bmf run.")
        if content["format_version"] > FORMAT_VERSION:
            raise SavedFileError(
                f"{self.config} has format {content['format_version']}, this version reads up to "
                f"{FORMAT_VERSION}: install the newer pyro-bmf that wrote it."
            )
        return content

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
        reading, splitting = options_from_config(config)
        if data_dir is not None:
            reading = Reading(**{**_values(reading), "data_dir": data_dir})
        split = make_split(config["data"], reading, splitting)
        if self.split.is_file():
            recorded = json.loads(self.split.read_text(encoding="utf-8"))["hash"]
            if recorded != split.hash:
                raise SavedFileError(
                    f"The ratings are not those of the run: their split has hash {split.hash[:12]}, "
                    f"{self.split} says {recorded[:12]}. Give the data that the run was fitted to."
                )
        return split

    def write_split(self, split: Split) -> None:
        """Write the split's identity."""
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
            },
        )

    def write_result(self, result: FitResult) -> None:
        """Write the model, the history and the environment, and drop the checkpoints."""
        import pandas as pd

        result.posterior.save(self.model)
        with atomic_write(self.history) as temporary:
            pd.DataFrame(result.history).to_csv(temporary, index=False)
        write_json(self.environment, environment(result))
        for refit in (False, True):
            self.checkpoint(refit=refit).unlink(missing_ok=True)


def environment(result: FitResult) -> dict[str, Any]:
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
        "threads": torch.get_num_threads(),
        "seconds": result.seconds,
        "iterations": len(result.history),
        "kept_iteration": result.best_iteration,
        "stopped": result.stopped,
    }


def config_of_options(data: str | None, reading: Reading, splitting: Splitting) -> dict[str, Any]:
    """Return the options of data and split as JSON can hold them; a file is named by its whole path."""
    if data is not None and Path(data).exists():
        data = str(Path(data).resolve())
    return {
        "data": data,
        "reading": {name: _plain(value) for name, value in asdict(reading).items()},
        "splitting": {name: _plain(value) for name, value in asdict(splitting).items()},
    }


def options_from_config(config: dict[str, Any]) -> tuple[Reading, Splitting]:
    """Return the options that `config_of_options` wrote."""
    reading = dict(config["reading"])
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
