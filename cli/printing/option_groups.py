"""Options under headings: a long help is read by what its options belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class GroupedOption(click.Option):
    """An option that stands under a heading; its range is told by the error and not by the help.

    Parameters
    ----------
    group
        The heading.
    """

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Leave out what is told elsewhere."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


def option(
    *declarations: str, group: str, **keywords: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Do as `click.option`, under a heading."""
    return click.option(*declarations, cls=GroupedOption, group=group, **keywords)


class GroupedCommand(click.Command):
    """A command whose help shows options by their headings, in the order of their first appearance."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, heading by heading; those without one stand first."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = parameter.group if isinstance(parameter, GroupedOption) else "Options"
                groups.setdefault(heading, []).append(record)
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records, col_max=26)
