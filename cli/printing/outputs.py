"""Where a command may write: never over a run's own files, nor over what it reads."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pyro_bmf.errors import SettingsError
from pyro_bmf.files import is_stream, write_error

#: What `fit` writes into a run's folder.
OWN = frozenset(
    {
        *(
            "model.safetensors",
            "selection.safetensors",
            "config.json",
            "split-hash.json",
            "history.csv",
            "metrics.json",
        ),
        *("environment.json", "selection.json", "checkpoint.safetensors", "checkpoint-refit.safetensors"),
        ".lock",
    }
)


class OutputPath(click.Path):
    """The type of an option that names a file to write.

    Parameters
    ----------
    beside : tuple of str
        Further files that the command puts beside it: each takes the place of the suffix, or, where it begins
        with ``-``, of the end of the stem. With any, the path must be a regular file's.
    folder : bool
        Whether the path may be a folder's.
    """

    def __init__(self, *, beside: tuple[str, ...] = (), folder: bool = False) -> None:
        super().__init__(dir_okay=folder, path_type=Path)
        self.beside = beside

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what other commands take for standard output: a file of that name would be made."""
        if value == "-":
            self.fail(
                "'-' is not a file: write /dev/stdout for standard output, or ./- for that name.", param, ctx
            )
        return super().convert(value, param, ctx)

    def all_files(self, path: Path) -> Iterator[Path]:
        """Give every file that is written."""
        yield path
        for ending in self.beside:
            yield path.with_name(path.stem + ending) if ending[0] == "-" else path.with_suffix(ending)


def check_outputs(context: click.Context) -> None:
    """Refuse outputs that would replace a run's own files, what the command reads, or each other.

    Raises
    ------
    SettingsError
        Naming the option and the file.
    WriteError
        If a folder of that name cannot be made or written to.
    """
    outputs = [
        (parameter, value)
        for parameter in context.command.params
        if isinstance(parameter.type, OutputPath)
        and isinstance(value := context.params.get(str(parameter.name)), Path)
    ]
    if not outputs:
        return
    inputs = list(_inputs(context, {str(parameter.name) for parameter, _ in outputs}))
    taken: dict[str, str] = {}
    for parameter, path in outputs:
        option, kind = parameter.opts[0], parameter.type
        assert isinstance(kind, OutputPath)
        stream = is_stream(path)
        if stream and kind.beside:
            raise SettingsError(
                f"{option} {path}: further files are put beside it, so give the name of a file instead of a "
                "device or a pipe."
            )
        files = list(kind.all_files(path))
        if len(set(files)) < len(files):
            raise SettingsError(
                f"{option} {path}: a second file goes beside it, to that very name: give one that "
                "ends in .json."
            )
        for file in files:
            _check_file(option, file, inputs)
            real = os.path.realpath(file)
            if not stream and taken.setdefault(real, option) != option:
                raise SettingsError(f"{taken[real]} and {option} would both write {file}: give two names.")


def _check_file(option: str, file: Path, inputs: list[Path]) -> None:
    try:
        real = Path(os.path.realpath(file))
        if is_stream(file):
            return
        above = next(folder for folder in real.parents if os.path.lexists(folder))
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES if above.is_dir() else errno.ENOTDIR, "")
        if above != real.parent:
            return
        if real.name in OWN and _is_run(real.parent):
            raise SettingsError(
                f"{option} {file}: that is a file of the run {real.parent}, which would be lost: give "
                "another name."
            )
        if real.exists() and any(source.exists() and os.path.samefile(real, source) for source in inputs):
            raise SettingsError(f"{option} {file}: the command reads that file: give another name.")
    except OSError as error:
        raise write_error(file, error.errno or 0) from error


def _is_run(folder: Path) -> bool:
    try:
        return '"pyro-bmf run"' in (folder / "config.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _inputs(context: click.Context, outputs: set[str]) -> Iterator[Path]:
    """Give every file that the command line names beside its outputs, and the ratings of its runs."""
    for name, value in context.params.items():
        if name in outputs:
            continue
        for one in value if isinstance(value, tuple) else (value,):
            if not isinstance(one, (str, Path)) or "\0" in str(one) or len(str(one)) > 4096:
                continue
            path = Path(one)
            try:
                if path.is_file():
                    yield path
                elif (path / "config.json").is_file():
                    yield from _of_run(path)
                elif (path / "split.json").is_file():
                    yield from path.iterdir()
            except OSError:
                continue


def _of_run(run: Path) -> Iterator[Path]:
    try:
        config: Any = json.loads((run / "config.json").read_text(encoding="utf-8"))
        named = [config["data"], *(config["splitting"][name] for name in ("train", "valid", "test"))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    for one in named:
        if isinstance(one, str) and "\0" not in one:
            path = Path(one)
            if path.is_file():
                yield path
            elif (path / "split.json").is_file():
                yield from path.iterdir()
