"""What every command prints: tables for people on the screen, the same tables as JSON or CSV for programs.

Standard output carries results and nothing else, so that ``--json`` can be piped; notes go to standard error.
"""

from __future__ import annotations

import csv as csv_module
import errno
import io
import json as json_module
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from numbers import Integral, Real
from pathlib import Path
from typing import IO, Any

import click

from pyro_bmf.files import atomic_write, is_stream, open_stream, write_error

from .option_groups import option
from .outputs import OutputPath, check_outputs
from .text import guarded, json_shown, shown

Row = Mapping[str, object]

_TABLES = "Printing"
_MISSING = "–"
_GAP = 3  # between two columns
_NARROWEST = 20  # below which no table can be read
_STDOUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_PIPE_WIDTH = 120  # beyond which a table that is not on a terminal counts as too wide


def note(text: str) -> None:
    """Tell the user something on standard error, as one line ``Note: …``."""
    click.echo(f"Note: {shown(one_line(text))}", err=True)


def one_line(text: str) -> str:
    """Return `text` with its line breaks, and the blanks around them, made into single spaces."""
    return re.sub(r"\s*\n\s*", " ", text.strip())


def show_table(
    title: str,
    rows: Sequence[Row],
    *,
    json: bool = False,
    csv: Path | str | IO[bytes] | None = None,
    csv_safe: bool = False,
    screen: Sequence[Row] | None = None,
    people: bool = True,
) -> None:
    """Print one table, as a table or as one line of JSON, and write it as CSV too when asked.

    Parameters
    ----------
    title
        What the table holds; say which data, which part of a split, which kind of prediction.
    rows
        One mapping a row. The columns are the keys in the order in which they first appear; a key that a
        row lacks is an empty cell (null in JSON). NumPy scalars are welcome.
    json
        Print ``{"title": …, "rows": […]}`` on one line instead of the table: a command that shows several
        tables gives JSON lines. Not-a-number and infinities become null, as JSON has neither.
    csv
        Write the table to this file as well, in full precision, with a header.
    csv_safe
        Put an apostrophe before text that a spreadsheet would take for a formula.
    screen
        What people are shown instead of `rows`: fewer columns, in words.
    people
        Whether it is printed where it is not printed as JSON.
    """
    columns = _columns(rows)
    cells = [[_plain(row.get(column)) for column in columns] for row in rows]
    if csv is not None:
        _write_csv(csv, columns, cells, safe=csv_safe)
    if json:
        records = [
            {column: _finite(value) for column, value in zip(columns, line, strict=True)} for line in cells
        ]
        content = {"title": title, "rows": records}
        click.echo(json_shown(json_module.dumps(content, ensure_ascii=False, allow_nan=False, default=str)))
        return
    if not people:
        return
    if screen is not None:
        columns = _columns(screen)
        cells = [[_plain(row.get(column)) for column in columns] for row in screen]
    click.echo(_render(title, columns, cells), nl=False)


class TableWriter:
    """Where one run of a command shows its tables; `table_options` gives it to the command.

    Parameters
    ----------
    json
        Whether tables are printed as JSON lines.
    csv
        The file for the first table. Each later one goes beside it, its name added before the suffix:
        ``out.csv``, ``out-recommendations.csv``. A device or a pipe gets all of them, one after the other
        with an empty line between; standard output gets them instead of what people read.
    csv_safe
        Whether text that a spreadsheet would take for a formula is guarded.
    """

    def __init__(self, *, json: bool = False, csv: Path | None = None, csv_safe: bool = False) -> None:
        self.json = json
        self.csv = csv
        self.csv_safe = csv_safe
        self._stream: IO[bytes] | None = None
        self.on_stdout = csv is not None and os.path.normpath(csv) in _STDOUT
        self._written: set[Path] = set()
        self._shown = False

    def show(
        self,
        title: str,
        rows: Sequence[Row],
        *,
        name: str | None = None,
        screen: Sequence[Row] | None = None,
        people: bool = True,
    ) -> None:
        """Show a table as the options ask; `name` (else the title) marks its CSV file.

        `screen` is what people are shown instead, where `rows` are more than a screen holds; without
        `people` the table is for programs alone, as JSON and as CSV where these were asked for.
        """
        if self.csv is not None and is_stream(self.csv):
            self._show_stream(self.csv, title, rows, screen, people)
            return
        if self._shown and not self.json:
            click.echo()
        self._shown = True
        path = None if self.csv is None else self._next_path(self.csv, name or title)
        show_table(
            title, rows, json=self.json, csv=path, csv_safe=self.csv_safe, screen=screen, people=people
        )
        if path is not None:
            note(f"{title}: written to {path}.")

    def _show_stream(
        self, csv: Path, title: str, rows: Sequence[Row], screen: Sequence[Row] | None, people: bool
    ) -> None:
        """Write a table to a device or a pipe, which stays open: else a pipe's reader would go."""
        try:
            if self._stream is None:
                sys.stdout.flush()
                self._stream = open_stream(csv)
            elif self._shown:
                self._stream.write(b"\n")
            columns = _columns(rows)
            cells = [[_plain(row.get(column)) for column in columns] for row in rows]
            _write_csv(self._stream, columns, cells, safe=self.csv_safe)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_error(csv, error.errno or errno.EIO) from error
        if not self.on_stdout:
            if self._shown and not self.json:
                click.echo()
            show_table(title, rows, json=self.json, screen=screen, people=people)
        self._shown = True

    def close(self) -> None:
        """Close a pipe that was written to."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()

    def say(self, text: str) -> None:
        """Print a line that belongs to the result: to standard error, where tables are for programs."""
        click.echo(shown(text, keep="\n"), err=self.json or self.on_stdout)

    def _next_path(self, first: Path, name: str) -> Path:
        path = first
        if self._written:
            slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "table"
            path = first.with_name(f"{first.stem}-{slug}{first.suffix}")
            number = 2
            while path in self._written:
                path = first.with_name(f"{first.stem}-{slug}-{number}{first.suffix}")
                number += 1
        self._written.add(path)
        return path


def table_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command ``--json`` and ``--csv FILE``, and one argument `tables`, a `TableWriter`.

    Put it below ``@click.command()``, among the options::

        @click.command()
        @table_options
        def command(tables: TableWriter) -> None:
            tables.show("Named data sets", rows)
    """

    @option(
        "--json",
        "as_json",
        is_flag=True,
        group=_TABLES,
        common=True,
        help="Print tables as JSON, one line a table.",
    )
    @option(
        "--csv",
        "csv_path",
        type=OutputPath(),
        metavar="FILE",
        group=_TABLES,
        common=True,
        help="Also write the table to FILE as CSV, further ones beside it; /dev/stdout takes CSV instead of "
        "tables for people.",
    )
    @option(
        "--csv-safe",
        is_flag=True,
        group=_TABLES,
        help="In CSV, put an apostrophe before text that begins with =, +, -, @, a tab or a carriage return, "
        "which a spreadsheet would take for a formula.",
    )
    @wraps(function)
    def with_tables(*args: Any, as_json: bool, csv_path: Path | None, csv_safe: bool, **kwargs: Any) -> Any:
        context = click.get_current_context()
        check_outputs(context)
        if csv_safe and csv_path is None and getattr(context.params.get("out"), "suffix", "") != ".csv":
            raise click.UsageError("--csv-safe is about CSV files: give --csv FILE, or leave it out.")
        tables = TableWriter(json=as_json, csv=csv_path, csv_safe=csv_safe)
        if as_json and tables.on_stdout:
            raise click.UsageError("--json and --csv /dev/stdout would both be printed: choose one.")
        try:
            return function(*args, tables=tables, **kwargs)
        finally:
            tables.close()

    return with_tables


def _columns(rows: Sequence[Row]) -> list[str]:
    """Return the keys of all rows, each once, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _plain(value: object) -> object:
    """Return a Python scalar for a NumPy one (known by its numeric tower or ``item``), else the value."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(
    target: Path | str | IO[bytes],
    columns: Sequence[str],
    cells: Sequence[Sequence[object]],
    *,
    safe: bool,
) -> None:
    if safe:
        cells = [[guarded(cell) for cell in line] for line in cells]
    lines = _Lines()
    # With this end of a line both of its characters are quoted within a cell.
    writer = csv_module.writer(lines, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(cells)
    content = "".join(lines.content).encode("utf-8", "surrogatepass")
    if not isinstance(target, (str, Path)):
        target.write(content)
        return
    with atomic_write(target) as temporary:
        temporary.write_bytes(content)


def _render(title: str, columns: Sequence[str], cells: Sequence[Sequence[object]]) -> str:
    """Return the table as text, with colour codes only where the output is a terminal.

    A table that is too wide and has more columns than rows is laid on its side: one row a column, under the
    first column's values.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    asked, terminal = _asked_width(), sys.stdout.isatty()
    width = asked or (max(shutil.get_terminal_size().columns, _NARROWEST) if terminal else _PIPE_WIDTH)
    # A file or a pipe has no edge to wrap at.
    edge = width if asked or terminal else 10_000
    console = Console(file=io.StringIO(), width=edge, force_terminal=terminal)
    by_column = [[line[position] for line in cells] for position in range(len(columns))]
    numeric = [any(map(_is_number, values)) and all(map(_is_number_or_none, values)) for values in by_column]
    texts = [_format_column(values) for values in by_column]
    headers: Sequence[str] = [shown(str(column)) for column in columns]
    lines = [list(line) for line in zip(*texts, strict=True)]
    if _width(columns, lines) > width and len(columns) > len(lines) + 1:
        names = headers
        headers = [names[0], *texts[0]]
        lines = [[column, *line] for column, line in zip(names[1:], texts[1:], strict=True)]
        numeric = [False] + [any(numeric[1:])] * len(texts[0])
    # Text, not str: a film called "[rec]" is no markup.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header, right in zip(headers, numeric, strict=True):
        table.add_column(Text(header), justify="right" if right else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    with console.capture() as captured:
        console.print(Text(shown(title), style="italic"))  # not the table's own, which wraps at its width
        console.print(table)
        if not cells:
            console.print(Text("(no rows)"))
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


class _Lines:
    """Takes lines of CSV, which end as text does here."""

    def __init__(self) -> None:
        self.content: list[str] = []

    def write(self, line: str) -> None:
        """Take one line."""
        self.content.append(line.removesuffix("\r\n") + "\n")


def _asked_width() -> int | None:
    """Return the width that COLUMNS asks for; what is no number, or too narrow for a table, is left aside."""
    text = os.environ.get("COLUMNS", "")
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        return None
    return int(text) if int(text) >= _NARROWEST else None


def _width(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> int:
    """Return how wide a table is when nothing in it is wrapped."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, texts)) for texts in zip(headers, *lines, strict=True)]
    return sum(widths) + _GAP * max(len(widths) - 1, 0)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_number_or_none(value: object) -> bool:
    return value is None or _is_number(value)


def _format_column(values: Sequence[object]) -> list[str]:
    """Format a column as one: all its floats with the same number of decimals."""
    sizes = [abs(value) for value in values if isinstance(value, float) and math.isfinite(value)]
    largest = max(sizes, default=0.0)
    if largest != 0.0 and largest < 1e-3:
        spec = ".3e"
    else:
        spec = ".4f" if largest < 100 else ".2f" if largest < 1e5 else ".0f"
    return [_format(value, spec) for value in values]


def _format(value: object, spec: str) -> str:
    if value is None:
        return _MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _MISSING if math.isnan(value) else format(value, spec)
    return shown(str(value))  # an integer may be an id: no thousands separators
