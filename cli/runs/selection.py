"""What gets rated: the selection model of a run, ``selection.safetensors`` in its folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_bmf.errors import SavedFileError
from pyro_bmf.files import clean_leftovers

from ..printing.output import note
from ..printing.progress import bar
from ..printing.text import shell_word
from .folder import RunFolder

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.posterior import Posterior
    from pyro_bmf.selection import Recommender


def selection_file(folder: RunFolder) -> Path:
    """Return where a run's selection model is, or would be."""
    from pyro_bmf.selection.saved import FILE_NAME

    return folder.path / FILE_NAME


def fit_selection_of(
    folder: RunFolder, split: Split, posterior: Posterior | None, *, refit: bool, seed: int, progress: bool
) -> None:
    """Fit which items get rated, unless that is done, and write it.

    The posterior of the ratings is read from the folder where none is given.
    """
    from pyro_bmf.selection.fitting import fit_selection, n_steps

    target = selection_file(folder)
    clean_leftovers(target)
    if target.is_file():
        return
    from pyro_bmf.posterior import Posterior as Saved

    posterior = Saved.load(folder.path) if posterior is None else posterior
    started = time.perf_counter()
    total = n_steps(split)
    if progress:
        with bar("Which items get rated", total, "steps") as advance:
            found = fit_selection(
                split, refit=refit, seed=seed, posterior=posterior, note=note, advance=advance
            )
    else:
        found = fit_selection(split, refit=refit, seed=seed, posterior=posterior, note=note)
    found.save(target)
    if progress and time.perf_counter() - started > 2.0:
        note(
            f"Which items get rated was fitted in {time.perf_counter() - started:.0f} s ({found.head.word})."
        )


def load_recommender(folder: RunFolder, posterior: Posterior, threshold: float | None = None) -> Recommender:
    """Load a run's selection model beside its posterior.

    Raises
    ------
    SavedFileError
        If it has none, as a run of an earlier version; or if the file is damaged, or of another run.
    """
    from pyro_bmf.selection import Recommender

    target = selection_file(folder)
    if not target.is_file():
        run = shell_word(str(folder.path))
        raise SavedFileError(
            f"{folder.path} has no model of which items get rated ({target.name}): it was fitted by an "
            f"earlier version, or its fit diverged. 'pyro-bmf fit --resume {run}' adds it and leaves the "
            "rest as it is; "
            "--by rating does without."
        )
    return Recommender.load(folder.path, threshold=threshold, posterior=posterior)


def recommender_if_any(
    folder: RunFolder, posterior: Posterior, threshold: float | None = None
) -> Recommender | None:
    """Load it where the run has one."""
    return load_recommender(folder, posterior, threshold) if selection_file(folder).is_file() else None
