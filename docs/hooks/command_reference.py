"""Writes the command reference from the commands: each command's --help, as the terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from pyro_bmf.cli.main import root

_MARK = "[[commands]]"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the reference where a page has the mark."""
    return markdown.replace(_MARK, "\n".join(reference())) if _MARK in markdown else markdown


def reference() -> Iterator[str]:
    """Yield the lines of the reference, command groups before what is in them."""
    ctx = click.Context(root, info_name="pyro-bmf", terminal_width=100, **root.context_settings)
    yield from _command(root, ctx, level=2)


def _command(command: click.Command, ctx: click.Context, level: int) -> Iterator[str]:
    yield f"{'#' * level} {ctx.command_path}"
    yield ""
    yield "```text"
    yield command.get_help(ctx)
    yield "```"
    yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            if inner is not None and not inner.hidden:
                inner_ctx = click.Context(inner, info_name=name, parent=ctx, terminal_width=100)
                yield from _command(inner, inner_ctx, level + 1)
