"""Every example in every command's help runs, as it stands there, on fits with default settings."""

from __future__ import annotations

import glob
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from small_place import make_runs, write_ratings

from pyro_bmf.cli.main import root

#: What takes the default settings many fits.
SLOW = ("calibrate",)


def commands(command: click.Command, context: click.Context) -> Iterator[click.Command]:
    """Give a command and all below it."""
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, context)


def examples() -> list[str]:
    found = []
    for command in commands(root, click.Context(root)):
        lines = (command.help or "").splitlines()
        found += [line.strip() for line in lines if line.strip().startswith("pyro-bmf ")]
    return sorted(set(found))


EXAMPLES = examples()


@pytest.fixture(scope="module")
def workplace(cli: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the examples name: data, files, runs."""
    folder = tmp_path_factory.mktemp("examples")
    write_ratings(folder)
    make_runs(cli, folder)
    (folder / "experiments").mkdir()  # where experiments are written: the ledger finds nothing run
    return folder


def test_every_command_has_examples() -> None:
    named = {line.split()[1] for line in EXAMPLES}
    leaves = set(root.list_commands(click.Context(root)))
    assert leaves <= named


@pytest.mark.parametrize(
    "example",
    [pytest.param(line, marks=[pytest.mark.slow] * (line.split()[1] in SLOW)) for line in EXAMPLES],
)
def test_an_example_of_the_help_runs(
    cli: Any, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    shutil.copytree(workplace, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYRO_BMF_DATA_DIR", str(tmp_path / "here" / "data"))
    if "*" in example:  # runs are compared on one split
        for other in ("ml1m", "ratings"):
            shutil.rmtree(f"runs/{other}")
    words = [
        name
        for word in shlex.split(example, comments=True)[1:]
        for name in (sorted(glob.glob(word)) if "*" in word else [word])
    ]
    outcome = cli(*words)
    assert outcome.code == 0, outcome.err
