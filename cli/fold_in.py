"""`pyro-bmf fold-in`: what the encoder alone says of users (or items) that came after the fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from pyro_bmf.errors import DataError

from .given import refuse_unread
from .id_files import FILE, check_new_ratings, parse_ids, parse_ratings, read_table
from .printing.output import TableWriter, note, table_options
from .printing.rating_tables import by_words, cut_words, limited, recommendation_title, show_ratings
from .printing.table_files import out_option, write_parts
from .printing.text import counted
from .runs.folder import RUN, RunFolder
from .runs.selection import load_recommender, recommender_if_any
from .shared_options import by_option, threshold_option

if TYPE_CHECKING:
    import pandas as pd

    from pyro_bmf.data import Vocabulary
    from pyro_bmf.posterior import Posterior
    from pyro_bmf.selection import Recommender


def equations(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Read options of the form ID=RATING."""
    pairs = []
    for value in values:
        other_id, equals, rating = value.rpartition("=")
        if not equals or not other_id:
            raise click.BadParameter(f"{value!r}: write ID=RATING, as in 50=5", param=parameter)
        pairs.append((other_id, rating))
    return tuple(pairs)


@click.command()
@click.argument("path", metavar="RUN", type=RUN)
@click.option(
    "--ratings",
    "file",
    type=FILE,
    metavar="FILE",
    help="The new user's ratings, columns item_id and rating (a new item's: user_id and rating); with both "
    "ids, many new users (items) at once.",
)
@click.option(
    "--rating",
    "typed",
    multiple=True,
    callback=equations,
    metavar="ID=RATING",
    help="One rating, instead of a file; may be given again.",
)
@click.option(
    "--side",
    type=click.Choice(("user", "item")),
    default="user",
    show_default=True,
    help="What is new.",
)
@click.option(
    "--n",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    metavar="N",
    help="Recommendations (without --predict).",
)
@by_option
@threshold_option
@click.option(
    "--predict",
    "predicted",
    multiple=True,
    metavar="ID",
    help="Predict the rating of this item (a new item: by this user) instead; may be given again.",
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
    "--clip/--no-clip",
    default=True,
    show_default=True,
    help="Cut means and intervals to the rating scale, where that has steps; the order stays.",
)
@out_option
@table_options
def command(
    path: Path,
    file: Path | None,
    typed: tuple[tuple[str, str], ...],
    side: str,
    n: int,
    by: str,
    threshold: float | None,
    predicted: tuple[str, ...],
    interval: float,
    clip: bool,
    out: Path | None,
    tables: TableWriter,
) -> None:
    """Recommend to a new user, from a few ratings and without training again.

    After sweeps with noise by row, as by default, the new user's posterior is found in a few Gibbs steps that
    know how uncertain the items are; after an exact head or coordinate ascent it is the exact conditional of
    the row given the items, and after the encoders' training what the encoder reads off the ratings. Nobody
    else's posterior changes. What decides is as for 'recommend', with a calibration for new users. For a new
    item (--side item) the users are shown who may like it best.

    \b
    Examples:
      pyro-bmf fold-in runs/ml100k --rating 50=5 --rating 181=4 --rating 258=2
      pyro-bmf fold-in runs/ml100k --ratings mine.csv --predict 127
      pyro-bmf fold-in runs/ml100k --side item --ratings new_film.csv --n 20
    """
    if file is not None and typed:
        raise click.UsageError("Give the new ratings by --ratings FILE or by --rating ID=RATING, not both.")
    if file is None and not typed:
        raise click.UsageError("Give the new ratings: --ratings FILE, or --rating ID=RATING once or more.")
    if predicted:
        refuse_unread(("n", "by", "threshold"), "without --predict alone")
    if side == "item":
        refuse_unread(("by", "threshold"), "with --side user alone")
    folder = RunFolder.existing(path)
    posterior = folder.load_posterior()
    recommender = None
    if side == "user" and not predicted:
        optional = by == "rating" and threshold is None
        load = recommender_if_any if optional else load_recommender
        recommender = load(folder, posterior, threshold)
    table, whom = _folded(posterior, recommender, file, typed, side, n, by, predicted, interval)
    if clip:
        table = limited(table, posterior.scale)
    if out is not None:
        written = write_parts(out, [table], safe=tables.csv_safe)
        tables.say(f"{counted(written, 'row is', 'rows are')} in {out}.")
    scale = posterior.scale if clip else None
    if predicted:
        title = f"Predicted ratings for {whom} (posterior-predictive mean{cut_words(scale)})"
    elif side == "user":
        words = None if recommender is None else by_words(recommender, by)
        title = recommendation_title(whom, interval, scale=scale, by=words)
    else:
        title = f"Users likely to rate {whom} highest (posterior-predictive mean{cut_words(scale)})"
    show_ratings(tables, title, table, interval, people=out is None)


def _tell_known(ids: pd.Series, vocabulary: Vocabulary) -> None:
    """Say how many of the ids of what is new are known to the run: they are folded in as if they were not."""
    kind, known = vocabulary.kind, set(map(str, vocabulary.ids.tolist()))
    found = [text for text in map(str, ids.unique()) if text in known]
    if found:
        note(
            f"{counted(len(found), f'of the {kind} ids is', f'of the {kind} ids are')} known to the run, "
            f"{found[0]!r} first: each is taken for a new {kind}, and its training ratings are not read."
        )


def _folded(
    posterior: Posterior,
    recommender: Recommender | None,
    file: Path | None,
    typed: tuple[tuple[str, str], ...],
    side: str,
    n: int,
    by: str,
    predicted: tuple[str, ...],
    interval: float,
) -> tuple[pd.DataFrame, str]:
    """Fold the new ratings in; return the table asked for, and words for what is new."""
    import numpy as np
    import pandas as pd

    own, other = (f"{side}_id", "item_id") if side == "user" else (f"{side}_id", "user_id")
    others = posterior.item_vocabulary if side == "user" else posterior.user_vocabulary
    wanted = parse_ids(predicted, others)
    if file is not None:
        read = read_table(file, (other, "rating"), optional=(own,))
        given, source = read, str(file)
    else:
        given, source = pd.DataFrame(typed, columns=[other, "rating"], dtype=object), "--rating"
    ratings = pd.DataFrame(
        {other: parse_ids(given[other], others, file), "rating": parse_ratings(given["rating"], source)}
    )
    if own in given:
        ratings.insert(0, own, given[own].to_numpy(dtype=object))
    check_new_ratings(ratings, posterior.scale, file)
    if own not in given:
        row = posterior.fold_in(ratings, side=cast(Literal["user", "item"], side))
        whom = f"a new {side} with {row.count} rating{'' if row.count == 1 else 's'}"
        if recommender is not None:
            found = recommender.fold_in(ratings).recommend(n=n, by=by, interval=interval)
            table = found.drop(columns="user_id")
        else:
            table = (
                row.predict(wanted, interval=interval) if predicted else row.recommend(n, interval=interval)
            )
    else:
        fold = posterior.fold_in_users if side == "user" else posterior.fold_in_items
        _tell_known(ratings[own], posterior.user_vocabulary if side == "user" else posterior.item_vocabulary)
        rows = fold(ratings)
        whom = counted(len(rows), f"new {side}", f"new {side}s")
        ids: Any = rows.vocabulary.ids
        if recommender is not None:
            table = recommender.fold_in_users(ratings).recommend(n=n, by=by, interval=interval)
        elif predicted:
            table = rows.predict(np.repeat(ids, len(wanted)), np.tile(wanted, len(ids)), interval=interval)
        else:
            table = rows.recommend(n=n, interval=interval)
    if len(table) == 0:
        raise DataError(f"There is nothing left to recommend: every {others.kind} is rated already.")
    if predicted and side == "user" and posterior.item_titles is not None:
        places = others.index(table["item_id"].to_numpy())
        table.insert(int(table.columns.get_loc("item_id")) + 1, "title", posterior.item_titles[places])
    return table, f"{whom}, folded in"
