"""Rankings by the product: exact, calibrated, the same at every run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from plants import confounded_split, ratings_of

from pyro_bmf.data.splits import Split
from pyro_bmf.errors import SavedFileError, SettingsError, UnknownIdError
from pyro_bmf.evaluation.liked_calibration import liked_calibration
from pyro_bmf.evaluation.protocols import evaluate_ranking
from pyro_bmf.numerics.ranked_lists import Exclusion
from pyro_bmf.posterior import Posterior
from pyro_bmf.selection import Horizon, ProductRanker, Recommender, fit_selection
from pyro_bmf.selection.ahead import ahead
from pyro_bmf.selection.product import Decision
from pyro_bmf.selection.rate_map import RateMap
from pyro_bmf.selection.rated_sets import RatedSets
from pyro_bmf.selection.search import best_bounded

# --- the search ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [1, 5, 30, 90])
def test_the_early_stop_is_exact(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    bounds = rng.random((20, 70)) ** 4
    values = rng.random((20, 70))
    if seed % 2:  # many ties, of bounds and of products
        bounds, values = np.round(bounds, 1), np.round(values, 1)
    bounds[rng.random(bounds.shape) < 0.2] = -np.inf
    bounds[0] = -np.inf
    visited = []

    def value(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        visited.append(len(rows))
        return bounds[rows, columns] * values[rows, columns]

    lists, products = best_bounded(bounds, value, n, first=4)
    whole = np.where(np.isneginf(bounds), -np.inf, np.maximum(bounds, 0.0) * values)
    order = np.argsort(-whole, axis=1, kind="stable")[:, :n]
    best = np.take_along_axis(whole, order, axis=1)
    width = order.shape[1]
    np.testing.assert_array_equal(lists[:, :width], np.where(np.isneginf(best), -1, order))
    np.testing.assert_array_equal(products[:, :width], best)
    assert (lists[:, width:] == -1).all()
    if n == 1:
        assert sum(visited) < 0.8 * np.isfinite(bounds).sum()


def test_a_search_without_columns_or_rows_ends() -> None:
    for shape in ((0, 5), (3, 0)):
        lists, _ = best_bounded(np.zeros(shape), lambda rows, columns: np.ones(len(rows)), 2)
        assert lists.shape == (shape[0], 2)
        assert (lists == -1).all()


# --- one chunk ahead ----------------------------------------------------------------------------------------


def test_values_come_in_their_order_one_ahead() -> None:
    made: list[int] = []

    def values(n: int, fails: bool = False) -> Iterator[int]:
        for value in range(n):
            made.append(value)
            yield value
        if fails:
            raise ValueError("at the end")

    for value in ahead(values(5)):
        assert made[value] == value
        assert len(made) <= value + 2
    assert made == [0, 1, 2, 3, 4]
    assert list(ahead(values(0))) == []
    with pytest.raises(ValueError, match="at the end"):
        list(ahead(values(2, fails=True)))
    # Who stops early leaves at most one value made in vain.
    made.clear()
    for _ in ahead(values(9)):
        break
    assert len(made) <= 2


def test_lists_do_not_depend_on_threads(recommender: Recommender) -> None:
    before = torch.get_num_threads()
    tables = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            tables.append(recommender.recommend(n=5))
    finally:
        torch.set_num_threads(before)
    pd.testing.assert_frame_equal(*tables)


# --- the product --------------------------------------------------------------------------------------------


def brute(recommender: Recommender, by: str, users: np.ndarray) -> np.ndarray:
    """Return the probability of every item for some users, by way of all pairs."""
    n_items, selection = recommender.posterior.n_items, recommender.selection
    own, items = np.repeat(users, n_items), np.tile(np.arange(n_items), len(users))
    pmf = recommender.posterior.predict_pmf(own, items, np.arange(1.0, 6.0))
    rates = with_term(selection.known, selection.rates(selection.rated.take(users)).reshape(-1), pmf)
    p = ((1 - selection.seen) * rates / (1 - selection.seen * rates)).reshape(len(users), n_items)
    return p if by == "chosen" else p * pmf[:, 3:].sum(axis=1).reshape(p.shape)


def with_term(mapped: RateMap, rates: np.ndarray, pmf: np.ndarray) -> np.ndarray:
    """Return rates with what predicted ratings say, written out."""
    assert mapped.term is not None
    slope, constant, per_sd = mapped.term.coefficients
    centre, spread = mapped.term.scale
    z = np.clip((pmf @ np.arange(1.0, 6.0) - centre) / spread, -3.0, 3.0)
    odds = np.exp(slope * np.log(rates / (1 - rates)) + constant + per_sd * z)
    return odds / (1 + odds)


@pytest.mark.parametrize("by", ["liked", "chosen"])
def test_lists_are_those_of_brute_force(recommender: Recommender, by: str) -> None:
    users = np.arange(40)
    scores = brute(recommender, by, users)
    seen = recommender.selection.rated.take(users).matrix.toarray() > 0
    scores[seen] = -np.inf
    table = recommender.recommend(users, 8, by=by)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :8]
    np.testing.assert_array_equal(table["item_id"].to_numpy().reshape(-1, 8), expected)
    np.testing.assert_allclose(
        table[by].to_numpy().reshape(-1, 8), np.take_along_axis(scores, expected, axis=1)
    )
    assert table["rank"].tolist() == list(range(1, 9)) * 40
    np.testing.assert_allclose(table["liked"], table["chosen"] * table["liked_if_chosen"])
    assert (table["chosen"] > 0).all()


def test_by_rating_lists_are_the_posteriors_own(recommender: Recommender) -> None:
    for options in ({}, {"strategy": "lower"}, {"strategy": "thompson", "seed": 3}):
        table = recommender.recommend([3, 5], 6, by="rating", **options)
        own = recommender.posterior.recommend([3, 5], 6, **options)
        pd.testing.assert_frame_equal(table[own.columns.tolist()], own)


def test_columns_and_what_is_left_out(recommender: Recommender) -> None:
    table = recommender.recommend(5, 4, candidates=[1, 2, 3, 9, 10])
    assert list(table)[:7] == ["user_id", "rank", "item_id", "title", "liked", "chosen", "liked_if_chosen"]
    assert {"mean", "sd", "lower", "upper", "smallest_set"} <= set(table)
    assert set(table["item_id"]) <= {1, 2, 3, 9, 10}
    counts = recommender.posterior.train.item_counts
    often = recommender.recommend(5, 80, min_count=30)["item_id"]
    assert (counts[often] >= 30).all()
    unseen = set(range(80)) - set(recommender.selection.rated.items(5).tolist())
    assert set(often) == {item for item in unseen if counts[item] >= 30}
    left_out = pd.DataFrame({"user_id": [5, 5], "item_id": often[:2].tolist()})
    rest = recommender.recommend(5, 80, min_count=30, exclude=left_out)["item_id"]
    assert rest.tolist() == often[2:].tolist()
    assert len(recommender.recommend(5, 100, exclude_seen=False)) == 80


def test_a_threshold_of_ones_own(recommender: Recommender) -> None:
    high = replace(recommender, threshold=4.0)
    table, usual = high.recommend(5, 80), recommender.recommend(5, 80)
    own = usual.set_index("item_id").loc[table["item_id"]]
    assert (table["liked_if_chosen"].to_numpy() < own["liked_if_chosen"].to_numpy()).all()
    np.testing.assert_allclose(table["chosen"].to_numpy(), own["chosen"].to_numpy())


def test_users_with_none_or_all_items_rated() -> None:
    rng = np.random.default_rng(0)
    chosen = rng.random((40, 12)) < 0.4
    chosen[0], chosen[1] = True, False
    chosen[1, 0] = True
    ratings = ratings_of(chosen, rng.integers(1, 6, chosen.shape))
    rows = np.arange(len(ratings))
    test = (rows % 6 == 5) & (ratings.users > 0)
    valid = (rows % 6 == 4) & (ratings.users > 1)
    test |= ratings.users == 1
    split = Split(ratings, rows[~(test | valid)], rows[valid], rows[test], "given")
    from pyro_bmf.fitting import fit
    from pyro_bmf.methods.settings import preset

    posterior = fit(
        split, preset("conjugate").replace(n_factors=2, max_iterations=8), progress=False
    ).posterior
    found = Recommender(posterior, fit_selection(split))
    for options in ({}, {"by": "chosen"}, {"strategy": "prob-top", "num_samples": 20}, {"strategy": "lower"}):
        assert len(found.recommend([0], 5, **options)) == 0
        none = found.recommend([1], 5, **options)
        assert len(none) == 5
        assert ((none["chosen"] > 0) & (none["chosen"] < 1)).all()
    assert found.why(0, [3]).shape[0] > 0
    assert found.why(1, [3]).shape[0] == 0


@pytest.mark.parametrize("strategy", ["lower", "thompson", "prob-top"])
@pytest.mark.parametrize("by", ["liked", "chosen"])
def test_strategies_act_on_draws_of_the_product(recommender: Recommender, by: str, strategy: str) -> None:
    options = {"by": by, "strategy": strategy, "num_samples": 60, "seed": 4}
    table = recommender.recommend([7, 2], 6, **options)
    pd.testing.assert_frame_equal(recommender.recommend([7, 2], 6, **options), table)
    alone = recommender.recommend([2], 6, **options)["score"].to_numpy()
    np.testing.assert_allclose(alone, table["score"].to_numpy()[6:], rtol=1e-6)
    product = recommender.product()
    users, items = np.repeat(7, 80), np.arange(80)
    draws = np.arange(60) if strategy != "thompson" else np.array([0])
    rated = recommender.selection.rated.take(np.array([7]))
    drawn = recommender.selection.draw_chosen(rated, items[None], draws, 4)[:, 0]
    seen, pmf = recommender.selection.seen, product.pairs.pmf(users, items, np.arange(1.0, 6.0))
    rates = with_term(recommender.selection.known, drawn / (1 - seen + seen * drawn), pmf)
    drawn = (1 - seen) * rates / (1 - seen * rates)
    if by == "liked":
        drawn = drawn * product.draw_liking(users, items, draws, 4)
    drawn[:, recommender.selection.rated.items(7)] = -np.inf
    finite = np.where(np.isneginf(drawn), 0.0, drawn)
    if strategy == "lower":
        scores = np.quantile(finite, 0.1, axis=0)
    elif strategy == "thompson":
        scores = drawn[0]
    else:
        ranks = np.argsort(np.argsort(-drawn, axis=1, kind="stable"), axis=1)
        scores = (ranks < 6).mean(axis=0)
    own = table.head(6)
    np.testing.assert_allclose(own["score"], scores[own["item_id"]], rtol=1e-6)
    np.testing.assert_allclose(own["score"], np.sort(scores)[::-1][:6], rtol=1e-6)


def test_draws_of_the_liking_have_its_mean(recommender: Recommender) -> None:
    product = recommender.product()
    users, items = np.array([3, 9, 9]), np.array([1, 7, 20])
    drawn = product.draw_liking(users, items, np.arange(3000), 0)
    mean = product.liking(users, items)
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * drawn.std(axis=0) / np.sqrt(3000) + 2e-3).all()


def test_ties_break_the_same_way(recommender: Recommender, split: Split) -> None:
    # Two items that nobody rated in training have the same of everything.
    chosen = np.zeros((300, 83), dtype=bool)
    chosen[split.train.users, split.train.items] = True
    chosen[:, 80:] = False
    chosen[:3, 80:] = True
    values = np.full(chosen.shape, 3.0)
    values[split.train.users, split.train.items] = split.train.ratings
    ratings = ratings_of(chosen, values)
    late = ratings.items >= 80
    rows = np.arange(len(ratings))
    valid = ~late & (rows % 8 == 0)
    own = Split(ratings, rows[~(late | valid)], rows[valid], rows[late], "given")
    from pyro_bmf.fitting import fit
    from pyro_bmf.methods.settings import preset

    posterior = fit(own, preset("conjugate").replace(n_factors=2, max_iterations=8), progress=False).posterior
    found = Recommender(posterior, fit_selection(own))
    table = found.recommend([5, 6], 80, candidates=[82, 81, 80, 3])
    for _, one in table.groupby("user_id"):
        cold = one[one["item_id"] >= 80]
        assert cold["item_id"].tolist() == [80, 81, 82]
        assert cold["liked"].nunique() == 1
    pd.testing.assert_frame_equal(found.recommend([5, 6], 80, candidates=[80, 3, 81, 82]), table)


def test_words_that_are_not_known_are_refused(recommender: Recommender) -> None:
    for options, text in (
        ({"by": "best"}, "liked, rating, chosen"),
        ({"strategy": "best"}, "mean, lower, thompson, prob-top"),
        ({"quantile": 1.0}, "between 0 and 1"),
        ({"num_samples": 1}, "2 or more"),
        ({"min_count": -1}, "at least 0"),
        ({"n": 0}, "at least 1"),
    ):
        with pytest.raises(SettingsError, match=text):
            recommender.recommend(1, **{"n": 3, **options})
    with pytest.raises(UnknownIdError):
        recommender.recommend(999)


# --- confounding --------------------------------------------------------------------------------------------


def test_under_planted_confounding_liked_is_calibrated_and_rating_biased(
    recommender: Recommender, split: Split
) -> None:
    """What is liked is chosen: predicted ratings of pairs that were not are a whole level too high."""
    _, levels, rates = confounded_split()
    users = np.arange(300)
    n = len(split.ratings)
    a, b, c = (len(rows) / n for rows in (split.train_rows, split.valid_rows, split.test_rows))
    product = replace(recommender, horizon=Horizon(a + b, c, "test")).product()
    known = (RatedSets.of(split.train).matrix + RatedSets.of(split.valid).matrix).toarray() > 0
    own, items = np.nonzero(~known)
    expected = product.chosen_pairs(own, items) * product.liking(own, items)
    test = split.test
    true = np.zeros(known.shape)
    true[test.users[test.ratings > 3], test.items[test.ratings > 3]] = 1.0
    assert true.sum() / expected.sum() == pytest.approx(1.0, abs=0.1)
    order = np.argsort(-expected)
    for part in np.array_split(order, 3)[:1]:
        assert true[own, items][part].sum() / expected[part].sum() == pytest.approx(1.0, abs=0.12)
    # Every pair's rating is known here, chosen or not: the predicted ones are too high.
    predicted = recommender.posterior.predict_mean(own, items)
    bias = (predicted - levels[own, items]).mean()
    assert bias == pytest.approx(0.97, abs=0.1)
    on_test = (recommender.posterior.predict_mean(test.users, test.items) - test.ratings).mean()
    assert abs(on_test) < 0.1
    del users, rates


# --- whom and why -------------------------------------------------------------------------------------------


def test_new_users_are_asked_by_their_own_calibration(recommender: Recommender) -> None:
    train = recommender.posterior.train
    at = train.users == 11
    ratings = dict(zip(train.items[at].tolist(), train.ratings[at].tolist(), strict=True))
    new = recommender.fold_in_users({"a": ratings, "b": {}})
    table = new.recommend(["a"], 80)
    selection, items = recommender.selection, table["item_id"].to_numpy()
    rated = RatedSets.of_pairs(np.zeros(at.sum(), dtype=int), train.items[at], (1, 80), new=True)
    pmf = new.product().pairs.pmf(np.zeros(len(items), dtype=int), items, np.arange(1.0, 6.0))
    rates = with_term(selection.new, selection.rates(rated)[0, items], pmf)
    np.testing.assert_allclose(table["chosen"], selection.horizon.chosen(rates))
    assert not set(table["item_id"]) & set(ratings)
    assert (np.diff(table["liked"]) <= 0).all()
    assert len(new.recommend(["b"], 5, by="chosen")) == 5
    assert len(new.recommend(n=5, strategy="thompson")) == 10
    one = recommender.fold_in(ratings).recommend(n=80)
    np.testing.assert_array_equal(one["item_id"], table["item_id"])
    assert one["user_id"].nunique() == 1
    by_rating = new.recommend(["a"], 6, by="rating")
    own = recommender.posterior.fold_in_users({"a": ratings}).recommend(["a"], 6)
    assert by_rating["item_id"].tolist() == own["item_id"].tolist()


def test_why_names_the_ratings_that_speak_most(recommender: Recommender) -> None:
    head, own = recommender.selection.head, recommender.selection.rated.items(4)
    item = int(np.setdiff1d(np.arange(80), own)[0])
    table = recommender.why(4, [item], n=3)
    added = head.influence(own, item)
    assert table["because_of"].tolist() == own[np.argsort(-added)[:3]].tolist()
    np.testing.assert_allclose(table["influence"], np.sort(added)[::-1][:3] / added[added > 0].sum())
    ratings = recommender.posterior.train
    given = dict(zip(ratings.items[ratings.users == 4], ratings.ratings[ratings.users == 4], strict=True))
    assert table["rating"].tolist() == [given[one] for one in table["because_of"]]
    # An item is no reason for itself.
    assert int(own[0]) not in recommender.why(4, [int(own[0])], n=80)["because_of"].tolist()


# --- measured and saved -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["liked", "chosen"])
def test_lists_and_scores_give_the_same_figures(recommender: Recommender, split: Split, by: str) -> None:
    ranker = ProductRanker(recommender, by, Horizon(0.85, 0.15, "test"))
    found = [evaluate_ranking(ranker, split, n=(5,), lists=lists) for lists in (True, False)]
    for one, other in zip(*found, strict=True):
        assert one.to_dict() == other.to_dict()
    assert ranker.fitted_to.split_hash == split.hash


def test_lists_leave_out_what_they_are_told(recommender: Recommender) -> None:
    none = Exclusion.of_pairs(np.zeros(80, dtype=int), np.arange(80), 300)
    parts = list(recommender.product().best(np.array([0, 1]), 3, np.arange(80), none, Decision()))
    items = np.concatenate([found for _, found, _ in parts])
    assert items[0].tolist() == [-1, -1, -1]
    assert (items[1] >= 0).all()


def test_a_folder_holds_both(recommender: Recommender, tmp_path: Path) -> None:
    recommender.save(tmp_path)
    again = Recommender.load(tmp_path)
    pd.testing.assert_frame_equal(again.recommend([1, 2], 5), recommender.recommend([1, 2], 5))
    (tmp_path / "selection.safetensors").unlink()
    with pytest.raises(SavedFileError, match="--by rating"):
        Recommender.load(tmp_path)
    assert isinstance(Posterior.load(tmp_path), Posterior)


def test_calibration_of_liked_is_what_comes_true(recommender: Recommender, split: Split) -> None:
    n = len(split.ratings)
    known_share, share = (n - len(split.test_rows)) / n, len(split.test_rows) / n
    product = recommender.product(horizon=Horizon(known_share, share, "test"))
    found = liked_calibration(product, split)
    by = {group.group: group for group in found.groups}
    known = (RatedSets.of(split.train).matrix + RatedSets.of(split.valid).matrix).toarray() > 0
    own, items = np.nonzero(~known)
    p = product.chosen_pairs(own, items) * product.liking(own, items)
    test = split.test
    true = np.zeros(known.shape)
    true[test.users[test.ratings > 3], test.items[test.ratings > 3]] = 1.0
    assert by["all pairs"].expected == pytest.approx(p.sum())
    assert by["all pairs"].observed == (test.ratings > 3).sum()
    assert by["all pairs"].n_pairs == (~known).sum()
    ranker = ProductRanker(recommender, "liked", Horizon(known_share, share, "test"))
    lists = ranker.best_items(np.arange(300), 20, Exclusion.of_pairs(*np.nonzero(known), 300))
    hits = np.take_along_axis(true, np.maximum(lists, 0), axis=1)[lists >= 0].sum()
    assert by["top 20"].observed == hits
    for names in (
        [f"mass {number} of 10" for number in range(1, 11)],
        [f"users with {word} ratings" for word in ("few", "some", "many")],
        [f"items with {word} ratings" for word in ("few", "some", "many")],
    ):
        assert sum(by[name].observed for name in names) == by["all pairs"].observed
        assert sum(by[name].expected for name in names) == pytest.approx(p.sum())
    assert found.n_users == 300
    assert found.log_score > found.reference_log_score
    assert by["all pairs"].within
