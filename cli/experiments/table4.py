"""`pyro-bmf experiment table4`."""

from __future__ import annotations

from dataclasses import replace

import click

from ..printing.option_groups import GroupedCommand
from ..printing.output import TableWriter, table_options
from ..runs.experiment_options import Table4Spec
from ..runs.experiments import run_experiment
from .options import Asked, Shared, experiment_options, rows_options


@click.command(cls=GroupedCommand)
@rows_options("the preset paper and each part of it, tuned and untuned; ours: guide, amortized")
@experiment_options
@table_options
def table4(asked: Asked, shared: Shared, tables: TableWriter) -> None:
    """Take parts of the model away, one at a time: the paper's Table 4.

    The preset paper without data input, cross feedback or attention, each tuned anew as the paper did, and
    once more with the full model's settings; the same of our own presets as they stand; an average as latent
    input, the sequential iteration, local and global attention. What is chosen for paper (--trials paper=2)
    is for all its parts. DIR gets table4.csv, table4.md, pictures, the chosen settings and the verdicts.

    \b
    Examples:
      pyro-bmf experiment table4 --data ml100k --models guide,guide-no-mask-encoder --seeds 1
      pyro-bmf experiment table4 --data ml100k --models paper-no-attention-untuned --trials 1 --iterations 1
    """
    from pyro_bmf.experiments.papers.table4_rows import PARTS, with_full

    tuned = [name for name, part in PARTS.items() if part.tuned]
    asked = asked if asked.models is None else replace(asked, models=with_full(asked.models))
    spec = asked.spec(Table4Spec, tuple(PARTS), tuple(PARTS), tuned, shared)
    columns = [one.title for one in spec.data_sets()]  # refuses what is unknown before anything is run
    run_experiment(
        shared.job(spec, "table4"),
        jobs=shared.jobs,
        quiet=shared.quiet,
        tables=tables,
        screen=(*columns, "Whether"),
    )
