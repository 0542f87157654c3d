"""`pyro-bmf sensitivity`: whose recommendations does the prior drive."""

from __future__ import annotations

from pathlib import Path

import click

from pyro_bmf.files import atomic_write, write_json

from ..printing.output import TableWriter, table_options
from ..printing.outputs import OutputPath
from ..printing.progress import bar
from ..runs.folder import RUN, RunFolder
from ..shared_options import seed_option


@click.command()
@click.argument("path", metavar="RUN", type=RUN)
@click.option(
    "--n", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="Recommendations a user."
)
@click.option(
    "--draws",
    type=click.IntRange(50),
    metavar="S",
    help="Posterior draws.  [default: 400; of a chain, those it kept]",
)
@click.option(
    "--most", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="Users listed."
)
@seed_option
@click.option(
    "--out",
    type=OutputPath(beside=(".csv",)),
    metavar="FILE",
    help="Where the summary goes as JSON, every user as CSV beside it.  [default: RUN/sensitivity.json]",
)
@table_options
def command(
    path: Path, n: int, draws: int | None, most: int, seed: int, out: Path | None, tables: TableWriter
) -> None:
    """Say whose recommendations come from the prior rather than from ratings.

    Each user's prior, and the likelihood of its ratings, is made to count a little more and a little less
    (power-scaling), by reweighting draws: nothing is fitted again. A sensitivity above 0.05 moves
    recommendations; lists are also compared with those of a prior that counts double, or half.

    \b
    Examples:
      pyro-bmf sensitivity runs/ml100k
      pyro-bmf sensitivity runs/ml1m --n 20 --most 30 --csv users.csv
    """
    from pyro_bmf.checking.sensitivity import power_scale_users
    from pyro_bmf.evaluation.plain_values import json_ready

    folder = RunFolder.existing(path)
    posterior = folder.load_posterior()
    file = folder.path / "sensitivity.json" if out is None else out
    with bar("Users", posterior.n_users, "users") as advance:
        found = power_scale_users(posterior, n=n, num_samples=draws, seed=seed, advance=advance)
    summary, name = found.summary(), path.resolve().name
    tables.show(
        f"{name}: power-scaling of each user's prior and ratings, {n} recommendations, {found.n_draws} draws",
        [summary],
        name="summary",
        screen=[
            {
                "users": summary["users"],
                "prior moves them": summary["prior_driven"],
                "both do": summary["both"],
                "prior, median": summary["median_prior"],
                "ratings, median": summary["median_likelihood"],
                f"of {n} change, prior double": summary["mean_changed_double"],
                "prior half": summary["mean_changed_half"],
            }
        ],
    )
    listed = found.table.sort_values("prior", ascending=False).head(most)
    tables.show(
        f"The {len(listed)} users whose recommendations the prior moves most",
        listed.to_dict("records"),
        name="users",
    )
    csv = file.with_suffix(".csv")
    with atomic_write(csv) as temporary:
        found.table.to_csv(temporary, index=False)
    write_json(file, json_ready({"run": name, "n": n, "draws": found.n_draws, "seed": seed, **summary}))
    high = summary["n_high_k"]
    if high:
        tables.say(
            f"For {high:,} users the weights of a doubled or halved prior rest on few draws (k-hat above "
            f"{found.good_k:.2f}): take their changed lists as rough, or ask for more --draws."
        )
    tables.say(f"Every user is in {csv}.")
