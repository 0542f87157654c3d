"""`pyro-bmf experiment significance`."""

from __future__ import annotations

from pathlib import Path

import click

from pyro_bmf.errors import SettingsError

from ..printing.output import TableWriter, table_options
from ..runs.experiment_options import SignificanceSpec, command_line
from ..runs.experiments import Job, run_experiment


@click.command()
@click.option(
    "--from",
    "table",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of a Table 3 that was run: the tests on its figures too, and pairs of its models by user.",
)
@click.option(
    "--paired/--no-paired",
    default=True,
    show_default=True,
    help="With --from: compare its models in pairs, each fitted again from its cells' settings.",
)
@click.option(
    "--sets",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --from: the TOML file of sets that its table was run with.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="With --from: folder that holds named sets.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    metavar="N",
    help="With --from: threads of the CPU. [default: torch's]",
)
@click.option(
    "--n",
    "n",
    type=click.IntRange(3, 7),
    default=4,
    show_default=True,
    metavar="N",
    help="Models that are compared: those of the best mean rank; in pairs, of the best RMSE.",
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
def significance(
    table: Path | None,
    paired: bool,
    sets: Path | None,
    data_dir: Path | None,
    threads: int | None,
    n: int,
    alpha: float,
    out: Path | None,
    tables: TableWriter,
) -> None:
    """Test which models differ: the paper's Figure 2, from its printed Table 3 and from one that was run.

    Friedman's test over the best models, Nemenyi's over their pairs, and critical-difference diagrams. With
    --from, the models of each set are compared in pairs too, by a bootstrap over users, which has power on a
    single set. It needs scikit-posthocs (pip install 'pyro-bmf[experiments]').

    \b
    Example:
      pyro-bmf experiment significance --out experiments/figure2
    """
    if table is None:
        given = {"--no-paired": not paired, "--sets": sets, "--data-dir": data_dir, "--threads": threads}
        unread = [flag for flag, value in given.items() if value]
        if unread:
            raise SettingsError(
                f"{unread[0]} is of a table that was run: give its folder (--from), or leave it out."
            )
    spec = SignificanceSpec(n, alpha, command_line(), table, paired, sets, data_dir, "auto", threads)
    job = Job(spec, out or Path("experiments/significance"), None)
    run_experiment(job, jobs=1, quiet=table is None, tables=tables, screen=("Mean ranks", "Pairs"))
