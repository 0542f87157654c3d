"""The root of the `pyro-bmf` command: imports sub-commands on demand, turns errors into one readable line."""

from __future__ import annotations

import difflib
import errno
import io
import os
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, NoReturn, TextIO

import click
from click.shell_completion import CompletionItem

import pyro_bmf
from pyro_bmf.errors import PyroBmfError
from pyro_bmf.files import write_error

from .allocator import keep_freed_memory
from .printing.output import note, one_line
from .printing.text import shown

EXIT_ERROR = 1
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
_NO_MEMORY = "can't allocate memory"  # what torch says
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count


@dataclass(frozen=True)
class LazyCommand:
    """Where a sub-command lives, and the line that the overview shows without importing it."""

    module: str
    attribute: str
    short_help: str

    def load(self) -> click.Command:
        """Import the module and return the click command in it."""
        command = getattr(import_module(self.module), self.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.module}:{self.attribute} is no click command")
        return command


COMMANDS: Mapping[str, LazyCommand] = MappingProxyType(
    {
        "data": LazyCommand("pyro_bmf.cli.data", "group", "List, fetch, inspect and split ratings."),
        "fit": LazyCommand("pyro_bmf.cli.fit", "command", "Fit the model to ratings and save the run."),
        "tune": LazyCommand(
            "pyro_bmf.cli.tune", "command", "Choose a model's settings on validation ratings."
        ),
        "experiment": LazyCommand(
            "pyro_bmf.cli.experiment", "group", "Run a table or a figure of the paper again."
        ),
        "evaluate": LazyCommand(
            "pyro_bmf.cli.evaluate", "command", "Measure a saved run on its test ratings."
        ),
        "presets": LazyCommand(
            "pyro_bmf.cli.catalogue", "presets", "List the presets, or the settings of one with their flags."
        ),
        "priors": LazyCommand("pyro_bmf.cli.catalogue", "priors", "List the priors that --prior may name."),
        "likelihoods": LazyCommand(
            "pyro_bmf.cli.catalogue", "likelihoods", "List the likelihoods that --likelihood may name."
        ),
        "predict": LazyCommand("pyro_bmf.cli.predict", "command", "Predict ratings, with their uncertainty."),
        "recommend": LazyCommand("pyro_bmf.cli.recommend", "command", "Recommend items to users."),
        "fold-in": LazyCommand(
            "pyro_bmf.cli.fold_in", "command", "Recommend to a new user without training again."
        ),
        "elicit": LazyCommand(
            "pyro_bmf.cli.checks.elicit", "command", "Choose which items to ask a user about."
        ),
        "similar": LazyCommand("pyro_bmf.cli.similar", "command", "Show the items most like one item."),
        "ppc": LazyCommand(
            "pyro_bmf.cli.checks.ppc", "command", "Compare the ratings with data simulated from a fit."
        ),
        "diagnose": LazyCommand(
            "pyro_bmf.cli.checks.diagnose", "command", "Find rows whose posterior cannot be trusted."
        ),
        "sensitivity": LazyCommand(
            "pyro_bmf.cli.checks.sensitivity", "command", "Find users whose recommendations the prior drives."
        ),
        "compare": LazyCommand(
            "pyro_bmf.cli.checks.compare",
            "command",
            "Compare runs by the probabilities that they give to ratings.",
        ),
        "stack": LazyCommand(
            "pyro_bmf.cli.checks.stack", "command", "Mix runs so that they predict best together."
        ),
        "calibrate": LazyCommand(
            "pyro_bmf.cli.checks.calibrate", "command", "Check a configuration's posterior by simulation."
        ),
        "export": LazyCommand(
            "pyro_bmf.cli.export", "command", "Write a saved run's posterior as netCDF or parquet."
        ),
    }
)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed.

    Parameters
    ----------
    lazy
        The commands by name, in the order in which the overview shows them.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, importing nothing."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in self.lazy:
            return None
        command = self.lazy[cmd_name].load()
        command.name = cmd_name  # the function behind it is called `command` in every module
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the line names, or say which one may be meant."""
        name = args[0]
        if name not in self.lazy and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, self.lazy, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The commands are {', '.join(self.lazy)}."
            raise click.UsageError(f"No such command {name!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.short_help) for name, lazy in self.lazy.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names, importing nothing."""
        names = [
            CompletionItem(name, help=lazy.short_help)
            for name, lazy in self.lazy.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.command(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(pyro_bmf.__version__, "--version", prog_name="pyro-bmf", message="%(prog)s %(version)s")
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    help="Show the traceback of an error. It may stand anywhere on the line.",
)
def root() -> None:
    """Bayesian matrix factorization: ratings in, predictions with uncertainty out.

    Start with `pyro-bmf fit --data ml100k`, then `pyro-bmf recommend`. Each command has its own --help.
    """


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its exit code.

    Parameters
    ----------
    argv
        The arguments after the program's name; None for those of the process.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for as long as the process lives)
    if sys.stdout is None:
        _say("Error: standard output is closed: send it to a file, or to /dev/null.")
        sys.exit(EXIT_ERROR)
    if not os.environ.get("COLUMNS", "1").isdecimal():
        del os.environ["COLUMNS"]  # which libraries take for a number without a check
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal that lacks a character is no reason to stop
    keep_freed_memory()
    sys.exit(run(root, sys.argv[1:] if argv is None else argv))


def run(command: click.Command, argv: Sequence[str]) -> int:
    """Run a click command, say what goes wrong on standard error, and return the exit code.

    0: done; 1: an error with its remedy; 2: a wrong command line; 70: a bug of this software;
    130: interrupted.
    """
    arguments, debug = _take_debug(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            result = command.main(args=arguments, prog_name="pyro-bmf", standalone_mode=False)
            # Here, not at the interpreter's end, where a closed pipe could not be caught any more.
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            return EXIT_ERROR
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            return _report(_of_stdout(error))
    return result if isinstance(result, int) else 0


def _take_debug(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Take ``--debug`` out of the options wherever it stands; after ``--`` all is left alone."""
    end = argv.index("--") if "--" in argv else len(argv)
    options = [argument for argument in argv[:end] if argument != "--debug"]
    return [*options, *argv[end:]], "--debug" in argv[:end]


def _report(error: BaseException) -> int:
    """Say in one line what went wrong, and return the exit code."""
    if isinstance(error, click.Abort) and error.__cause__ is not None:
        error = error.__cause__  # click raises Abort from the KeyboardInterrupt or EOFError
    if isinstance(error, (KeyboardInterrupt, EOFError)):
        # A command that can be continued raises KeyboardInterrupt with the words that say how.
        _say(one_line(str(error)) or "Interrupted.")
        return EXIT_INTERRUPTED
    if isinstance(error, click.Abort):
        _say("Aborted.")
        return EXIT_ERROR
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, click.ClickException):
        text = one_line(error.format_message())
        if isinstance(error, click.UsageError) and error.ctx is not None:
            text = f"{text}{'' if text.endswith(('.', '?')) else '.'} See '{error.ctx.command_path} --help'."
        _say(f"Error: {text}")
        return error.exit_code
    if isinstance(error, PyroBmfError):
        _say(f"Error: {one_line(str(error))}")
        return EXIT_ERROR
    if isinstance(error, OSError) and error.errno is not None:
        where = "the system says" if error.filename is None else os.fsdecode(error.filename)
        _say(f"Error: {where}: {error.strerror or os.strerror(error.errno)}.")
        return EXIT_ERROR
    if isinstance(error, MemoryError) or _NO_MEMORY in str(error):
        _say(
            "Error: the machine has not enough memory for this. Take smaller blocks, or fewer rows at a time."
        )
        return EXIT_ERROR
    text = one_line(f"{type(error).__name__}: {error}")
    _say(f"Error: {text} (this is a bug in pyro-bmf; run again with --debug to see where)")
    return EXIT_BUG


def _of_stdout(error: BaseException) -> BaseException:
    """Return an error that names standard output, if that is what cannot be written."""
    if not isinstance(error, OSError) or error.filename is not None or isinstance(error, PyroBmfError):
        return error
    frames = [frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if "click.utils" in frames or frames[-1:] == [__name__]:
        _forget_stdout()
        return write_error("standard output", error.errno or errno.EIO)
    return error


def _say(line: str) -> None:
    with suppress(OSError):  # nobody is left to be told
        click.echo(shown(line), err=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show our own warnings as notes, others as Python does.

    Ours are known by the package that defines their class: to import the classes would import NumPy.
    """
    if any(kind.__module__.split(".")[0] == "pyro_bmf" for kind in category.__mro__):
        note(str(message))
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        click.echo(text, nl=False, err=True)


def _forget_stdout() -> None:
    """Point standard output at nothing, so that its last flush does not complain about the closed pipe."""
    with suppress(OSError, ValueError):  # a stream that is no file has nothing to complain of
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    main()
