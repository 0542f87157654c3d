"""`pyro-bmf fit`: ratings in, a saved run out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_bmf.files import write_json

from .options import Reading, Splitting, data_options, make_split, split_options
from .output import TableWriter, note, table_options
from .report import evaluation_tables, recommendation_rows
from .run_folder import RunFolder, config_of_options, options_from_config
from .settings_options import settings_options

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.inference import FitResult, Preset


@click.command()
@click.option("--data", metavar="NAME|FILE", help="A named set ('pyro-bmf data list') or a ratings file.")
@click.option(
    "--preset",
    "preset_name",
    type=click.Choice(("default", "paper")),
    default="default",
    show_default=True,
    help="Settings to start from; the options below change single ones.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the run. [default: the first free one of runs/NAME, runs/NAME-2, …]",
)
@click.option(
    "--resume",
    "resumed",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="RUN",
    help="Go on with an interrupted run, with its own data and settings.",
)
@click.option(
    "--warm-start",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="RUN",
    help="Start from an earlier run's weights and settings: new ratings, users or items have come.",
)
@click.option("--refit", is_flag=True, help="Then train on train + validation for the iterations chosen.")
@click.option("--recommend-for", metavar="USER", help="Show ten recommendations for this user at the end.")
@click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where to compute."
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads of the CPU. [default: torch's]")
@click.option(
    "--deterministic/--fast",
    default=True,
    show_default=True,
    help="On CUDA, only kernels that give the same bits at every run.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    metavar="N",
    help="Iterations.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@settings_options
@data_options
@split_options(seed="--split-seed")
@table_options
def command(
    data: str | None,
    preset_name: str,
    out: Path | None,
    resumed: Path | None,
    warm_start: Path | None,
    refit: bool,
    recommend_for: str | None,
    device: str,
    threads: int | None,
    deterministic: bool,
    checkpoint_every: int,
    quiet: bool,
    changes: dict[str, Any],
    reading: Reading,
    splitting: Splitting,
    tables: TableWriter,
) -> None:
    """Fit the model to ratings, measure it on the test part and save the run.

    The model is fitted to the train part; validation ratings say when to stop; test ratings are read once,
    at the end, beside simple references.

    \b
    Examples:
      pyro-bmf fit --data ml1m
      pyro-bmf fit --data ratings.csv --columns user,item,stars --scale 1:5:1 --factors 16
      pyro-bmf fit --data ml100k --no-feedback --out runs/ablation
      pyro-bmf fit --resume runs/ml1m
    """
    if resumed is not None:
        if data is not None or out is not None or changes or warm_start is not None:
            raise click.UsageError(
                "--resume goes on with the run's own data and settings: give it without --data, --out, "
                "--warm-start or settings."
            )
        folder = RunFolder.existing(resumed)
        job = folder.read_config()
    else:
        if data is None and splitting.train is None:
            raise click.UsageError(
                "Say which ratings to fit, as in --data ml100k (see 'pyro-bmf data list')."
            )
        settings = _settings(preset_name, warm_start, changes)
        folder, job = _new_job(data, out, reading, splitting, settings, warm_start, refit)
    try:
        _work(
            folder,
            job,
            tables,
            resume=resumed is not None,
            recommend_for=recommend_for,
            progress=not quiet,
            device=device,
            threads=threads,
            deterministic=deterministic,
            checkpoint_every=checkpoint_every,
        )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(_how_to_go_on(folder, checkpoint_every)) from error


def _settings(preset_name: str, warm_start: Path | None, changes: dict[str, Any]) -> Preset:
    from pyro_bmf.inference import Preset, preset

    settings = preset(preset_name)
    if warm_start is not None:
        earlier = Preset.from_dict(RunFolder.existing(warm_start).read_config()["settings"])
        # Weights that are good already need no growing KL.
        settings = earlier.replace(warmup_iterations=0)
    return settings.replace(**changes)


def _new_job(
    data: str | None,
    out: Path | None,
    reading: Reading,
    splitting: Splitting,
    settings: Preset,
    warm_start: Path | None,
    refit: bool,
) -> tuple[RunFolder, dict[str, Any]]:
    """Make the run's folder and write what it is made of, before anything is computed."""
    job = {
        **config_of_options(data, reading, splitting),
        "settings": settings.to_dict(),
        "warm_start": None if warm_start is None else str(warm_start.resolve()),
        "refit": refit,
    }
    folder = RunFolder.create(out, data or "given")
    folder.write_config(job)
    return folder, job


def _work(
    folder: RunFolder,
    job: dict[str, Any],
    tables: TableWriter,
    *,
    resume: bool,
    recommend_for: str | None,
    progress: bool,
    **how: Any,
) -> None:
    """Fit what the job says, save it, and show how good it is."""
    from pyro_bmf.inference import DivergenceError, Preset
    from pyro_bmf.posterior import Posterior

    if folder.model.is_file():
        note(f"{folder.path} is finished already.")
        _show(folder, folder.load_split(), tables, recommend_for)
        return
    reading, splitting = options_from_config(job)
    split = make_split(job["data"], reading, splitting)
    if resume:
        split = folder.load_split()
    folder.write_split(split)
    settings = Preset.from_dict(job["settings"])
    earlier = None
    if job["warm_start"] is not None:
        earlier = Posterior.load(RunFolder.existing(Path(job["warm_start"])).model)
    try:
        result = _fit(
            folder, split, settings, earlier, resume=resume, refit=job["refit"], progress=progress, **how
        )
    except DivergenceError as error:
        if error.result is not None:
            folder.write_result(error.result)
            raise type(error)(f"{error} That state is saved in {folder.path}.", error.result) from error
        raise
    folder.write_result(result)
    if result.stopped == "patience":
        note(
            f"stopped after iteration {result.history[-1]['iteration']}: validation RMSE was best after "
            f"iteration {result.best_iteration}, which is kept."
        )
    _show(folder, split, tables, recommend_for, history=result)


def _fit(
    folder: RunFolder,
    split: Split,
    settings: Preset,
    earlier: Any,
    *,
    resume: bool,
    refit: bool,
    progress: bool,
    **how: Any,
) -> FitResult:
    """Fit; with `refit`, choose the iterations first and then train on train and validation."""
    import json

    from pyro_bmf.inference import chosen_iterations, fit

    def run(settings: Preset, *, refit: bool) -> FitResult:
        checkpoint = folder.checkpoint(refit=refit)
        return fit(
            split,
            settings,
            warm_start=earlier,
            refit=refit,
            checkpoint=checkpoint,
            resume=resume and checkpoint.exists(),
            progress=progress,
            **how,
        )

    if not refit:
        return run(settings, refit=False)
    if len(split.valid_rows) == 0:
        raise click.UsageError(
            "--refit needs validation ratings to choose the iterations by: split some off."
        )
    if folder.selection.is_file():
        stop_after = json.loads(folder.selection.read_text(encoding="utf-8"))["iterations"]
    else:
        chosen = run(settings, refit=False)
        stop_after = chosen_iterations(chosen).fit.stop_after
        write_json(folder.selection, {"iterations": stop_after, "history": chosen.history})
    note(f"{stop_after} iterations chosen on validation; now training on train and validation.")
    return run(replace(settings, fit=replace(settings.fit, stop_after=stop_after)), refit=True)


def _show(
    folder: RunFolder,
    split: Split,
    tables: TableWriter,
    recommend_for: str | None,
    history: FitResult | None = None,
) -> None:
    posterior = folder.load_posterior()
    comparison = evaluation_tables(posterior, split, tables)
    write_json(folder.metrics, comparison.to_dict())
    if recommend_for is not None:
        title, rows = recommendation_rows(posterior, recommend_for, n=10)
        tables.show(title, rows, name="recommendations")
    took = "" if history is None else f" ({history.seconds:.0f} s of iterations)"
    tables.say(f"The run is saved in {folder.path}{took}. Next: pyro-bmf recommend {folder.path} --user ID")


def _how_to_go_on(folder: RunFolder, every: int) -> str:
    for refit in (True, False):
        if folder.checkpoint(refit=refit).exists():
            return (
                f"Interrupted. The last checkpoint is kept; go on with: pyro-bmf fit --resume {folder.path}"
            )
    return (
        f"Interrupted before the first checkpoint (one every {every} iterations); start over with: "
        f"pyro-bmf fit --resume {folder.path}"
    )
