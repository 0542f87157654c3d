"""`pyro-bmf recommend`: the best items for one, many or all users, by what they will choose and like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_bmf.errors import SettingsError

from .given import given_options, refuse_unread
from .id_files import FILE, parse_ids, read_table
from .printing.output import TableWriter, note, table_options
from .printing.progress import bar
from .printing.rating_tables import (
    by_words,
    limited,
    recommendation_title,
    score_words,
    show_ratings,
)
from .printing.table_files import out_option, write_parts
from .printing.text import counted
from .runs.folder import RUN, RunFolder
from .runs.selection import load_recommender, recommender_if_any
from .shared_options import by_option, moved_data_option, seed_option, threshold_option

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pyro_bmf.data import Ratings, RatingScale, Vocabulary
    from pyro_bmf.posterior import Posterior
    from pyro_bmf.selection import Recommender

#: Rows of a result that are held at once.
_ROWS_AT_ONCE = 50_000


@click.command()
@click.argument("path", metavar="RUN", type=RUN)
@click.option("--user", "users", multiple=True, metavar="U", help="A user's id; may be given again.")
@click.option(
    "--users", "users_file", type=FILE, metavar="FILE", help="File of user ids, one a line or column user_id."
)
@click.option("--all", "everybody", is_flag=True, help="All users; needs --out.")
@click.option("--n", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="Items a user.")
@by_option
@threshold_option
@click.option("--why", is_flag=True, help="Say which of the user's ratings speak most for each item.")
@click.option("--include-seen", is_flag=True, help="Recommend what the user rated in training as well.")
@click.option(
    "--exclude-held-out",
    is_flag=True,
    help="Leave out the user's validation and test items as well; reads the run's ratings again.",
)
@click.option(
    "--candidates",
    type=FILE,
    metavar="FILE",
    help="Recommend only these items: one id a line, or column item_id.",
)
@click.option("--exclude", "excluded", type=FILE, metavar="FILE", help="Leave out these items.")
@click.option(
    "--min-count",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="C",
    help="Leave out items with fewer training ratings.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    metavar="P",
    help="Probability that the intervals hold.",
)
@click.option(
    "--strategy",
    type=click.Choice(("mean", "lower", "thompson", "prob-top")),
    default="mean",
    show_default=True,
    help="What is highest of it: the mean; a lower quantile; one joint draw; the probability of being among "
    "the user's N best. By liked or chosen, draws decide among the 200 best.",
)
@click.option(
    "--quantile",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    metavar="Q",
    help="Of the mean's posterior (--strategy lower).",
)
@click.option(
    "--samples",
    "num_samples",
    type=click.IntRange(2),
    default=200,
    show_default=True,
    metavar="S",
    help="Joint draws of the strategies lower and prob-top; of a chain, those it kept at most.",
)
@seed_option
@click.option(
    "--clip/--no-clip",
    default=True,
    show_default=True,
    help="Cut means and intervals to the rating scale, where that has steps; the order stays.",
)
@click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder that holds the named set (--exclude-held-out).",
)
@moved_data_option
@out_option
@table_options
def command(
    path: Path,
    users: tuple[str, ...],
    users_file: Path | None,
    everybody: bool,
    n: int,
    include_seen: bool,
    exclude_held_out: bool,
    candidates: Path | None,
    excluded: Path | None,
    min_count: int,
    by: str,
    threshold: float | None,
    why: bool,
    interval: float,
    strategy: str,
    quantile: float,
    num_samples: int,
    seed: int,
    clip: bool,
    data_dir: Path | None,
    data: str | None,
    out: Path | None,
    tables: TableWriter,
) -> None:
    """Recommend items to users: what they will probably choose and like.

    --by liked is P(chosen) x P(rated above the threshold), as choices were made in the data; --by rating what
    would be rated highest if everything were rated, biased where choosing and liking have common causes.
    Chosen is what is among the ratings held out of the fit: the title has their share, or period.

    What a user rated in training is left out. Memory is bounded with --out alone.

    \b
    Examples:
      pyro-bmf recommend runs/ml100k --user 196
      pyro-bmf recommend runs/ml100k --user 196 --user 22 --n 5 --candidates new_films.csv
      pyro-bmf recommend runs/ml100k --user 196 --by rating --strategy prob-top --n 5
      pyro-bmf recommend runs/ml100k --user 196 --why --min-count 3 --exclude watched.csv
      pyro-bmf recommend runs/ml100k --all --out recommendations.parquet
    """
    asked = sum((bool(users), users_file is not None, everybody))
    if asked > 1:
        raise click.UsageError("Say for whom once: by --user U, by --users FILE, or by --all.")
    if not asked:
        raise click.UsageError("Say for whom: --user U (perhaps again), --users FILE, or --all.")
    if everybody and out is None:
        raise click.UsageError("--all needs a file: give --out FILE.csv or FILE.parquet.")
    if include_seen and exclude_held_out:
        raise click.UsageError("--include-seen and --exclude-held-out exclude each other.")
    if not exclude_held_out:
        refuse_unread(("data", "data_dir"), "with --exclude-held-out alone")
    if strategy != "lower":
        refuse_unread(("quantile",), "with --strategy lower alone")
    if strategy in ("mean", "thompson"):
        refuse_unread(("num_samples",), "with --strategy lower or prob-top alone")
    if strategy == "mean":
        refuse_unread(("seed",), "with --strategy lower, thompson or prob-top alone")
    folder = RunFolder.existing(path)
    posterior = folder.load_posterior()
    kept = posterior.sampling.at_most(num_samples)
    if kept < num_samples and "num_samples" in given_options():
        raise SettingsError(
            f"--samples is {num_samples}, but the chain of {path} kept {kept} draws: ask for at most that, "
            "or fit again with more draws kept (--kept-draws)."
        )
    if everybody:
        user_ids = posterior.user_vocabulary.ids
    else:
        typed = users if users_file is None else read_table(users_file, ("user_id",))["user_id"]
        user_ids = _distinct(parse_ids(typed, posterior.user_vocabulary, users_file))
    recommender = _recommender(folder, posterior, by, threshold, why=why)
    system: Recommender | Posterior = posterior if recommender is None else recommender
    options: dict[str, Any] = {"n": n, "interval": interval, "exclude_seen": not include_seen}
    if strategy != "mean":
        chosen = {"strategy": strategy, "quantile": quantile, "num_samples": num_samples, "seed": seed}
        options |= chosen
    if recommender is not None:
        options["by"] = by
    candidates_left = _candidates(posterior, candidates, excluded, min_count)
    if candidates_left is not None:
        options["candidates"] = candidates_left
    if exclude_held_out:
        options["exclude"] = folder.load_split(data_dir, data).ratings
    parts = _parts(system, user_ids, scale=posterior.scale, clip=clip, **options)
    if why and recommender is not None:
        parts = _with_reasons(recommender, parts)
    whom = counted(len(user_ids), "user", "users")
    if out is not None:
        written: list[pd.DataFrame] = []
        also = tables.json or tables.csv is not None
        rows = write_parts(out, _kept(parts, written) if also else parts, safe=tables.csv_safe)
        verb = "is" if rows == 1 else "are"
        tables.say(f"{counted(rows, 'recommendation', 'recommendations')} for {whom} {verb} in {out}.")
        if not also:
            return
        parts = iter(written)
    import pandas as pd

    table = pd.concat(parts, ignore_index=True)
    if len(table) < n * len(user_ids):
        tables.say("Some lists are shorter than --n: no more items are left to choose from.")
    one = len(user_ids) == 1
    seen = (
        "rated or not"
        if include_seen
        else "not rated in any part"
        if exclude_held_out
        else "not rated in training"
    )
    whom = f"user {user_ids[0]}" if one else whom
    scale = posterior.scale if clip else None
    show_ratings(
        tables,
        recommendation_title(
            whom,
            interval,
            seen=seen,
            scale=scale,
            by=None if recommender is None else by_words(recommender, by),
            score=score_words(strategy, quantile, n, by, seed),
        ),
        table,
        interval,
        hidden="user_id" if one else None,
        people=out is None,
    )


def _recommender(
    folder: RunFolder, posterior: Posterior, by: str, threshold: float | None, *, why: bool
) -> Recommender | None:
    """Load what ranks; None for a run without a selection model where the rating decides alone."""
    if by == "rating" and not why and threshold is None:
        return recommender_if_any(folder, posterior)
    return load_recommender(folder, posterior, threshold)


def _distinct(user_ids: NDArray[Any]) -> NDArray[Any]:
    """Return each user once, and say so where some were named again."""
    import pandas as pd

    distinct: NDArray[Any] = pd.unique(user_ids)
    again = len(user_ids) - len(distinct)
    if again:
        first = user_ids[pd.Series(user_ids).duplicated().to_numpy()][0]
        note(
            f"{counted(again, 'user is', 'users are')} named again, user {str(first)!r} first: each gets one "
            "list."
        )
    return distinct


def _read_ids(file: Path, vocabulary: Vocabulary) -> NDArray[Any]:
    return parse_ids(read_table(file, ("item_id",))["item_id"], vocabulary, file)


def _candidates(
    posterior: Posterior, candidates: Path | None, excluded: Path | None, min_count: int
) -> NDArray[Any] | None:
    """Return the ids of the items to choose from; None for all."""
    import numpy as np

    vocabulary = posterior.item_vocabulary
    if candidates is None and excluded is None and not min_count:
        return None
    keep = np.full(len(vocabulary), candidates is None)
    if candidates is not None:
        keep[vocabulary.index(_read_ids(candidates, vocabulary))] = True
    if excluded is not None:
        keep[vocabulary.index(_read_ids(excluded, vocabulary))] = False
    keep &= posterior.train.item_counts >= min_count
    if not keep.any():
        given = ("--candidates", candidates), ("--exclude", excluded), (f"--min-count {min_count}", min_count)
        raise SettingsError(
            f"{', '.join(name for name, value in given if value)}: none of the {len(vocabulary):,} items is "
            "left to recommend."
        )
    return vocabulary.raw(np.flatnonzero(keep))


def _parts(
    system: Recommender | Posterior,
    user_ids: NDArray[Any],
    *,
    scale: RatingScale,
    clip: bool,
    n: int,
    exclude: Ratings | None = None,
    **options: Any,
) -> Iterator[pd.DataFrame]:
    """Yield the recommendations of some users at a time."""
    step = max(1, _ROWS_AT_ONCE // n)
    with bar("recommend", len(user_ids), "users") as advance:
        for start in range(0, len(user_ids), step):
            some = user_ids[start : start + step]
            table = system.recommend(some, n, exclude=exclude, **options)
            yield limited(table, scale) if clip else table
            advance(len(some))


def _kept(parts: Iterator[pd.DataFrame], kept: list[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield the parts, and keep them for a second time."""
    for part in parts:
        kept.append(part)
        yield part


def _with_reasons(recommender: Recommender, parts: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Add a column that names the three ratings that speak most for each item to be chosen."""
    for table in parts:
        texts: dict[tuple[Any, Any], str] = {}
        for user, own in table.groupby("user_id", sort=False):
            found = recommender.why(user, own["item_id"].to_numpy())
            for item, some in found.groupby("item_id", sort=False):
                named = zip(some["because_of"], some["title"], some["rating"], strict=True)
                texts[user, item] = "; ".join(
                    f"{title or other} ({rating:g})" for other, title, rating in named
                )
        pairs = zip(table["user_id"], table["item_id"], strict=True)
        yield table.assign(because_of=[texts.get(pair, "") for pair in pairs])
