"""`pyro-bmf experiment ledger`."""

from __future__ import annotations

from pathlib import Path

import click

from ..printing.output import note


@click.command()
@click.option(
    "--results",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("experiments"),
    metavar="DIR",
    help="Folder with the experiments' own: DIR/table3, DIR/table4, … [default: experiments]",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Page of markdown. [default: reproduction.md in that folder]",
)
def ledger(results: Path, out: Path | None) -> None:
    """Write what holds: every cell and claim of the paper beside what was run.

    It reads the folders of the other experiments, and runs nothing. Whatever is not there is "not run", with
    the command that would run it.

    \b
    Example:
      pyro-bmf experiment ledger --results experiments
    """
    from pyro_bmf.experiments.ledger.page import write_ledger

    note(f"Ledger: {write_ledger(results, out or results / 'reproduction.md')}")
