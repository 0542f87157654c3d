"""Figures of lists, and calibration of events, against plain statements of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pyro_bmf.data.ratings import Ratings, RatingScale, Vocabulary
from pyro_bmf.evaluation.event_calibration import event_group, mass_groups, mean_log_score, thirds
from pyro_bmf.evaluation.list_figures import gini, list_figures


def some_ratings(n_users: int = 30, n_items: int = 12) -> Ratings:
    chosen = np.random.default_rng(0).random((n_users, n_items)) < 0.4
    chosen[:, -1] = False  # nobody's
    users, items = np.nonzero(chosen)
    vocabularies = Vocabulary(np.arange(n_users), "user"), Vocabulary(np.arange(n_items), "item")
    return Ratings(users, items, np.full(len(users), 3.0), None, *vocabularies, RatingScale(1.0, 5.0, 1.0))


def test_lists_against_loops_over_pairs() -> None:
    train = some_ratings()
    x = np.zeros((30, 12))
    x[train.users, train.items] = 1.0
    lists = np.array([[0, 3, 5], [2, 11, -1], [1, -1, -1], [3, 0, 7]])
    found = list_figures(lists, train)
    alike = []
    for own in lists:
        items = own[own >= 0]
        norm = np.maximum(np.linalg.norm(x, axis=0), 1.0)
        pairs = [x[:, i] @ x[:, j] / norm[i] / norm[j] for i, j in itertools.combinations(items, 2)]
        if pairs:
            alike.append(np.mean(pairs))
    assert found.intra_list_similarity == pytest.approx(np.mean(alike))
    listed = lists[lists >= 0]
    share = np.maximum(x.sum(axis=0), 0.5) / 30
    assert found.novelty == pytest.approx(np.mean([-np.log2(share[item]) for item in listed]))
    assert found.catalogue_share == pytest.approx(7 / 12)


def test_gini_is_the_mean_difference_over_twice_the_mean() -> None:
    counts = np.random.default_rng(1).integers(0, 9, 20)
    difference = np.abs(counts[:, None] - counts[None]).mean()
    assert gini(counts) == pytest.approx(difference / (2 * counts.mean()))
    assert gini(np.full(5, 3)) == pytest.approx(0.0)
    assert np.isnan(gini(np.zeros(3)))


def test_lists_of_nothing() -> None:
    found = list_figures(np.full((2, 3), -1), some_ratings())
    assert found.catalogue_share == 0
    assert np.isnan(found.novelty)
    assert np.isnan(found.intra_list_similarity)


def test_ratios_have_errors_clustered_by_user() -> None:
    """The standard error is the spread of the ratio over simulated data whose users differ."""
    rng = np.random.default_rng(2)
    users = np.repeat(np.arange(80), 25)
    p = rng.uniform(0.02, 0.3, len(users))
    ratios, errors = [], []
    for _ in range(400):
        own = np.exp(0.5 * rng.normal(size=80) - 0.125)[users]
        found = event_group("all", p, rng.random(len(users)) < np.minimum(p * own, 1.0), users)
        ratios.append(found.ratio)
        errors.append(found.se)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.03)
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.12)


def test_no_event_where_few_are_expected_is_within() -> None:
    """The error that is clustered by user is zero where nothing came true; that of right ones is not."""
    p, users = np.array([0.6, 0.25, 0.2, 0.3, 0.3]), np.array([0, 0, 1, 2, 3])
    nothing = event_group("few", p, np.zeros(5, dtype=bool), users)
    outcomes = np.array(list(itertools.product((0, 1), repeat=5)))
    chance = np.where(outcomes == 1, p, 1.0 - p).prod(1)
    ratio = outcomes.sum(1) / p.sum()
    assert nothing.ratio == 0.0
    assert nothing.se == pytest.approx(np.sqrt(chance @ (ratio - chance @ ratio) ** 2))
    assert nothing.within
    many = event_group("many", np.full(100, 0.08), np.zeros(100, dtype=bool), np.arange(100))
    assert not many.within


@pytest.mark.parametrize("expected", [0.03, 0.17, 0.5, 0.99, 1.65, 4.0, 12.0, 60.0])
def test_right_probabilities_are_within_as_often_as_two_standard_errors_say(expected: float) -> None:
    rng = np.random.default_rng(5)
    users = np.repeat(np.arange(60), 20)
    p = rng.gamma(0.5, size=len(users)) + 1e-3
    p = p / p.sum() * expected
    p = np.minimum(p, 0.9)
    n = 2000
    inside = sum(event_group("all", p, rng.random(len(p)) < p, users).within for _ in range(n)) / n
    # 95.4 % of a Normal; where few are expected more are inside: numbers of events are whole, and the error
    # that is clustered by user grows with what was observed.
    assert inside >= 0.954 - 3.5 * np.sqrt(0.954 * 0.046 / n)
    if expected > 50.0:
        assert inside <= 0.985


def test_verdicts() -> None:
    users = np.arange(1000)
    right = event_group("a", np.full(1000, 0.5), users % 2 == 0, users)
    assert right.ratio == pytest.approx(1.0)
    assert right.within
    wrong = event_group("b", np.full(1000, 0.25), users % 2 == 0, users)
    assert wrong.ratio == pytest.approx(2.0)
    assert not wrong.within
    assert wrong.to_dict()["within"] is False
    assert np.isnan(event_group("c", np.zeros(0), np.zeros(0, dtype=bool), np.zeros(0, dtype=int)).ratio)


def test_groups_of_equal_mass_and_thirds() -> None:
    p = np.random.default_rng(3).random(5000) ** 3
    group = mass_groups(p)
    mass = np.bincount(group, p, 10)
    np.testing.assert_allclose(mass, p.sum() / 10, rtol=0.01)
    assert p[group == 0].min() >= p[group == 1].max()
    counts = np.arange(30)
    np.testing.assert_array_equal(np.bincount(thirds(counts, np.ones(30))), [10, 10, 10])
    by_weight = thirds(counts, counts)
    assert np.bincount(by_weight, counts) == pytest.approx(counts.sum() / 3, rel=0.12)
    assert (np.diff(by_weight) >= 0).all()


def test_log_score() -> None:
    p, true = np.array([0.2, 0.9, 0.0]), np.array([True, True, False])
    assert mean_log_score(p, true) == pytest.approx((np.log(0.2) + np.log(0.9)) / 3)
