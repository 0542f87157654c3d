import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_bmf.data import generated_counts, generated_pairs, load_ratings, synthetic_ratings
from pyro_bmf.errors import DataError


def test_eta_is_what_the_model_says() -> None:
    made = synthetic_ratings(30, 20, 200, n_factors=3, seed=4)
    ratings, truth = made.ratings, made.truth
    for row in range(0, 200, 7):
        i, j = ratings.users[row], ratings.items[row]
        eta = (
            truth.mean
            + truth.user_bias[i]
            + truth.item_bias[j]
            + truth.user_factors[i] @ truth.item_factors[j]
        )
        assert truth.eta[row] == pytest.approx(eta, rel=1e-12)
    assert truth.user_factors.shape == (30, 3)
    assert ratings.scale.step is None
    assert ratings.scale.source == "declared"


def test_draws_follow_the_priors() -> None:
    made = synthetic_ratings(
        3_000, 2_000, 60_000, n_factors=5, noise=0.7, factor_scale=0.8, bias_scale=0.3, mean=2.0, seed=1
    )  # fmt: skip
    truth = made.truth
    residual = made.ratings.ratings - truth.eta
    for values, mean, sd in (
        (residual, 0.0, 0.7),
        (truth.user_factors, 0.0, 0.8),
        (truth.item_factors, 0.0, 0.8),
        (truth.user_bias, 0.0, 0.3),
        (truth.item_bias, 0.0, 0.3),
    ):
        n = values.size
        assert abs(values.mean() - mean) < 4 * sd / np.sqrt(n)
        assert abs(values.std() - sd) < 4 * sd / np.sqrt(2 * n)
    # Noise is independent of what it is added to.
    assert abs(np.corrcoef(residual, truth.eta)[0, 1]) < 4 / np.sqrt(60_000)


def test_without_biases_and_on_a_star_scale() -> None:
    made = synthetic_ratings(100, 80, 2_000, biases=False, scale="1:5:1", seed=2)
    assert not made.truth.user_bias.any()
    assert set(np.unique(made.ratings.ratings)) <= {1, 2, 3, 4, 5}
    assert np.abs(made.ratings.ratings - np.clip(made.truth.eta, 1, 5)).mean() < 1
    clipped = synthetic_ratings(100, 80, 2_000, scale="3:4", seed=2).ratings.ratings
    assert (clipped.min(), clipped.max()) == (3, 4)
    assert len(np.unique(clipped)) > 100


def test_the_seed_decides() -> None:
    one, again, other = (synthetic_ratings(50, 40, 600, seed=seed) for seed in (1, 1, 2))
    assert one.ratings.data_hash == again.ratings.data_hash
    assert one.ratings.data_hash != other.ratings.data_hash
    np.testing.assert_array_equal(one.truth.eta, again.truth.eta)


def test_the_named_set() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ratings = load_ratings("synthetic")
    assert (ratings.n_users, ratings.n_items, len(ratings)) == (500, 400, 30_000)
    assert ratings.data_hash == synthetic_ratings().ratings.data_hash
    # Pinned: a change here moves every golden figure on this set.
    assert ratings.data_hash.startswith("18c8db039d905bfb")
    assert ratings.user_vocabulary.ids[0] == 1
    for counts in (ratings.user_counts, ratings.item_counts):
        assert counts.min() >= 1
        assert np.quantile(counts, 0.9) > 2 * np.median(counts)  # heavy-tailed


def test_truth_can_be_saved(tmp_path: Path) -> None:
    made = synthetic_ratings(30, 20, 200)
    made.truth.save(tmp_path / "truth.npz")
    with np.load(tmp_path / "truth.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["eta"], made.truth.eta)
        assert float(saved["noise"]) == made.truth.noise


@given(st.integers(1, 400), st.integers(0, 5_000), st.integers(0, 100))
def test_counts_sum_up(n: int, more: int, seed: int) -> None:
    counts = generated_counts(n, n + more, seed=seed)
    assert (counts.shape, counts.sum(), counts.min() >= 1) == ((n,), n + more, True)


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1), st.integers(0, 100))
def test_pairs_are_distinct_and_complete(n_users: int, n_items: int, fill: float, seed: int) -> None:
    least, most = max(n_users, n_items), n_users * n_items
    n = least + round(fill * (most - least))
    users, items = generated_pairs(n_users, n_items, n, seed=seed)
    key = users * n_items + items
    assert (np.diff(key) > 0).all()
    assert len(key) == n
    assert (len(np.unique(users)), len(np.unique(items))) == (n_users, n_items)


def test_pairs_by_rejection() -> None:
    users, items = generated_pairs(5_000, 3_000, 400_000, seed=3)
    assert (np.diff(users * 3_000 + items) > 0).all()
    assert (len(np.unique(users)), len(np.unique(items)), len(users)) == (5_000, 3_000, 400_000)
    counts = np.bincount(items)
    assert np.quantile(counts, 0.99) > 10 * np.median(counts)


def test_sizes_that_cannot_be_met() -> None:
    for sizes in ((10, 10, 9), (10, 10, 101), (0, 10, 10)):
        with pytest.raises(DataError, match="do not exist"):
            generated_pairs(*sizes)
    with pytest.raises(DataError, match="a fifth"):
        generated_pairs(5_000, 3_000, 4_000_000)
    with pytest.raises(DataError, match="at least one"):
        generated_counts(10, 9)
    for options in ({"noise": 0.0}, {"n_factors": 0}, {"factor_scale": -1.0}):
        with pytest.raises(DataError, match="noise > 0"):
            synthetic_ratings(10, 10, 20, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_twenty_million_pairs_take_seconds() -> None:
    started = time.process_time()
    users, items = generated_pairs(138_493, 26_744, 20_000_263)
    assert time.process_time() - started < 20
    assert (np.diff(users * 26_744 + items) > 0).all()


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, pyro_bmf.data; print(sorted({'torch', 'pyro', 'pooch', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
