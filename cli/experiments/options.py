"""Options that the commands of experiments share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ..printing.option_groups import option
from ..runs.experiment_options import (
    RowsSpec,
    chosen_settings,
    command_line,
    cuts_by_model,
    listed,
    numbers_by_model,
    spread,
)
from ..runs.experiments import Job
from ..runs.workers import threads_each
from ..shared_options import threads_option

ROWS, RUNNING = "Rows, columns and tuning", "Running"


@dataclass(frozen=True)
class Shared:
    """Options that every experiment has."""

    out: Path | None
    jobs: int
    timeout: float | None
    device: str
    threads: int | None
    quiet: bool
    earlier: tuple[Path, ...]

    def job(self, spec: Any, name: str) -> Job:
        """Return the experiment's job; its time begins now."""
        until = None if self.timeout is None else time.time() + self.timeout
        return Job(spec, self.out or Path("experiments") / name, until, self.earlier)


def experiment_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options that every experiment has, and one argument `shared`."""

    @option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        group=RUNNING,
        common=True,
        help="Folder of its cells and report; one that is there is gone on with. [default: experiments/NAME]",
    )
    @option(
        "--jobs",
        type=click.IntRange(1),
        default=1,
        metavar="N",
        group=RUNNING,
        common=True,
        help="Processes that run cells. [default: 1]",
    )
    @option(
        "--timeout",
        type=click.FloatRange(0),
        metavar="S",
        group=RUNNING,
        common=True,
        help="Begin no cell after so many seconds, and report what is finished.",
    )
    @option("--device", default="auto", metavar="auto|cpu|cuda", group=RUNNING, help="Where to compute.")
    @threads_option(group=RUNNING)
    @option("--quiet", is_flag=True, group=RUNNING, help="No progress bar, no lines a cell.")
    @option(
        "--from",
        "earlier",
        multiple=True,
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        group=RUNNING,
        help="Folder of another experiment: what is finished there of the same is taken. May be given again.",
    )
    @wraps(function)
    def with_shared(*args: Any, **kwargs: Any) -> Any:
        names = ("out", "jobs", "timeout", "device", "threads", "quiet", "earlier")
        shared = Shared(**{name: kwargs.pop(name) for name in names})
        return function(*args, shared=shared, **kwargs)

    return with_shared


@dataclass(frozen=True)
class Columns:
    """What was asked for of data and seeds."""

    data: tuple[str, ...]
    sets: Path | None
    data_dir: Path | None
    seeds: int

    def names(self, otherwise: tuple[str, ...]) -> tuple[str, ...]:
        """Return the named sets; `otherwise` where neither these nor a file of sets was given."""
        return self.data or (() if self.sets is not None else otherwise)


@dataclass(frozen=True)
class Asked:
    """What was asked for of rows, columns and tuning."""

    columns: Columns
    models: tuple[str, ...] | None
    trials: Mapping[str, int]
    iterations: Mapping[str, int]
    cuts: Mapping[str, Mapping[str, tuple[Any, ...]]]
    sampler: str
    settings_file: Path | None

    def spec(
        self,
        kind: type[RowsSpec],
        rows: Sequence[str],
        known: Sequence[str],
        tuned: Sequence[str],
        shared: Shared,
        **more: Any,
    ) -> RowsSpec:
        """Return what the experiment is made of.

        Parameters
        ----------
        rows
            Those without ``--models``.
        known
            Every row that there may be.
        tuned
            Those of them that are tuned: what is said of all models is of these.

        Raises
        ------
        click.UsageError
            For a row that there is not.
        """
        models = self.models or tuple(rows)
        unknown = [name for name in models if name not in known]
        if unknown:
            raise click.UsageError(f"--models {unknown[0]}: choose from {', '.join(known)}.")
        present = [name for name in models if name in tuned]
        choices = {
            "trials": spread(self.trials, present),
            "iterations": spread(self.iterations, present),
            "cuts": self.cuts,
            "sampler": self.sampler,
            "chosen": {} if self.settings_file is None else chosen_settings(self.settings_file),
        }
        return kind(
            self.columns.names(papers_sets()),
            self.columns.sets,
            self.columns.data_dir,
            self.columns.seeds,
            shared.device,
            threads_each(shared.threads, shared.jobs),
            command_line(),
            models,
            choices,
            **more,
        )


def papers_sets() -> tuple[str, ...]:
    """Return the names of the paper's data sets."""
    from pyro_bmf.experiments.datasets import PAPERS_SETS

    return tuple(PAPERS_SETS)


def columns_options(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a click command the options of data and seeds, and one argument `columns`.

    Parameters
    ----------
    default
        What the help says of the sets without ``--data``.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @option(
            "--data",
            multiple=True,
            metavar="NAME",
            group=ROWS,
            common=True,
            help=f"A named set; may be given again. [default: {default}]",
        )
        @option(
            "--sets",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            group=ROWS,
            common=True,
            help="A TOML file of further sets: [name], file, and how it is read (columns, scale, "
            "duplicates, …).",
        )
        @option(
            "--data-dir",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            group=ROWS,
            help="Folder that holds named sets. [default: $PYRO_BMF_DATA_DIR, else the user's cache folder]",
        )
        @option(
            "--seeds",
            type=click.IntRange(1),
            default=3,
            metavar="N",
            group=ROWS,
            common=True,
            help="Splits and fits of each row; what is tuned is tuned on the first. [default: 3]",
        )
        @wraps(function)
        def with_columns(*args: Any, **kwargs: Any) -> Any:
            columns = Columns(**{name: kwargs.pop(name) for name in Columns.__dataclass_fields__})
            return function(*args, columns=columns, **kwargs)

        return with_columns

    return decorate


def rows_options(models: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a click command the options of rows, columns and tuning, and one argument `asked`.

    Parameters
    ----------
    models
        What the help says of the rows without ``--models``.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @option(
            "--models",
            callback=listed,
            metavar="NAME,NAME",
            group=ROWS,
            common=True,
            help=f"Rows. [default: {models}]",
        )
        @option(
            "--trials",
            multiple=True,
            callback=numbers_by_model,
            metavar="[MODEL[@SET]=]N",
            group=ROWS,
            common=True,
            help="Trials of tuning, of every tuned model or of one (on one set); 0 takes its settings as "
            "they stand. "
            "[default: 6 to 20 by model]",
        )
        @option(
            "--iterations",
            multiple=True,
            callback=numbers_by_model,
            metavar="[MODEL[@SET]=]N",
            group=ROWS,
            common=True,
            help="Iterations of each fit at most, of every tuned model or of one (on one set). "
            "[default: 10 to 60 by model]",
        )
        @option(
            "--grid",
            "cuts",
            multiple=True,
            callback=cuts_by_model,
            metavar="MODEL[@SET]:NAME=V,V",
            group=ROWS,
            common=True,
            help="Tune a model (on one set) over these values of a setting alone; may be given again, and is "
            "said in the report.",
        )
        @option(
            "--sampler",
            type=click.Choice(("tpe", "grid")),
            default="tpe",
            group=ROWS,
            help="How settings are proposed, as for 'pyro-bmf tune'. [default: tpe]",
        )
        @option(
            "--settings",
            "settings_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            group=ROWS,
            common=True,
            help="Settings that were chosen already, as an earlier run's NAME-chosen.json: they are not "
            "tuned.",
        )
        @columns_options("the paper's five; those that are not here are not run")
        @wraps(function)
        def with_rows(*args: Any, **kwargs: Any) -> Any:
            asked = Asked(**{name: kwargs.pop(name) for name in Asked.__dataclass_fields__})
            return function(*args, asked=asked, **kwargs)

        return with_rows

    return decorate
