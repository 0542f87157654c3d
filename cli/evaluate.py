"""`pyro-bmf evaluate`: measure a saved run beside the references."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from pyro_bmf.errors import SettingsError
from pyro_bmf.files import write_json

from .printing.option_groups import SEED
from .printing.output import TableWriter, note, table_options
from .printing.ranked_by import measured
from .printing.report import PROTOCOLS, evaluation_tables, with_chain
from .printing.text import shell_word
from .runs.folder import RUN, RunFolder
from .runs.selection import recommender_if_any, selection_file
from .shared_options import data_dir_option, moved_data_option


def _lengths(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        lengths = tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError:
        lengths = (0,)
    if min(lengths) < 1:
        raise click.BadParameter(
            f"{value!r}: write whole numbers of at least 1 with commas between, as in 20,50", param=parameter
        )
    return lengths


@click.command()
@click.argument("path", metavar="RUN", type=RUN)
@click.option(
    "--part",
    type=click.Choice(("test", "valid")),
    default="test",
    show_default=True,
    help="Which ratings to measure on.",
)
@click.option(
    "--n",
    "n",
    default="20,50",
    show_default=True,
    callback=_lengths,
    metavar="N[,N]",
    help="Lengths of the ranked lists.",
)
@click.option(
    "--threshold",
    type=float,
    metavar="R",
    help="An item is relevant to a user who rated it above R. "
    "[default: 3 on a scale that ends at 5, else the middle of the scale]",
)
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(tuple(PROTOCOLS)),
    help="How lists are ranked; may be given again. [default: all]",
)
@click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    metavar="S",
    help="Of the bootstrap and of what is random in coverage.",
)
@data_dir_option
@moved_data_option
@click.option("--detail", is_flag=True, help="Show every ranking figure, coverage and deciles as well.")
@table_options
def command(
    path: Path,
    part: Literal["test", "valid"],
    n: tuple[int, ...],
    threshold: float | None,
    protocols: tuple[str, ...],
    seed: int,
    data_dir: Path | None,
    data: str | None,
    detail: bool,
    tables: TableWriter,
) -> None:
    """Measure a saved run on its test ratings, beside simple references.

    The ratings are read and split again, and the split must be the very one of the fit. Figures of the test
    part are also written to RUN/metrics.json. --json and --csv hold more columns than the screen.

    \b
    Examples:
      pyro-bmf evaluate runs/ml100k
      pyro-bmf evaluate runs/ml100k --detail
      pyro-bmf evaluate runs/ml100k --protocol full --n 10 --threshold 3.5 --csv figures.csv
    """
    from pyro_bmf.posterior.settling import settling_of

    folder = RunFolder.existing(path)
    posterior, split = folder.load_measured(part, data_dir, data)
    scale = split.ratings.scale
    if threshold is not None and not scale.low <= threshold < scale.high:
        raise SettingsError(
            f"--threshold {threshold:g}: relevant is a rating above it, so give one from {scale.low:g} to "
            f"below {scale.high:g}, the ends of the scale."
        )
    comparison = evaluation_tables(
        posterior,
        split,
        tables,
        part=part,
        threshold=threshold,
        caveat=folder.caveat(),
        detail=detail,
        n=n,
        protocols=protocols or tuple(PROTOCOLS),
        seed=seed,
    )
    recommender = recommender_if_any(folder, posterior, comparison.model.threshold)
    if recommender is None:
        note(
            f"{path} has no {selection_file(folder).name}, so there are no rankings by liked: "
            f"'pyro-bmf fit --resume {shell_word(str(path))}' adds it."
        )
    chosen = protocols or tuple(PROTOCOLS)
    content = measured(recommender, comparison, split, tables, part=part, protocols=chosen, detail=detail)
    settling = settling_of(posterior)
    if settling is not None and settling["sentence"] is not None:
        note(settling["sentence"])
    if part == "test":
        write_json(folder.metrics, with_chain(content, settling))
        tables.say(f"All figures are in {folder.metrics}.")
