"""Splits as files that anyone can read."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
from numpy.typing import NDArray

from ..errors import DataError, PyroBmfError, SavedFileError
from ..files import temporary_folder, write_error, write_json
from .ratings import Ratings
from .reading import times
from .reading.counts import ReadCounts
from .reading.layout import Given
from .reading.readers import read_raw
from .scale import RatingScale
from .splits import PARTS, Split
from .vocabulary import Vocabulary

_FORMAT, _VERSION = "pyro-bmf split", 1


def write_split(split: Split, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a split as CSV files: train, valid and test, the users, the items, and ``split.json``.

    ``train.csv``, ``valid.csv``, ``test.csv`` hold user_id, item_id, rating and, if there are any, timestamp.
    ``users.csv`` and ``items.csv`` (with titles) hold every raw id, those without a rating too. All files are
    written to a temporary folder beside `folder`, which is then renamed.

    Parameters
    ----------
    split
        The split.
    folder
        Where to; made anew.
    overwrite
        Replace a split that lies there.

    Returns
    -------
    folder
        The folder.

    Raises
    ------
    DataError
        When the folder exists and holds something else than this very split.
    """
    target = Path(folder)
    if _stands(target, split, overwrite):
        return target
    ratings = split.ratings
    with _reported(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with _reported(target), temporary_folder(target) as inside:
        temporary = inside / "content"
        temporary.mkdir()
        for part in PARTS:
            _write_part(temporary / f"{part}.csv", getattr(split, part))
        _write_ids(temporary / "users.csv", "user_id", ratings.user_vocabulary, None)
        _write_ids(temporary / "items.csv", "item_id", ratings.item_vocabulary, ratings.item_titles)
        write_json(
            temporary / "split.json",
            {
                "format": _FORMAT,
                "version": _VERSION,
                "name": ratings.name,
                "scheme": split.scheme,
                "settings": split.settings,
                "hash": split.hash,
                "data_hash": ratings.data_hash,
                "scale": ratings.scale.to_dict(),
                "user_ids": "integer" if ratings.user_vocabulary.is_integer else "text",
                "item_ids": "integer" if ratings.item_vocabulary.is_integer else "text",
                "timestamps": ratings.timestamps is not None,
                "ticks_per_second": ratings.ticks_per_second,
                "titles": ratings.item_titles is not None,
                "counts": {part: len(rows) for part, rows in split.rows.items()},
            },
        )
        temporary.chmod(0o755)
        _replace(temporary, inside / "old", target)
    return target


def read_split(folder: str | Path) -> Split:
    """Read a split that `write_split` wrote; its hash is the same, or it is refused.

    Raises
    ------
    SavedFileError
        When a file is missing, of another format version, or was changed.
    """
    folder = Path(folder)
    content = _read_description(folder)
    try:
        scale = RatingScale.from_dict(content["scale"])
        text = (content["user_ids"] == "text", content["item_ids"] == "text")
        users, _ = _read_ids(folder / "users.csv", "user", text[0])
        items, titles = _read_ids(folder / "items.csv", "item", text[1])
        names = "user_id,item_id,rating" + (",timestamp" if content["timestamps"] else "")
        parts = []
        for part in PARTS:
            if content["counts"][part]:
                raw = read_raw(
                    folder / f"{part}.csv",
                    Given("csv", names, header=True),
                    text_ids=(text[0], text[1]),
                    line_ends=True,
                )
                if len(raw) != content["counts"][part]:
                    raise SavedFileError(
                        f"{folder / part}.csv holds {len(raw)} ratings instead of "
                        f"{content['counts'][part]}: it was changed; write the split again"
                    )
                parts.append((part, raw))
        user_index = np.concatenate([users.index(raw.user_ids)[raw.user_codes] for _, raw in parts])
        item_index = np.concatenate([items.index(raw.item_ids)[raw.item_codes] for _, raw in parts])
        order = np.lexsort((item_index, user_index))
        timestamps, ticks = None, 1
        if content["timestamps"]:
            stamps, ticks = times.alike(
                [(_present(raw.timestamps, folder), raw.ticks_per_second) for _, raw in parts]
            )
            timestamps = np.concatenate(stamps)[order]
        ratings = Ratings(
            user_index[order],
            item_index[order],
            np.concatenate([raw.ratings for _, raw in parts])[order],
            timestamps,
            users,
            items,
            scale,
            titles if content["titles"] else None,
            str(content["name"]),
            ticks,
            ReadCounts.total([raw.counts or ReadCounts.of_rows(len(raw)) for _, raw in parts]),
        )
        labels = np.concatenate([np.full(len(raw), PARTS.index(part)) for part, raw in parts])[order]
        rows = [np.flatnonzero(labels == code) for code in range(len(PARTS))]
        split = Split(ratings, rows[0], rows[1], rows[2], str(content["scheme"]), dict(content["settings"]))
    except (KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
        if isinstance(error, SavedFileError):
            raise
        raise SavedFileError(f"the split in {folder} is damaged ({error}): write it again") from None
    if split.hash != content["hash"]:
        raise SavedFileError(
            f"the files of the split in {folder} were changed: their hash is {split.hash[:16]}..., "
            "split.json says "
            f"{str(content['hash'])[:16]}...; write the split again, or use the files as given ones "
            "(train, valid, test)"
        )
    return split


def holds_split_alone(folder: Path) -> bool:
    """Tell whether a folder holds a split that `write_split` wrote, and nothing beside it."""
    own = {*(f"{part}.csv" for part in PARTS), "users.csv", "items.csv", "split.json", "truth.npz"}
    try:
        _read_description(folder)
        return {path.name for path in folder.iterdir()} <= own
    except (SavedFileError, OSError):
        return False


def _stands(target: Path, split: Split, overwrite: bool) -> bool:
    """Tell whether this very split lies there already; raise when something else does."""
    if not target.exists():
        return False
    if not target.is_dir():
        raise DataError(f"{target} is a file: name a folder for the split")
    if not any(target.iterdir()):
        return False
    try:
        found = _read_description(target)["hash"]
    except (SavedFileError, KeyError):
        raise DataError(f"{target} is not empty and holds no split: name another folder") from None
    if overwrite:
        return False
    if found == split.hash:
        return read_split(target).hash == split.hash
    raise DataError(
        f"{target} holds another split ({str(found)[:12]}): name another folder, or replace it "
        "(--overwrite, in Python overwrite=True)"
    )


@contextmanager
def _reported(target: Path) -> Iterator[None]:
    try:
        yield
    except PyroBmfError:
        raise
    except OSError as error:
        raise DataError(f"the split {write_error(target, error.errno or errno.EIO)}") from None


def _replace(temporary: Path, old: Path, target: Path) -> None:
    if target.is_dir() and any(target.iterdir()):
        target.replace(old)
    temporary.replace(target)


def _write_part(path: Path, part: Ratings) -> None:
    columns = {
        "user_id": _id_column(part.user_vocabulary, part.users),
        "item_id": _id_column(part.item_vocabulary, part.items),
        "rating": pa.array(part.ratings),
    }
    if part.timestamps is not None:
        columns["timestamp"] = _seconds(part.timestamps, part.ticks_per_second)
    _write_csv(path, pa.table(columns))


def _seconds(stamps: NDArray[np.int64], ticks: int) -> pa.Array:
    """Return timestamps in seconds: whole numbers, or exact decimals where they have fractions."""
    whole = pa.array(stamps)
    if ticks == 1:
        return whole
    digits = len(str(ticks)) - 1
    # The same digits with the point elsewhere: an int64 has at most 19.
    words = np.stack((stamps, stamps >> 63), axis=1).astype("<i8")
    kind = pa.decimal128(38, digits)
    return pa.Array.from_buffers(kind, len(stamps), [None, pa.py_buffer(words.tobytes())]).cast(pa.string())


def _write_ids(path: Path, name: str, vocabulary: Vocabulary, titles: NDArray[Any] | None) -> None:
    columns = {name: _id_column(vocabulary, np.arange(len(vocabulary)))}
    if titles is not None:
        columns["title"] = pa.array(titles, pa.string())
    _write_csv(path, pa.table(columns))


def _id_column(vocabulary: Vocabulary, indices: NDArray[np.int64]) -> pa.Array:
    return pa.array(vocabulary.ids, pa.int64() if vocabulary.is_integer else pa.string()).take(
        pa.array(indices)
    )


def _write_csv(path: Path, table: pa.Table) -> None:
    # Numbers are written with as many digits as bring back the same number.
    with open(path, "wb") as file:
        pcsv.write_csv(table, file)


def _read_ids(path: Path, kind: str, as_text: bool) -> tuple[Vocabulary, NDArray[Any] | None]:
    types = {f"{kind}_id": pa.string() if as_text else pa.int64(), "title": pa.string()}
    table = pcsv.read_csv(
        path,
        parse_options=pcsv.ParseOptions(newlines_in_values=True),
        convert_options=pcsv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
    )
    ids = table.column(f"{kind}_id").to_numpy()
    titles = None
    if "title" in table.column_names:
        titles = np.array(table.column("title").to_pylist(), dtype=object)
    return Vocabulary(ids.astype(object) if as_text else ids, kind), titles


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "split.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise SavedFileError(f"{folder} holds no split: there is no {path.name} to read") from None
    except ValueError as error:
        raise SavedFileError(f"{path} is damaged ({error}): write the split again") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise SavedFileError(f"{path} does not describe a split of pyro-bmf")
    if content.get("version") != _VERSION:
        raise SavedFileError(
            f"{path} is of version {content.get('version')!r}, this software reads {_VERSION}: write the "
            "split again"
        )
    return content


def _present(timestamps: NDArray[np.int64] | None, folder: Path) -> NDArray[np.int64]:
    if timestamps is None:
        raise SavedFileError(f"the split in {folder} lacks its timestamps: write it again")
    return timestamps
