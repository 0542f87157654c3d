"""`pyro-bmf experiment significance`."""

from __future__ import annotations

from pathlib import Path

import click

from ..printing.output import TableWriter, table_options
from ..runs.experiment_options import SignificanceSpec, command_line
from ..runs.experiments import Job, run_experiment


@click.command()
@click.option(
    "--n",
    "n",
    type=click.IntRange(3, 7),
    default=4,
    show_default=True,
    metavar="N",
    help="Models that are compared: those of the best mean rank.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    metavar="A",
    help="Level of both tests.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the report. [default: experiments/significance]",
)
@table_options
def significance(n: int, alpha: float, out: Path | None, tables: TableWriter) -> None:
    """Test which models differ over the paper's data sets: its Figure 2, from its printed Table 3.

    Friedman's test over the best models, Nemenyi's over their pairs, and critical-difference diagrams. It
    needs scikit-posthocs (pip install 'pyro-bmf[experiments]').

    \b
    Example:
      pyro-bmf experiment significance --out experiments/figure2
    """
    job = Job(SignificanceSpec(n, alpha, command_line()), out or Path("experiments/significance"), None)
    run_experiment(job, jobs=1, quiet=True, tables=tables, screen=("Mean ranks",))
