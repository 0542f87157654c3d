import dataclasses
import hashlib
import io
import threading
import time
import warnings
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pyro_bmf.data import SOURCES, DataNotice, DataWarning, Ratings, load_ratings
from pyro_bmf.data.download import locate
from pyro_bmf.data.loading import _load_source
from pyro_bmf.data.located import cache_dir, is_here
from pyro_bmf.data.sources import Member, Source, find_source, get_source
from pyro_bmf.errors import DataError

RATINGS = "userId,movieId,rating,timestamp\r\n1,10,4.5,100\r\n1,20,3.5,200\r\n2,10,5.0,300\r\n"
TITLES = 'movieId,title,genres\r\n10,"Heat, The (1995)",Crime\r\n30,Unrated (2000),None\r\n'


def archive(ratings: str = RATINGS) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as opened:
        for name, text in (
            ("ratings.csv", ratings),
            ("movies.csv", TITLES),
            ("README.txt", "terms"),
            ("tags.csv", "not needed"),
        ):
            # Of a fixed date: stamped by the clock, two archives of one content would differ now and then.
            opened.writestr(zipfile.ZipInfo(f"tiny/{name}"), text)
    return data.getvalue()


class Server:
    """Serves `content`; the first `failures` answers are cut short."""

    def __init__(self, content: bytes) -> None:
        self.content, self.failures, self.calls, self.status = content, 0, 0, 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.calls += 1
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                cut = outer.calls <= outer.failures
                self.wfile.write(outer.content[: len(outer.content) // 2] if cut else outer.content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/tiny.zip"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = Server(archive())
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


def tiny(address: str, content: bytes | None = None) -> Source:
    digest = hashlib.sha256(archive() if content is None else content).hexdigest()
    return dataclasses.replace(
        SOURCES["ml-latest-small"],
        name="tiny",
        title="Tiny",
        address=address,
        checksum=f"sha256:{digest}",
        ratings=Member("tiny/ratings.csv", hashlib.sha256(RATINGS.encode()).hexdigest()),
        titles=Member("tiny/movies.csv", hashlib.sha256(TITLES.encode()).hexdigest()),
        counts=(2, 2, 3),
    )


def load(source: Source, data_dir: Path | None = None) -> tuple[Ratings, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ratings = _load_source(source, locate(source, data_dir=data_dir), None, None, None)
    return ratings, [f"{warning.category.__name__}: {warning.message}" for warning in caught]


def test_download_check_unpack_and_load(server: Server, tmp_path: Path) -> None:
    ratings, said = load(tiny(server.address), tmp_path / "data")
    assert (tmp_path / "data/tiny.zip").read_bytes() == archive()
    assert ratings.ratings.tolist() == [4.5, 3.5, 5.0]
    assert str(ratings.scale) == "0.5:5:0.5"
    assert ratings.scale.source == "declared"
    assert ratings.item_titles is not None
    assert ratings.item_titles.tolist() == ["Heat, The (1995)", ""]
    assert len(said) == 1
    assert said[0].startswith("DataNotice: licence of Tiny: research use")
    # A second time: no network, no licence.
    again, said = load(tiny(server.address), tmp_path / "data")
    assert (again.data_hash, said, server.calls) == (ratings.data_hash, [], 1)
    unpacked = sorted(path.name for path in (cache_dir() / "unpacked").rglob("*") if path.is_file())
    assert unpacked == ["README.txt", "movies.csv", "ratings.csv"]


def test_without_a_data_folder_the_cache_takes_the_file(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tiny(server.address))
    assert (cache_dir() / "tiny.zip").is_file()
    monkeypatch.setenv("PYRO_BMF_DATA_DIR", str(tmp_path / "mine"))
    load(tiny(server.address))
    assert server.calls == 1  # the cache is looked at as well
    (cache_dir() / "tiny.zip").unlink()
    load(tiny(server.address))
    assert (tmp_path / "mine/tiny.zip").is_file()


def test_a_cut_download_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.failures = 1
    ratings, _ = load(tiny(server.address), tmp_path)
    assert (len(ratings), server.calls) == (3, 2)


def test_a_wrong_file_never_takes_its_place(server: Server, tmp_path: Path) -> None:
    server.content = archive(RATINGS.replace("4.5", "1.0"))
    with pytest.raises(DataError, match="does not have the official checksum") as caught:
        load(tiny(server.address), tmp_path)
    assert server.address in str(caught.value)
    assert server.calls == 3
    assert list(tmp_path.iterdir()) == []
    assert not (cache_dir() / "unpacked").exists()


def test_an_address_that_is_gone(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DataError, match="404"):
        load(tiny(server.address), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_offline_says_what_to_do_and_what_works(tmp_path: Path) -> None:
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m/ratings.dat").write_text("1::2::3\n")
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        load(tiny("http://127.0.0.1:1/tiny.zip"), tmp_path)
    assert time.monotonic() - started < 20
    message = str(caught.value)
    for words in (
        "tiny is not on this machine",
        "connection refused",
        "http://127.0.0.1:1/tiny.zip",
        f"put tiny.zip (or tiny/ratings.csv) into {tmp_path}",
        "--data-dir",
        "PYRO_BMF_DATA_DIR",
        "ml1m, synthetic, any ratings file of your own",
        "ml100k needs only the Python package index",
    ):
        assert words in message
    assert not (cache_dir() / "licences").exists()  # nothing was used, so no licence was shown


def test_no_download_when_not_allowed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not allowed"):
        load_ratings("ml20m", data_dir=tmp_path, download=False)


def test_extracted_files(tmp_path: Path) -> None:
    source = tiny("http://127.0.0.1:1/tiny.zip")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/ratings.csv").write_bytes(RATINGS.encode())
    (tmp_path / "tiny/movies.csv").write_bytes(TITLES.encode())
    for folder in (tmp_path, tmp_path / "tiny"):
        ratings, said = load(source, folder)
        assert not [line for line in said if line.startswith("DataWarning")]
        assert ratings.item_titles is not None
        assert is_here(source, folder) == tmp_path / "tiny/ratings.csv"
    (tmp_path / "tiny/movies.csv").unlink()
    assert load(source, tmp_path)[0].item_titles is None
    (tmp_path / "tiny/ratings.csv").write_bytes(RATINGS.replace("4.5", "1.0").encode())
    changed, said = load(source, tmp_path)
    assert changed.ratings[0] == 1.0
    assert len(said) == 1
    assert "DataWarning" in said[0]
    assert "is not the official file" in said[0]
    unknown = dataclasses.replace(source, ratings=Member("tiny/ratings.csv"))
    _, said = load(unknown, tmp_path)
    assert "could not be verified (only tiny.zip can be)" in said[0]


def test_ratings_without_timestamps_are_used_and_told(tmp_path: Path) -> None:
    source = dataclasses.replace(tiny("http://127.0.0.1:1/tiny.zip"), ratings=Member("tiny/ratings.csv"))
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/ratings.csv").write_text("userId,movieId,rating\n1,10,4.5\n1,20,3.5\n2,10,5\n")
    ratings, said = load(source, tmp_path)
    assert ratings.timestamps is None
    assert any("lacks the timestamps" in line and "not the official" in line for line in said)


def test_an_archive_with_another_checksum_is_used_and_told(tmp_path: Path) -> None:
    other = archive(RATINGS.replace("4.5", "2.0"))
    (tmp_path / "tiny.zip").write_bytes(other)
    source = tiny("http://127.0.0.1:1/tiny.zip")
    ratings, said = load(source, tmp_path)
    assert ratings.ratings[0] == 2.0
    assert any("is not the official file: its checksum differs" in line for line in said)
    # Extracted files that are official come before it; an official archive before both.
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/ratings.csv").write_bytes(RATINGS.encode())
    ratings, said = load(source, tmp_path)
    assert (ratings.ratings[0], said) == (4.5, [])
    (tmp_path / "tiny/ratings.csv").write_bytes(RATINGS.replace("4.5", "3.0").encode())
    (tmp_path / "tiny.zip").write_bytes(archive())
    ratings, said = load(source, tmp_path)
    assert (ratings.ratings[0], said) == (4.5, [])


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as opened:
        opened.writestr("other/file.txt", "x")
    (tmp_path / "tiny.zip").write_bytes(data.getvalue())
    source = tiny("http://127.0.0.1:1/tiny.zip", data.getvalue())
    with pytest.raises(DataError, match=r"does not hold tiny/ratings\.csv"):
        load(source, tmp_path)


def test_other_counts_than_declared_are_told(tmp_path: Path) -> None:
    (tmp_path / "tiny.zip").write_bytes(archive())
    source = dataclasses.replace(tiny("http://127.0.0.1:1/tiny.zip"), counts=(2, 2, 4))
    _, said = load(source, tmp_path)
    assert any("2 / 2 / 3 users / items / ratings were read" in line and "2 / 2 / 4" in line for line in said)


def test_a_plain_file_without_a_checksum(tmp_path: Path) -> None:
    lines = [
        f"item{item},user{user},{(item + user) % 5 + 1}.0,{item}" for user in range(12) for item in range(11)
    ]
    lines += ["item0,user0,3.0,999", "rare,user1,1.0,5"]
    (tmp_path / "Pet_Supplies.csv").write_text("\n".join(lines))
    with pytest.warns(DataWarning) as caught:
        ratings = load_ratings("amazon-pet", data_dir=tmp_path)
    said = [str(warning.message) for warning in caught]
    assert (ratings.n_users, ratings.n_items, len(ratings)) == (12, 11, 132)  # columns: item first
    assert ratings.user_vocabulary.ids[0] == "user0"
    assert ratings.ratings[0] == 3.0  # the later of the two
    for words in (
        "no official checksum of Pet_Supplies.csv is known",
        "at least 10 ratings each (one pass",
        "1 duplicate (user, item) rows dropped",
        "the published counts are 46,403 / 61,673 / 1,008,336",
        "licence of Amazon 2018 ratings, Pet Supplies",
    ):
        assert any(words in line for line in said), words


def test_a_cache_that_cannot_be_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written|cannot unpack"):
        load(tiny(server.address))


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"is a file: name a folder"):
        load_ratings("ml1m", data_dir=tmp_path / "file")


def test_ml100k_from_the_package_index() -> None:
    # The whole way: a site that does not answer, pip, the wheel's checksum, unpacking, reading.
    source = dataclasses.replace(SOURCES["ml100k"], address="http://127.0.0.1:1/ml-100k.zip")
    try:
        ratings, said = load(source)
    except DataError as error:
        if "pip could not fetch recbole==1.2.1" not in str(error):
            raise
        pytest.skip(f"no package index: {error}")
    assert (ratings.n_users, ratings.n_items, len(ratings)) == (943, 1_682, 100_000)
    assert any("wheel recbole==1.2.1 (checksum verified)" in line for line in said)
    assert not any(line.startswith("DataWarning") for line in said)
    assert ratings.item_titles is not None
    assert ratings.item_titles[:2].tolist() == ["Toy Story (1995)", "GoldenEye (1995)"]
    started = time.monotonic()
    again, said = load(source)  # from the cache, without asking the site
    assert (again.data_hash, said) == (ratings.data_hash, [])
    assert time.monotonic() - started < 3
    # The same ratings as in the official u.data.
    assert ratings.data_hash == "bf6905cf1d1d627534882ae81c6653b8d8c608a740c16ef8002d1430a5443a10"
    assert source.wheel is not None
    wrong = dataclasses.replace(source, wheel=dataclasses.replace(source.wheel, sha256="0" * 64))
    with pytest.raises(DataError, match="instead of 0000"):
        load(wrong)


def test_the_table_of_sources() -> None:
    assert list(SOURCES) == [
        "ml100k", "ml1m", "ml10m", "ml20m", "ml-latest-small", "amazon-pet", "amazon-kindle", "synthetic",
    ]  # fmt: skip
    for source in SOURCES.values():
        assert source.licence
        if source.address is None:
            continue
        assert source.address.startswith("https://")
        assert source.citation
        if source.checksum is not None:
            algorithm, digest = source.checksum.split(":")
            assert len(digest) == {"sha256": 64, "md5": 32}[algorithm]
    assert find_source("ML-1M") is SOURCES["ml1m"]
    assert find_source("nothing") is None
    with pytest.raises(DataError, match="no data set is called 'nothing': use one of ml100k"):
        get_source("nothing")


def test_notices_point_at_the_callers_line(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("1,1,1\n1,2,2\n2,1,5\n")
    with pytest.warns(DataNotice) as caught:
        load_ratings(path)
    assert caught[0].filename == __file__
