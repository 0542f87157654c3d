"""Which options stand on a command line: one that is not read there is refused."""

from __future__ import annotations

import click
from click.core import ParameterSource


def given_options() -> dict[str, str]:
    """Return what stands on the command line, or comes from the environment: option by parameter name."""
    context = click.get_current_context()
    unsaid = (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None and context.get_parameter_source(parameter.name) not in unsaid
    }


def refuse_unread(names: tuple[str, ...], when: str) -> None:
    """Refuse those of some options that were given.

    Parameters
    ----------
    names
        Of the command's parameters.
    when
        How they are read, as in "with --strategy lower alone".
    """
    given = given_options()
    options = [given[name] for name in names if name in given]
    if options:
        several = len(options) > 1
        raise click.UsageError(
            f"{' and '.join(options)} {'are' if several else 'is'} read {when}: leave "
            f"{'them' if several else 'it'} out."
        )
