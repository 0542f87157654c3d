"""`pyro-bmf experiment sparsity`."""

from __future__ import annotations

import click

from ..printing.option_groups import GroupedCommand, option
from ..printing.output import TableWriter, table_options
from ..runs.experiment_options import SparsitySpec, numbers_by_set
from ..runs.experiments import run_experiment
from .options import ROWS, Asked, Shared, experiment_options, rows_options


@click.command(cls=GroupedCommand)
@rows_options("those of Table 3: the paper's six baselines; ours: literal, paper, default")
@option(
    "--percents",
    multiple=True,
    callback=numbers_by_set,
    metavar="[SET=]P,P",
    group=ROWS,
    common=True,
    help="Shares of the ratings that are trained on, of every set or of one. [default: 1,2,3,5,10]",
)
@experiment_options
@table_options
def sparsity(
    asked: Asked, percents: dict[str, tuple[float, ...]], shared: Shared, tables: TableWriter
) -> None:
    """Compare the paper's models on small shares of the ratings: its Figure 3.

    A random share trains, the rest is halved into validation and test ratings; each model is tuned anew at
    each share, by validation RMSE on seed 0. With paper among the rows, local and global attention are
    compared too. DIR gets sparsity.csv, sparsity.md, pictures, the chosen settings and the verdicts.

    \b
    Example:
      pyro-bmf experiment sparsity --data ml100k --models bias-only,i-rec --percents 10,20 --trials 1
    """
    from pyro_bmf.experiments.table3_rows import ROWS as TABLE3_ROWS
    from pyro_bmf.experiments.table3_rows import TRIALS, known_rows

    spec = asked.spec(SparsitySpec, TABLE3_ROWS, known_rows(), tuple(TRIALS), shared, percents=percents)
    columns = [one.title for one in spec.data_sets()]  # refuses what is unknown before anything is run
    run_experiment(
        shared.job(spec, "sparsity"),
        jobs=shared.jobs,
        quiet=shared.quiet,
        tables=tables,
        screen=(*columns, "Whether"),
    )
