"""The three ranking protocols: by hand, against a literal statement, and their invariances."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import ndcg_score

from pyro_bmf.data import Ratings, RatingScale, Split, Vocabulary
from pyro_bmf.errors import FitError, SettingsError
from pyro_bmf.evaluation import PROTOCOLS, evaluate_ranking
from pyro_bmf.numerics.top_n import top_n

LOG2_3 = np.log2(3)


@dataclasses.dataclass
class Scores:
    """A predictor that only ranks, by a table."""

    table: np.ndarray
    screens_catalogue: bool = False

    def score_items(self, users):
        return self.table[users]


@pytest.fixture(scope="module")
def small(make_split):
    # user 0: train 0, valid 1, test 2 (5 stars), 3 (2), 4 (4); user 1: nothing above 3 in test;
    # user 2: one test rating; user 3: train 1, valid 0, test 2 (4), 3 (1); user 4: no test rating
    train = [(0, 0, 5), (1, 4, 3), (2, 1, 4), (3, 1, 2), (4, 5, 3)]
    valid = [(0, 1, 4), (3, 0, 3)]
    test = [(0, 2, 5), (0, 3, 2), (0, 4, 4), (1, 0, 3), (1, 1, 2), (2, 0, 5), (3, 2, 4), (3, 3, 1)]
    scores = np.zeros((5, 6), dtype=np.float32)
    scores[0] = [9, 8, 1, 5, 3, 4]
    scores[3] = [0, 9, 2, 2, 7, 7]
    return make_split(train, valid, test, 5, 6), Scores(scores)


def by_name(results):
    return {(result.protocol, result.n): result for result in results}


def test_full_by_hand(small):
    split, predictor = small
    result = by_name(evaluate_ranking(predictor, split, n=(1, 3)))
    # user 0, candidates 2..5: order 3, 5, 4, 2; relevant 2 and 4; the third place hits:
    #   recall@3 = 1 / min(3, 2), ndcg@3 = (1/2) / (1 + 1/log2 3)
    # user 3, candidates 2..5: order 4, 5, 2, 3 (ties by index); relevant 2: recall@3 = 1, ndcg@3 = (1/2) / 1
    at_three = result["full", 3]
    assert at_three.users.tolist() == [0, 3]
    assert at_three.user_recall == pytest.approx([0.5, 1])
    assert at_three.user_ndcg == pytest.approx([0.5 / (1 + 1 / LOG2_3), 0.5])
    assert (at_three.recall, at_three.ndcg) == pytest.approx((0.75, (0.5 / (1 + 1 / LOG2_3) + 0.5) / 2))
    assert result["full", 1].recall == 0.0
    # user 1 has nothing relevant, user 2 one rating, user 4 none
    assert (at_three.n_users, at_three.n_users_one_rating, at_three.n_users_none_relevant) == (2, 1, 1)
    # ever recommended: {3, 5, 4} and {4, 5, 2} of six; first places {3} and {4}
    assert at_three.catalogue_share == pytest.approx(4 / 6)
    assert result["full", 1].catalogue_share == pytest.approx(2 / 6)
    # two users: sd of (0.5, 1) is 0.3536, over sqrt 2
    assert at_three.recall_se == pytest.approx(0.25)


def test_users_may_be_counted_by_all_their_ratings(small):
    split, predictor = small
    result = by_name(evaluate_ranking(predictor, split, n=(1, 3), counted=split.ratings))
    # user 2 has rated two items, one of them in test: candidates 0, 2 to 5 of equal score, 0 first, a hit
    full = result["full", 3]
    assert full.users.tolist() == [0, 2, 3]
    assert full.user_recall == pytest.approx([0.5, 1, 1])
    assert (full.n_users, full.n_users_one_rating, full.n_users_none_relevant) == (3, 0, 1)
    assert result["rated-precision", 1].user_recall == pytest.approx([0, 1, 1])


def test_rated_by_hand(small):
    split, predictor = small
    result = by_name(evaluate_ranking(predictor, split, n=(1, 3)))
    # user 0, candidates 2, 3, 4: order 3, 4, 2: hits at 2 and 3; user 3, candidates 2, 3 tied: 2 first, a hit
    at_three = result["rated", 3]
    assert at_three.user_recall == pytest.approx([1, 1])
    assert at_three.user_ndcg == pytest.approx([(1 / LOG2_3 + 0.5) / (1 + 1 / LOG2_3), 1])
    assert result["rated", 1].user_recall == pytest.approx([0, 1])
    assert at_three.catalogue_share is None


def test_rated_precision_by_hand(small):
    split, predictor = small
    result = by_name(evaluate_ranking(predictor, split, n=(1, 3)))
    # denominators min(3, 3 test items) and min(3, 2 test items)
    at_three = result["rated-precision", 3]
    assert at_three.user_recall == pytest.approx([2 / 3, 1 / 2])
    best_three, best_two = 1 + 1 / LOG2_3 + 0.5, 1 + 1 / LOG2_3
    assert at_three.user_ndcg == pytest.approx([(1 / LOG2_3 + 0.5) / best_three, 1 / best_two])
    assert result["rated-precision", 1].user_recall == pytest.approx([0, 1])


def test_the_threshold_is_a_setting(small):
    split, predictor = small
    # above 2: user 1's item 0 (3 stars) becomes relevant
    (result,) = evaluate_ranking(predictor, split, n=(3,), threshold=2.0, protocols=("full",))
    assert result.users.tolist() == [0, 1, 3]
    assert result.n_users_none_relevant == 0
    # user 1, all scores 0, train item 4: candidates in index order 0, 1, 2: a hit at once
    assert result.user_ndcg[1] == pytest.approx(1)


def test_validation_leaves_out_train_items_alone(make_split):
    train = [(0, 0, 5), (1, 1, 3)]
    valid = [(0, 1, 5), (0, 2, 1)]
    scores = Scores(np.array([[9, 1, 0, 5], [0, 0, 0, 0]], dtype=np.float32))
    split = make_split(train, valid, [(0, 3, 5), (1, 0, 1)], 2, 4)
    (result,) = evaluate_ranking(scores, split, part="valid", n=(2,), protocols=("full",))
    # item 3, in test, is a candidate like any unknown one and comes first; item 1 second
    assert result.user_ndcg == pytest.approx([1 / LOG2_3])
    other = make_split(train, valid, [(0, 3, 1), (1, 2, 4)], 2, 4)
    (again,) = evaluate_ranking(scores, other, part="valid", n=(2,), protocols=("full",))
    assert (again.recall, again.ndcg, again.n_users) == (result.recall, result.ndcg, result.n_users)
    assert again.catalogue_share == result.catalogue_share


def test_lists_end_when_candidates_do(make_split):
    # the last item is a seen one: it is where a list's empty places would point to
    split = make_split([(0, 0, 5), (0, 3, 5)], [], [(0, 1, 5), (0, 2, 4)], 1, 4)
    scores = Scores(np.array([[9, 1, 2, 8]], dtype=np.float32))
    result = by_name(evaluate_ranking(scores, split, n=(2, 50)))
    for protocol in ("full", "rated"):
        assert result[protocol, 50].recall == result[protocol, 50].ndcg == pytest.approx(1.0)
    assert result["full", 50].catalogue_share == 0.5  # seen items are never listed


def literal(table, split, part, n, threshold):
    """The protocols as their words say, user by user."""
    held_out = split.test if part == "test" else split.valid
    seen = [split.train, split.valid] if part == "test" else [split.train]
    found = {name: ([], []) for name in PROTOCOLS}
    for user in range(held_out.n_users):
        own = {
            i: r
            for u, i, r in zip(held_out.users, held_out.items, held_out.ratings, strict=True)
            if u == user
        }
        relevant = {item for item, rating in own.items() if rating > threshold}
        if len(own) < 2 or not relevant:
            continue
        known = {i for part_ in seen for u, i in zip(part_.users, part_.items, strict=True) if u == user}
        candidates = {
            "full": set(range(held_out.n_items)) - known,
            "rated": set(own),
            "rated-precision": set(own),
        }
        for name, chosen in candidates.items():
            ranked = sorted(chosen, key=lambda item: (-table[user, item], item))[:n]
            total = min(n, len(own) if name == "rated-precision" else len(relevant))
            gain = sum(1 / np.log2(place + 2) for place, item in enumerate(ranked) if item in relevant)
            found[name][0].append(sum(item in relevant for item in ranked) / total)
            found[name][1].append(gain / sum(1 / np.log2(place + 2) for place in range(total)))
    return found


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 30),
    part=st.sampled_from(["test", "valid"]),
    threshold=st.sampled_from([2.0, 3.0, 4.0]),
    cells=st.sampled_from([1, 60, 10_000]),
    n_values=st.sampled_from([2, 5, 1_000_000]),
)
def test_protocols_equal_the_literal_statement(make_random_split, seed, n, part, threshold, cells, n_values):
    split = make_random_split(seed, n_users=12, n_items=20)
    # few distinct values make many ties
    table = np.random.default_rng(seed).integers(n_values, size=(12, 20)).astype(np.float32)
    before = table.copy()
    results = evaluate_ranking(
        Scores(table), split, part=part, n=(n,), threshold=threshold, protocols=PROTOCOLS, max_cells=cells
    )
    for result in results:
        recall, ndcg = literal(table, split, part, n, threshold)[result.protocol]
        assert result.user_recall == pytest.approx(recall, abs=1e-12)
        assert result.user_ndcg == pytest.approx(ndcg, abs=1e-12)
        assert result.n_users == len(recall)
    assert (table == before).all()


def test_rated_ndcg_equals_scikit_learn(make_random_split):
    split = make_random_split(3)
    table = np.random.default_rng(3).normal(size=(40, 25)).astype(np.float32)
    (result,) = evaluate_ranking(Scores(table), split, n=(4,), protocols=("rated",))
    test = split.test
    for user, ours in zip(result.users, result.user_ndcg, strict=True):
        own = test.users == user
        gains = (test.ratings[own] > 3).astype(int)[None]
        assert ours == pytest.approx(ndcg_score(gains, table[user, test.items[own]][None], k=4))


def test_perfect_scores_are_one_and_scale_free(make_random_split):
    split = make_random_split(5)
    table = np.zeros((40, 25), dtype=np.float32)
    table[split.test.users, split.test.items] = split.test.ratings
    for result in evaluate_ranking(Scores(table), split, n=(3, 20), protocols=("full", "rated")):
        assert result.recall == pytest.approx(1)
        assert result.ndcg == pytest.approx(1)
    noisy = table + np.random.default_rng(0).normal(size=table.shape).astype(np.float32)
    once = evaluate_ranking(Scores(noisy), split, n=(5,))
    twice = evaluate_ranking(Scores(noisy * 4 + 8), split, n=(5,))
    assert [result.recall for result in once] == [result.recall for result in twice]


def test_nobody_to_evaluate_is_counted_not_an_error(make_split):
    split = make_split([(0, 0, 5)], [], [(0, 1, 2), (0, 2, 1)], 1, 3)
    (result,) = evaluate_ranking(Scores(np.zeros((1, 3), np.float32)), split, n=(2,), protocols=("full",))
    assert (result.n_users, result.n_users_none_relevant) == (0, 1)
    assert np.isnan(result.recall)
    assert result.catalogue_share == 0.0


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"part": "train"}, "part 'train' cannot be evaluated"),
        ({"protocols": ("full", "all")}, "no ranking protocol 'all'"),
        ({"n": ()}, "list lengths"),
        ({"n": (20, 0)}, "list lengths"),
    ],
)
def test_wrong_settings_are_named(small, settings_, words):
    split, predictor = small
    with pytest.raises(SettingsError, match=words):
        evaluate_ranking(predictor, split, **settings_)


def test_wrong_scores_are_named(small):
    split, _ = small
    with pytest.raises(SettingsError, match=r"score_items gave an array of shape \(2, 4\); \(2, 6\)"):
        evaluate_ranking(Scores(np.zeros((5, 4))), split)
    with pytest.raises(FitError, match="12 values that are not finite"):
        evaluate_ranking(Scores(np.full((5, 6), np.nan)), split)


@settings(deadline=None)  # a busy machine is no failure
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 5), st.integers(1, 12)),
        elements=st.sampled_from([-np.inf, 0, 1, 2.5]),
    ),
    st.integers(1, 15),
)
def test_top_n_equals_a_sort(scores, n):
    best = top_n(scores, n)
    assert best.shape == (len(scores), n)
    for row, found in zip(scores, best, strict=True):
        expected = [
            item for item in sorted(range(row.size), key=lambda i: (-row[i], i)) if row[item] > -np.inf
        ]
        assert found.tolist() == (expected + [-1] * n)[:n]


def test_full_at_the_size_of_movielens_1m_takes_seconds():
    rng = np.random.default_rng(0)
    n_users, n_items, n = 6040, 3706, 1_000_000
    pairs = np.unique(rng.integers(n_users * n_items, size=n))
    users, items = np.divmod(pairs, n_items)
    ratings = Ratings(
        users,
        items,
        rng.integers(1, 6, size=pairs.size).astype(np.float64),
        None,
        Vocabulary(np.arange(n_users), "user"),
        Vocabulary(np.arange(n_items), "item"),
        RatingScale(1.0, 5.0, 1.0, "declared"),
    )
    parts = np.array_split(rng.permutation(pairs.size), [int(0.7 * pairs.size), int(0.85 * pairs.size)])
    split = Split(ratings, *parts, "random", {})
    table = rng.random((n_users, n_items), dtype=np.float32)
    start = time.perf_counter()
    results = evaluate_ranking(Scores(table), split)
    # 0.4 s on an idle machine; chance is n / candidates = 20 / about 3,565 unseen items
    assert time.perf_counter() - start < 10
    assert results[0].catalogue_share == 1.0
