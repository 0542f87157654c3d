"""Our networks beside another library's: one measure for both sides, and one set of settings."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_bmf.data import Split, random_split, synthetic_ratings, write_split

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("split_arrays", "ranking_fits", "ranking_lists", "ranker_settings", "rankers")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, Any]]:
    """The scripts by name, imported as they import each other and taken out of the way afterwards."""
    before = list(sys.path)
    sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "peers")]
    try:
        for name in NAMES:
            sys.modules.pop(name, None)
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path[:] = before
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(synthetic_ratings(40, 120, 900, n_factors=2, scale="1:5:1").ratings, seed=1)


@pytest.fixture(scope="module", params=["lightgcn", "dae-cf"])
def system(request: pytest.FixtureRequest, scripts: Any, split: Split, tmp_path_factory: Any) -> Any:
    """A ranker and a network of ratings, as the script fits them but for fewer epochs."""
    folder = tmp_path_factory.mktemp("state")
    return scripts["rankers"].ours(request.param, split, folder, max_iterations=3, n_factors=4)


def peers_file(folder: Path, scripts: Any, system: Any, split: Split, scores: Any, **changed: Any) -> Path:
    """Write a peer's scores as `recbole_scores.py` does."""
    rankers = scripts["rankers"]
    about = {
        "peer": "another", "ours": system.name, "seed": 0, "settings": rankers.SETTINGS[system.name],
        "epochs": rankers.EPOCHS, "split_hash": split.hash, "epoch": 2, "curve": [-0.9, -0.8],
        "seconds": 1.0, "versions": {"recbole": "0"}, "recbole": {},
    }  # fmt: skip
    np.savez(folder / "another-0.npz", scores=scores, about=json.dumps(about | changed))
    return folder / "another-0.npz"


def test_the_same_scores_are_worth_the_same_from_either_side(scripts, system, split, tmp_path) -> None:
    scores = system.score_items(np.arange(split.ratings.n_users))
    peers_file(tmp_path, scripts, system, split, scores)
    rankers = scripts["rankers"]
    files = rankers.of_system(system.name, tmp_path)
    row = rankers.compare(system.name, system, files, split)
    theirs = row["peers"]["another"]
    rates = system.name in rankers.RATING
    assert theirs["ours less theirs"].keys() == {"ndcg@20", "recall@20"} | ({"rmse"} if rates else set())
    for part in ("valid", "test"):
        assert theirs[part] == pytest.approx(row["ours"][part], rel=1e-6)
    for gap in theirs["ours less theirs"].values():
        assert list(gap.values()) == pytest.approx([0.0] * 3, abs=1e-6)
    if rates:
        history = system.info["history"]
        assert row["ours"]["valid"]["rmse"] == pytest.approx(min(one["valid_rmse"] for one in history))


def test_differences_are_ours_less_theirs(scripts, system, split, tmp_path) -> None:
    scores = system.score_items(np.arange(split.ratings.n_users))
    file = peers_file(tmp_path, scripts, system, split, 6.0 - scores)
    row = scripts["rankers"].compare(system.name, system, [file], split)
    theirs = row["peers"]["another"]
    for name, gap in theirs["ours less theirs"].items():
        assert gap["difference"] == pytest.approx(row["ours"]["test"][name] - theirs["test"][name])
        assert gap["low"] < gap["difference"] < gap["high"]


@pytest.mark.parametrize(
    "changed",
    [{"split_hash": "another"}, {"settings": {"n_factors": 1}}, {"epochs": 1}],
    ids=lambda c: next(iter(c)),
)
def test_scores_of_another_split_or_other_settings_are_refused(
    scripts, system, split, tmp_path, changed
) -> None:
    file = peers_file(tmp_path, scripts, system, split, np.zeros((40, 120)), **changed)
    with pytest.raises(SystemExit, match=f"made with {next(iter(changed))}"):
        scripts["rankers"].theirs(file, split)
    with pytest.raises(SystemExit, match="no scores by a peer of ncf"):
        scripts["rankers"].of_system("ncf", tmp_path)


def test_fits_of_other_seeds_stand_beside_each_other(scripts, system, split, tmp_path) -> None:
    peers_file(tmp_path, scripts, system, split, np.zeros((40, 120)), seed=3)
    rankers = scripts["rankers"]
    found = rankers.other_fit(system, rankers.of_system(system.name, tmp_path, 3), split)
    figures = [one[system.figure] for one in system.info["history"]]
    assert found == {"ours": (min if system.name == "dae-cf" else max)(figures), "another": 0.8}


def test_both_sides_choose_a_rankers_epoch_by_the_same_figure(scripts, split, tmp_path) -> None:
    system = scripts["rankers"].ours("lightgcn", split, tmp_path / "state", max_iterations=3, n_factors=4)
    lists = scripts["ranking_lists"]
    arrays = scripts["split_arrays"].read(write_split(split, tmp_path / "split"))
    own = lists.lists_of(system.score_items(np.arange(arrays.n_users)), lists.known_of(arrays, "valid"))
    found = lists.valid_ndcg(own, arrays, above=-np.inf, at_least=1)
    assert found == pytest.approx(scripts["rankers"].best_of(system), rel=1e-6)
    assert found != pytest.approx(lists.valid_ndcg(own, arrays), rel=1e-3), "another group of users"
