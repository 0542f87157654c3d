"""Files of ids and of ratings that commands take: CSV, TSV or parquet, columns by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_bmf.errors import DataError, UnknownIdError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pyro_bmf.data import RatingScale, Vocabulary

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

# Names that a column may have beside the plain one.
_ALIASES = {
    "user_id": ("user_id", "userid", "user"),
    "item_id": ("item_id", "itemid", "item", "movieid", "movie_id"),
    "rating": ("rating", "stars", "score"),
}


def read_table(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read the columns, as text, from a CSV (or TSV, or parquet) file with a header.

    A CSV file for a single column may be without its header: one value a line.

    Raises
    ------
    DataError
        If a column is missing, a value is, or there are no rows.
    """
    import pandas as pd

    table = _read(path)
    taken: dict[str, Any] = {}
    lowered = {str(name).strip().lower(): name for name in reversed(list(table.columns))}
    for column in (*columns, *optional):
        name = next((lowered[alias] for alias in _ALIASES[column] if alias in lowered), None)
        if name is not None:
            taken[column] = table[name]
    missing = [column for column in columns if column not in taken]
    if missing and len(columns) == 1 and len(table.columns) == 1 and path.suffix != ".parquet":
        header = str(table.columns[0])  # the first line is an id itself
        taken = {columns[0]: pd.concat([pd.Series([header], dtype=object), table.iloc[:, 0]])}
    elif missing:
        raise DataError(
            f"{path} has no column {' and no column '.join(missing)}: its first line must name them, as in "
            f"'{','.join(columns)}' (it has {', '.join(map(str, table.columns)) or 'nothing'})."
        )
    result = pd.DataFrame({name: _texts(values) for name, values in taken.items()})
    if len(result) == 0:
        raise DataError(f"{path} holds no rows: give at least one line below the header.")
    for name in result:
        empty = (result[name] == "").to_numpy()
        if empty.any():
            raise DataError(
                f"{path}: row {int(empty.argmax()) + 1} has no {name}: fill it in or leave it out."
            )
    return result


def parse_ids(texts: Any, vocabulary: Vocabulary, source: Path | None = None) -> NDArray[Any]:
    """Turn ids as they were typed or read into raw ids of the vocabulary's own type.

    Parameters
    ----------
    texts : sequence of str
    vocabulary : Vocabulary
    source : Path, optional
        The file whose rows they are.

    Raises
    ------
    UnknownIdError
        Naming those that are not known, and the first one's row in the file.
    """
    try:
        return _parsed(texts, vocabulary)
    except UnknownIdError as error:
        if source is None:
            raise
        known = set(map(str, vocabulary.ids.tolist()))
        stripped = [str(text).strip() if vocabulary.is_integer else str(text) for text in texts]
        row = next(row for row, text in enumerate(stripped, 1) if text not in known)
        raise UnknownIdError(f"{source}, row {row}: {error}") from None


def _parsed(texts: Any, vocabulary: Vocabulary) -> NDArray[Any]:
    import numpy as np

    ids = np.empty(len(texts), dtype=object)
    ids[:] = [str(text) for text in texts]
    if not vocabulary.is_integer:
        vocabulary.index(ids)
        return ids
    import pandas as pd

    ids[:] = [text.strip() for text in ids]
    # As `Vocabulary.parse`: an id is written in one way only, so 007 or 7.0 is not 7.
    whole = pd.Series(ids, dtype=object).str.fullmatch(r"-?(0|[1-9][0-9]{0,17})").to_numpy(dtype=bool)
    if not whole.all():
        wrong = list(dict.fromkeys(ids[~whole]))
        raise UnknownIdError(
            f"unknown {vocabulary.kind} id{'s' if len(wrong) > 1 else ''} "
            f"{', '.join(map(repr, wrong[:5]))}{' ...' if len(wrong) > 5 else ''}: {vocabulary.kind} ids of "
            "this run are integers."
        )
    parsed: NDArray[Any] = ids.astype(np.int64)
    vocabulary.index(parsed)
    return parsed


def parse_ratings(texts: Any, path: Path | str) -> NDArray[Any]:
    """Turn ratings as they were typed or read into numbers.

    Raises
    ------
    DataError
        Naming the first that is none.
    """
    import pandas as pd

    numbers: NDArray[Any] = pd.to_numeric(pd.Series(list(texts), dtype=object), errors="coerce").to_numpy(
        dtype=float
    )
    wrong = numbers != numbers  # not-a-number is no rating either
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{path}: the rating {str(texts[row])!r} in row {row + 1} is not a number.")
    return numbers


def check_new_ratings(ratings: pd.DataFrame, scale: RatingScale, file: Path | None) -> None:
    """Refuse a rating off the scale, and a second one of a pair, by where it stands.

    Parameters
    ----------
    ratings : DataFrame
        One or two columns of ids, and ``rating``.
    scale : RatingScale
    file : Path, optional
        That they were read from; else they were typed (``--rating``).

    Raises
    ------
    DataError
        Naming the first.
    """

    def place(row: int) -> str:
        typed = f"--rating {ratings[ids[-1]].iloc[row]}={ratings['rating'].iloc[row]:g}"
        return typed if file is None else f"{file}, row {row + 1}"

    ids = [str(name) for name in ratings.columns if name != "rating"]
    off = scale.off_scale(ratings["rating"].to_numpy())
    if off.any():
        row = int(off.argmax())
        value = ratings["rating"].iloc[row]
        raise DataError(
            f"{place(row)}: the rating {value:g} is not on the rating scale {scale}: correct it, or leave it "
            "out."
        )
    again = ratings.duplicated(ids).to_numpy()
    if again.any():
        row = int(again.argmax())
        same = (ratings[ids] == ratings[ids].iloc[row]).all(axis=1).to_numpy()
        pair = " and ".join(f"{name.removesuffix('_id')} {ratings[name].iloc[row]}" for name in ids)
        raise DataError(
            f"{place(row)}: {pair} {'has' if len(ids) == 1 else 'have'} a rating already "
            f"({place(int(same.argmax()))}): leave one of the two out."
        )


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    from pyro_bmf.data.reading.foreign import FOREIGN_PARQUET, reason

    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        separator = "\t" if path.suffix in (".tsv", ".tab") else ","
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FOREIGN_PARQUET as error:  # pandas' own are ValueErrors
        raise DataError(
            f"{path} cannot be read ({reason(error)}): give a CSV, TSV or parquet file with a header."
        ) from error
    if not isinstance(table.index, pd.RangeIndex):  # the first field was taken for a name of the row
        raise DataError(
            f"{path}: its lines have more fields than the first line, which names {', '.join(table.columns)}"
            ": name every column there."
        )
    return table


def _texts(values: Any) -> list[str]:
    """Return a column's values as text exactly as they are written, "" where one is missing."""
    return ["" if value is None or value != value else str(value) for value in values.tolist()]
