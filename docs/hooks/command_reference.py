"""Writes the command reference from the commands: each one's help with all options, as the terminal shows it.

``[[commands]]`` stands for the help of all commands, ``[[presets]]`` for every preset's settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from pyro_bmf.cli.main import root
from pyro_bmf.cli.printing.option_groups import GroupedCommand
from pyro_bmf.methods.setting import settings_of
from pyro_bmf.methods.settings import PRESETS, preset

_MARK, _PRESETS = "[[commands]]", "[[presets]]"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the reference where a page has the mark."""
    for mark, lines in ((_MARK, reference), (_PRESETS, settings)):
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(lines()))
    return markdown


def settings() -> Iterator[str]:
    """Yield the settings of every preset as a table, from the classes that declare them."""
    for name in PRESETS:
        chosen = preset(name)
        yield f"### {name}"
        yield ""
        yield f"Method: {chosen.method.title}."
        yield ""
        yield "| setting | option | value | meaning |"
        yield "| --- | --- | --- | --- |"
        for part in chosen.parts:
            for one in settings_of(part.__class__):
                option = one.about.flag or f"--set {one.name}=…"
                value = getattr(part, one.name)
                yield f"| `{one.name}` | `{option}` | `{value}` | {one.about.help} |"
        yield ""


def reference() -> Iterator[str]:
    """Yield the lines of the reference, command groups before what is in them."""
    ctx = click.Context(root, info_name="pyro-bmf", terminal_width=100, **root.context_settings)
    yield from _command(root, ctx, level=2)


def _command(command: click.Command, ctx: click.Context, level: int) -> Iterator[str]:
    yield f"{'#' * level} {ctx.command_path}"
    yield ""
    yield "```text"
    yield command.help_all(ctx) if isinstance(command, GroupedCommand) else command.get_help(ctx)
    yield "```"
    yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            if inner is not None and not inner.hidden:
                inner_ctx = click.Context(inner, info_name=name, parent=ctx, terminal_width=100)
                yield from _command(inner, inner_ctx, level + 1)
