"""`pyro-bmf calibrate`: is a configuration's posterior as sure as it should be, by simulation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_bmf.errors import DataError, FitError, SavedFileError, SettingsError
from pyro_bmf.files import write_json

from ..given import given_options
from ..options import Asked, ratings_options
from ..printing.option_groups import SEED, GroupedCommand, option
from ..printing.output import TableWriter, note, table_options
from ..printing.outputs import OutputPath
from ..printing.progress import bar
from ..runs import schema as run_schema
from ..runs.folder import RUN, RunFolder
from ..settings_options import Changes, case_on, chosen, settings_options
from ..shared_options import threads_option
from ..splitting import check_data_dir, make_split

if TYPE_CHECKING:
    from pyro_bmf.checking.calibration import Refit
    from pyro_bmf.checking.simulated_ranks import RankCheck, RankSummary
    from pyro_bmf.data import Split
    from pyro_bmf.methods.settings import Settings

_FORMAT = "pyro-bmf calibration"
# What may be given beside RUN; all else is the run's own.
_WITH_EITHER = frozenset(
    {
        *("data", "data_dir", "refits", "out", "threads", "simulation_seed"),
        *("as_json", "csv_path", "csv_safe"),
    }
)
_WITH_RUN = _WITH_EITHER | {"path", "users", "items"}
_WITH_FROM = _WITH_EITHER | {"source", "new_ratings"}


@dataclass(frozen=True)
class Simulation:
    """What is simulated: how many fits, on how many users, items and new ratings, and the seed of truths."""

    refits: int
    users: int | None
    items: int | None
    new_ratings: int | None
    simulation_seed: int


def simulation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the options of simulating, and one argument `simulation`."""

    @click.option(
        "--refits", type=click.IntRange(2), default=20, show_default=True, metavar="N", help="Simulated fits."
    )
    @click.option("--users", type=click.IntRange(2), metavar="N", help="Keep only so many users, at random.")
    @click.option("--items", type=click.IntRange(2), metavar="N", help="Keep only so many items, at random.")
    @option(
        "--new-ratings",
        group="Running",
        type=click.IntRange(1),
        metavar="N",
        help="With --from: how many are simulated.  [default: as many as RUN has, where there is room]",
    )
    @option(
        "--simulation-seed",
        group="Running",
        type=SEED,
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
@click.option(
    "--from",
    "source",
    type=RUN,
    metavar="RUN",
    help="Draw truths from the posterior of RUN.",
)
@ratings_options(
    "Without RUN: ratings whose pairs are simulated. With RUN: where its ratings are now, if they have moved."
)
@simulation_options
@click.option(
    "--out",
    type=OutputPath(beside=(".png",)),
    metavar="FILE",
    help="JSON and figure. [default: [RUN/]calibration[-from].json]",
)
@settings_options
@threads_option(group="Running")
@table_options
def command(
    path: Path | None,
    source: Path | None,
    asked: Asked,
    simulation: Simulation,
    out: Path | None,
    changes: Changes,
    threads: int | None,
    tables: TableWriter,
) -> None:
    """Check by simulation whether a posterior is as sure as it should be.

    Truths are drawn from the prior of the settings, and ratings from them at the pairs that were really
    rated; with --from, from a run's posterior, beside its own ratings. Fitted to these, a right posterior
    holds nine truths of ten in its 90 % intervals.

    \b
    Examples:
      pyro-bmf calibrate runs/ml100k
      pyro-bmf calibrate --data ml100k --preset conjugate --refits 40
      pyro-bmf calibrate --from runs/ml100k --refits 40
    """
    if source is not None:
        _check_given("--from RUN", _WITH_FROM)
        _show(_from_run(source, asked, simulation, out, threads), tables)
        return
    if simulation.new_ratings is not None:
        raise click.UsageError("--new-ratings stand beside those of a run: give --from RUN, or leave it out.")
    if path is not None:
        _check_given("RUN", _WITH_RUN)
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
    _check_kept(simulation, split)
    part = subsample(split, simulation.users, simulation.items, seed)
    what = f"{settings.name} on the pairs of {split.ratings.name}"

    def refit(seed: int) -> Refit:
        from pyro_bmf.checking.calibration import refit_ranks

        return refit_ranks(part, settings, seed, threads=threads)

    identity = _identity(part, settings, seed)
    del identity["settings"]["seed"]  # a simulated fit's seed is its own
    _show(_Check(what, file, simulation.refits, seed, identity, refit).run(), tables)


def _check_kept(simulation: Simulation, split: Split) -> None:
    """Refuse to keep more users or items than there are."""
    ratings = split.ratings
    for kind, wanted, there in (
        ("users", simulation.users, ratings.n_users),
        ("items", simulation.items, ratings.n_items),
    ):
        if wanted is not None and wanted > there:
            raise SettingsError(
                f"--{kind} {wanted}: {ratings.name} has {there:,} {kind}; ask for at most that, or leave "
                f"--{kind} out to keep all."
            )


def _check_given(what: str, known: frozenset[str]) -> None:
    given = given_options()
    if what != "RUN" and "path" in given:
        raise click.UsageError(f"{what} names the run: leave out the RUN beside it, or --from.")
    own = [option for name, option in given.items() if name not in known]
    if own:
        raise click.UsageError(
            f"{what} brings its own ratings, split and settings: leave out {', '.join(own)}, or {what}."
        )


def _from_run(
    source: Path, asked: Asked, simulation: Simulation, out: Path | None, threads: int | None
) -> tuple[_Check, RankCheck]:
    """Check a run by truths of its posterior."""
    folder = RunFolder.existing(source)
    config = folder.read_config()
    settings = folder.settings(config)
    if config["refit"]:
        raise SettingsError(
            f"{source} was fitted to train and validation together (--refit): give a run without it, as new "
            "ratings stand beside those of the train part."
        )
    posterior = folder.load_posterior()
    split = folder.load_split(asked.reading.data_dir, asked.data)
    file = folder.path / "calibration-from.json" if out is None else out
    seed, n_new = simulation.simulation_seed, simulation.new_ratings

    def refit(seed: int) -> Refit:
        from pyro_bmf.checking.calibration import refit_ranks_from

        return refit_ranks_from(posterior, split, settings, seed, n_new=n_new, threads=threads)

    identity = _identity(split, settings, seed) | {
        "model": hashlib.sha256(folder.model.read_bytes()).hexdigest(),
        "new_ratings": n_new,
    }
    what = f"{settings.name} about the posterior of {source}"
    return _Check(what, file, simulation.refits, seed, identity, refit).run()


def _show(found: tuple[_Check, RankCheck], tables: TableWriter) -> None:
    asked, check = found
    tables.show(
        f"Simulation-based calibration of {asked.what}, "
        f"{asked.refits} fits: a right posterior has coverages of 0.5 and 0.9, mean rank 0.5, spread 1",
        [summary.to_dict() for summary in check.summaries],
        screen=[_line(summary) for summary in check.summaries],
        name="calibration",
    )
    tables.say(check.words())
    tables.say(f"Every rank is in {asked.file}, the figure in {asked.file.with_suffix('.png')}.")
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


def _identity(split: Split, settings: Settings, seed: int) -> dict[str, Any]:
    """Return what must agree with a file to go on with it."""
    recorded = case_on(settings, split).in_force()
    return {
        "format": _FORMAT,
        "split_hash": split.hash,
        "settings": json.loads(json.dumps(recorded)),
        "seed": seed,
        # Refits of before had the mean of their own ratings: not to be gone on with.
        "centre": "that of the truths",
    }


@dataclass(frozen=True)
class _Check:
    """Simulated fits, those that a file holds already included."""

    what: str
    file: Path
    refits: int
    seed: int
    identity: dict[str, Any]
    refit: Callable[[int], Refit]

    def run(self) -> tuple[_Check, RankCheck]:
        """Do the refits that the file lacks, write file and figure, and summarise."""
        from pyro_bmf.checking.rank_plot import plot_ranks
        from pyro_bmf.checking.simulated_ranks import check_ranks

        file, refits = self.file, self.refits
        done: dict[str, Any] = _read(file, self.identity) if file.exists() else {}
        with bar("Refits", refits, "fits") as advance:
            for refit in range(refits):
                if str(refit) not in done:
                    done[str(refit)] = self._one(refit)
                    write_json(file, {**self.identity, "refits": done})
                advance(1)
        kept = [done[str(refit)] for refit in range(refits)]
        kinds = [kind for kind in kept[0]["ranks"] if all(kind in one["ranks"] for one in kept)]
        ranks = {kind: [one["ranks"][kind] for one in kept] for kind in kinds}
        check = check_ranks(ranks, {kind: [one["errors"][kind] for one in kept] for kind in kinds})
        write_json(
            file,
            {
                **self.identity,
                "refits": done,
                "summary": [summary.to_dict() for summary in check.summaries],
                "check": check.to_dict(),
            },
        )
        title = f"{self.what}: {refits} simulated fits"
        plot_ranks(ranks, check.summaries, title, file.with_suffix(".png"))
        return self, check

    def _one(self, refit: int) -> dict[str, Any]:
        try:
            return self.refit(self.seed + refit).to_dict()
        except FitError as error:
            raise FitError(
                f"Simulated fit {refit} of 0 to {self.refits - 1} failed, and a check without it would leave "
                f"out what is hardest; {self.file} keeps those before. {error}"
            ) from error


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
