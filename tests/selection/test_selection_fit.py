"""Calibration of the selection model on planted data, and its file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plants import planted_rates, planted_split, ratings_of, split_of

from pyro_bmf.data.splits import Split, random_split, time_split
from pyro_bmf.errors import SavedFileError
from pyro_bmf.selection import Horizon, Selection, fit_selection
from pyro_bmf.selection.both_heads import BothHeads
from pyro_bmf.selection.factors import FactorSettings, SelectionFactors
from pyro_bmf.selection.item_regression import ItemRegression
from pyro_bmf.selection.rated_sets import RatedSets
from pyro_bmf.selection.saved import FILE
from pyro_bmf.tensor_files import read_tensors, write_tensors


@pytest.fixture(scope="module")
def fitted() -> tuple[Selection, Split, np.ndarray]:
    split, rates = planted_split(500, 100)
    return fit_selection(split), split, rates


def by_mass(expected: np.ndarray, truth: np.ndarray, n: int = 5) -> np.ndarray:
    """Return true over expected in groups of equal expected mass."""
    order = np.argsort(-expected)
    mass = np.cumsum(expected[order])
    group = np.minimum((mass * n / mass[-1]).astype(int), n - 1)
    return np.bincount(group, truth[order], n) / np.bincount(group, expected[order], n)


def test_planted_rates_are_found_calibrated(fitted: tuple[Selection, Split, np.ndarray]) -> None:
    selection, split, truth = fitted
    unseen = selection.rated.matrix.toarray() == 0
    rates = selection.rates(selection.rated)
    assert ((rates > 0) & (rates < 1)).all()
    # Not seen in training: the true probability of a pair given that.
    a = selection.seen
    given = truth * (1 - a) / (1 - a * truth)
    horizon = selection.chosen(selection.rated)
    np.testing.assert_allclose(by_mass(horizon[unseen], given[unseen]), 1.0, atol=0.15)
    assert np.corrcoef(horizon[unseen], given[unseen])[0, 1] > 0.75
    # The test share, which nothing was fitted to.
    test = Horizon((len(split.train) + len(split.valid)) / len(split.ratings), 0.15, "test")
    left = unseen & (RatedSets.of(split.valid).matrix.toarray() == 0)
    true = RatedSets.of(split.test).matrix.toarray() > 0
    expected = selection.chosen(selection.rated, test)[left].sum()
    assert true[left].sum() == pytest.approx(expected, rel=0.1)


def test_new_users_have_a_calibration_of_their_own() -> None:
    rates = planted_rates(900, 100)
    selection = fit_selection(split_of(rates[:450]))
    rng = np.random.default_rng(3)
    chosen = rng.random((450, 100)) < rates[450:]
    given = chosen & (rng.random(chosen.shape) < selection.seen)
    rated = RatedSets.of_pairs(*np.nonzero(given), given.shape, new=True)
    expected, observed = selection.chosen(rated)[~given], (chosen & ~given)[~given]
    assert observed.sum() == pytest.approx(expected.sum(), rel=0.1)
    np.testing.assert_allclose(by_mass(expected, observed.astype(float)), 1.0, atol=0.25)


def test_the_head_is_chosen_and_calibrated_on_users_apart() -> None:
    from pyro_bmf.selection.fitting import _Folds

    split, _ = planted_split(41, 20)
    fold = _Folds.of(split.train, split.valid, (0.7, 0.15), np.random.default_rng(0))
    parts = [*fold.choosing, fold.calibrating]
    assert sorted(np.concatenate(parts).tolist()) == list(range(41))
    assert len(fold.calibrating) >= 20


def test_test_ratings_are_not_read() -> None:
    split, _ = planted_split(80, 30)
    rng = np.random.default_rng(0)
    values = split.ratings.ratings.copy()
    values[split.test_rows] = rng.integers(1, 6, len(split.test_rows))
    other = replace(split, ratings=replace(split.ratings, ratings=values))
    first, second = fit_selection(split), fit_selection(other)
    np.testing.assert_array_equal(first.rates(first.rated), second.rates(second.rated))


def test_a_refit_keeps_the_calibration_and_reads_both_parts() -> None:
    split, truth = planted_split(400, 60)
    selection = fit_selection(split, refit=True)
    assert selection.seen == pytest.approx(0.85, abs=0.01)
    assert len(selection.train) == len(split.train_valid)
    left = selection.rated.matrix.toarray() == 0
    expected = selection.chosen(selection.rated)[left].sum()
    assert RatedSets.of(split.test).matrix.sum() == pytest.approx(expected, rel=0.25)
    del truth


def test_held_out_ratings_of_a_split_by_time_name_their_period() -> None:
    split, _ = planted_split(120, 40)
    random = fit_selection(split, head="factors")
    assert random.horizon.words.endswith("of ratings that were held out")
    n = len(split.ratings)
    order = np.random.default_rng(0).permutation(n)
    dated = time_split(replace(split.ratings, timestamps=900_000_000 + 86_400 * order))
    later = int(900_000_000 + 86_400 * (n - 1))
    found = fit_selection(dated, head="factors")
    period = dated.period("valid", "test")
    assert period is not None
    assert period.endswith(f"to {datetime.fromtimestamp(later, UTC):%Y-%m-%d}")
    assert found.horizon.words == f"the 30 % of ratings that were held out, {period}"
    # Of a refit test ratings alone were held out.
    refit = fit_selection(dated, head="factors", refit=True)
    assert refit.horizon.words.endswith(f" % of ratings that were held out, {dated.period('test')}")
    assert dated.period("test") != period


def test_without_validation_ratings_some_of_train_are_kept_aside() -> None:
    split, _ = planted_split(300, 60)
    bare = Split(split.ratings, np.union1d(split.train_rows, split.valid_rows), np.zeros(0, dtype=np.int64),
                 split.test_rows, "random")  # fmt: skip
    selection = fit_selection(bare)
    assert selection.info["calibrated_on"] == "an eighth of train"
    left = selection.rated.matrix.toarray() == 0
    expected = selection.chosen(selection.rated)[left].sum()
    assert RatedSets.of(split.test).matrix.sum() == pytest.approx(expected, rel=0.25)


def test_items_that_nobody_rated_have_a_prior_rate(fitted: tuple[Selection, Split, np.ndarray]) -> None:
    split, _ = planted_split(200, 60)
    chosen = np.zeros((200, 62), dtype=bool)
    chosen[split.ratings.users, split.ratings.items] = True
    chosen[:2, 60] = True
    ratings = ratings_of(chosen, np.full(chosen.shape, 3))
    late = (ratings.items == 60) | (np.arange(len(ratings)) % 5 == 0)
    rows = np.arange(len(ratings))
    even = ratings.users % 2 == 0
    lone = Split(ratings, rows[~late], rows[late & even], rows[late & ~even], "given")
    selection = fit_selection(lone)
    p = selection.chosen(selection.rated)
    assert (p[:, 60:] > 0).all()
    assert (p[:, 60:] < 0.5).all()
    assert np.isfinite(p).all()


@pytest.mark.parametrize("n_users", [1, 2, 5])
def test_few_users_do(n_users: int) -> None:
    chosen = np.ones((n_users, 6), dtype=bool)
    chosen[0, 0] = False
    ratings = ratings_of(chosen, np.full(chosen.shape, 4))
    rows = np.arange(len(ratings))
    split = Split(ratings, rows[rows % 3 > 0], rows[:1], rows[3::3], "given")
    p = fit_selection(split).chosen(RatedSets.of(split.train))
    assert ((p > 0) & (p < 1)).all()


def test_saved_and_loaded_it_says_the_same_bits(
    fitted: tuple[Selection, Split, np.ndarray], tmp_path: Path
) -> None:
    selection, split, _ = fitted
    path = selection.save(tmp_path)
    assert path.name == "selection.safetensors"
    again = Selection.load(tmp_path, split.train)
    np.testing.assert_array_equal(again.chosen(again.rated), selection.chosen(selection.rated))
    some, columns = selection.rated.take(np.arange(3)), np.array([[1, 2], [3, 4], [5, 6]])
    drawn = [one.draw_chosen(some, columns, np.arange(3), 1) for one in (selection, again)]
    np.testing.assert_array_equal(*drawn)
    assert again.horizon == selection.horizon
    assert "30 % of ratings" in again.horizon.words
    assert selection.save(tmp_path / "b.safetensors").read_bytes() == path.read_bytes()


def test_files_that_do_not_fit_are_refused(
    fitted: tuple[Selection, Split, np.ndarray], tmp_path: Path
) -> None:
    selection, split, _ = fitted
    path = selection.save(tmp_path)
    with pytest.raises(SavedFileError, match="other ratings"):
        Selection.load(path, split.valid)
    with pytest.raises(SavedFileError, match="pyro-bmf fit --resume RUN"):
        Selection.load(tmp_path / "no.safetensors", split.train)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(SavedFileError, match="damaged"):
        Selection.load(path, split.train)


MADE = {
    "head.factors.items": ("double", "float64, torch.float32 is needed"),
    "head.regression.noise": ("long", "int64, torch.float32 is needed"),
    "head.regression.inverse": ("half", "float16, torch.float32 is needed"),
    "known.knots": ("float", "float32, torch.float64 is needed"),
}


@pytest.mark.parametrize("name", MADE)
def test_tensors_of_another_type_are_refused(
    name: str, fitted: tuple[Selection, Split, np.ndarray], tmp_path: Path
) -> None:
    kind, message = MADE[name]
    selection, split, _ = fitted
    path = selection.save(tmp_path)
    document, tensors = read_tensors(path, FILE)
    if name not in tensors:  # of the head that was not chosen
        tensors[name] = torch.ones(3)
    write_tensors(path, FILE, document, tensors | {name: getattr(tensors[name], kind)()})
    with pytest.raises(SavedFileError, match=message):
        Selection.load(path, split.train)


SPOILT: dict[str, tuple[Any, str]] = {
    "known.bend": (torch.zeros(1, dtype=torch.float64), "its bend is not positive"),
    "new.users": (torch.tensor([2.0, 1.0], dtype=torch.float64), "range of users do not rise"),
    "known.coefficients": (torch.ones(3, dtype=torch.float64), r"shape \(3,\), \(19,\) is needed"),
    "new.centre": (torch.full((2,), 1e30, dtype=torch.float64), "holds 1e\\+30, too large"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_maps_that_cannot_be_are_refused(
    name: str, fitted: tuple[Selection, Split, np.ndarray], tmp_path: Path
) -> None:
    value, message = SPOILT[name]
    selection, split, _ = fitted
    path = selection.save(tmp_path)
    document, tensors = read_tensors(path, FILE)
    write_tensors(path, FILE, document, tensors | {name: value})
    with pytest.raises(SavedFileError, match=message):
        Selection.load(path, split.train)


@pytest.mark.parametrize("seen", [0, 1.5, True, "0.7", None, 10**30])
def test_a_share_that_cannot_be_is_refused(
    seen: Any, fitted: tuple[Selection, Split, np.ndarray], tmp_path: Path
) -> None:
    selection, split, _ = fitted
    path = selection.save(tmp_path)
    document, tensors = read_tensors(path, FILE)
    write_tensors(path, FILE, document | {"seen": seen}, tensors)
    with pytest.raises(SavedFileError, match="the share that it was fitted to is"):
        Selection.load(path, split.train)


def test_heads_that_cannot_be_are_refused() -> None:
    rated = RatedSets.of_pairs(np.arange(6) % 3, np.arange(6) % 4, (3, 4))
    regression = ItemRegression.fit(rated, 10.0)
    good = dict(regression.tensors())
    assert ItemRegression.from_saved(regression.settings(), good).n_items == 4
    for changes, message in (
        ({"inverse": good["inverse"][:1]}, "the inverse has the shape"),
        ({"noise": -good["noise"]}, "variance is below 0"),
        ({"inverse": -good["inverse"]}, "diagonal that is not positive"),
    ):
        with pytest.raises(ValueError, match=message):
            ItemRegression.from_saved(regression.settings(), good | changes)
    with pytest.raises(ValueError, match="the ridge is 0"):
        ItemRegression.from_saved(regression.settings() | {"ridge": 0}, good)
    factors = SelectionFactors.fit(rated, FactorSettings(n_factors=2))
    with pytest.raises(ValueError, match="with 3 factors"):
        SelectionFactors.from_saved(factors.settings() | {"n_factors": 3}, factors.tensors())
    with pytest.raises(ValueError, match="one_precision is 'NaN'"):
        SelectionFactors.from_saved(factors.settings() | {"one_precision": "NaN"}, factors.tensors())
    other = ItemRegression.fit(RatedSets.of_pairs(np.arange(6) % 3, np.arange(6) % 4, (3, 5)), 10.0)
    both = {f"regression.{name}": value for name, value in other.tensors().items()}
    both |= {f"factors.{name}": value for name, value in factors.tensors().items()}
    with pytest.raises(ValueError, match="5 items in one head, 4 in the other"):
        BothHeads.from_saved({"regression": other.settings(), "factors": factors.settings()}, both)


def test_the_processs_random_numbers_stay_as_they_were() -> None:
    import torch

    split, _ = planted_split(60, 20)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit_selection(split)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("seed", range(3))
def test_new_users_with_a_rating_or_two_choose_as_many_as_they_rated_in_proportion(seed: int) -> None:
    """All users of the fit have eight ratings or more: what is said of fewer was not seen of any of them."""
    rng = np.random.default_rng(seed)
    n_users, n_items = 120, 250
    weights = np.arange(1, n_items + 1) ** -0.8
    tastes = np.stack([weights * np.where(np.arange(n_items) % 2 == own, 3.0, 1.0) for own in (0, 1)])
    sizes = np.minimum(12 + rng.pareto(1.5, n_users) * 15, 150).astype(int)
    chosen = np.zeros((n_users, n_items), dtype=bool)
    for user, size in enumerate(sizes):
        own = tastes[user % 2] / tastes[user % 2].sum()
        chosen[user, rng.choice(n_items, size, replace=False, p=own)] = True
    ratings = ratings_of(chosen, rng.integers(1, 6, chosen.shape))
    found = fit_selection(random_split(ratings, seed=seed), seed=seed)
    order = found.train.item_counts.argsort()[::-1]
    for n in (1, 2, 4, 8, 16):
        # Of one taste, among the items that are rated most.
        known = order[order % 2 == 0][rng.permutation(40)[:n]]
        new = RatedSets.of_pairs(np.zeros(n, dtype=int), known, (1, ratings.n_items), new=True)
        total = np.delete(found.chosen(new)[0], known).sum()
        assert 0.3 < total / (n * 3 / 7) < 4.0, n
