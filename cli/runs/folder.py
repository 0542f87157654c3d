"""A run's folder: what `fit` writes and the other commands read.

``model.safetensors``  the posterior (all that predictions need)
``config.json``        data, split and settings: what ``fit --resume`` and ``evaluate`` start from
``split-hash.json``    the split's scheme, sizes and hash
``history.csv``        one line an iteration, every part of the objective by name
``metrics.json``       the test metrics beside the references
``environment.json``   versions, device, threads
``checkpoint.safetensors``  the state between two iterations, while the fit is not done
``selection.json``     of ``fit --refit``: the iterations chosen on validation
``selection.safetensors``  which items get rated (`cli/runs/selection.py`)

The model is written after everything else that the fit gives, so a folder that holds it is finished.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_bmf.errors import SavedFileError, SettingsError
from pyro_bmf.files import atomic_write, clean_leftovers, is_stream, make_folder, write_json

from ..options import Reading, Splitting
from ..shared_options import Running
from ..splitting import check_data_dir, make_split
from . import lock as run_lock
from . import schema as run_schema
from .config import (
    AGAIN,
    FORMAT_VERSION,
    first_difference,
    fit_digest,
    options_from_config,
    read_config,
    values,
)
from .environment import environment

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.fit_result import FitResult
    from pyro_bmf.methods.settings import Settings
    from pyro_bmf.posterior import Posterior

# Settings of the second fit of a refit, which are made from the first.
_OF_REFIT = frozenset({"stop_after", "keep", "patience"})
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
            return cls(run_lock.first_free(Path("runs") / (Path(data_name).resolve().stem or "run")))
        cls.check_free(out)
        make_folder(out)
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
            raise SavedFileError(
                f"{path} is not a run folder (it has no config.json): give one that fit wrote."
            )
        return folder

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder for as long as the block lasts, against every other fit; see `run_lock.locked`."""
        return run_lock.locked(self.path)

    def write_config(self, content: dict[str, Any]) -> None:
        """Write what the run is made of, before it begins."""
        write_json(self.config, {"format": "pyro-bmf run", "format_version": FORMAT_VERSION, **content})

    def read_config(self) -> dict[str, Any]:
        """Read what the run is made of.

        Raises
        ------
        SavedFileError
            If the file is damaged, or of another format.
        """
        return read_config(self.config)

    def settings(self, config: dict[str, Any]) -> Settings:
        """Return the settings in a config.

        Raises
        ------
        SavedFileError
            If this version does not know them.
        """
        from pyro_bmf.methods.settings import Settings

        run_schema.check_settings(config["settings"], str(self.config), AGAIN)
        try:
            settings = Settings.from_dict(config["settings"])
        except SettingsError as error:
            raise SavedFileError(f"{self.config}: {error} {AGAIN}") from error
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise SavedFileError(self._foreign(error)) from error
        self._check_unchanged(config)
        return settings

    def _check_unchanged(self, config: dict[str, Any]) -> None:
        """Refuse a config that says another fit than when the fit began."""
        if not self.split.is_file():
            return
        begun = run_schema.read_json(self.split, run_schema.split, AGAIN).get("fit")
        if begun is not None and begun != fit_digest(config):
            raise SavedFileError(
                f"{self.config} or {self.split.name} is of another run, or was changed since the fit began: "
                f"they tell different settings. {AGAIN}"
            )

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
        posterior = Posterior.load(self.model)
        self._check_belongs(posterior)
        return posterior

    def _check_belongs(self, posterior: Posterior) -> None:
        """Refuse a model of another run: one whose split or settings are not those of the folder."""
        known = posterior.info.get("split_hash")
        if known is not None and self.split.is_file() and known != (own := self.split_hash()):
            raise SavedFileError(
                f"{self.model} is of another run: it was fitted to the split {str(known)[:12]}, "
                f"{self.split.name} says {own[:12]}. Put the run's own model back, or fit again."
            )
        config = self.read_config()
        self.settings(config)  # what is damaged is not another run's
        fitted, trained_on = posterior.info.get("settings"), posterior.info.get("trained_on")
        expected = "train+valid" if config["refit"] else "train"
        if trained_on not in (None, expected):
            raise SavedFileError(
                f"{self.model} is of another run: it was fitted to {trained_on}, {self.config.name} asks for "
                f"{expected}. Put the run's own model back, or fit again."
            )
        if not isinstance(fitted, dict):
            return
        name, mine, its = first_difference(config["settings"], fitted, _OF_REFIT if config["refit"] else ())
        if name is not None:
            raise SavedFileError(
                f"{self.model} is of another run: it was fitted with {name} {its!r}, {self.config.name} says "
                f"{mine!r}. Put the run's own model back, or fit again."
            )

    def load_measured(
        self, part: str = "test", data_dir: Path | None = None, data: str | None = None
    ) -> tuple[Posterior, Split]:
        """Load the posterior and the split that it is to be measured on, which must be that of its fit.

        Parameters
        ----------
        part : {"train", "valid", "test"}
            That will be measured.
        data_dir, data
            Where the ratings are now; see `load_split`.

        Raises
        ------
        SavedFileError
            If the model is of another run, or the ratings have changed.
        SettingsError
            If the model has read the part that is to be measured.
        """
        from pyro_bmf.evaluation.provenance import check_provenance

        posterior = self.load_posterior()
        split = self.load_split(data_dir, data)
        check_provenance(posterior, split, part=part, name=str(self.path))
        return posterior, split

    def load_split(
        self, data_dir: Path | None = None, data: str | None = None, *, titles: bool = False
    ) -> Split:
        """Load the run's ratings and split them again, as the run did.

        Parameters
        ----------
        data_dir : Path, optional
            Folder that holds the named set now.
        data : str, optional
            Where the ratings are now: a file, a written split, or the folder that holds given files.
        titles : bool
            Read a file of titles again: a fit needs it, and a finished run has them.

        Raises
        ------
        SavedFileError
            If the data are gone, or have changed since: the split's hash is another.
        """
        config = self.read_config()
        try:
            reading, splitting = options_from_config(config)
        except (TypeError, KeyError, ValueError) as error:
            raise SavedFileError(self._foreign(error)) from error
        if not titles:
            reading = replace(reading, titles=None)
        if data_dir is not None:
            check_data_dir(config["data"] if data is None else data, data_dir)
            reading = Reading(**{**values(reading), "data_dir": data_dir})
        split = make_split(*self._found(config["data"], data, reading, splitting))
        if self.split.is_file():
            recorded = self.split_hash()
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
        return str(run_schema.read_json(self.split, run_schema.split, AGAIN)["hash"])

    def _found(
        self, source: str | None, data: str | None, reading: Reading, splitting: Splitting
    ) -> tuple[str | None, Reading, Splitting]:
        """Return where the ratings are: where they were, or where `data` says that they are now."""
        from pyro_bmf.data.sources import find_source

        files = {name: path for name in ("train", "valid", "test") if (path := getattr(splitting, name))}
        if data is not None:
            if not files:
                return data, reading, splitting
            if not Path(data).is_dir():
                raise SettingsError(
                    f"--data {data}: the run was fitted to given files, "
                    f"{', '.join(path.name for path in files.values())}: give the folder that holds them now."
                )
            return source, reading, replace(splitting, **{k: Path(data) / p.name for k, p in files.items()})
        for place in (source, *map(str, files.values())):
            if place is None:
                continue
            if is_stream(place) or place == "-":
                raise SavedFileError(
                    f"{self.path} was fitted to what came through {place}, which is not kept: say where its "
                    "ratings are, with --data FILE."
                )
            if find_source(place) is None and not os.path.lexists(place):
                raise SavedFileError(
                    f"{place}, to which {self.path} was fitted, is not there any more: say where its ratings "
                    "are now, with --data."
                )
        return source, reading, splitting

    def caveat(self) -> str | None:
        """Return what makes the run's test figures better than they should be, if anything does."""
        if not self.split.is_file():
            return None
        content = run_schema.read_json(self.split, run_schema.split, AGAIN)
        seen = content.get("n_test_seen_by_warm_start")
        return f"the warm start was trained on {seen:,} of them" if seen else None

    def chosen_iterations(self) -> int | None:
        """Return the iterations that the first part of a refit chose, once it has."""
        if not self.selection.is_file():
            return None
        remedy = "Delete it: they are then chosen again."
        return int(run_schema.read_json(self.selection, run_schema.selection, remedy)["iterations"])

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
                "fit": fit_digest(self.read_config()),
            },
        )

    def write_result(self, result: FitResult, running: Running) -> None:
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
        if all(path.name == run_lock.NAME for path in self.path.iterdir()):
            _remove(self.path.iterdir())
            self.path.rmdir()


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
