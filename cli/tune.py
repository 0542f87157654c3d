"""`pyro-bmf tune`: choose a model's settings on validation ratings, and keep the best fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_bmf.errors import SettingsError
from pyro_bmf.files import write_json

from .named_values import one_value, several_values
from .options import Asked, ratings_options
from .printing.option_groups import SEED, GroupedCommand, option
from .printing.output import TableWriter, note, table_options
from .printing.progress import bar
from .printing.table_files import write_parts
from .printing.text import counted, shell_word
from .runs.tuned import keep_best
from .runs.workers import run_workers, threads_each
from .shared_options import threads_option
from .splitting import check_data_dir, make_split

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.experiments.contenders import Contender
    from pyro_bmf.experiments.tuning import Tuning

_TUNING, _RUNNING = "Tuning", "Running"
#: Trials on the screen; the file has all.
_SHOWN = 12


@dataclass(frozen=True)
class Tune:
    """What a process needs to work on a study: nothing in it is loaded yet."""

    asked: Asked
    model: str
    folder: Path
    plan: Mapping[str, Any]
    trials: int
    timeout: float | None
    device: str
    threads: int | None

    def open(self, split: Split) -> Tuning:
        """Open the study, or begin it."""
        from pyro_bmf.experiments.contenders import contender
        from pyro_bmf.experiments.tuning import Plan, Tuning

        return Tuning(self.folder, contender(self.model), split, Plan(**self.plan))

    def run(self, tuning: Tuning, tell: Callable[[int], None] = lambda count: None) -> None:
        """Run trials in this process."""
        tuning.run(self.trials, timeout=self.timeout, device=self.device, threads=self.threads, tell=tell)


def work(tune: Tune) -> None:
    """Load the ratings and run trials: what each of several processes does."""
    tune.run(tune.open(make_split(*tune.asked)))


@click.command(cls=GroupedCommand)
@click.option(
    "--model",
    required=True,
    metavar="NAME",
    help="What to tune: i-rec, u-rec, paper, default and so on; a wrong name lists all.",
)
@ratings_options("A named set ('pyro-bmf data list') or a ratings file.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the study; one that is there is gone on with. [default: tuning/NAME-MODEL]",
)
@option(
    "--trials",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    group=_TUNING,
    common=True,
    help="Trials of the whole study, those of earlier runs and of other processes included.",
)
@option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    group=_TUNING,
    common=True,
    help="Begin no trial after so many seconds.",
)
@option(
    "--sampler",
    type=click.Choice(("tpe", "grid")),
    default="tpe",
    show_default=True,
    group=_TUNING,
    common=True,
    help="tpe proposes from what was tried; grid tries every combination, in an order shuffled by the seed.",
)
@option(
    "--objective",
    type=click.Choice(("rmse", "nll", "ndcg")),
    default="rmse",
    show_default=True,
    group=_TUNING,
    common=True,
    help="Of the validation ratings.",
)
@option(
    "--prune/--no-prune",
    default=None,
    group=_TUNING,
    common=True,
    help="Stop trials that are worse than the median at the same iteration. [default: with rmse]",
)
@option(
    "--grid",
    "cuts",
    multiple=True,
    callback=several_values,
    metavar="NAME=V,V",
    group=_TUNING,
    common=True,
    help="Try these values of a setting alone, as in n_factors=10,25; may be given again.",
)
@option(
    "--set",
    "fixed",
    multiple=True,
    callback=one_value,
    metavar="NAME=V",
    group=_TUNING,
    common=True,
    help="A setting that every trial has, as in learning_rate=0.002; may be given again.",
)
@option(
    "--iterations",
    type=click.IntRange(1),
    metavar="N",
    group=_TUNING,
    common=True,
    help="Iterations of each fit at most. [default: the model's]",
)
@option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    metavar="S",
    group=_TUNING,
    common=True,
    help="Of the sampler, and of every fit.",
)
@option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    group=_RUNNING,
    common=True,
    help="Processes that work on the study.",
)
@option("--device", default="auto", metavar="auto|cpu|cuda", group=_RUNNING, help="Where to compute.")
@threads_option(group=_RUNNING)
@option("--quiet", is_flag=True, group=_RUNNING, help="No progress bar.")
@table_options
def command(
    model: str,
    asked: Asked,
    out: Path | None,
    trials: int,
    timeout: float | None,
    sampler: str,
    objective: str,
    prune: bool | None,
    cuts: dict[str, tuple[Any, ...]],
    fixed: dict[str, Any],
    iterations: int | None,
    seed: int,
    jobs: int,
    device: str,
    threads: int | None,
    quiet: bool,
    tables: TableWriter,
) -> None:
    """Choose a model's settings on validation ratings, and keep the best fit.

    The grids are those of Jin et al. (arXiv 2002.09145). Test ratings are never read. The same command goes
    on with an interrupted study, several processes or machines may work on one, and trials of a process that
    was killed are run again. DIR gets the trials, pictures of what mattered, and the best fit in DIR/best:
    of our model a run, for all commands; of a baseline a file that Python alone reads (IRec.load).

    \b
    Examples:
      pyro-bmf tune --model i-rec --data ml100k --trials 20
      pyro-bmf tune --model u-rec --data ml100k --sampler grid --set n_layers=0 --timeout 600
      pyro-bmf tune --model paper --data ml1m --trials 2 --iterations 3 --set user_batch_size=500
    """
    from pyro_bmf.experiments.contenders import with_iterations

    if asked.is_empty:
        raise click.UsageError(
            "Say which ratings to tune on, as in --data ml100k (see 'pyro-bmf data list')."
        )
    if prune and objective != "rmse":
        raise click.UsageError(
            f"--prune goes with --objective rmse alone, as a fit reports its RMSE on its way: leave it out "
            f"with --objective {objective}."
        )
    chosen = _contender(model)
    if iterations is not None:
        if "max_iterations" in fixed:
            raise click.UsageError("--iterations and --set max_iterations are one setting: give one of them.")
        fixed = {**fixed, **with_iterations(chosen, iterations)}
    check_data_dir(asked.data, asked.reading.data_dir)
    split = make_split(*asked)
    folder = out or Path("tuning") / f"{Path(asked.data or 'given').stem}-{model}"
    plan = {
        "objective": objective,
        "sampler": sampler,
        "prune": objective == "rmse" if prune is None else prune,
        "seed": seed,
        "fixed": fixed,
        "cuts": cuts,
    }
    tune = Tune(asked, model, folder, plan, trials, timeout, device, threads_each(threads, jobs))
    tuning = tune.open(split)
    try:
        _run(tune, tuning, jobs, quiet=quiet)
        best = keep_best(tuning, asked, device=device, threads=tune.threads, progress=not quiet)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"Interrupted. {shell_word(str(folder))} holds the trials; the same command goes on."
        ) from error
    _show(tuning, best, tables)


def _contender(name: str) -> Contender:
    from pyro_bmf.experiments.contenders import contender

    try:
        return contender(name)
    except SettingsError as error:
        raise click.UsageError(f"--model {name}: {error}") from error


def _run(tune: Tune, tuning: Tuning, jobs: int, *, quiet: bool) -> None:
    """Run the trials, in this process or in several, under a bar."""
    done = tuning.shared.n_counted()
    with (
        nullcontext(_silent)
        if quiet
        else bar(f"tuning {tune.model}", max(tune.trials, done), "trials") as move
    ):
        move(done)
        shown = done

        def tell(count: int) -> None:
            nonlocal shown
            move(count - shown)
            shown = count

        if jobs == 1:
            tune.run(tuning, tell)
        else:
            run_workers(work, tune, jobs, lambda: tell(tuning.shared.n_counted()))


def _silent(count: int) -> None:
    """Show nothing."""


def _show(tuning: Tuning, best: Path, tables: TableWriter) -> None:
    """Show the trials, write them with pictures into the study's folder, and say what to do next."""
    import pandas as pd

    from pyro_bmf.experiments.contenders import Network, OurPreset
    from pyro_bmf.experiments.tuning import OBJECTIVES
    from pyro_bmf.experiments.tuning_pictures import LEAST_TRIALS, plot_study

    rows, report = tuning.rows(), tuning.report()
    objective = f"valid_{tuning.plan.objective}"
    sign = 1.0 if OBJECTIVES[tuning.plan.objective] == "minimize" else -1.0
    order = sorted(rows, key=lambda row: math.inf if row[objective] is None else sign * row[objective])
    write_json(tuning.folder / "report.json", report)
    write_parts(tuning.folder / "trials.csv", [pd.DataFrame(rows)])
    files = plot_study(tuning)
    tables.show(
        f"Trials of {tuning.contender.name} on {tuning.split.ratings.name}, validation part, best first"
        + (f" ({_SHOWN} of {len(rows)})" if len(rows) > _SHOWN else ""),
        order,
        name="trials",
        screen=[_narrow(row) for row in order[:_SHOWN]],
    )
    folder = shell_word(str(tuning.folder))
    if report["on_edge"]:
        edges = ", ".join(f"{name} {report['chosen'][name]}" for name in report["on_edge"])
        note(f"On the edge of its grid: {edges}. A better value may lie beyond.")
    if not files:
        note(
            f"No picture of what mattered: it takes {LEAST_TRIALS} completed trials of more than one setting."
        )
    tables.say(
        f"\n{counted(len(rows), 'trial', 'trials')} of "
        f"{counted(report['n_combinations'], 'combination', 'combinations')}, "
        f"{report['seconds']:.0f} s in all."
    )
    written = "Trials, pictures and report" if files else "Trials and report"
    tables.say(f"{written} are in {folder}, the best fit is in {shell_word(str(best))}.")
    if isinstance(tuning.contender, OurPreset):
        tables.say(f"Next: pyro-bmf evaluate {shell_word(str(best))}")
    elif isinstance(tuning.contender, Network):
        kind = tuning.contender.kind.__name__
        tables.say(
            "It is a fitted baseline and no run: evaluate, predict and recommend do not read it. In Python: "
            f"pyro_bmf.baselines.{kind}.load({str(best)!r})"
        )


def _narrow(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for the screen, without the column that only tells the first one from the others."""
    return {name: value for name, value in row.items() if name != "best"}
