"""`pyro-bmf predict`: ratings of (user, item) pairs, with two kinds of uncertainty told apart."""

from __future__ import annotations

from pathlib import Path

import click

from .id_files import FILE, parse_ids, read_table
from .printing.output import TableWriter, table_options
from .printing.rating_tables import cut_words, limited, show_ratings
from .printing.table_files import out_option, write_parts
from .printing.text import counted
from .runs.folder import RUN, RunFolder


@click.command()
@click.argument("path", metavar="RUN", type=RUN)
@click.option("--user", "users", multiple=True, metavar="U", help="A user's id; may be given again.")
@click.option("--item", "items", multiple=True, metavar="I", help="An item's id; may be given again.")
@click.option(
    "--pairs",
    type=FILE,
    metavar="FILE",
    help="File with columns user_id and item_id (CSV, TSV or parquet), instead of --user and --item.",
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
    help="Cut means and intervals to the rating scale, where that has steps.",
)
@out_option
@table_options
def command(
    path: Path,
    users: tuple[str, ...],
    items: tuple[str, ...],
    pairs: Path | None,
    interval: float,
    clip: bool,
    out: Path | None,
    tables: TableWriter,
) -> None:
    """Predict ratings: their mean, standard deviation and interval.

    Two intervals are given. The first is of one rating (posterior predictive: its noise and what is unknown
    of user and item); the second of the mean rating alone, without the noise. Every user given is paired
    with every item.

    \b
    Examples:
      pyro-bmf predict runs/ml100k --user 196 --item 50 --item 181
      pyro-bmf predict runs/ml100k --pairs pairs.csv --interval 0.8 --out predicted.csv
    """
    if pairs is not None and (users or items):
        raise click.UsageError("Give --pairs, or --user and --item, not both.")
    if pairs is None and not (users and items):
        raise click.UsageError("Say what to predict: --user U --item I, or --pairs FILE.")
    posterior = RunFolder.existing(path).load_posterior()
    if pairs is not None:
        wanted = read_table(pairs, ("user_id", "item_id"))
        user_ids = parse_ids(wanted["user_id"], posterior.user_vocabulary, pairs)
        item_ids = parse_ids(wanted["item_id"], posterior.item_vocabulary, pairs)
    else:
        user_ids = parse_ids([user for user in users for _ in items], posterior.user_vocabulary)
        item_ids = parse_ids([item for _ in users for item in items], posterior.item_vocabulary)
    table = posterior.predict(user_ids, item_ids, interval=interval)
    if posterior.item_titles is not None:
        places = posterior.item_vocabulary.index(item_ids)
        table.insert(2, "title", posterior.item_titles[places])
    if clip:
        table = limited(table, posterior.scale)
    if out is not None:
        written = write_parts(out, [table], safe=tables.csv_safe)
        tables.say(f"{counted(written, 'prediction is', 'predictions are')} in {out}.")
    cut = cut_words(posterior.scale if clip else None)
    title = (
        f"Predicted ratings: posterior-predictive mean{cut}; intervals of one rating and of its mean alone"
    )
    show_ratings(tables, title, table, interval, people=out is None)
