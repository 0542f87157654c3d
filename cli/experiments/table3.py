"""`pyro-bmf experiment table3`."""

from __future__ import annotations

import click

from ..printing.option_groups import GroupedCommand
from ..printing.output import TableWriter, table_options
from ..runs.experiment_options import Table3Spec
from ..runs.experiments import run_experiment
from .options import Asked, Shared, experiment_options, rows_options


@click.command(cls=GroupedCommand)
@rows_options("the paper's six baselines; ours: literal, paper, default")
@experiment_options
@table_options
def table3(asked: Asked, shared: Shared, tables: TableWriter) -> None:
    """Compare the paper's models by RMSE, Recall and NDCG: its Table 3.

    Each model is tuned on the validation part of seed 0, then fitted and measured on the test part of every
    seed. DIR gets table3.csv (every figure), table3.md, pictures (PNG, SVG) and the chosen settings; a best
    value on the edge of its grid is marked, and what was not run is said.

    \b
    Examples:
      pyro-bmf experiment table3 --data ml100k --models bias-only,i-rec --seeds 2 --trials 2
      pyro-bmf experiment table3 --data ml100k --models u-rec --seeds 1 --trials u-rec=1 --iterations 5
    """
    from pyro_bmf.experiments.table3_rows import ROWS, TRIALS, known_rows

    spec = asked.spec(Table3Spec, ROWS, known_rows(), tuple(TRIALS), shared)
    columns = [one.title for one in spec.data_sets()]  # refuses what is unknown before anything is run
    run_experiment(
        shared.job(spec, "table3"),
        jobs=shared.jobs,
        quiet=shared.quiet,
        tables=tables,
        screen=(*columns, "Whether"),
    )
