"""Options under headings: a long help is read by what its options belong to.

``--help`` shows the options that a first reader needs and says where the rest stand; ``--help-all`` shows
every one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.types import IntParamType

_UNGROUPED = "Options"
_LARGEST_SEED = 2**32 - 1  # of every generator that is seeded anywhere
#: Options and their help, by heading.
Sections = dict[str, list[tuple[str, str]]]


class SeedType(IntParamType):
    """The type of every seed: a whole number that all generators take."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a whole number, and refuse one out of range."""
        seed = super().convert(value, param, ctx)
        if not 0 <= seed <= _LARGEST_SEED:
            self.fail(f"{seed}: a seed is a whole number from 0 to {_LARGEST_SEED}.", param, ctx)
        return seed


SEED = SeedType()


class GroupedOption(click.Option):
    """An option that stands under a heading; its range is told by the error and not by the help.

    Parameters
    ----------
    group
        The heading.
    common
        Whether ``--help`` shows it; ``--help-all`` does in any case.
    """

    def __init__(self, *args: Any, group: str, common: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group, self.common = group, common

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Leave out what is told elsewhere."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


def option(
    *declarations: str, group: str, **keywords: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Do as `click.option`, under a heading; with ``common=True`` it stands in the short help."""
    return click.option(*declarations, cls=GroupedOption, group=group, **keywords)


class GroupedCommand(click.Command):
    """A command whose help shows options by their headings, in the order of their first appearance.

    Options without a heading stand first, and always.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_every_option,
                help="Show every option and exit.",
            )
        )

    def help_all(self, ctx: click.Context) -> str:
        """Return the help with every option."""
        formatter = ctx.make_formatter()
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        _write_sections(self._sections(ctx), formatter)
        self.format_epilog(ctx, formatter)
        return formatter.getvalue().rstrip("\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the common options, heading by heading, and a line for each heading that has others."""
        every, common = self._sections(ctx), self._sections(ctx, common=True)
        _write_sections(common, formatter)
        counts = [
            (heading, len(records) - len(common.get(heading, ()))) for heading, records in every.items()
        ]
        left = [(str(count), heading) for heading, count in counts if count]
        if left:
            with formatter.section(f"More options, shown by '{ctx.command_path} --help-all'"):
                formatter.write_dl(left)

    def _sections(self, ctx: click.Context, *, common: bool = False) -> Sections:
        """Return what the help says of each option, or of each common one, by heading."""
        sections: Sections = {_UNGROUPED: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, GroupedOption):
                heading, shown = parameter.group, parameter.common or not common
            else:
                heading, shown = _UNGROUPED, True
            if record is not None and shown:
                sections.setdefault(heading, []).append(record)
        return sections


def _write_sections(sections: Sections, formatter: click.HelpFormatter) -> None:
    for heading, records in sections.items():
        if records:
            with formatter.section(heading):
                formatter.write_dl(records, col_max=26)


def _show_every_option(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print the help with every option, and end."""
    if value and isinstance(ctx.command, GroupedCommand) and not ctx.resilient_parsing:
        click.echo(ctx.command.help_all(ctx), color=ctx.color)
        ctx.exit()
