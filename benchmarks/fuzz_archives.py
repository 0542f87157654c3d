"""Damage packed files, zip archives and parquet files: each must give the same ratings or one error.

Ratings are drawn, written, damaged (bits flipped, bytes cut, put in, overwritten, headers and ends edited)
and read again. What comes is compared with the ratings that were written:

same      the very ratings
refused   a `DataError`
silent    other ratings without an error
foreign   an exception that is not the project's own
hang      nothing within the time limit
crash     the process ended

The exit code is 1 for a foreign exception, a hang, a crash, or a silent change of a packed file, whose
checksums are there to show it.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import multiprocessing
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pyro_bmf.data import load_ratings
from pyro_bmf.data.reading.archives import unpack
from pyro_bmf.errors import DataError

try:
    import zstandard  # writes checksums, which Arrow does not
except ImportError:
    zstandard = None

SCALE = "1:5:1"
PACKED = ("zip", "gz", "bz2", "xz", "zst")
#: Kinds in which every byte that tells of a rating is under a checksum.
CHECKED = {"zip", "gz", "bz2", "xz"} | ({"zst"} if zstandard else set())


def drawn(rng: np.random.Generator) -> dict[str, list[Any]]:
    """Draw a table of ratings."""
    n_users, n_items = int(rng.integers(3, 40)), int(rng.integers(3, 40))
    n = int(rng.integers(4, n_users * n_items + 1))
    cells = rng.permutation(n_users * n_items)[:n]
    cells = np.union1d(cells, [0, n_items + 1])  # at least two users and two items
    n = len(cells)
    users = [f"u{k}" for k in cells // n_items] if rng.random() < 0.5 else (cells // n_items).tolist()
    return {
        "user": users,
        "item": (cells % n_items + 1000).tolist(),
        "rating": rng.integers(1, 6, n).astype(float).tolist(),
        "timestamp": rng.integers(10**9, 2 * 10**9, n).tolist(),
    }


def text_of(table: dict[str, list[Any]]) -> bytes:
    """Write a table as CSV."""
    rows = zip(*table.values(), strict=True)
    return ("user,item,rating,timestamp\n" + "".join(f"{u},{i},{r:g},{t}\n" for u, i, r, t in rows)).encode()


def packed(kind: str, text: bytes, rng: np.random.Generator) -> bytes:
    """Pack text, now and then as two streams."""
    if kind == "zip":
        sink = io.BytesIO()
        method = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
        with zipfile.ZipFile(sink, "w", method[int(rng.integers(4))]) as archive:
            archive.writestr("set/readme.txt", "about")
            archive.writestr("set/r.csv", text)
        return sink.getvalue()
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": _zst,
    }
    if rng.random() < 0.2:
        cut = int(rng.integers(1, len(text)))
        return pack[kind](text[:cut]) + pack[kind](text[cut:])
    return pack[kind](text)


def _zst(data: bytes) -> bytes:
    if zstandard is not None:
        written: bytes = zstandard.ZstdCompressor(write_checksum=True).compress(data)
        return written
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(data)
    return bytes(sink.getvalue().to_pybytes())


def parquet(table: dict[str, list[Any]], rng: np.random.Generator, checksums: bool) -> bytes:
    """Write a table as parquet, with settings drawn."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(table),
        sink,
        compression=["none", "snappy", "zstd", "gzip"][int(rng.integers(4))],
        use_dictionary=bool(rng.integers(2)),
        data_page_version=["1.0", "2.0"][int(rng.integers(2))],
        row_group_size=[50, 10_000][int(rng.integers(2))],
        write_page_checksum=checksums,
    )
    return bytes(sink.getvalue().to_pybytes())


def damaged(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Damage bytes in one way; return them and the way's name."""
    made = bytearray(data)
    ways = ("flip", "flips", "truncate", "insert", "delete", "header", "end", "zeros", "repeat", "append")
    way = ways[int(rng.integers(len(ways)))]
    place = int(rng.integers(len(made)))
    length = int(rng.integers(1, 40))
    noise = rng.bytes(length)
    if way in ("flip", "flips"):
        for at in rng.integers(len(made), size=1 if way == "flip" else 4):
            made[at] ^= 1 << int(rng.integers(8))
    elif way == "truncate":
        del made[place:]
    elif way == "insert":
        made[place:place] = noise
    elif way == "delete":
        del made[place : place + length]
    elif way == "header":
        at = int(rng.integers(min(40, len(made))))
        made[at : at + 2] = noise[:2]
    elif way == "end":
        at = len(made) - 1 - int(rng.integers(min(80, len(made))))
        made[at] = noise[0]
    elif way == "zeros":
        made[place : place + length] = bytes(len(made[place : place + length]))
    elif way == "repeat":
        made[place:place] = made[place : place + length]
    else:
        made += noise
    return bytes(made), way


def outcome(read: Callable[[], str], expected: str) -> str:
    """Read and say what came."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "same" if read() == expected else "silent"
    except DataError:
        return "refused"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"foreign {type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {error}"


def case(kind: str, seed: int, number: int, folder: Path) -> tuple[str, str]:
    """Run one case; return the kind (with checksums or not) and the outcome."""
    rng = np.random.default_rng([seed, number, sum(kind.encode())])
    table = drawn(rng)
    plain = folder / "plain.csv"
    plain.write_bytes(text_of(table))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = load_ratings(plain, scale=SCALE).data_hash
    if kind == "parquet":
        checksums = bool(rng.integers(2))
        content = parquet(table, rng, checksums)
        kind = f"parquet {'with' if checksums else 'without'} checksums"
        path = folder / "r.parquet"
    else:
        content = packed(kind, plain.read_bytes(), rng)
        path = folder / f"r.{'zip' if kind == 'zip' else f'csv.{kind}'}"
    content, way = damaged(content, rng)
    path.write_bytes(content)

    def read() -> str:
        target = path
        if kind == "zip":
            with tempfile.TemporaryDirectory(dir=folder) as out:
                where = unpack(path, Path(out) / "unpacked", lambda name: name == "set/r.csv")
                target = where / "set" / "r.csv"
                if not target.is_file():
                    raise DataError("the archive does not hold the file")
                return load_ratings(target, scale=SCALE).data_hash
        return load_ratings(target, scale=SCALE).data_hash

    return kind, f"{outcome(read, expected)}|{way}"


def _work(kinds: list[str], seed: int, first: int, pipe: Connection) -> None:
    with tempfile.TemporaryDirectory() as name:
        for number in range(first, len(kinds)):
            pipe.send((number, *case(kinds[number], seed, number, Path(name))))
    pipe.send(None)


def run(kinds: list[str], seed: int, limit: float) -> Counter[tuple[str, str, str]]:
    """Run all cases in a process of their own, which is replaced when it hangs or ends."""
    counts: Counter[tuple[str, str, str]] = Counter()
    context = multiprocessing.get_context("fork")
    done = 0
    while done < len(kinds):
        ours, theirs = context.Pipe()
        worker = context.Process(target=_work, args=(kinds, seed, done, theirs))
        worker.start()
        theirs.close()
        while True:
            try:
                message = ours.recv() if ours.poll(limit) else "hang"
            except EOFError:
                message = "crash"
            if message is None:
                break
            if isinstance(message, str):
                print(f"{message}: {kinds[done]} {done} of seed {seed}", file=sys.stderr)
                counts[kinds[done], message, ""] += 1
                done += 1
                break
            number, kind, found = message
            what, way = found.rsplit("|", 1)
            if what.startswith("foreign"):
                print(f"{what} ({kind} {number} of seed {seed})", file=sys.stderr)
                what = "foreign"
            counts[kind, what, way] += 1
            done = number + 1
        worker.kill()
        worker.join()
    return counts


def main() -> int:
    """Run, print the counts, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archives", type=int, default=2000, help="Packed files and zip archives.")
    parser.add_argument("--parquet", type=int, default=2000, help="Parquet files.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=30.0, help="Seconds that one file may take.")
    parser.add_argument("--json", type=Path, help="File that takes the counts.")
    options = parser.parse_args()
    kinds = [PACKED[k % len(PACKED)] for k in range(options.archives)] + ["parquet"] * options.parquet
    counts = run(kinds, options.seed, options.limit)
    table: dict[str, dict[str, int]] = {}
    for (kind, what, _), count in sorted(counts.items()):
        row = table.setdefault(kind, {})
        row[what] = row.get(what, 0) + count
    for kind, row in table.items():
        print(f"{kind:28s} " + "  ".join(f"{what} {count}" for what, count in row.items()))
    silent = {f"{kind}, {way}": n for (kind, what, way), n in sorted(counts.items()) if what == "silent"}
    if silent:
        print("silent:", "; ".join(f"{name} {count}" for name, count in silent.items()))
    if options.json is not None:
        options.json.write_text(
            json.dumps({"seed": options.seed, "counts": table, "silent": silent}, indent=1)
        )
    bad = sum(row.get(what, 0) for row in table.values() for what in ("foreign", "hang", "crash"))
    bad += sum(row.get("silent", 0) for kind, row in table.items() if kind in CHECKED)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
