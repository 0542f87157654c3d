"""The best trial of a study as a run, or as a saved baseline: its settings fitted again, to the same bits."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_bmf.errors import SettingsError
from pyro_bmf.files import make_folder, read_json, write_json

from ..options import Asked
from ..printing.output import note
from ..settings_options import case_on, suited
from ..shared_options import Running
from .config import config_of_options
from .folder import RunFolder
from .job import Job, fit_and_save

if TYPE_CHECKING:
    from pyro_bmf.experiments.contenders import OurPreset
    from pyro_bmf.experiments.tuning import Tuning
    from pyro_bmf.systems.contract import System

_RECORD, _DONE = "tuned.json", "done"


def keep_best(tuning: Tuning, asked: Asked, *, device: str, threads: int | None, progress: bool) -> Path:
    """Fit the best trial's settings and keep the fit in the study's folder, unless it is there; return where.

    Raises
    ------
    FitError
        If no trial was completed.
    SettingsError
        If something else lies there.
    """
    from pyro_bmf.experiments.tuning import measure

    values, folder = tuning.chosen(), tuning.folder / "best"
    best = tuning.best
    assert best is not None  # or chosen had refused
    record = {
        "trial": best.number,
        "objective": tuning.plan.objective,
        "value": best.value,
        "settings": values,
    }
    with tuning.shared.claims.waited_for("best"):
        known = _read(folder)
        if known == {**record, _DONE: True}:
            return folder
        if folder.exists():
            if known is None:
                raise SettingsError(f"{folder} was not made by tune: move it, or give another --out.")
            shutil.rmtree(folder)
        make_folder(folder)
        write_json(folder / _RECORD, {**record, _DONE: False})
        system = _fitted(tuning, values, folder, asked, device, threads, progress)
        again = measure(system, tuning.split, tuning.plan.objective)
        if not math.isclose(again, float(best.value or 0.0), rel_tol=1e-6):
            note(
                f"The best trial's settings give {again:.4f} now and gave {best.value:.4f} as a trial: other "
                "threads, device or software round otherwise."
            )
        write_json(folder / _RECORD, {**record, _DONE: True})
    return folder


def _fitted(
    tuning: Tuning,
    values: dict[str, Any],
    folder: Path,
    asked: Asked,
    device: str,
    threads: int | None,
    progress: bool,
) -> System:
    from pyro_bmf.experiments.contenders import OurPreset
    from pyro_bmf.experiments.contenders import Running as How
    from pyro_bmf.progress import reporter_of

    one = tuning.contender
    if isinstance(one, OurPreset):
        return _run(tuning, one, values, folder, asked, device, threads, progress)
    how = How(reporter_of(progress), device, threads)
    fitted = one.fit(tuning.split, values, seed=tuning.plan.seed, running=how)
    fitted.system.save(folder)
    return fitted.system


def _run(
    tuning: Tuning,
    one: OurPreset,
    values: dict[str, Any],
    folder: Path,
    asked: Asked,
    device: str,
    threads: int | None,
    progress: bool,
) -> System:
    from pyro_bmf.process import pick_device, pick_threads

    split = tuning.split
    case = case_on(suited(one.chosen(values, tuning.plan.seed), split), split)
    running = Running(str(pick_device(device)), pick_threads(threads, len(split.train)), True, 10)
    run = RunFolder.create(folder, "best")
    with run.locked():
        run.write_config(
            {
                **config_of_options(*asked),
                "settings": case.in_force(),
                "warm_start": None,
                "refit": False,
                "running": asdict(running),
            }
        )
        run.write_split(split)
        fit_and_save(Job(run, split, case.settings, None, False, running), resume=False, progress=progress)
    return run.load_posterior()


def _read(folder: Path) -> dict[str, Any] | None:
    """Return what is recorded of a folder that this module made; None of any other."""
    try:
        content = read_json(folder / _RECORD)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
