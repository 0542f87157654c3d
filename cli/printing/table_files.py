"""Tables written as CSV or parquet files, whole or a part at a time, never half."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyro_bmf.files import atomic_write

from .outputs import OutputPath
from .text import guarded

if TYPE_CHECKING:
    import pandas as pd


def _known_suffix(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix not in (".csv", ".parquet"):
        raise click.BadParameter(f"{str(value)!r}: the name must end in .csv or .parquet", param=parameter)
    return value


out_option = click.option(
    "--out",
    type=OutputPath(),
    callback=_known_suffix,
    metavar="FILE",
    help="Write the table to FILE.csv or FILE.parquet instead of the screen.",
)


def write_parts(path: Path, parts: Iterable[pd.DataFrame], *, safe: bool = False) -> int:
    """Write the parts of one table, holding one at a time; the file appears when it is whole.

    With `safe` text that a spreadsheet would take for a formula is guarded in CSV.

    Returns
    -------
    int
        Number of rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    with atomic_write(path) as temporary:
        if path.suffix == ".csv":
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                for number, part in enumerate(parts):
                    if safe:
                        part = part.map(guarded)
                    part.to_csv(file, index=False, header=number == 0, lineterminator="\n")
                    rows += len(part)
            return rows
        writer: pq.ParquetWriter | None = None
        try:
            for part in parts:
                # Types by the columns' names, not by what a part holds: it may be empty.
                table = pa.Table.from_pandas(part, preserve_index=False, schema=_schema(part))
                if writer is None:
                    writer = pq.ParquetWriter(temporary, table.schema)
                writer.write_table(table)
                rows += len(part)
        finally:
            if writer is not None:
                writer.close()
    return rows


def _schema(part: pd.DataFrame) -> object:
    import pyarrow as pa

    kinds = {"i": pa.int64(), "u": pa.int64(), "f": pa.float64()}
    return pa.schema([(str(name), kinds.get(part[name].dtype.kind, pa.string())) for name in part.columns])
