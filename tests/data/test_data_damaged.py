"""Damage where a checksum shows it, and a small slice of the fuzz: the same ratings or our error."""

import base64
import importlib.util
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pyro_bmf.data import load_ratings
from pyro_bmf.errors import DataError

Write = Callable[[str, str | bytes], Path]

TEXT = "".join(f"u{k % 9},i{k % 7},{k % 5 + 1}\n" for k in range(63)).encode()
# TEXT under the tool `zstd`'s own settings: with a checksum at the end, which Arrow reads but does not write.
ZST = base64.b85decode(
    "D77#BWcUDO2LOg2IuF1l9RvS2vo%8Y-dDl__cQ=B05t#$ADuXG(ba=jM+;8fTzop2xOC#-p{s=l9UVB(&4Z6l7F=}V;?>o}siTKaHw%"
    "|e4m>oxI(ayCV&T)(flEgZ9=ciZpp%OOotXIO>fxfJg;zHRPMtjXbYj7!tBZ$@CLVP2aG;aZ&BdjYiHA-+Jm_lSKt~5Yx_NNX$%0oWE>"
    "2xdd^&o#bhGf#$$<x*cyOSr1s@$<Ty!%9qX!SVS#Y3}i;qrBTy*vD>S*EA&4EuR4=$Zp@X*!8gN`N+bo21h$-+e^4!pX0aO!Bm0{~23H"
    "(>"
)


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "fuzz_archives.py"
    spec = importlib.util.spec_from_file_location("fuzz_archives", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["zip", "gz", "bz2", "xz", "zst", "parquet"])
def test_damage_gives_the_same_ratings_or_our_error(fuzz: ModuleType, tmp_path: Path, kind: str) -> None:
    found = [fuzz.case(kind, 5, number, tmp_path) for number in range(25)]
    outcomes = {outcome.split("|")[0] for _, outcome in found}
    # Without a checksum a change may pass, and Arrow writes none into Zstandard.
    silent = {"silent"} if kind in ("zst", "parquet") else set()
    assert outcomes <= {"same", "refused"} | silent
    assert "refused" in outcomes


def test_the_checksum_of_zstandard(write: Write) -> None:
    plain = load_ratings(write("r.csv", TEXT), scale="1:5:1").data_hash
    assert load_ratings(write("r.csv.zst", ZST), scale="1:5:1").data_hash == plain
    changed = bytearray(ZST)
    for place in range(10, len(ZST), 7):
        changed[place] ^= 2
        with pytest.raises(DataError, match=r"f\.csv\.zst is damaged"):
            load_ratings(write("f.csv.zst", bytes(changed)), scale="1:5:1")
        changed[place] ^= 2


def parquet(checksums: bool) -> bytearray:
    table = pa.table(
        {
            "user": [f"u{k % 9}" for k in range(63)],
            "item": [k % 7 for k in range(63)],
            "rating": [float(k % 5 + 1) for k in range(63)],
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none", use_dictionary=False, write_page_checksum=checksums)
    return bytearray(sink.getvalue().to_pybytes())


def test_text_that_is_no_utf8_is_refused(write: Write) -> None:
    content = bytes(parquet(False)).replace(b"u3", b"u\xff")
    with pytest.raises(DataError, match=r"r\.parquet is damaged.*UTF8"):
        load_ratings(write("r.parquet", content), scale="1:5:1")
    table = pa.table({"user": ["a", "b"], "item": [1, 2], "rating": [1.0, 2.0]})
    broken = pa.array([b"a", b"\xff"]).view(pa.string())
    with pytest.raises(DataError, match="UTF8"):
        load_ratings(table.set_column(0, "user", broken))


def test_page_checksums_of_parquet_are_compared(write: Write) -> None:
    for checksums in (True, False):
        content = parquet(checksums)
        place = bytes(content).index(struct.pack("<d", 4.0))
        content[place : place + 8] = struct.pack("<d", 2.0)
        path = write("r.parquet", bytes(content))
        if checksums:
            with pytest.raises(DataError, match=r"r\.parquet is damaged, or cannot be read as parquet"):
                load_ratings(path, scale="1:5:1")
        else:  # nothing in the file can show it
            assert len(load_ratings(path, scale="1:5:1")) == 63
