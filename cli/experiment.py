"""`pyro-bmf experiment`: the paper's tables and figures, run again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .printing.option_groups import GroupedCommand, option
from .printing.output import TableWriter, table_options
from .runs.experiment_options import (
    SignificanceSpec,
    Table3Spec,
    chosen_settings,
    command_line,
    cuts_by_model,
    listed,
    numbers_by_model,
    spread,
)
from .runs.experiments import Job, run_experiment
from .runs.workers import threads_each
from .shared_options import threads_option

_ROWS, _RUNNING = "Rows, columns and tuning", "Running"


@click.group()
def group() -> None:
    """Run a table or a figure of Jin et al. (arXiv 2002.09145) again.

    Finished parts of an experiment are kept and never run again: the same command goes on with an interrupted
    one, and several processes or machines that share the folder divide what is left.

    \b
    Example:
      pyro-bmf experiment table3 --data ml100k --models bias-only,i-rec --seeds 2 --trials 2
    """


@dataclass(frozen=True)
class Shared:
    """Options that every experiment has."""

    out: Path | None
    jobs: int
    timeout: float | None
    device: str
    threads: int | None
    quiet: bool

    def job(self, spec: Any, name: str) -> Job:
        """Return the experiment's job; its time begins now."""
        until = None if self.timeout is None else time.time() + self.timeout
        return Job(spec, self.out or Path("experiments") / name, until)


def experiment_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options that every experiment has, and one argument `shared`."""

    @option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        group=_RUNNING,
        common=True,
        help="Folder of its cells and report; one that is there is gone on with. [default: experiments/NAME]",
    )
    @option(
        "--jobs",
        type=click.IntRange(1),
        default=1,
        metavar="N",
        group=_RUNNING,
        common=True,
        help="Processes that run cells. [default: 1]",
    )
    @option(
        "--timeout",
        type=click.FloatRange(0),
        metavar="S",
        group=_RUNNING,
        common=True,
        help="Begin no cell after so many seconds, and report what is finished.",
    )
    @option("--device", default="auto", metavar="auto|cpu|cuda", group=_RUNNING, help="Where to compute.")
    @threads_option(group=_RUNNING)
    @option("--quiet", is_flag=True, group=_RUNNING, help="No progress bar, no lines a cell.")
    @wraps(function)
    def with_shared(*args: Any, **kwargs: Any) -> Any:
        names = ("out", "jobs", "timeout", "device", "threads", "quiet")
        shared = Shared(**{name: kwargs.pop(name) for name in names})
        return function(*args, shared=shared, **kwargs)

    return with_shared


@group.command(cls=GroupedCommand)
@option(
    "--data",
    multiple=True,
    metavar="NAME",
    group=_ROWS,
    common=True,
    help="A named set; may be given again. [default: the paper's five; those that are not here are not run]",
)
@option(
    "--sets",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    group=_ROWS,
    common=True,
    help="A TOML file of further sets: [name], file, and how it is read (columns, scale, duplicates, …).",
)
@option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    group=_ROWS,
    help="Folder that holds named sets. [default: $PYRO_BMF_DATA_DIR, else the user's cache folder]",
)
@option(
    "--models",
    callback=listed,
    metavar="NAME,NAME",
    group=_ROWS,
    common=True,
    help="Rows. [default: the paper's six baselines; ours: literal, paper, default]",
)
@option(
    "--seeds",
    type=click.IntRange(1),
    default=3,
    metavar="N",
    group=_ROWS,
    common=True,
    help="Splits and fits of each row; settings are chosen on the first. [default: 3]",
)
@option(
    "--trials",
    multiple=True,
    callback=numbers_by_model,
    metavar="[MODEL[@SET]=]N",
    group=_ROWS,
    common=True,
    help="Trials of tuning, of every tuned model or of one (on one set); 0 takes its settings as they stand. "
    "[default: 6 to 20 by model]",
)
@option(
    "--iterations",
    multiple=True,
    callback=numbers_by_model,
    metavar="[MODEL[@SET]=]N",
    group=_ROWS,
    common=True,
    help="Iterations of each fit at most, of every tuned model or of one (on one set). "
    "[default: 10 to 60 by model]",
)
@option(
    "--grid",
    "cuts",
    multiple=True,
    callback=cuts_by_model,
    metavar="MODEL:NAME=V,V",
    group=_ROWS,
    common=True,
    help="Tune a model over these values of a setting alone; may be given again, and is said in the report.",
)
@option(
    "--sampler",
    type=click.Choice(("tpe", "grid")),
    default="tpe",
    group=_ROWS,
    help="How settings are proposed, as for 'pyro-bmf tune'. [default: tpe]",
)
@option(
    "--settings",
    "settings_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    group=_ROWS,
    common=True,
    help="Settings that were chosen already, as an earlier run's table3-chosen.json: they are not tuned.",
)
@experiment_options
@table_options
def table3(
    data: tuple[str, ...],
    sets: Path | None,
    data_dir: Path | None,
    models: tuple[str, ...] | None,
    seeds: int,
    trials: dict[str, int],
    iterations: dict[str, int],
    cuts: dict[str, dict[str, tuple[Any, ...]]],
    sampler: str,
    settings_file: Path | None,
    shared: Shared,
    tables: TableWriter,
) -> None:
    """Compare the paper's models by RMSE, Recall and NDCG: its Table 3.

    Each model is tuned on the validation part of seed 0, then fitted and measured on the test part of every
    seed. DIR gets table3.csv (every figure), table3.md, pictures (PNG, SVG) and the chosen settings; a best
    value on the edge of its grid is marked, and what was not run is said.

    \b
    Examples:
      pyro-bmf experiment table3 --data ml100k --models bias-only,i-rec --seeds 2 --trials 2
      pyro-bmf experiment table3 --data ml100k --models u-rec --seeds 1 --trials u-rec=1 --iterations 5
    """
    from pyro_bmf.experiments.datasets import PAPERS_SETS
    from pyro_bmf.experiments.table3_rows import ROWS, TRIALS, known_rows

    rows = models or ROWS
    unknown = [name for name in rows if name not in known_rows()]
    if unknown:
        raise click.UsageError(f"--models {unknown[0]}: choose from {', '.join(known_rows())}.")
    tuned = [name for name in rows if name in TRIALS]
    choices = {
        "trials": spread(trials, tuned),
        "iterations": spread(iterations, tuned),
        "cuts": cuts,
        "sampler": sampler,
        "chosen": {} if settings_file is None else chosen_settings(settings_file),
    }
    names = data or (() if sets is not None else tuple(PAPERS_SETS))
    spec = Table3Spec(
        rows,
        names,
        sets,
        data_dir,
        seeds,
        choices,
        shared.device,
        threads_each(shared.threads, shared.jobs),
        command_line(),
    )
    columns = [one.title for one in spec.data_sets()]  # refuses what is unknown before anything is run
    run_experiment(
        shared.job(spec, "table3"),
        jobs=shared.jobs,
        quiet=shared.quiet,
        tables=tables,
        screen=(*columns, "Whether"),
    )


@group.command()
@click.option(
    "--n",
    "n",
    type=click.IntRange(3, 7),
    default=4,
    show_default=True,
    metavar="N",
    help="Models that are compared: those of the best mean rank.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    metavar="A",
    help="Level of both tests.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the report. [default: experiments/significance]",
)
@table_options
def significance(n: int, alpha: float, out: Path | None, tables: TableWriter) -> None:
    """Test which models differ over the paper's data sets: its Figure 2, from its printed Table 3.

    Friedman's test over the best models, Nemenyi's over their pairs, and critical-difference diagrams. It
    needs scikit-posthocs (pip install 'pyro-bmf[experiments]').

    \b
    Example:
      pyro-bmf experiment significance --out experiments/figure2
    """
    job = Job(SignificanceSpec(n, alpha, command_line()), out or Path("experiments/significance"), None)
    run_experiment(job, jobs=1, quiet=True, tables=tables, screen=("Mean ranks",))
