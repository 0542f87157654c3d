"""Packed files, pipes and paths: the same ratings as from the plain file, or one error that says why."""

import bz2
import gzip
import io
import lzma
import os
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pyro_bmf.data import DataNotice, load_ratings
from pyro_bmf.data.reading import containers
from pyro_bmf.errors import DataError

Write = Callable[[str, str | bytes], Path]

TEXT = "".join(f"u{k % 9},i{k % 7},{k % 5 + 1}\n" for k in range(63)).encode()


def zst(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(data)
    return bytes(sink.getvalue().to_pybytes())


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zst}


@pytest.mark.parametrize("kind", PACK)
def test_packed_files_are_the_plain_one(write: Write, kind: str) -> None:
    plain = load_ratings(write("r.csv", TEXT), scale="1:5:1").data_hash
    packed = PACK[kind](TEXT)
    for name, content in {
        f"r.csv.{kind}": packed,
        "told by its content.csv": packed,
        f"two streams.csv.{kind}": PACK[kind](TEXT[:200]) + PACK[kind](TEXT[200:]),
    }.items():
        assert load_ratings(write(name, content), scale="1:5:1").data_hash == plain


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize(
    "damage", ["cut", "cut late", "rubbish after it", "no mark", "empty", "a bad second"]
)
def test_damage_is_said_with_the_file(write: Write, kind: str, damage: str) -> None:
    packed = PACK[kind](TEXT)
    content = {
        "cut": packed[: len(packed) // 2],
        "cut late": packed[:-3],
        "rubbish after it": packed + b"rubbish",
        "no mark": b"\x00\x01" + packed[2:],
        "empty": b"",
        "a bad second": packed + packed[:2] + b"\xff\xff" + packed[4:],
    }[damage]
    with pytest.raises(DataError, match=rf"r\.csv\.{kind} is (damaged|empty).*(get it again|get the file)"):
        load_ratings(write(f"r.csv.{kind}", content), scale="1:5:1")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_flipped_bit_never_changes_a_rating(write: Write, kind: str) -> None:
    packed = bytearray(PACK[kind](TEXT))
    plain = load_ratings(write("r.csv", TEXT), scale="1:5:1").data_hash
    refused = 0
    for place in range(0, len(packed), 3):
        packed[place] ^= 1 << (place % 8)
        try:
            assert load_ratings(write(f"f.csv.{kind}", bytes(packed)), scale="1:5:1").data_hash == plain
        except DataError:
            refused += 1
        packed[place] ^= 1 << (place % 8)
    assert refused > len(packed) / 3 / 2


def test_where_it_is_damaged_is_said(write: Write) -> None:
    lines = b"".join(b"u%d,i%d,%d\n" % (k, k * k % 977, k % 5 + 1) for k in range(20_000))
    packed = gzip.compress(lines)
    with pytest.raises(DataError, match=r"up to line 1\d{4} it can be unpacked"):
        load_ratings(write("r.csv.gz", packed[: len(packed) * 3 // 4]))
    with pytest.raises(DataError, match=r"\(Not a gzipped file \(b'ga'\); up to line 20001 it"):
        load_ratings(write("r.csv.gz", packed + b"garbage"))


def test_given_files_through_pipes(tmp_path: Path, write: Write) -> None:
    from pyro_bmf.data import given_split

    # Integers in one, text in the other: both are read again.
    contents = {"train": b"1,1,3\n1,2,4\n2,1,5\n2,2,1\n", "test": b"x,1,3\n2,3,4\n"}
    writers = []
    for name, content in contents.items():
        os.mkfifo(tmp_path / name)
        writers.append(threading.Thread(target=(tmp_path / name).write_bytes, args=(content,)))
        writers[-1].start()
    split = given_split(tmp_path / "train", None, tmp_path / "test", scale="1:5:1")
    for writer in writers:
        writer.join()
    assert (len(split.train), len(split.test), split.ratings.user_vocabulary.ids.tolist()) == (
        4,
        2,
        ["1", "2", "x"],
    )


def test_a_wrong_checksum(write: Write) -> None:
    packed = bytearray(gzip.compress(TEXT))
    packed[-8] ^= 1
    with pytest.raises(DataError, match="CRC"):
        load_ratings(write("r.csv.gz", bytes(packed)))


def test_zeros_after_the_end_are_padding(write: Write) -> None:
    plain = load_ratings(write("r.csv", TEXT), scale="1:5:1").data_hash
    padded = write("r.csv.gz", gzip.compress(TEXT) + bytes(512))
    assert load_ratings(padded, scale="1:5:1").data_hash == plain
    # And between two streams, both of which are read.
    more = b"u0,i9,3\n"
    packed = lzma.compress(TEXT) + bytes(8) + lzma.compress(more) + bytes(4)
    whole = load_ratings(write("both.csv", TEXT + more), scale="1:5:1").data_hash
    assert whole != plain
    assert load_ratings(write("r.csv.xz", packed), scale="1:5:1").data_hash == whole


def test_bombs_archives_and_files_packed_twice(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = zlib.compressobj(9, zlib.DEFLATED, 31)
    monkeypatch.setattr(containers, "_SMALL", 1 << 16)
    with pytest.raises(DataError, match="unpacks to more than"):
        load_ratings(write("b.csv.gz", zeros.compress(bytes(1 << 22)) + zeros.flush()))
    with pytest.raises(DataError, match="gzip file in a xz file: unpack it once"):
        load_ratings(write("r.csv.gz.xz", lzma.compress(gzip.compress(TEXT))))
    import tarfile

    for name, opener in (("r.tar.gz", "w:gz"), ("r.tar", "w")):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode=opener) as tar:  # type: ignore[call-overload]
            member = tarfile.TarInfo("r.csv")
            member.size = len(TEXT)
            tar.addfile(member, io.BytesIO(TEXT))
        with pytest.raises(DataError, match="is a tar archive: unpack it"):
            load_ratings(write(name, sink.getvalue()))


def test_plain_text_under_a_packed_name_is_read(write: Write) -> None:
    assert len(load_ratings(write("r.csv.gz", TEXT), scale="1:5:1")) == 63


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    for content in (TEXT, gzip.compress(TEXT)):
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        assert len(load_ratings(pipe, scale="1:5:1")) == 63
        writer.join()
        pipe.unlink()


@pytest.mark.parametrize("content", [TEXT, gzip.compress(TEXT)], ids=["plain", "packed"])
def test_standard_input(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    source, sink = os.pipe()
    os.write(sink, content)
    os.close(sink)
    with open(source) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        made = load_ratings("-", scale="1:5:1")
    assert (len(made), made.name) == (63, "standard input")


def test_paths_that_are_no_file(tmp_path: Path, write: Write) -> None:
    for path, message in {
        tmp_path / ("x" * 300): "cannot be looked at: File name too long",
        tmp_path / "none.csv": "does not exist",
        write("file", "x") / "below.csv": "does not exist",
        tmp_path: "is a folder",
        Path("/dev/null"): "is a device",
        Path("nul\0.csv"): "cannot be looked at",
    }.items():
        with pytest.raises(DataError, match=message):
            load_ratings(path)
    with pytest.raises(DataError, match="File name too long"):
        load_ratings("y" * 300 + ".csv")


def test_unreadable_is_not_missing(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("r.csv", TEXT)
    path.chmod(0)
    path.parent.chmod(0o755)
    monkeypatch.chdir(path.parent)
    root = os.geteuid() == 0
    if root:  # whom no permission stops
        os.seteuid(65534)
    try:
        with pytest.raises(DataError, match=r"r\.csv cannot be read \(Permission denied\)"):
            load_ratings("r.csv")
    finally:
        if root:
            os.seteuid(0)


def test_a_name_that_is_no_utf8_is_escaped(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/r\xe9\xff.csv"
    with open(path, "wb") as file:
        file.write(TEXT)
    with pytest.warns(DataNotice, match=r"r\\xe9\\xff\.csv: rating scale inferred"):
        made = load_ratings(Path(os.fsdecode(path)))
    assert made.name == r"r\xe9\xff.csv"
