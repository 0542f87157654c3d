import io
import stat
import zipfile
from pathlib import Path

import pytest

from pyro_bmf.data.reading import archives
from pyro_bmf.data.reading.archives import unpack
from pyro_bmf.errors import DataError


def everything(name: str) -> bool:
    return True


def archive_of(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def device(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFIFO | 0o666) << 16
    return info


def test_wanted_members_are_unpacked(tmp_path: Path) -> None:
    path = archive_of(
        tmp_path / "a.zip",
        ("set/", b""),
        ("set/r.csv", b"1,2,3\n"),
        ("set/deep/x", b"x"),
        ("set/other", b"o"),
    )
    folder = unpack(path, tmp_path / "out" / "a", lambda name: name != "set/other")
    assert sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()) == [
        "set/deep/x",
        "set/r.csv",
    ]
    assert (folder / "set/r.csv").read_bytes() == b"1,2,3\n"
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["a"]


BAD: dict[str, str | zipfile.ZipInfo] = {
    "a parent": "../evil",
    "a parent inside": "set/../../evil",
    "an absolute path": "/tmp/pyro-bmf-evil",
    "a drive": "C:/evil",
    "a drive and a backslash": "C:\\evil",
    "a backslash parent": "..\\evil",
    "a dot": "set/./evil",
    "an empty part": "set//evil",
    "a link": link("set/link"),
    "a link named as the data": link("set/r.csv"),
    "a pipe": device("set/pipe"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_archive_that_tries_to_escape_is_refused_whole(tmp_path: Path, case: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    # The harmless member comes first, and the bad one is not even wanted: still nothing is written.
    path = archive_of(inner / "a.zip", ("set/first", b"fine"), (BAD[case], b"/etc/passwd"))
    with pytest.raises(DataError, match="nothing was unpacked"):
        unpack(path, inner / "out", lambda name: name == "set/first")
    assert [f.name for f in inner.iterdir()] == ["a.zip"]
    assert [f.name for f in tmp_path.iterdir()] == ["inner"]
    assert not Path("/tmp/pyro-bmf-evil").exists()


def test_a_name_cut_by_a_zero_byte_is_refused(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("set/fileX..", b"x")
    path = tmp_path / "a.zip"
    path.write_bytes(data.getvalue().replace(b"set/fileX..", b"set/file\0.."))
    with pytest.raises(DataError, match="nothing was unpacked"):
        unpack(path, tmp_path / "out", everything)


def test_a_link_followed_by_a_file_through_it(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.zip", (link("set"), str(tmp_path).encode()), ("set/evil", b"x"))
    with pytest.raises(DataError, match="nothing was unpacked"):
        unpack(path, tmp_path / "out", everything)
    assert not (tmp_path / "evil").exists()


def test_a_name_that_is_empty_is_refused(tmp_path: Path) -> None:
    # "x" becomes an empty name in both headers, as damage may make it.
    changed = bytearray(archive_of(tmp_path / "a.zip", ("set/r", b"1"), ("x", b"2")).read_bytes())
    for signature, at in ((b"PK\x03\x04", 26), (b"PK\x01\x02", 28)):
        place = changed.rindex(signature)
        changed[place + at], changed[place + at + 2] = 0, 1  # the byte is an extra field now
    (tmp_path / "a.zip").write_bytes(bytes(changed))
    with pytest.raises(DataError, match=r"nothing was unpacked|not a usable zip archive"):
        unpack(tmp_path / "a.zip", tmp_path / "out", everything)


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = archive_of(tmp_path / "a.zip", ("set/r", b"1"), ("set/r", b"2"))
    with pytest.raises(DataError, match="twice"):
        unpack(path, tmp_path / "out", everything)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive_of(tmp_path / "a.zip", ("a", b"0" * 600), ("b", b"0" * 600))
    monkeypatch.setattr(archives, "MAX_BYTES", 1_000)
    with pytest.raises(DataError, match="1,200 bytes, over the limit of 1,000"):
        unpack(path, tmp_path / "out", everything)


@pytest.mark.parametrize("damage", ["no zip", "cut", "flipped", "empty"])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, damage: str) -> None:
    path = archive_of(tmp_path / "a.zip", ("set/r", bytes(range(256)) * 40))
    data = bytearray(path.read_bytes())
    if damage == "no zip":
        data = bytearray(b"<html>not found</html>")
    elif damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[60] ^= 0xFF
    else:
        data = bytearray()
    path.write_bytes(data)
    with pytest.raises(DataError, match="not a usable zip archive"):
        unpack(path, tmp_path / "out", everything)
    assert [f.name for f in tmp_path.iterdir()] == ["a.zip"]
