"""Writing files: whole or not at all, through links, to devices and pipes, and what kills leave behind."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from pyro_bmf.errors import WriteError
from pyro_bmf.files import atomic_write, read_json, reserve, temporary_folder, write_json


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def write(path: Path | str, text: str = "new") -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def test_a_new_file_and_a_replaced_one() -> None:
    write("new/a.csv")
    assert Path("new/a.csv").read_text(encoding="utf-8") == "new"
    Path("new/a.csv").chmod(0o640)
    write("new/a.csv", "newer")
    assert Path("new/a.csv").read_text(encoding="utf-8") == "newer"
    assert stat.S_IMODE(Path("new/a.csv").stat().st_mode) == 0o640
    assert os.listdir("new") == ["a.csv"]


def test_an_error_leaves_what_was_there() -> None:
    write("a.csv", "old")
    with pytest.raises(UnicodeEncodeError), atomic_write("a.csv") as temporary:
        temporary.write_text("half\ud800", encoding="utf-8")
    assert Path("a.csv").read_text(encoding="utf-8") == "old"
    assert os.listdir() == ["a.csv"]


def test_a_link_stays_and_its_target_is_replaced() -> None:
    write("a.csv", "old")
    Path("link").symlink_to("a.csv")
    write("link")
    assert os.readlink("link") == "a.csv"
    assert Path("a.csv").read_text(encoding="utf-8") == "new"


def test_a_pipe_stays_and_gets_the_content() -> None:
    os.mkfifo("pipe")
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(Path("pipe").read_text(encoding="utf-8")))
    reader.start()
    write("pipe")
    reader.join(timeout=30)
    assert found == ["new"]
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_standard_output_is_written_to_where_it_stands() -> None:
    code = (
        "import sys; from pyro_bmf.files import atomic_write\n"
        "print('before', flush=True)\n"
        "with atomic_write('/dev/stdout') as file: file.write_text('content\\n')\n"
        "print('after', flush=True)"
    )
    with open("out.txt", "w", encoding="utf-8") as file:  # a regular file, which must not be replaced
        subprocess.run([sys.executable, "-c", code], check=True, stdout=file, timeout=60)
    assert Path("out.txt").read_text(encoding="utf-8") == "before\ncontent\nafter\n"


def test_devices_stay_devices() -> None:
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(WriteError, match=r"^/dev/full cannot be written: No space left"):
        write("/dev/full")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("x" * 300, r"File name too long\. Give a shorter name\."),
        ("file/below", "Not a directory"),
        (".", "Is a directory"),
    ],
)
def test_places_that_cannot_be_written(path: str, words: str) -> None:
    write("file")
    with pytest.raises(WriteError, match=words):
        write(path)
    assert os.listdir() == ["file"]


def test_the_longest_name_can_be_written() -> None:
    write("y" * 255)
    assert os.listdir() == ["y" * 255]


WRITERS: dict[str, Callable[[Path], object]] = {
    "safetensors": lambda path: save_file({"a": torch.ones(100_000)}, path),
    "csv": lambda path: pd.DataFrame({"a": range(100_000)}).to_csv(path),
    "parquet": lambda path: pd.DataFrame({"a": [f"{n}" for n in range(100_000)]}).to_parquet(path),
    "reserved": lambda path: reserve(path, 60_000),
    "text": lambda path: path.write_text("x" * 200_000, encoding="utf-8"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_whatever_library_meets_a_full_disk(kind: str) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with (
            pytest.raises(WriteError, match=r"^out cannot be written: File too large"),
            atomic_write("out") as path,
        ):
            WRITERS[kind](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir() == []


def test_an_error_of_a_file_that_is_read_names_that_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"other\.csv"), atomic_write("a.csv"):
        Path("other.csv").read_bytes()


_WRITES = (
    "import sys, time; from pyro_bmf.files import atomic_write\n"
    "with atomic_write('a.csv') as file:\n"
    "    file.write_text('half'); print('begun', flush=True); time.sleep(600)"
)


def test_what_a_killed_process_left_goes_and_what_is_being_written_stays() -> None:
    with subprocess.Popen([sys.executable, "-c", _WRITES], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        Path(".a.csv.mine.tmp").mkdir()  # not one of ours
        write("a.csv")
        assert len(os.listdir()) == 3  # its folder is still there
        process.kill()
    write("b.csv")
    assert len(os.listdir()) == 4  # of another target
    write("a.csv")
    assert sorted(os.listdir()) == [".a.csv.mine.tmp", "a.csv", "b.csv"]


def test_two_writers_of_one_target_in_one_process() -> None:
    with temporary_folder(Path("a")) as one, temporary_folder(Path("a")) as other:
        assert one != other
        assert one.is_dir()
    assert os.listdir() == []


def test_json_has_no_infinity() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json("a.json", {"x": float("inf")})
    assert os.listdir() == []


def test_json_that_is_nested_too_deeply_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "deep.json")
    write_json(tmp_path / "some.json", {"a": [1, "é"]})
    assert read_json(tmp_path / "some.json") == {"a": [1, "é"]}
