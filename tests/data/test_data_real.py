"""The official files, where PYRO_BMF_DATA_DIR holds them."""

import time
from pathlib import Path

import numpy as np
import pytest

from pyro_bmf.data import DataNotice, DataWarning, Ratings, given_split, load_ratings, random_split

pytestmark = pytest.mark.filterwarnings("ignore::pyro_bmf.data.DataNotice")


def need(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        pytest.skip(f"{name} is not in PYRO_BMF_DATA_DIR ({folder})")
    return path


def shape(ratings: Ratings) -> tuple[int, int, int, str]:
    return ratings.n_users, ratings.n_items, len(ratings), str(ratings.scale)


def titles(ratings: Ratings) -> dict[int, str]:
    assert ratings.item_titles is not None
    return dict(zip(ratings.item_vocabulary.ids.tolist(), ratings.item_titles.tolist(), strict=True))


def test_ml100k(real_data_dir: Path) -> None:
    need(real_data_dir, "ml-100k/u.data")
    ratings = load_ratings("ml100k", data_dir=real_data_dir)
    assert shape(ratings) == (943, 1_682, 100_000, "1:5:1")
    assert ratings.timestamps is not None
    assert ratings.ratings.mean() == 3.52986
    first = ratings.user_vocabulary.index([196]), ratings.item_vocabulary.index([242])
    row = np.flatnonzero((ratings.users == first[0]) & (ratings.items == first[1]))
    assert (ratings.ratings[row].tolist(), ratings.timestamps[row].tolist()) == ([3], [881250949])
    assert titles(ratings)[1] == "Toy Story (1995)"
    assert titles(ratings)[543] == "Misérables, Les (1995)"  # latin-1
    assert ratings.data_hash == "bf6905cf1d1d627534882ae81c6653b8d8c608a740c16ef8002d1430a5443a10"


def test_ml1m_lacks_timestamps_and_says_so(real_data_dir: Path) -> None:
    path = need(real_data_dir, "ml-1m/ratings.dat")
    with open(path, "rb") as file:
        if file.readline().count(b"::") != 2:
            pytest.skip("ml-1m/ratings.dat has its timestamps here")
    started = time.process_time()
    with pytest.warns(DataWarning, match="ratings.dat is not the official file: it lacks the timestamps"):
        ratings = load_ratings("ml1m", data_dir=real_data_dir)
    assert time.process_time() - started < 3  # 0.5 s on an idle machine
    assert shape(ratings) == (6_040, 3_706, 1_000_209, "1:5:1")
    assert ratings.timestamps is None
    assert titles(ratings)[1193] == "One Flew Over the Cuckoo's Nest (1975)"
    assert titles(ratings)[2692] == "Run Lola Run (Lola rennt) (1998)"
    assert "" not in titles(ratings).values()
    split = random_split(ratings)
    assert [len(part) for part in (split.train, split.valid, split.test)] == [700_146, 150_032, 150_031]


def test_ml_latest_small_from_the_official_archive(real_data_dir: Path) -> None:
    need(real_data_dir, "ml-latest-small.zip")
    ratings = load_ratings("ml-latest-small", data_dir=real_data_dir)
    assert shape(ratings) == (610, 9_724, 100_836, "0.5:5:0.5")
    assert titles(ratings)[11] == "American President, The (1995)"
    assert ratings.timestamps is not None


def test_amazon_musical_instruments(real_data_dir: Path) -> None:
    path = need(real_data_dir, "amazon-musical-instruments/ratings_Musical_Instruments_5core.csv")
    with pytest.warns(DataNotice, match=r"inferred as 1:5:1 \(levels\)"):
        ratings = load_ratings(path)
    assert shape(ratings) == (1_429, 900, 10_261, "1:5:1")
    assert "1384719342" in ratings.item_vocabulary  # among letters: text
    assert ratings.user_counts.min() >= 5


def test_amazon_magazine_subscriptions(real_data_dir: Path) -> None:
    path = need(real_data_dir, "amazon-magazine-subscriptions/Magazine_Subscriptions.csv")
    columns = (1, 0, 2, 3)
    with pytest.raises(Exception, match=r"1,371 duplicate \(user, item\) rows.*duplicates 'last' or 'mean'"):
        load_ratings(path, columns=columns, scale="1:5:1")
    with pytest.warns(DataNotice, match="1,371 duplicate .* dropped, the latest"):
        ratings = load_ratings(path, columns=columns, scale="1:5:1", duplicates="last")
    assert shape(ratings) == (72_098, 2_428, 89_689 - 1_371, "1:5:1")
    with pytest.warns(DataNotice, match="1,371 duplicate .* mean"):
        mean = load_ratings(path, columns=columns, scale="1:5:1", duplicates="mean")
    assert len(mean) == len(ratings)
    assert set(np.unique(mean.ratings)) == {1, 2, 3, 4, 5}


def test_given_files_of_ml100k(real_data_dir: Path) -> None:
    base, test = need(real_data_dir, "ml-100k/u1.base"), need(real_data_dir, "ml-100k/u1.test")
    split = given_split(base, None, test, scale="1:5:1", valid_fraction=0.1)
    assert (len(split.train), len(split.valid), len(split.test)) == (72_000, 8_000, 20_000)
    assert split.ratings.data_hash == load_ratings("ml100k", data_dir=real_data_dir).data_hash
