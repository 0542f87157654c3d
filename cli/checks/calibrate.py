"""`pyro-bmf calibrate`: is a configuration's posterior as sure as it should be, by simulation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_bmf.errors import DataError, SavedFileError
from pyro_bmf.files import write_json

from ..given import given_options
from ..options import Asked, ratings_options
from ..printing.option_groups import GroupedCommand
from ..printing.output import TableWriter, note, table_options
from ..printing.outputs import OutputPath
from ..printing.progress import bar
from ..runs import schema as run_schema
from ..runs.folder import RUN, RunFolder
from ..settings_options import Changes, case_on, chosen, settings_options
from ..shared_options import threads_option
from ..splitting import check_data_dir, make_split

if TYPE_CHECKING:
    from pyro_bmf.checking.simulated_ranks import RankCheck, RankSummary
    from pyro_bmf.data import Split
    from pyro_bmf.methods.settings import Settings

_FORMAT = "pyro-bmf calibration"
# What may be given beside RUN; all else is the run's own.
_WITH_RUN = frozenset(
    {
        *("path", "data", "data_dir", "refits", "users", "items", "out", "threads", "simulation_seed"),
        *("as_json", "csv_path", "csv_safe"),
    }
)


@dataclass(frozen=True)
class Simulation:
    """What is simulated: how many fits, on how many users and items, and the seed of truths."""

    refits: int
    users: int | None
    items: int | None
    simulation_seed: int


def simulation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the options of simulating, and one argument `simulation`."""

    @click.option(
        "--refits", type=click.IntRange(2), default=20, show_default=True, metavar="N", help="Simulated fits."
    )
    @click.option("--users", type=click.IntRange(2), metavar="N", help="Keep only so many users, at random.")
    @click.option("--items", type=click.IntRange(2), metavar="N", help="Keep only so many items, at random.")
    @click.option(
        "--simulation-seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        metavar="S",
        help="Of truths.",
    )
    @wraps(function)
    def with_simulation(*args: Any, **kwargs: Any) -> Any:
        taken = {field.name: kwargs.pop(field.name) for field in fields(Simulation)}
        return function(*args, simulation=Simulation(**taken), **kwargs)

    return with_simulation


@click.command(cls=GroupedCommand)
@click.argument("path", metavar="[RUN]", type=RUN, required=False)
@ratings_options(
    "Without RUN: ratings whose pairs are simulated. With RUN: where its ratings are now, if they have moved."
)
@simulation_options
@click.option(
    "--out",
    type=OutputPath(beside=(".png",)),
    metavar="FILE",
    help="Results as JSON, a figure beside it; a check that is there goes on. "
    "[default: [RUN/]calibration.json]",
)
@settings_options
@threads_option(group="Running")
@table_options
def command(
    path: Path | None,
    asked: Asked,
    simulation: Simulation,
    out: Path | None,
    changes: Changes,
    threads: int | None,
    tables: TableWriter,
) -> None:
    """Check by simulation whether a posterior is as sure as it should be.

    Truths are drawn from the prior of the settings, and ratings from them at the pairs that were really
    rated. Fitted to these, a right posterior holds the truth in its 90 % interval nine times in ten.

    \b
    Examples:
      pyro-bmf calibrate runs/ml100k
      pyro-bmf calibrate --data ml100k --preset conjugate --refits 40
      pyro-bmf calibrate --data ml1m --users 600 --items 400 --factors 4 --out check.json
    """
    if path is not None:
        own = [option for name, option in given_options().items() if name not in _WITH_RUN]
        if own:
            raise click.UsageError(
                f"RUN brings its own ratings, split and settings: leave out {', '.join(own)}, or RUN."
            )
        folder = RunFolder.existing(path)
        config = folder.read_config()
        settings = folder.settings(config)
        split = folder.load_split(asked.reading.data_dir, asked.data)
        if folder.model.is_file():
            folder.load_posterior()  # refused where it is another run's: the folder is then not what it says
        file = folder.path / "calibration.json" if out is None else out
    else:
        if asked.is_empty:
            raise click.UsageError("Give a RUN, or say which ratings' pairs to simulate: --data ml100k.")
        settings = _settings(changes)
        check_data_dir(asked.data, asked.reading.data_dir)
        split = make_split(*asked)
        changes.check(case_on(settings, split))
        file = Path("calibration.json") if out is None else out
    from pyro_bmf.checking.calibration import subsample

    seed = simulation.simulation_seed
    pairs = subsample(split, simulation.users, simulation.items, seed)
    check = _run(pairs, settings, file, refits=simulation.refits, threads=threads, seed=seed)
    summaries = check.summaries
    tables.show(
        f"Simulation-based calibration of {settings.name} on the pairs of {split.ratings.name}, "
        f"{simulation.refits} fits: a right posterior has coverages of 0.5 and 0.9, mean rank 0.5, spread 1",
        [summary.to_dict() for summary in summaries],
        screen=[_line(summary) for summary in summaries],
        name="calibration",
    )
    tables.say(check.words())
    tables.say(f"Every rank is in {file}, the figure in {file.with_suffix('.png')}.")
    advice = check.advice()
    if advice is not None:
        note(advice)


def _settings(changes: Changes) -> Settings:
    if "seed" in changes.values:
        raise click.UsageError(
            f"{changes.flags['seed']}: each simulated fit has its own seed, which follows from "
            "--simulation-seed: give that instead."
        )
    return chosen(changes)


def _run(
    part: Split,
    settings: Settings,
    file: Path,
    *,
    refits: int,
    threads: int | None,
    seed: int,
) -> RankCheck:
    """Do the refits that the file lacks, write file and figure, and summarise."""
    from pyro_bmf.checking.calibration import refit_ranks
    from pyro_bmf.checking.rank_plot import plot_ranks
    from pyro_bmf.checking.simulated_ranks import check_ranks

    recorded = case_on(settings, part).in_force()
    del recorded["seed"]  # a simulated fit's seed is its own
    identity = {
        "format": _FORMAT,
        "split_hash": part.hash,
        "settings": json.loads(json.dumps(recorded)),
        "seed": seed,
    }
    done: dict[str, Any] = _read(file, identity) if file.exists() else {}
    with bar("Refits", refits, "fits") as advance:
        for refit in range(refits):
            if str(refit) not in done:
                done[str(refit)] = refit_ranks(part, settings, seed + refit, threads=threads).to_dict()
                write_json(file, {**identity, "refits": done})
            advance(1)
    kept = [done[str(refit)] for refit in range(refits)]
    kinds = [kind for kind in kept[0]["ranks"] if all(kind in one["ranks"] for one in kept)]
    ranks = {kind: [one["ranks"][kind] for one in kept] for kind in kinds}
    check = check_ranks(ranks, {kind: [one["errors"][kind] for one in kept] for kind in kinds})
    write_json(
        file,
        {
            **identity,
            "refits": done,
            "summary": [summary.to_dict() for summary in check.summaries],
            "check": check.to_dict(),
        },
    )
    title = f"{settings.name} on the pairs of {part.ratings.name}: {refits} simulated fits"
    plot_ranks(ranks, check.summaries, title, file.with_suffix(".png"))
    return check


def _read(file: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Return the refits of an earlier call, if it was of the same configuration."""
    remedy = "Give another --out, or remove it."
    content = run_schema.read_json(file, run_schema.calibration, remedy)
    if content["format"] != _FORMAT:
        raise SavedFileError(f"{file} is not a file of this command. {remedy}")
    differing = [name for name, value in identity.items() if content.get(name) != value]
    if differing:
        raise DataError(
            f"{file} holds another check ({', '.join(differing)} differ): give another --out, or remove it."
        )
    refits: dict[str, Any] = content["refits"]
    return refits


def _line(summary: RankSummary) -> dict[str, object]:
    return {
        "quantity": summary.kind,
        "coverage of 50 %": f"{summary.coverage_50:.3f} ± {2 * summary.coverage_50_se:.3f}",
        "coverage of 90 %": f"{summary.coverage_90:.3f} ± {2 * summary.coverage_90_se:.3f}",
        "mean rank": summary.mean_rank,
        "spread": summary.spread,
        "p-value": summary.p_value,
        "flagged": f"yes: {summary.worst}" if summary.flagged else "no",
        "power": f"{summary.power:.2f}",
    }
