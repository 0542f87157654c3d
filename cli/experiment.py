"""`pyro-bmf experiment`: the paper's tables and figures, run again."""

from __future__ import annotations

import click

from .experiments.convergence import convergence
from .experiments.ledger import ledger
from .experiments.significance import significance
from .experiments.sparsity import sparsity
from .experiments.table3 import table3
from .experiments.table4 import table4


@click.group()
def group() -> None:
    """Run a table or a figure of Jin et al. (arXiv 2002.09145) again.

    Finished parts of an experiment are kept and never run again: the same command goes on with an interrupted
    one, and several processes or machines that share the folder divide what is left.

    \b
    Example:
      pyro-bmf experiment table3 --data ml100k --models bias-only,i-rec --seeds 2 --trials 2
    """


for command in (table3, table4, convergence, sparsity, significance, ledger):
    group.add_command(command)
