"""Recommendations: against brute force, what is left out, ties, bounded memory, and the checkerboard."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from posteriors import PoissonLikelihood, handmade, planted, random_rows, train_posterior

from pyro_bmf.data import Ratings
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import DataError, SettingsError
from pyro_bmf.model.rows import RowPosterior
from pyro_bmf.numerics import ranked_lists
from pyro_bmf.numerics.ranked_lists import Exclusion, best_columns
from pyro_bmf.posterior import Posterior


def test_lists_are_those_of_a_full_sort(posterior: Posterior) -> None:
    table = posterior.recommend(n=6)
    assert list(table.columns) == [
        "user_id",
        "rank",
        "item_id",
        "title",
        "mean",
        "sd",
        "lower",
        "upper",
        *("smallest_set", "set_probability"),
    ]
    train = posterior.train
    for user, user_id in enumerate(posterior.user_vocabulary.ids):
        every = posterior.predict(int(user_id), posterior.item_vocabulary.ids)
        seen = posterior.item_vocabulary.ids[train.items[train.users == user]]
        best = every[~every["item_id"].isin(seen)].nlargest(6, "mean")
        own = table[table["user_id"] == user_id]
        assert own["item_id"].tolist() == best["item_id"].tolist()
        assert own["rank"].tolist() == [1, 2, 3, 4, 5, 6]
        for column in ("mean", "sd", "lower", "upper"):
            np.testing.assert_array_equal(own[column], best[column])
        assert own["mean"].is_monotonic_decreasing


def test_users_come_in_the_order_asked_for(posterior: Posterior) -> None:
    table = posterior.recommend([11, 5, 11], n=2)
    assert table["user_id"].tolist() == [11, 11, 5, 5, 11, 11]
    everyone = posterior.recommend(n=2)
    one = everyone[everyone["user_id"] == 5].reset_index(drop=True)
    pd.testing.assert_frame_equal(posterior.recommend(5, n=2), one)
    assert len(posterior.recommend([], n=2)) == 0


def test_titles_stand_beside_ids(posterior: Posterior) -> None:
    table = posterior.recommend(n=45, exclude_seen=False)
    titled = table[table["item_id"] == 1014]["title"].unique().tolist()
    untitled = table[table["item_id"] == 1007]["title"].unique().tolist()
    assert titled == ["Título 1014 映画"]
    assert untitled == [""]


def test_what_is_left_out(posterior: Posterior) -> None:
    train = posterior.train
    seen = set(zip(train.users.tolist(), train.items.tolist(), strict=True))

    def pairs(table: pd.DataFrame) -> set[tuple[int, int]]:
        users = posterior.user_vocabulary.index(table["user_id"].to_numpy())
        items = posterior.item_vocabulary.index(table["item_id"].to_numpy())
        return set(zip(users.tolist(), items.tolist(), strict=True))

    everything = pairs(posterior.recommend(n=45, exclude_seen=False))
    assert len(everything) == 60 * 45
    unseen = pairs(posterior.recommend(n=45))
    assert unseen == everything - seen
    more = pd.DataFrame({"user_id": [5, 5, 8], "item_id": [1000, 1007, 1000]})
    also = {(0, 0), (0, 1), (1, 0)}
    assert pairs(posterior.recommend(n=45, exclude=more)) == everything - seen - also
    assert pairs(posterior.recommend(n=45, exclude=more, exclude_seen=False)) == everything - also
    as_ratings = train.take(np.arange(5))
    expected = everything - set(list(zip(train.users.tolist(), train.items.tolist(), strict=True))[:5])
    assert pairs(posterior.recommend(n=45, exclude=as_ratings, exclude_seen=False)) == expected
    with pytest.raises(SettingsError, match="other users or items"):
        posterior.recommend(exclude=planted(n_users=30))


def test_pairs_of_text_ids_are_left_out(text_posterior: Posterior) -> None:
    first = text_posterior.recommend("u:3", n=1)[["user_id", "item_id"]]
    assert text_posterior.recommend("u:3", n=1, exclude=first)["item_id"][0] != first["item_id"][0]
    with pytest.raises(DataError, match="pairs to exclude have no column item_id"):
        text_posterior.recommend("u:3", exclude=first[["user_id"]])


def test_candidates_are_all_there_is_to_choose_from(posterior: Posterior) -> None:
    table = posterior.recommend(n=10, candidates=[1014, 1000, 1000, 1007], exclude_seen=False)
    assert set(table["item_id"]) == {1000, 1007, 1014}
    assert (table.groupby("user_id").size() == 3).all()
    unseen = posterior.recommend(n=10, candidates=[1014, 1000, 1007])
    counts = unseen.groupby("user_id").size()
    assert counts.max() <= 3
    assert len(unseen) < len(table)
    assert len(posterior.recommend(5, candidates=[])) == 0


def test_equal_means_are_in_the_order_of_ids() -> None:
    items = RowPosterior(torch.ones(40, 1), torch.full((40, 1), 0.1))
    posterior = handmade(random_rows(3, 1, biases=False), items)
    table = posterior.recommend([1, 2], n=5, exclude_seen=False)
    assert table["item_id"].tolist() == [0, 1, 2, 3, 4] * 2


def test_a_chunk_more_or_less_changes_nothing(posterior: Posterior, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = posterior.recommend(n=7)
    monkeypatch.setattr(ranked_lists, "MAX_SCORES", 100)
    pd.testing.assert_frame_equal(whole, posterior.recommend(n=7))


def test_ranking_uses_the_likelihoods_mean() -> None:
    """With an exponential link, an uncertain item has a higher mean than a sure one of the same eta."""
    items = RowPosterior(torch.tensor([[1.0], [1.0]]), torch.tensor([[0.05], [1.0]]))
    users = RowPosterior(torch.tensor([[1.0]]), torch.tensor([[0.05]]))
    table = handmade(users, items, likelihood=PoissonLikelihood(), scale="0:9:1").recommend(
        0, n=2, exclude_seen=False
    )
    assert table["item_id"].tolist() == [1, 0]


def test_memory_is_bounded_for_all_users() -> None:
    """All users of a set whose score matrix would take 480 MB."""
    posterior = handmade(random_rows(12_000, 4), random_rows(10_000, 4, seed=1))
    tracemalloc.start()
    table = posterior.recommend(n=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(table) == 36_000
    assert peak < 120e6  # numpy's share; torch's is bounded by the same chunks


def test_excluded_columns_that_are_no_candidates_do_no_harm() -> None:
    exclusion = Exclusion.of_pairs(np.array([1, 0, 1, 1]), np.array([3, 2, 3, 0]), 2)
    scores = np.array([[0.0, 1.0, 2.0, 3.0], [5.0, 4.0, 3.0, 9.0]])
    places, columns = best_columns(
        lambda rows, at: scores[np.ix_(rows, at)], np.array([1, 0]), np.array([1, 3]), 2, exclusion, 4
    )
    assert places.tolist() == [0, 1, 1]
    assert columns.tolist() == [1, 3, 1]


def checkerboard(n: int = 24) -> tuple[Ratings, np.ndarray]:
    """Users like items of their own parity; withheld: the diagonal, and two disliked items beside it."""
    users, items = np.divmod(np.arange(n * n), n)
    offset = (items - users) % n
    keep = ~np.isin(offset, (0, 1, 3))
    stars = np.where(offset % 2 == 0, 5.0, 1.0)
    ratings = ratings_from_arrays(users[keep], items[keep], stars[keep], scale="1:5:1", name="checkerboard")
    return ratings, np.arange(n)


@pytest.mark.parametrize("biases", [True, False])
def test_checkerboard(biases: bool) -> None:
    ratings, diagonal = checkerboard()
    posterior = train_posterior(
        ratings,
        n_factors=2,
        iterations=250,
        learning_rate=2e-2,
        biases=biases,
        batch_size=24,
        # As in the default preset: without it these encoders learn the 21 ratings of each row by heart.
        input_dropout=0.3,
    )
    table = posterior.recommend(n=3)
    assert (table.groupby("user_id").size() == 3).all()
    first = table[table["rank"] == 1]
    np.testing.assert_array_equal(first["item_id"], diagonal)
    # And by a margin: the liked item is far above the two disliked ones.
    second = table[table["rank"] == 2]
    assert (first["mean"].to_numpy() - second["mean"].to_numpy()).min() > 1.0
    # A new user of either parity, folded in with four ratings, gets its own kind.
    for parity in (0, 1):
        new = posterior.fold_in({item: 5.0 if item % 2 == parity else 1.0 for item in range(8)})
        assert (new.recommend(n=5)["item_id"] % 2 == parity).all()
