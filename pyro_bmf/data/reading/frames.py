"""Ratings that are in memory already: data frames, Arrow tables, sparse matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ...errors import DataError
from ..raw_columns import RawColumns
from .column_names import Columns
from .foreign import FOREIGN_PARQUET, located
from .layout import table_layout
from .readers import raw_of_table
from .times import with_nanoseconds


def is_table(candidate: object) -> bool:
    """Tell whether something is a table of ratings in memory rather than a name or a path."""
    if isinstance(candidate, (pd.Series, type)):  # a series streams as one column, which is no table
        return False
    return (
        isinstance(candidate, (pd.DataFrame, pa.Table))
        or hasattr(candidate, "__arrow_c_stream__")
        or is_sparse(candidate)
    )


def is_sparse(candidate: object) -> bool:
    """Tell whether something is a sparse matrix or array of SciPy."""
    return type(candidate).__module__.startswith("scipy.sparse") and hasattr(candidate, "tocoo")


def raw_of_frame(frame: Any, columns: Columns | None, name: str) -> RawColumns:
    """Take the rating columns out of a data frame or a sparse matrix; the index of a frame is not read.

    Parameters
    ----------
    frame
        A pandas data frame; an Arrow table or what gives one (a Polars frame); or a sparse matrix, whose
        rows are users, whose columns are items, and whose stored entries, zeros too, are ratings.
    columns
        User, item, rating and perhaps timestamp, by name or by position; None tells them by their names.
    name
        What to call the data in messages.

    Raises
    ------
    DataError
        For columns that cannot be told or used; a missing value is named with its row.
    """
    if is_sparse(frame):
        return _raw_of_sparse(frame, columns, name)
    remedy = "make ids whole numbers or text, ratings numbers, and all of a column alike"
    with located(f"the data frame {name} cannot be read", remedy, FOREIGN_PARQUET):
        table, columns = _arrow(frame, columns, name)
    return raw_of_table(table, columns, name)


def text_column(frame: Any, name: str) -> NDArray[Any] | None:
    """Return a column of text that stands beside the ratings, shape (n,); None where there is none so called.

    A sparse matrix has no columns.
    """
    if is_sparse(frame):
        return None
    if isinstance(frame, pd.DataFrame):
        found = [place for place, label in enumerate(frame.columns) if str(label) == name]
        return frame.iloc[:, found[0]].to_numpy(dtype=object) if found else None
    table = frame if isinstance(frame, pa.Table) else pa.table(frame)
    return table.column(name).to_pandas().to_numpy(dtype=object) if name in table.column_names else None


def _arrow(frame: Any, columns: Columns | None, name: str) -> tuple[pa.Table, Columns | None]:
    if isinstance(frame, pd.DataFrame):
        named = frame.set_axis([str(label) for label in frame.columns], axis="columns")
        repeated = named.columns[named.columns.duplicated()]
        if len(repeated):
            raise DataError(f"the data frame has two columns called {repeated[0]!r}: give each its own name")
        # The columns that are read alone: what others hold is nobody's concern.
        read = table_layout(list(named.columns), columns, name).names
        # Arrow would cut the nanoseconds of single time stamps, and takes no sparse columns.
        parts = {
            label: with_nanoseconds(named[label])
            if named[label].dtype == object
            else named[label].sparse.to_dense()
            if isinstance(named[label].dtype, pd.SparseDtype)
            else named[label]
            for label in read
        }
        # NaN, None and NaT become missing values, which are refused with their row.
        return pa.Table.from_pandas(pd.DataFrame(parts), preserve_index=False), read
    return (frame if isinstance(frame, pa.Table) else pa.table(frame)), columns


def _raw_of_sparse(matrix: Any, columns: Columns | None, name: str) -> RawColumns:
    if columns is not None:
        raise DataError("columns are not for a sparse matrix: its rows are users, its columns items")
    if matrix.format in ("dia", "bsr"):
        raise DataError(
            f"a sparse matrix in {matrix.format!r} format fills up with zeros that are not ratings: give it "
            "in another format, such as tocsr(), with the zeros that are none left out (eliminate_zeros())"
        )
    entries = matrix.tocoo()
    if entries.ndim != 2:
        raise DataError(
            f"{name} has {entries.ndim} dimension(s): a sparse matrix of users by items is needed"
        )
    users, items = np.asarray(entries.row, np.int64), np.asarray(entries.col, np.int64)
    if entries.data.dtype.kind not in "fiub":
        raise DataError(f"ratings are of type {entries.data.dtype}: they must be numbers")
    return RawColumns(
        users,
        np.arange(entries.shape[0]),
        items,
        np.arange(entries.shape[1]),
        entries.data.astype(np.float64),
        None,
        lambda entry: f"row {users[entry]} and column {items[entry]} of {name}",
    )
