"""The reference systems: against dense closed forms, planted truth, and the real ratings."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_bmf.baselines import BASELINES, BiasOnly, GlobalMean, Popularity
from pyro_bmf.baselines.effects import fit_effects
from pyro_bmf.data import RatingScale, load_ratings, random_split
from pyro_bmf.errors import DataError, SettingsError
from pyro_bmf.evaluation import evaluate, evaluate_with_references


def test_global_mean_by_hand(make_split):
    split = make_split([(0, 0, 2), (0, 1, 4), (1, 0, 3)], [], [(1, 1, 5)], 2, 2)
    system = GlobalMean().fit(split)
    assert system.predict_mean([0, 1], [1, 1]) == pytest.approx([3, 3])
    # variance (1 + 1 + 0) / 2 = 1, times 1 + 1/3
    assert system.predict_sd([0], [0]) == pytest.approx([np.sqrt(4 / 3)])


def test_one_rating_leaves_the_width_of_the_scale(make_split):
    split = make_split([(0, 0, 2)], [], [(0, 1, 5)], 1, 2)
    # uniform on 1..5: 4 / sqrt 12
    assert GlobalMean().fit(split).predict_sd([0], [0]) == pytest.approx([4 / np.sqrt(12)])


@pytest.mark.parametrize("user_effects", [True, False])
def test_effects_solve_the_dense_mixed_model_equations(make_random_split, user_effects):
    train = make_random_split(1).train
    e = fit_effects(train, user_effects=user_effects, tolerance=1e-12)
    assert e.converged
    # ratings = 1 mu + Z_u b + Z_i c + noise, flat prior on mu: the posterior mean solves
    # (W'W / noise + diag(0, 1/s_b^2, 1/s_c^2)) w = W'x / noise
    design = np.zeros((len(train), 1 + train.n_users + train.n_items))
    rows = np.arange(len(train))
    design[:, 0] = 1
    if user_effects:
        design[rows, 1 + train.users] = 1
    design[rows, 1 + train.n_users + train.items] = 1
    precision = np.zeros(design.shape[1])
    precision[1 : 1 + train.n_users] = 1 / e.user_prior_variance if user_effects else 1.0
    precision[1 + train.n_users :] = 1 / e.item_prior_variance
    gram = design.T @ design / e.noise_variance + np.diag(precision)
    w = np.linalg.solve(gram, design.T @ train.ratings / e.noise_variance)
    assert np.concatenate([[e.centre], e.user_loc, e.item_loc]) == pytest.approx(w, abs=1e-8)
    # independent effects: the variances are the inverse diagonal of the precision
    assert e.item_variance == pytest.approx(1 / np.diag(gram)[1 + train.n_users :])
    if user_effects:
        assert e.user_variance == pytest.approx(1 / np.diag(gram)[1 : 1 + train.n_users])
    else:
        assert (e.user_loc == 0).all()
        assert (e.user_variance == 0).all()
    # each variance component is a fixed point of its own update
    fitted = e.centre + e.user_loc[train.users] + e.item_loc[train.items]
    spread = e.user_variance[train.users] + e.item_variance[train.items]
    assert e.noise_variance == pytest.approx(np.mean((train.ratings - fitted) ** 2 + spread))
    assert e.item_prior_variance == pytest.approx(np.mean(e.item_loc**2 + e.item_variance))


def test_planted_variances_are_recovered(make_random_split):
    # sds 0.5, 0.6 and 1.0; 400 users and 300 items, unrounded
    scale = RatingScale(-5.0, 12.0, None, "given")
    split = make_random_split(3, n_users=400, n_items=300, density=0.3, scale=scale)
    e = fit_effects(split.train)
    assert np.sqrt(e.user_prior_variance) == pytest.approx(0.5, rel=0.1)
    assert np.sqrt(e.item_prior_variance) == pytest.approx(0.6, rel=0.1)
    assert np.sqrt(e.noise_variance) == pytest.approx(1.0, rel=0.02)
    assert e.iterations < 50
    result = evaluate(BiasOnly().fit(split), split, protocols=())
    assert result.rmse == pytest.approx(1.01, abs=0.03)
    assert all(
        abs(c - n) < 0.02
        for c, n in zip(result.calibration.overall.pit_coverage, (0.5, 0.8, 0.9, 0.95), strict=True)
    )


def test_rows_without_ratings_fall_back_to_the_rest(make_split):
    train = [(0, 0, 5), (0, 1, 4), (1, 0, 2), (1, 1, 2), (2, 0, 4), (2, 1, 1)]
    split = make_split(train, [], [(3, 2, 3), (0, 2, 3), (3, 0, 3)], 4, 3)
    system = BiasOnly().fit(split)
    e = system.effects
    assert system.predict_mean([3], [2]) == pytest.approx([e.centre])
    assert system.predict_mean([0], [2]) == pytest.approx([e.centre + e.user_loc[0]])
    # up to the tolerance at which the variances stopped moving
    expected = e.noise_variance + e.user_prior_variance + e.item_prior_variance
    assert system.predict_sd([3], [2])[0] ** 2 == pytest.approx(expected, rel=1e-5)
    assert system.predict_sd([3], [0])[0] > system.predict_sd([0], [0])[0]
    popular = Popularity().fit(split)
    assert popular.predict_mean([0], [2]) == pytest.approx([popular.effects.centre])


def test_equal_ratings_leave_a_small_width(make_split):
    split = make_split([(0, 0, 3), (1, 1, 3), (1, 0, 3)], [], [(0, 1, 3)], 2, 2)
    for system in BASELINES:
        fitted = system().fit(split)
        assert fitted.predict_mean([0], [1]) == pytest.approx([3])
        assert 0 < fitted.predict_sd([0], [1])[0] < 0.02
        assert evaluate(fitted, split, protocols=()).nll == pytest.approx(0, abs=1e-9)


def test_popularity_ranks_by_count(make_split):
    train = [(0, 2, 1), (1, 2, 1), (2, 2, 1), (0, 1, 5), (1, 1, 5), (2, 3, 5), (3, 0, 5)]
    split = make_split(train, [], [(3, 1, 4)], 4, 5)
    system = Popularity().fit(split)
    # counts 1, 2, 3, 1, 0; equal counts by index
    assert system.best_items(np.array([3]), 5, None).tolist() == [[2, 1, 0, 3, 4]]
    # user 0 has 2 and 1; user 3 has 0; -1 where nothing is left
    assert system.best_items(np.array([0, 3]), 4, system.seen()).tolist() == [[0, 3, 4, -1], [2, 1, 3, 4]]
    # predicted by shrunk item means: item 2 lowest, though it is the most popular
    assert system.predict_mean(np.zeros(4, int), np.arange(4)).argmin() == 2


def test_bias_only_recommends_the_best_rated(make_split):
    train = [(u, i, r) for u in range(6) for i, r in ((0, 2), (1, 5), (2, 4))] + [(6, 1, 4)]
    split = make_split(train, [], [(6, 2, 4)], 7, 3)
    assert BiasOnly().fit(split).recommend([6], 2)["item_id"].tolist() == [2, 0]


@pytest.mark.parametrize("system", BASELINES)
def test_every_baseline_keeps_the_contract(make_random_split, system):
    split = make_random_split(2)
    fitted = system()
    assert fitted.fit(split) is fitted
    users, items = split.test.users, split.test.items
    n = users.size
    assert fitted.predict_mean(users, items).shape == fitted.predict_sd(users, items).shape == (n,)
    pmf = fitted.predict_pmf(users, items, split.test.scale.levels)
    assert pmf.shape == (n, 5)
    assert pmf.sum(axis=1) == pytest.approx(np.ones(n))
    scores = fitted.score_items(np.arange(3))
    assert scores.shape == (3, 25)
    assert scores.dtype == np.float32
    lists = fitted.best_items(np.arange(40), 6, fitted.seen())
    seen = set(zip(split.train.users.tolist(), split.train.items.tolist(), strict=True))
    assert not any((user, item) in seen for user, row in enumerate(lists.tolist()) for item in row)
    assert all(len(set(row)) == 6 for row in lists.tolist())
    order = np.random.default_rng(0).permutation(n)
    assert (
        fitted.predict_mean(users[order], items[order]).tolist()
        == fitted.predict_mean(users, items)[order].tolist()
    )


@pytest.mark.parametrize("system", BASELINES)
def test_misuse_is_named(make_random_split, system):
    split = make_random_split(2)
    with pytest.raises(SettingsError, match="not fitted yet"):
        system().predict_mean([0], [0])
    fitted = system().fit(split)
    for users, items, words in (([40], [0], "user index 40 is outside 0..39"), ([0], [-1], "item index -1")):
        with pytest.raises(DataError, match=words):
            fitted.predict_mean(users, items)
    with pytest.raises(SettingsError, match="as many of each"):
        fitted.predict_mean([0, 1], [0])
    with pytest.raises(SettingsError, match="array of integers"):
        fitted.predict_mean([0.5], [0])
    with pytest.raises(SettingsError, match="n is 0: give a whole number of at least 1"):
        fitted.recommend([0], 0)


# measured, random 70/15/15, seed 0: RMSE of the global mean, of biases, of item means; NLL and RPS of biases
REAL = {
    "ml100k": (1.1308, 0.9435, 1.0250, 1.3074, 0.4988),
    "ml1m": (1.1154, 0.9084, 0.9784, 1.2688, 0.4784),
}


FILES = {"ml100k": "ml-100k/u.data", "ml1m": "ml-1m/ratings.dat"}


@pytest.mark.parametrize("name", list(REAL))
@pytest.mark.filterwarnings("ignore::pyro_bmf.data.DataWarning")  # a file without the official checksum
def test_references_on_real_ratings(real_data_dir, name):
    if not (real_data_dir / FILES[name]).is_file():
        pytest.skip(f"{name}: PYRO_BMF_DATA_DIR holds no {FILES[name]}")
    ratings = load_ratings(name, data_dir=real_data_dir)
    split = random_split(ratings, seed=0)
    result = evaluate_with_references(BiasOnly().fit(split), split, protocols=("full",))
    frame = result.table()
    expected = REAL[name]
    assert frame.loc["global-mean", "rmse"] == pytest.approx(expected[0], abs=0.001)
    assert frame.loc["bias-only", "rmse"] == pytest.approx(expected[1], abs=0.001)
    assert frame.loc["popularity", "rmse"] == pytest.approx(expected[2], abs=0.001)
    assert frame.loc["bias-only", "nll"] == pytest.approx(expected[3], abs=0.001)
    assert frame.loc["bias-only", "rps"] == pytest.approx(expected[4], abs=0.001)
    assert frame.loc["popularity", "full:recall@20"] > 2 * frame.loc["bias-only", "full:recall@20"]
