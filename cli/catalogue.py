"""`pyro-bmf priors` and `pyro-bmf likelihoods`: what a word may name, with densities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

from .printing.output import TableWriter, table_options


@click.command()
@table_options
def priors(tables: TableWriter) -> None:
    """List the priors of factors, with their arguments, densities and the presets that know them.

    \b
    Examples:
      pyro-bmf priors
      pyro-bmf fit --data ml100k --preset amortized --prior student-t:df=4,scale=0.7
    """
    from pyro_bmf.methods.build_model import SWEEP_PRIORS
    from pyro_bmf.model.catalogue import PRIORS

    _show("Priors of factors (u_k is one factor, u a row)", PRIORS, SWEEP_PRIORS, ("normal",), tables)


@click.command()
@table_options
def likelihoods(tables: TableWriter) -> None:
    """List the likelihoods of a rating, with their arguments, densities and the presets that know them.

    \b
    Examples:
      pyro-bmf likelihoods
      pyro-bmf fit --data ml100k --likelihood ordered-logistic
    """
    from pyro_bmf.methods.build_model import SWEEP_LIKELIHOODS
    from pyro_bmf.model.catalogue import LIKELIHOODS

    title = "Likelihoods of a rating x, given its predictor eta"
    _show(title, LIKELIHOODS, SWEEP_LIKELIHOODS, SWEEP_LIKELIHOODS, tables)


def _show(
    title: str,
    kinds: Mapping[str, type],
    sweeps: Iterable[str],
    conjugate: Iterable[str],
    tables: TableWriter,
) -> None:
    from pyro_bmf.model.spelling import arguments_of

    rows = []
    for name, kind in kinds.items():
        arguments = [
            f"{key}={'(of the scale)' if default is None else default}"
            for key, default in arguments_of(kind).items()
        ]
        presets = ["default"] * (name in sweeps) + ["conjugate"] * (name in conjugate)
        rows.append(
            {
                "name": name,
                "arguments": " ".join(arguments) or "none",
                "density": getattr(kind, "density", ""),
                "presets": ", ".join([*presets, "amortized", "paper"]),
            }
        )
    tables.show(title, rows)
