"""`pyro-bmf experiment convergence`."""

from __future__ import annotations

import click

from ..printing.option_groups import GroupedCommand, option
from ..printing.output import TableWriter, table_options
from ..runs.experiment_options import ConvergenceSpec, command_line, listed
from ..runs.experiments import run_experiment
from ..runs.workers import threads_each
from .options import ROWS, Columns, Shared, columns_options, experiment_options


@click.command(cls=GroupedCommand)
@columns_options("ml1m, the paper's")
@option(
    "--variants",
    callback=listed,
    default="A,B,C,D,E",
    metavar="A,B",
    group=ROWS,
    common=True,
    help="Variants of the paper's section 4.6, with the preset's own blocks; none for none. "
    "[default: A,B,C,D,E]",
)
@option(
    "--iterations",
    type=click.IntRange(1),
    default=100,
    metavar="N",
    group=ROWS,
    common=True,
    help="Iterations of each. [default: 100]",
)
@option(
    "--literal-variants",
    callback=listed,
    default="C,D",
    metavar="C,D",
    group=ROWS,
    help="Variants that are fitted with blocks of 100 x 100 too, the paper's; none for none. [default: C,D]",
)
@option(
    "--literal-iterations",
    type=click.IntRange(1),
    default=20,
    metavar="N",
    group=ROWS,
    help="Iterations of those. [default: 20]",
)
@experiment_options
@table_options
def convergence(
    columns: Columns,
    variants: tuple[str, ...],
    iterations: int,
    literal_variants: tuple[str, ...],
    literal_iterations: int,
    shared: Shared,
    tables: TableWriter,
) -> None:
    """Follow test RMSE by iteration and by second: the paper's Figure 4.

    Five variants of the preset paper with one optimiser: A and C without cross feedback, B and D with it (no
    hidden layer in A and B, one in C and D), E with attention too. Faster is fewer iterations, and fewer
    seconds, until validation RMSE is below that of the bias-only baseline. DIR gets convergence.csv, .md,
    pictures (PNG, SVG), the verdicts and what reached the target when.

    \b
    Example:
      pyro-bmf experiment convergence --data ml100k --seeds 1 --iterations 2 --literal-iterations 1
    """
    variants, literal_variants = (() if one == ("none",) else one for one in (variants, literal_variants))
    if not (variants or literal_variants):
        raise click.UsageError("--variants none --literal-variants none: nothing is left to follow.")
    choices = {
        "variants": variants,
        "iterations": iterations,
        "literal_variants": literal_variants,
        "literal_iterations": literal_iterations,
    }
    spec = ConvergenceSpec(
        columns.names(("ml1m",)),
        columns.sets,
        columns.data_dir,
        columns.seeds,
        shared.device,
        threads_each(shared.threads, shared.jobs),
        command_line(),
        choices,
    )
    titles = [one.title for one in spec.data_sets()]  # refuses what is unknown before anything is run
    run_experiment(
        shared.job(spec, "convergence"),
        jobs=shared.jobs,
        quiet=shared.quiet,
        tables=tables,
        screen=(*titles, "Whether"),
    )
