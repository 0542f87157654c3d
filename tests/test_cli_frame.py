"""The frame of the command line: lazy imports, errors in one line, exit codes, tables."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import pyro_bmf
from pyro_bmf.cli.main import COMMANDS, LazyCommand, LazyGroup, root, run
from pyro_bmf.cli.printing.option_groups import GroupedCommand, GroupedOption
from pyro_bmf.cli.printing.output import TableWriter, note, show_table, table_options
from pyro_bmf.errors import DataError, UnknownIdError


class OurWarning(UserWarning):
    """Stands for a warning that this software's own modules define."""


OurWarning.__module__ = "pyro_bmf.data.notices"


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


def failing(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


# --- the overview ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["nonsense"], [], ["fit", "--help"], ["fit", "--help-all"]]
)
def test_overview_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, pyro_bmf.cli.main as m\n"
        "try: m.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pyro', 'pandas', 'numpy', 'scipy', 'rich', 'arviz'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = python(code, *arguments)
    assert result.returncode == 0, result.stderr


def test_overview_names_every_command() -> None:
    result = CliRunner().invoke(root, ["--help"])
    assert result.exit_code == 0
    for name, lazy in COMMANDS.items():
        assert f"  {name} " in result.output
        assert lazy.short_help in result.output
    assert set(COMMANDS) == {
        "data", "fit", "tune", "experiment", "evaluate", "presets", "priors", "likelihoods", "predict",
        "recommend", "fold-in",
        "similar", "ppc", "diagnose", "sensitivity", "elicit", "compare", "stack", "calibrate",
        "export",
    }  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_has_help(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert command.name == name  # under which the reference shows it
    assert command.help  # and not the overview's line alone
    result = CliRunner().invoke(root, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"Usage: root {name} [OPTIONS]" in result.output


def leaves(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Give every command that is no group, with the words that call it."""
    if not isinstance(command, click.Group):
        yield context.command_path, command
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, click.Context(below, info_name=name, parent=context))


LEAVES = dict(leaves(root, click.Context(root, info_name="pyro-bmf")))


def help_of(path: str, option: str) -> str:
    result = CliRunner().invoke(root, [*path.split()[1:], option], prog_name="pyro-bmf", terminal_width=80)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("path", LEAVES)
def test_help_is_read_on_one_page(path: str) -> None:
    assert len(help_of(path, "--help").splitlines()) <= 73


@pytest.mark.parametrize(
    "path", [path for path, command in LEAVES.items() if isinstance(command, GroupedCommand)]
)
def test_every_option_is_in_the_short_help_or_counted_under_its_heading(path: str) -> None:
    short, whole = help_of(path, "--help"), help_of(path, "--help-all")
    first, _, more = short.partition(f"More options, shown by '{path} --help-all':")
    hidden: Counter[str] = Counter()
    for parameter in LEAVES[path].params:
        if isinstance(parameter, click.Option):
            name = parameter.opts[0]
            assert re.search(rf"^  {name}\b", whole, re.MULTILINE), name
            if re.search(rf"^  {name}( |$)", first, re.MULTILINE) is None:
                assert isinstance(parameter, GroupedOption)
                hidden[parameter.group] += 1
    told = dict(reversed(line.split(maxsplit=1)) for line in more.strip().splitlines())
    assert told == {heading: str(count) for heading, count in hidden.items()}
    assert hidden
    assert "More options" not in whole


def test_version() -> None:
    result = CliRunner().invoke(root, ["--version"])
    assert result.output == f"pyro-bmf {pyro_bmf.__version__}\n"


def test_unknown_command_suggests_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, ["recomend"]) == 2
    assert capsys.readouterr().err == (
        "Error: No such command 'recomend'. Did you mean 'recommend'? See 'pyro-bmf --help'.\n"
    )
    assert run(root, ["xyzzy"]) == 2
    assert "fold-in" in capsys.readouterr().err
    assert run(failing(DataError("not reached")), ["extra"]) == 2
    assert capsys.readouterr().err == (
        "Error: Got unexpected extra argument (extra). See 'pyro-bmf --help'.\n"
    )


def test_lazy_entry_that_is_no_command() -> None:
    group = LazyGroup("g", lazy={"loads": LazyCommand("json", "loads", "No command.")})
    with pytest.raises(TypeError, match="json:loads is no click command"):
        group.get_command(click.Context(group), "loads")


def test_completion_imports_nothing() -> None:
    group = LazyGroup("g", lazy={"fit": LazyCommand("no.such.module", "command", "Fit."), "other": None})  # type: ignore[dict-item]
    items = group.shell_complete(click.Context(group), "fi")
    assert [(item.value, item.help) for item in items] == [("fit", "Fit.")]


# --- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("rating x is no number:\n  see line 3."), 1, "Error: rating x is no number: see line 3."),
        (UnknownIdError("user 7 is unknown: use fold-in."), 1, "Error: user 7 is unknown: use fold-in."),
        (FileNotFoundError(2, "No such file or directory", "/nowhere/u.data"), 1,
         "Error: /nowhere/u.data: No such file or directory."),
        (PermissionError(13, "Permission denied", Path("a")), 1, "Error: a: Permission denied."),
        (MemoryError(), 1, "Error: the machine has not enough memory for this. Take smaller blocks, or fewer "
         "rows at a time."),
        (click.UsageError("--user and --all exclude each other."), 2,
         "Error: --user and --all exclude each other. See 'pyro-bmf --help'."),
        (click.ClickException("no."), 1, "Error: no."),
        (click.Abort(), 1, "Aborted."),
        (ZeroDivisionError("1/0"), 70,
         "Error: ZeroDivisionError: 1/0 (this is a bug in pyro-bmf; run again with --debug to see where)"),
        (OSError("odd"), 70,
         "Error: OSError: odd (this is a bug in pyro-bmf; run again with --debug to see where)"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(failing(error), []) == code
    captured = capsys.readouterr()
    assert captured.err == f"{line}\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyboardInterrupt(), "Interrupted."),
        (KeyboardInterrupt("Stopped; go on with --resume."), "Stopped; go on with --resume."),
        (EOFError(), "Interrupted."),
    ],
)  # fmt: skip
def test_interrupt(error: BaseException, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(failing(error), []) == 130
    # click closes the terminal's ^C echo with an empty line
    assert capsys.readouterr().err == f"\n{line}\n"


@pytest.mark.parametrize("arguments", [["--debug", "inner"], ["inner", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    group = click.Group("outer", commands={"inner": failing(DataError("bad."))})
    assert run(group, arguments) == 1
    captured = capsys.readouterr().err
    assert captured.startswith("Traceback (most recent call last):")
    assert captured.endswith("Error: bad.\n")


def test_debug_after_two_dashes_is_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    @click.argument("text")
    def command(text: str) -> None:
        click.echo(text)

    assert run(command, ["--", "--debug"]) == 0
    assert capsys.readouterr().out == "--debug\n"


def test_exit_code_of_a_command_is_kept() -> None:
    @click.command()
    @click.pass_context
    def command(ctx: click.Context) -> None:
        ctx.exit(3)

    assert run(command, []) == 3


@pytest.mark.parametrize("write", ["for n in range(100_000): click.echo(n)", "print('in the buffer')"])
def test_closed_pipe_is_silent(write: str) -> None:
    code = (
        "import click, pyro_bmf.cli.main as m, sys\n"
        "@click.command()\n"
        "def command():\n"
        "    sys.stdin.read()\n"
        f"    {write}\n"
        "sys.exit(m.run(command, []))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before the command writes, which it does when its input ends
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1


def test_our_warnings_are_notes(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def command() -> None:
        warnings.simplefilter("always")
        warnings.warn("the scale 1:5:1\nis inferred.", OurWarning, stacklevel=1)
        warnings.warn("somebody else's", UserWarning, stacklevel=1)

    before = warnings.showwarning
    assert run(command, []) == 0
    ours, theirs = capsys.readouterr().err.split("\n", 1)
    assert ours == "Note: the scale 1:5:1 is inferred."
    assert "UserWarning: somebody else's" in theirs
    assert "test_cli_frame.py" in theirs
    assert warnings.showwarning is before


@pytest.fixture(autouse=True)
def _width_is_not_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


# --- tables ---------------------------------------------------------------------------------------------

ROWS = [
    {"user": 1234567, "title": "[rec] (2007)", "rmse": np.float32(0.5), "n": np.int64(12), "known": np.True_},
    {"user": 2, "title": "Æon\nFlux", "rmse": float("nan"), "n": 3, "extra": None},
]


def test_table_on_screen(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("Test [part]", ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Test [part]"
    assert lines[1].split() == ["user", "title", "rmse", "n", "known", "extra"]
    assert "[rec] (2007)" in lines[3]  # no markup
    assert "0.5000" in lines[3]
    assert "yes" in lines[3]
    assert "1234567" in lines[3]  # an id, without separators
    assert lines[3].index("1234567") + 7 == lines[4].index("2") + 1  # numbers end below each other
    assert not any(line != line.rstrip() for line in lines)


def test_wide_tables_are_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("t", [{"title": "long " * 60, "n": 1}])
    assert ("long " * 60).strip() in capsys.readouterr().out


def test_a_wide_table_of_few_rows_lies_on_its_side(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"system": system, **{f"measure_{n}": scale * n for n in range(20)}, "n": 7}
        for system, scale in (("ours", 1.0), ("bias-only", 1e4))
    ]
    show_table("Test", rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Test"
    assert lines[1].split() == ["system", "ours", "bias-only"]
    assert lines[4].split() == ["measure_1", "1.00", "10000.00"]
    assert lines[-1].split() == ["n", "7", "7"]
    assert len(lines) == 3 + 21
    assert len(set(map(len, lines[3:]))) == 1  # numbers end below each other


def test_width_from_the_environment_is_obeyed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show_table("t", [{"title": "long " * 60, "n": 1}, {"title": "b", "n": 2}])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40


def test_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("Nothing", [])
    assert "(no rows)" in capsys.readouterr().out
    show_table("Nothing", [], json=True)
    assert json.loads(capsys.readouterr().out) == {"title": "Nothing", "rows": []}


def test_decimals_are_those_of_the_column(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("t", [{"a": 0.5, "b": 1234.5678, "c": 2e-6, "d": 123456.7, "e": 0.0}])
    assert capsys.readouterr().out.splitlines()[3].split() == [
        "0.5000",
        "1234.57",
        "2.000e-06",
        "123457",
        "0.0000",
    ]


def test_json_is_one_line_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    tables = TableWriter(json=True)
    tables.show("First", ROWS)
    tables.say("Saved.")
    tables.show("Second", [{"x": np.inf}])
    captured = capsys.readouterr()
    first, second = (json.loads(line) for line in captured.out.splitlines())
    assert first["title"] == "First"
    assert first["rows"][0] == {
        "user": 1234567, "title": "[rec] (2007)", "rmse": 0.5, "n": 12, "known": True, "extra": None,
    }  # fmt: skip
    assert first["rows"][1]["rmse"] is None
    assert second["rows"] == [{"x": None}]
    assert captured.err == "Saved.\n"


def test_csv_beside_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = TableWriter(csv=tmp_path / "new" / "out.csv")
    tables.show("First", ROWS)
    tables.show("For user 196", [{"x": 1 / 3}], name="recommendations")
    tables.show("A B!", [{"x": 1}])
    tables.show("A B!", [{"x": 2}])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "out-a-b-2.csv", "out-a-b.csv", "out-recommendations.csv", "out.csv",
    ]  # fmt: skip
    with open(tmp_path / "new" / "out.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert read[1] == {
        "user": "2", "title": "Æon\nFlux", "rmse": "nan", "n": "3", "known": "", "extra": "",
    }  # fmt: skip
    text = (tmp_path / "new" / "out-recommendations.csv").read_text(encoding="utf-8")
    assert float(text.splitlines()[1]) == 1 / 3  # in full precision
    captured = capsys.readouterr()
    assert captured.out.startswith("First\n")
    assert captured.err.count("Note: ") == 4


def test_table_options_give_a_writer(tmp_path: Path) -> None:
    @click.command()
    @click.option("--user", type=int)
    @table_options
    def command(user: int, tables: TableWriter) -> None:
        """Show."""
        note("said aside")
        tables.show("t", [{"user": user}])

    result = CliRunner().invoke(command, ["--user", "3", "--json", "--csv", str(tmp_path / "t.csv")])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == [{"user": 3}]
    assert result.stderr.startswith("Note: said aside\n")
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "user\n3\n"
    assert "--json" in CliRunner().invoke(command, ["--help"]).output


cells = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)


@settings(deadline=None)  # the first table imports rich
@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=5), cells, max_size=4), max_size=4))
def test_any_table_can_be_shown(rows: list[dict[str, object]]) -> None:
    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def command(as_json: bool) -> None:
        show_table("t", rows, json=as_json)

    plain, as_json = CliRunner().invoke(command, []), CliRunner().invoke(command, ["--json"])
    assert plain.exception is None
    assert as_json.exception is None
    assert len(json.loads(as_json.stdout)["rows"]) == len(rows)
