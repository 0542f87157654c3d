"""`pyro-bmf similar`: the items most like one item."""

from __future__ import annotations

from pathlib import Path

import click

from .printing.output import TableWriter, table_options
from .printing.rating_tables import fixed, spans
from .runs.folder import RUN, RunFolder


@click.command()
@click.argument("path", metavar="RUN", type=RUN)
@click.option("--item", metavar="I", help="The item's id.")
@click.option("--user", metavar="U", help="A user's id, for similar users.")
@click.option(
    "--n", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="How many to show."
)
@click.option(
    "--measure",
    type=click.Choice(("correlation", "cosine")),
    default="correlation",
    show_default=True,
    help="Of what is predicted for the two beyond biases, or of their factors.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    metavar="P",
    help="Probability that the intervals hold.",
)
@table_options
def command(
    path: Path,
    item: str | None,
    user: str | None,
    n: int,
    measure: str,
    interval: float,
    tables: TableWriter,
) -> None:
    """Show the items most like one item, or the users most like one user.

    The fewer ratings an item has, the more its similarities are shrunk toward zero.

    \b
    Examples:
      pyro-bmf similar runs/ml100k --item 50
      pyro-bmf similar runs/ml100k --user 196 --n 5
    """
    if (item is None) == (user is None):
        raise click.UsageError(
            "Give --item I or --user U." if item is None else "Give --item I or --user U, not both."
        )
    posterior = RunFolder.existing(path).load_posterior()
    if item is not None:
        raw = posterior.item_vocabulary.parse(item)
        table = posterior.similar_items(raw, n, measure=measure, interval=interval)
        what = f"Items most like item {raw}"
        if posterior.item_titles is not None:
            title = posterior.item_titles[posterior.item_vocabulary.index(raw)[0]]
            what += f", {title}" if title else ""
    else:
        raw = posterior.user_vocabulary.parse(str(user))
        table = posterior.similar_users(raw, n, measure=measure, interval=interval)
        what = f"Users most like user {raw}"
    names = [name for name in ("user_id", "item_id", "title") if name in table and any(table[name] != "")]
    shown = {name.removesuffix("_id"): table[name].tolist() for name in names}
    shown |= {
        "similarity": fixed(table["similarity"]),
        f"{100 * interval:g} % interval": spans(table["lower"], table["upper"]),
    }
    screen = [dict(zip(shown, values, strict=True)) for values in zip(*shown.values(), strict=True)]
    tables.show(f"{what} ({measure})", table.to_dict("records"), screen=screen)
