"""`pyro-bmf elicit`: which items to ask a user about."""

from __future__ import annotations

from pathlib import Path

import click

from pyro_bmf.errors import SettingsError

from ..fold_in import equations
from ..id_files import check_new_ratings, parse_ids, parse_ratings
from ..printing.output import TableWriter, table_options
from ..runs.folder import RUN, RunFolder


@click.command()
@click.argument("path", metavar="RUN", type=RUN)
@click.option("--user", metavar="ID", help="A user of the run; without, somebody new.")
@click.option(
    "--rating",
    "typed",
    multiple=True,
    callback=equations,
    metavar="ID=RATING",
    help="What a new user has rated already; may be given again.",
)
@click.option(
    "--n", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="Items to ask for."
)
@click.option(
    "--popular",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    metavar="N",
    help="Ask only for items among the N that were rated most: others will not be known to the user.",
)
@table_options
def command(
    path: Path,
    user: str | None,
    typed: tuple[tuple[str, str], ...],
    n: int,
    popular: int,
    tables: TableWriter,
) -> None:
    """Choose what to ask a user, so that the answers tell most.

    Items are ordered by expected information gain: what an answer is expected to tell about the user, given
    the questions before it.

    \b
    Examples:
      pyro-bmf elicit runs/ml100k --user 196
      pyro-bmf elicit runs/ml100k --n 5                  # somebody of whom nothing is known
      pyro-bmf elicit runs/ml100k --rating 50=5 --rating 181=4
    """
    import numpy as np
    import pandas as pd

    from pyro_bmf.checking.elicitation import elicit

    if user is not None and typed:
        raise click.UsageError("Give --user for a user of the run, or --rating for a new one, not both.")
    posterior = RunFolder.existing(path).load_posterior()
    items = posterior.item_vocabulary
    train = posterior.train
    if user is not None:
        row = int(posterior.user_vocabulary.index(parse_ids((user,), posterior.user_vocabulary))[0])
        pairs, rated = posterior.pairs, train.items[train.users == row]
        whom = f"user {user}"
    else:
        given = pd.DataFrame(list(typed), columns=["item_id", "rating"], dtype=object)
        ratings = pd.DataFrame(
            {
                "item_id": parse_ids(given["item_id"], items),
                "rating": parse_ratings(given["rating"], "--rating"),
            }
        )
        check_new_ratings(ratings, posterior.scale, None)
        folded = posterior.fold_in(ratings)
        row, pairs = 0, folded.all_rows.pairs
        rated = items.index(ratings["item_id"].to_numpy()) if len(ratings) else np.zeros(0, dtype=np.int64)
        whom = f"a new user with {len(ratings)} rating{'' if len(ratings) == 1 else 's'}"
    most = np.argsort(-train.item_counts, kind="stable")[:popular]
    candidates = np.sort(np.setdiff1d(most, rated))
    if len(candidates) < n:
        wider = " or take more of the items (--popular)" if popular < len(items) else ""
        raise SettingsError(
            f"--n {n}: of the {min(popular, len(items)):,} items rated most (--popular {popular}) there are "
            f"{len(candidates):,} that the user has not rated: ask for at most that{wider}."
        )
    found = elicit(posterior, row, candidates, n, pairs=pairs, rated=rated)
    mean, sd = pairs.rating_moments(np.full(n, row), found.items)
    lines = []
    for place, item in enumerate(found.items.tolist()):
        line: dict[str, object] = {"ask": place + 1, "item_id": items.raw(np.array([item]))[0]}
        if posterior.item_titles is not None:
            line["title"] = posterior.item_titles[item]
        line |= {
            "n_ratings": int(train.item_counts[item]),
            "information": float(found.gain[place]),
            "alone": float(found.alone[place]),
            "mean": float(mean[place]),
            "sd": float(sd[place]),
        }
        lines.append(line)
    some = popular < len(train.item_counts)
    among = f"the {popular:,} items rated most" if some else f"all {len(train.item_counts):,} items"
    tables.show(
        f"What to ask {whom}, of {among}: expected information in nats, given the questions above, and alone",
        lines,
    )
    tables.say(
        f"What a rating could still tell of an item, on average: {found.left[0]:.3f} nats before, "
        f"{found.left[-1]:.3f} after these {n} answers."
    )
