"""Peers' lists: settings are chosen on validation, known items are left out, and finished work is kept."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_bmf.data import Split, random_split, write_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.evaluation.metrics import ndcg_at
from pyro_bmf.evaluation.protocols import evaluated_users

FOLDER = Path(__file__).parents[1] / "benchmarks" / "peers"
NAMES = ("split_arrays", "ranking_fits", "ranking_lists")


@pytest.fixture(scope="module")
def lists() -> Iterator[Any]:
    """The script, imported as the peers' environment does and taken out of the way afterwards."""
    sys.path.insert(0, str(FOLDER))
    try:
        for name in NAMES:
            sys.modules.pop(name, None)
        yield [importlib.import_module(name) for name in NAMES][-1]
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def split() -> Split:
    """A split of 40 users and 60 items, of which some are popular."""
    rng = np.random.default_rng(3)
    pairs = rng.choice(40 * 60, 900, replace=False, p=np.tile(np.linspace(1, 5, 60), 40) / (40 * 180))
    return random_split(ratings_from_arrays(pairs // 60, pairs % 60, rng.integers(1, 6, 900), scale="1:5:1"))


@pytest.fixture(scope="module")
def arrays(lists: Any, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The split as the peers' environment reads it."""
    return lists.split_arrays.read(write_split(split, tmp_path_factory.mktemp("split") / "own"))


def popular(weights: Any, settings: dict[str, Any], seed: int) -> Any:
    """Score by counts, forwards or backwards."""
    counts = np.asarray(weights.sum(axis=0)).ravel()
    return lambda users: np.tile(settings["sign"] * counts, (len(users), 1))


@pytest.fixture
def peer(lists: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A peer whose two settings rank forwards and backwards; returns the signs of its fits."""
    fitted: list[float] = []
    signs = iter([-1.0, 1.0] * 9)

    def fit(weights: Any, settings: dict[str, Any], seed: int) -> Any:
        fitted.append(settings["sign"])
        return popular(weights, settings, seed)

    def draws(name: str, own: Any, n: int) -> list[dict[str, float]]:
        return [{"sign": sign} for sign, _ in zip(signs, range(n), strict=False)]

    monkeypatch.setitem(lists.PEERS, "popular", lists.Peer(fit, draws, "numpy", reads_weights=True))
    monkeypatch.setattr(lists, "draws_of", draws)
    return fitted


def options_of(folder: Path, trials: int = 2, chosen_on: int | None = None) -> argparse.Namespace:
    """The options of a run."""
    return argparse.Namespace(
        results=folder / "results.json", lists=folder / "lists", trials=trials, chosen_on=chosen_on
    )


def test_the_best_settings_on_validation_make_the_lists_for_test(
    lists: Any, arrays: Any, split: Split, peer: list[float], tmp_path: Path
) -> None:
    cell = lists.run(arrays, "popular", "rated", 0, options_of(tmp_path))
    values = {trial["settings"]["sign"]: trial["valid_ndcg"] for trial in cell["trials"]}
    assert values[1.0] > values[-1.0]
    assert cell["chosen"] == {"sign": 1.0}
    assert cell["valid_ndcg"] == values[1.0]
    assert peer == [-1.0, 1.0, 1.0]
    with np.load(tmp_path / "lists" / "popular-rated-0.npz") as content:
        found = content["lists"]
        assert content["scores"].shape == (split.ratings.n_users, split.ratings.n_items)
    counts = split.train.item_counts
    for user, own in enumerate(found):
        known = np.concatenate([part.items[part.users == user] for part in (split.train, split.valid)])
        left = np.setdiff1d(np.arange(split.ratings.n_items), known)
        np.testing.assert_array_equal(own, left[np.lexsort((left, -counts[left]))][:20])


def test_finished_trials_and_lists_are_kept_and_more_trials_go_on(
    lists: Any, arrays: Any, peer: list[float], tmp_path: Path
) -> None:
    for _ in range(2):
        lists.run(arrays, "popular", "rated", 0, options_of(tmp_path))
    assert peer == [-1.0, 1.0, 1.0]
    (tmp_path / "lists" / "popular-rated-0.npz").unlink()
    lists.run(arrays, "popular", "rated", 0, options_of(tmp_path))
    assert peer == [-1.0, 1.0, 1.0, 1.0]


def test_settings_chosen_on_one_seed_serve_another(
    lists: Any, arrays: Any, peer: list[float], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="no settings chosen on seed 0"):
        lists.run(arrays, "popular", "graded", 1, options_of(tmp_path, chosen_on=0))
    lists.run(arrays, "popular", "graded", 0, options_of(tmp_path, chosen_on=0))
    cell = lists.run(arrays, "popular", "graded", 1, options_of(tmp_path, chosen_on=0))
    assert cell["n_trials"] == 1
    assert cell["chosen"] == {"sign": 1.0}


def test_results_of_another_split_are_refused(
    lists: Any, arrays: Any, peer: list[float], tmp_path: Path
) -> None:
    content = {"seeds": {"0": {"split_hash": "another", "cells": {}}}}
    (tmp_path / "results.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SystemExit, match="another split"):
        lists.run(arrays, "popular", "rated", 0, options_of(tmp_path))
    assert peer == []


def test_validation_figure_is_the_projects_own(lists: Any, arrays: Any, split: Split) -> None:
    scores = np.random.default_rng(1).normal(size=(split.ratings.n_users, split.ratings.n_items))
    found = lists.lists_of(scores, lists.known_of(arrays, "valid"))
    users = evaluated_users(split.valid, 3.0)
    wanted = np.zeros(scores.shape, dtype=bool)
    above = split.valid.ratings > 3
    wanted[split.valid.users[above], split.valid.items[above]] = True
    hits = np.take_along_axis(wanted[users], found[users], axis=1)
    own = ndcg_at(hits, wanted[users].sum(axis=1), 20).mean()
    assert lists.valid_ndcg(found, arrays) == pytest.approx(own, abs=1e-12)


def test_inputs_are_what_was_rated_above_3_and_graded(lists: Any, arrays: Any, split: Split) -> None:
    train = split.train
    rated, above, graded = (lists.weights_of(arrays, what) for what in lists.INPUTS)
    assert rated.nnz == graded.nnz == len(train)
    assert set(rated.data) == set(above.data) == {1.0}
    assert above.nnz == (train.ratings > 3).sum()
    np.testing.assert_allclose(graded[train.users, train.items].A1 * train.ratings.mean(), train.ratings)


def test_lists_end_where_the_candidates_do_and_a_diverged_fit_ranks_last(lists: Any) -> None:
    scores = lists.all_scores(lambda users: np.array([[np.nan, 2.0, 2.0, np.inf]])[users], 1)
    known = lists.sparse.csr_matrix(np.array([[0, 0, 1, 0]]))
    np.testing.assert_array_equal(lists.lists_of(scores, known)[0], [1, 0, 3] + 17 * [-1])


def test_draws_are_the_same_for_more_trials_and_differ_between_peers(lists: Any) -> None:
    for name, own in lists.PEERS.items():
        few, many = lists.draws_of(name, own, 3), lists.draws_of(name, own, 20)
        assert many[:3] == few
        assert len({json.dumps(settings) for settings in many}) > 15
