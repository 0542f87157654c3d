"""`pyro-bmf fit`: ratings in, a saved run out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_bmf.errors import PyroBmfError, SettingsError, UnknownIdError
from pyro_bmf.files import is_stream, write_json

from .given import given_options
from .options import Asked, ratings_options
from .printing.option_groups import GroupedCommand, option
from .printing.output import TableWriter, note, table_options
from .printing.ranked_by import measured
from .printing.rating_tables import recommendations
from .printing.report import evaluation_tables, with_chain
from .printing.text import shell_word
from .runs.config import config_of_options
from .runs.folder import RUN, RunFolder
from .runs.job import Job, ctrl_c, fit_and_save, how_to_go_on
from .runs.lock import check_unlocked
from .runs.selection import recommender_if_any
from .settings_options import Changes, case_on, chosen, settings_options, suited
from .shared_options import Running, running_options
from .splitting import check_data_dir, make_split

if TYPE_CHECKING:
    from pyro_bmf.data import Ratings, Split
    from pyro_bmf.methods.reading import Case
    from pyro_bmf.methods.settings import Settings
    from pyro_bmf.posterior import Posterior

# What may be given beside --resume; all else is the run's own.
_WITH_RESUME = frozenset(
    {
        *("resumed", "recommend_for", "device", "threads", "deterministic", "checkpoint_every"),
        *("quiet", "data", "data_dir", "as_json", "csv_path", "csv_safe"),
    }
)


@click.command(cls=GroupedCommand)
@ratings_options("A named set ('pyro-bmf data list') or a ratings file.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the run. [default: the first free one of runs/NAME, runs/NAME-2, …]",
)
@click.option(
    "--resume",
    "resumed",
    type=RUN,
    metavar="RUN",
    help="Go on with an interrupted run, as it was set.",
)
@click.option("--warm-start", type=RUN, metavar="RUN", help="Start from an earlier run of the encoders.")
@click.option("--refit", is_flag=True, help="Then fit train + validation for the iterations chosen.")
@click.option("--recommend-for", metavar="USER", help="Show ten recommendations for this user at the end.")
@settings_options
@running_options
@option("--quiet", is_flag=True, group="Running", help="No progress bar.")
@table_options
def command(
    asked: Asked,
    out: Path | None,
    resumed: Path | None,
    warm_start: Path | None,
    refit: bool,
    recommend_for: str | None,
    changes: Changes,
    running: Running,
    quiet: bool,
    tables: TableWriter,
) -> None:
    """Fit the model to ratings, measure it on the test part and save the run.

    Validation ratings stop encoders and ascent and calibrate what gets rated;
    test ratings are read once, at the end, beside simple references.

    \b
    Examples:
      pyro-bmf fit --data ml1m
      pyro-bmf fit --data ratings.csv --columns user,item,stars --scale 1:5:1 --factors 16
      pyro-bmf fit --data ml100k --preset amortized --no-feedback --out runs/ablation
      pyro-bmf fit --data ml1m --prior student-t:df=4 --likelihood ordered-logistic
      pyro-bmf fit --resume runs/ml1m
      pyro-bmf fit --data more_ratings.csv --warm-start runs/ratings
    """
    given = given_options()
    if resumed is not None:
        refused = [option for name, option in given.items() if name not in _WITH_RESUME]
        if refused:
            raise click.UsageError(
                f"--resume goes on with the run's own data and settings: leave out {', '.join(refused)}."
            )
        other = {name: value for name, value in asdict(running).items() if name in given}
        folder = RunFolder.existing(resumed)
        # Until the end, as the measures are written too.
        click.get_current_context().with_resource(folder.locked())
        job = _resumed(folder, asked, other, recommend_for)
    else:
        if asked.is_empty:
            raise click.UsageError(
                "Say which ratings to fit, as in --data ml100k (see 'pyro-bmf data list')."
            )
        if warm_start is not None and "preset_name" in given:
            raise click.UsageError("--warm-start takes the settings of its run: leave out --preset.")
        if "preset_name" not in given and warm_start is None:
            changes = replace(changes, preset=_preset_for(changes))
        settings = _settings(warm_start, changes)
        if "checkpoint_every" in given:
            _check_checkpoints(settings)
        if out is not None:
            check_unlocked(out)
            RunFolder.check_free(out)
        earlier = None if warm_start is None else WarmStart.of(warm_start)
        running = _on_device(running)  # before ratings are read, as it may be refused
        split = _split(asked, refit, recommend_for)
        running = _with_threads(running, split, refit)
        case = case_on(suited(settings, split, refit=refit), split)
        changes.check(case)
        job = _new(out, asked, split, case, earlier, refit, running)
    with ctrl_c() as pressed:
        try:
            how_it_went = fit_and_save(job, resume=resumed is not None, progress=not quiet)
            _show(job, tables, recommend_for, how_it_went, told=not quiet and how_it_went is not None)
        except (KeyboardInterrupt, Exception) as error:
            if pressed or isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(how_to_go_on(job)) from error
            raise


@dataclass(frozen=True)
class WarmStart:
    """An earlier run that a fit goes on from: its folder, and its posterior."""

    path: Path
    posterior: Posterior

    @classmethod
    def of(cls, path: Path) -> WarmStart:
        """Load it."""
        return cls(path.resolve(), RunFolder.existing(path).load_posterior())


def _preset_for(changes: Changes) -> str:
    """Return the preset, where the sweeps of the default know prior and likelihood, and else amortized."""
    from pyro_bmf.methods.build_model import SWEEP_LIKELIHOODS, SWEEP_PRIORS
    from pyro_bmf.methods.cross_feedback.settings import CrossFeedback

    if changes.values.get("method", CrossFeedback.word) != CrossFeedback.word:
        return changes.preset  # the method was chosen, and says itself what it does not know
    for name, known in (("prior", SWEEP_PRIORS), ("likelihood", ("auto", *SWEEP_LIKELIHOODS))):
        word, _, arguments = str(changes.values.get(name, known[0])).partition(":")
        own_cuts = "cuts=user" in arguments.replace(" ", "").split(",")
        if word not in known or own_cuts:
            what = f"{name} {word}" + (" with cut points by user" if own_cuts else "")
            note(
                f"The preset default does not know the {what}: taking the preset "
                "amortized. Say --preset to choose yourself."
            )
            return "amortized"
    return changes.preset


def _settings(warm_start: Path | None, changes: Changes) -> Settings:
    """Return the settings asked for, those of the earlier run when the start is warm."""
    from pyro_bmf.methods.cross_feedback.settings import CrossFeedback
    from pyro_bmf.methods.reading import Case

    if warm_start is None:
        return chosen(changes)
    folder = RunFolder.existing(warm_start)
    settings = folder.settings(folder.read_config())
    if isinstance(settings.method, CrossFeedback):
        # Weights that are good already need no growing KL.
        method = replace(settings.method, warmup_iterations=0)
        unasked = {**settings.unasked, "warmup_iterations": 0}
        settings = replace(settings, method=method, unasked=unasked)
    settings = changes.apply(settings)
    changes.check(Case.of(settings, ratings_known=False))
    return settings


def _check_checkpoints(settings: Settings) -> None:
    """Refuse a rhythm of checkpoints for a fit that writes none."""
    if not settings.checkpointed:
        raise click.UsageError(
            "Coordinate ascent writes no checkpoints: leave out --checkpoint-every (the presets default, "
            "amortized and paper read it)."
        )


def _split(asked: Asked, refit: bool, recommend_for: str | None) -> Split:
    """Load and split the ratings, and check that they are enough for what is asked."""
    check_data_dir(asked.data, asked.reading.data_dir)
    split = make_split(*asked)
    if len(split.train_rows) == 0:
        raise SettingsError("The split has no train ratings: there is nothing to fit to.")
    if refit and len(split.valid_rows) == 0:
        raise click.UsageError(
            "--refit needs validation ratings to choose the iterations by: split some off."
        )
    _check_user(recommend_for, split)
    if len(split.valid_rows) == 0:
        note(
            "The split leaves no validation ratings: there is no validation RMSE to stop or choose by, and "
            "what gets rated is calibrated on an eighth of train instead."
        )
    return split


def _new(
    out: Path | None,
    asked: Asked,
    split: Split,
    case: Case,
    earlier: WarmStart | None,
    refit: bool,
    running: Running,
) -> Job:
    """Make the run's folder and write what it is made of."""
    folder = RunFolder.create(out, _run_name(asked.data))
    click.get_current_context().with_resource(folder.locked())
    RunFolder.check_free(folder.path)  # again: from here on nobody else can begin to write it
    try:
        folder.write_config(
            {
                **config_of_options(*asked),
                "settings": case.in_force(),
                "warm_start": None if earlier is None else str(earlier.path),
                "refit": refit,
                "running": asdict(running),
            }
        )
        seen = 0
        if earlier is not None:
            seen = _n_shared(split.test, earlier.posterior.train)
            if seen:
                note(
                    f"{seen:,} of the {len(split.test_rows):,} test ratings were training ratings of the "
                    "earlier run: the test figures will be too good. Split in time (--scheme time) to "
                    "measure it fairly."
                )
        folder.write_split(split, seen=seen)
    except PyroBmfError:
        folder.discard()
        raise
    start = None if earlier is None else earlier.posterior
    return Job(folder, split, case.settings, start, refit, running)


def _run_name(data: str | None) -> str:
    """Return what a run without --out is called after; what comes through a pipe has no name of its own."""
    if data is None:
        return "given"
    return "piped" if data == "-" or is_stream(data) else data


def _resumed(folder: RunFolder, asked: Asked, other: dict[str, Any], recommend_for: str | None) -> Job:
    """Load what an interrupted run was made of; `other` is how it runs now that it did not before."""
    config = folder.read_config()
    settings = folder.settings(config)
    folder.tidy()
    split = folder.load_split(asked.reading.data_dir, asked.data, titles=True)
    _check_user(recommend_for, split)
    earlier = None
    if config.get("warm_start") is not None and not folder.model.is_file():
        earlier = RunFolder.existing(Path(config["warm_start"])).load_posterior()
    if not folder.split.is_file():
        folder.write_split(split, seen=0 if earlier is None else _n_shared(split.test, earlier.train))
    running = _on_device(Running(**{**config["running"], **other}))
    running = _with_threads(running, split, config["refit"])
    return Job(folder, split, settings, earlier, config["refit"], running)


def _on_device(running: Running) -> Running:
    """Put a name in the place of what the machine chooses, so that a resumed fit gets the same."""
    from pyro_bmf.process import pick_device

    return replace(running, device=str(pick_device(running.device, note=note)))


def _with_threads(running: Running, split: Split, refit: bool) -> Running:
    """Put a number in the place of what machine and ratings choose, so that a resumed fit gets the same."""
    from pyro_bmf.process import pick_threads

    return replace(
        running, threads=pick_threads(running.threads, len(split.train_valid if refit else split.train))
    )


def _check_user(recommend_for: str | None, split: Split) -> None:
    """Refuse a user that the ratings do not hold, before the fit and not after it."""
    if recommend_for is not None:
        try:
            split.ratings.user_vocabulary.parse(recommend_for)
        except UnknownIdError as error:
            raise UnknownIdError(f"--recommend-for: {error}") from error


def _n_shared(some: Ratings, others: Ratings) -> int:
    """Return how many (user, item) pairs of `some` stand in `others`, by their raw ids."""
    import pandas as pd

    def pairs(ratings: Ratings) -> pd.MultiIndex:
        return pd.MultiIndex.from_arrays(
            [
                ratings.user_vocabulary.raw(ratings.users),
                ratings.item_vocabulary.raw(ratings.items),
            ]
        )

    return int(pairs(some).isin(pairs(others)).sum())


def _show(job: Job, tables: TableWriter, recommend_for: str | None, how: str | None, *, told: bool) -> None:
    """Measure the saved run, recommend, and say where it is and what to do next.

    `told`: the fit has said already whether its chain has settled.
    """
    from pyro_bmf.posterior.settling import settling_of

    folder, split = job.folder, job.split
    posterior = folder.load_posterior()
    recommender = recommender_if_any(folder, posterior)
    settling = settling_of(posterior)
    if settling is not None and settling["sentence"] is not None and not told:
        note(settling["sentence"])
    if len(split.test_rows):
        comparison = evaluation_tables(posterior, split, tables, caveat=folder.caveat())
        write_json(folder.metrics, with_chain(measured(recommender, comparison, split, tables), settling))
    else:
        note("The split has no test ratings: the fit was not measured.")
    if recommend_for is not None:
        recommendations(posterior, recommender, recommend_for, tables)
    if tables.json:
        tables.show("Run", [{"run": str(folder.path), "model": str(folder.model), "fit": how}], name="run")
        return
    user = shell_word(str(recommend_for or posterior.user_vocabulary.ids[0]))
    run = shell_word(str(folder.path))
    tables.say(f"\nSaved in {run}{'' if how is None else f' ({how})'}.")
    tables.say(f"Next: pyro-bmf recommend {run} --user {user}")
    if len(split.test_rows):
        tables.say(f"      pyro-bmf evaluate {run} --detail")
