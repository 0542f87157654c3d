"""Run a page's blocks in their order: Python in one namespace, commands in one folder.

    python tests/run_page.py docs/better-model.md

writes what the Python blocks print into the text blocks below them, and their figures into docs/assets.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from page_blocks import Block, blocks

from pyro_bmf.cli.main import root
from pyro_bmf.data.notices import DataNotice, DataWarning

ROOT = Path(__file__).resolve().parent.parent
#: Commands of the documentation that are not ours, and what is looked at in them.
_OTHERS = re.compile(
    r"pip install \.|benchmarks/peers/make_environment\.sh|git apply docs/examples/\w+\.patch"
)


@dataclass
class Ran:
    """What the blocks of a page gave.

    Attributes
    ----------
    names
        The Python blocks' namespace.
    printed
        What each block printed, by its place among the page's blocks.
    """

    names: dict[str, Any]
    printed: dict[int, str] = field(default_factory=dict)


def run_page(
    page: Path,
    folder: Path,
    call: Callable[[Sequence[str]], str] | None = None,
    quicker: Callable[[Sequence[str]], Sequence[str]] = list,
) -> Ran:
    """Run a page's blocks in the working folder.

    Parameters
    ----------
    page : Path
    folder : Path
        Where figures go: `folder` in the Python blocks.
    call : function, optional
        Runs one command of pyro-bmf, given its words, and returns its output. Without it they are parsed.
    quicker : function
        Gives the words of a command with settings that suit a test.
    """
    ran = Ran({"folder": folder, "__name__": "page"})
    for place, block in enumerate(blocks(page.read_text(encoding="utf-8"))):
        where = f"{page.name}:{block.line}"
        if block.language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), warnings.catch_warnings():
                for kind in (DataNotice, DataWarning):
                    warnings.simplefilter("ignore", kind)
                # ArviZ says of the few ratings of a test what it would of too few ratings anywhere.
                warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto")
                # The line numbers of a traceback are then those of the page.
                exec(compile("\n" * block.line + block.text, str(page), "exec"), ran.names)
            ran.printed[place] = printed.getvalue()
        elif block.language == "sh":
            ran.printed[place] = run_commands(block, where, call, quicker)
    return ran


def run_commands(
    block: Block,
    where: str,
    call: Callable[[Sequence[str]], str] | None,
    quicker: Callable[[Sequence[str]], Sequence[str]] = list,
) -> str:
    """Parse a block's commands, run those of pyro-bmf unless it is marked, and return what they printed."""
    variables: dict[str, str] = {}
    printed = ""
    for line in block.text.replace("\\\n", " ").splitlines():
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        words = shlex.split(line, comments=True)
        if not words:
            continue
        assignment = re.fullmatch(r"([a-z]+)=(.*)", words[0])
        if assignment and len(words) == 1:
            variables[assignment[1]] = assignment[2]
            continue
        first, *after = _split(words, "|")
        if Path(first[0]).name != "pyro-bmf":
            assert not after, f"{where}: only commands of pyro-bmf are run through a pipe: {line}"
            parse_other(first, where)
            continue
        parse_ours(first[1:], where)
        if block.mark == "parsed" or call is None:
            continue
        output = call(quicker(first[1:]))
        for command in after:
            run = [sys.executable, *command[1:]] if command[0] == "python" else command
            output = subprocess.run(run, input=output, capture_output=True, text=True, check=True).stdout
        printed += output
    return printed


def _split(words: Sequence[str], at: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == at:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def parse_ours(words: Sequence[str], where: str) -> None:
    """Raise AssertionError unless the command and its options exist."""
    command: click.Command = root
    context = click.Context(root, info_name="pyro-bmf")
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        below = command.get_command(context, rest[0])
        assert below is not None, f"{where}: pyro-bmf {' '.join(words)}: there is no {rest[0]!r}"
        command, context = below, click.Context(below, info_name=rest.pop(0), parent=context)
    try:
        values, _, _ = command.make_parser(context).parse_args(rest)
        for parameter in command.params:
            value = values.get(parameter.name or "")
            if isinstance(parameter.type, click.Choice) and isinstance(value, str) and not value.isupper():
                parameter.type.convert(value, parameter, context)
    except click.UsageError as error:
        raise AssertionError(f"{where}: pyro-bmf {' '.join(words)}: {error.format_message()}") from error


def parse_other(words: Sequence[str], where: str) -> None:
    """Raise AssertionError unless a command that is not ours names what exists: targets, scripts, options."""
    line = " ".join(words)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for word in words[1:]:
            name, given, _ = word.partition("=")
            pattern = rf"^{name} \?= ?" if given else rf"^{name}:.*## "
            assert re.search(pattern, makefile, re.M), f"{where}: make {word}: the Makefile has no {name}"
    elif words[0] == "python" and len(words) > 1 and words[1].endswith(".py"):
        script = ROOT / words[1]
        assert script.is_file(), f"{where}: there is no {words[1]}"
        source = script.read_text(encoding="utf-8")
        for word in words[2:]:
            if word.startswith("--"):
                option = word.partition("=")[0]
                assert f'"{option}"' in source, f"{where}: {words[1]} has no option {option}"
            elif word.endswith(".md"):
                assert (ROOT / word).is_file(), f"{where}: there is no {word}"
    else:
        assert _OTHERS.fullmatch(line), f"{where}: nothing checks the command {line!r}"
        for word in words:
            assert "/" not in word or (ROOT / word).is_file(), f"{where}: there is no {word}"


def with_output(page: str, printed: Mapping[int, str]) -> str:
    """Return a page whose Python blocks are followed by what they printed."""
    found = blocks(page)
    for place, block in reversed(list(enumerate(found))):
        if block.is_output and block.follows == "python":
            page = page[: block.start] + printed[place - 1] + page[block.end :]
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1]).resolve()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ran = run_page(path, path.parent / "assets")
    path.write_text(with_output(path.read_text(encoding="utf-8"), ran.printed), encoding="utf-8")
