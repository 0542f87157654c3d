"""Folding in: what the encoder says of a row is what it said of the same ratings in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from posteriors import PoissonLikelihood, handmade, planted, random_rows, train_posterior

from pyro_bmf.data import Ratings
from pyro_bmf.errors import DataError
from pyro_bmf.posterior import Posterior


def ratings_of(posterior: Posterior, side: str, row: int) -> dict[Any, float]:
    train = posterior.train
    own, other = (train.users, train.items) if side == "user" else (train.items, train.users)
    vocabulary = posterior.item_vocabulary if side == "user" else posterior.user_vocabulary
    rows = np.flatnonzero(own == row)
    return dict(zip(vocabulary.raw(other[rows]).tolist(), train.ratings[rows].tolist(), strict=True))


@pytest.fixture(scope="module")
def exact(train: Ratings) -> Posterior:
    return train_posterior(train, iterations=3, dtype=torch.float64)


@pytest.mark.parametrize("side", ["user", "item"])
def test_a_trained_row_folds_in_to_itself(exact: Posterior, side: str) -> None:
    rows = exact.user_rows if side == "user" else exact.item_rows
    for row in (0, 17, 44):
        folded = exact.fold_in(ratings_of(exact, side, row), side=side).posterior  # type: ignore[arg-type]
        for part in ("loc", "scale", "bias_loc", "bias_scale"):
            np.testing.assert_allclose(getattr(folded, part)[0], getattr(rows, part)[row], atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"attention": "softmax"},
        {"attention": "sum", "attention_scope": "global"},
        {"attention": "none", "feedback": False},
        {"data_input": False},
    ],
)
def test_every_kind_of_encoder_folds_in(train: Ratings, settings: dict[str, Any]) -> None:
    posterior = train_posterior(train, iterations=2, biases=False, **settings)
    folded = posterior.fold_in(ratings_of(posterior, "user", 3))
    np.testing.assert_allclose(folded.posterior.loc[0], posterior.user_rows.loc[3], atol=2e-5)
    np.testing.assert_allclose(folded.posterior.scale[0], posterior.user_rows.scale[3], atol=2e-5)


def test_predictions_of_a_folded_in_user_are_its_own(exact: Posterior) -> None:
    own = exact.predict(8, exact.item_vocabulary.ids)
    folded = exact.fold_in(ratings_of(exact, "user", 1))
    table = folded.predict(exact.item_vocabulary.ids)
    pd.testing.assert_frame_equal(own.drop(columns="user_id"), table, atol=1e-10)
    lists = exact.recommend(8, n=5).drop(columns="user_id")
    pd.testing.assert_frame_equal(lists, folded.recommend(n=5), atol=1e-10)
    everything = folded.recommend(n=45, exclude_seen=False)
    assert len(everything) == 45
    assert (
        folded.recommend(n=3, candidates=[1000, 1007], exclude_seen=False)["item_id"].isin([1000, 1007]).all()
    )


def test_the_order_of_ratings_does_not_matter(exact: Posterior) -> None:
    ratings = ratings_of(exact, "user", 5)
    backwards = dict(reversed(list(ratings.items())))
    assert list(backwards) != list(ratings)
    one, other = exact.fold_in(ratings), exact.fold_in(backwards)
    assert torch.equal(one.posterior.loc, other.posterior.loc)
    assert torch.equal(one.posterior.scale, other.posterior.scale)


def test_the_forms_of_new_ratings_agree(posterior: Posterior) -> None:
    ratings = {1000: 5.0, 1014: 2.5}
    forms = [
        list(ratings.items()),
        pd.DataFrame({"item_id": list(ratings), "rating": list(ratings.values())}),
        {np.int64(1000): np.float32(5.0), 1014: 2.5},
        pd.Series([5.0, 2.5], index=list(ratings)),
        pd.Series([5, 2.5], index=pd.Index(list(ratings), dtype=object), dtype="Float64"),
    ]
    expected = posterior.fold_in(ratings).posterior.loc
    for form in forms:
        assert torch.equal(posterior.fold_in(form).posterior.loc, expected)  # type: ignore[arg-type]


def test_no_ratings_are_an_answer_too(posterior: Posterior) -> None:
    for side in ("user", "item"):
        folded = posterior.fold_in({}, side=side)  # type: ignore[arg-type]
        assert folded.count == 0
        assert torch.isfinite(folded.posterior.loc).all()
        assert (folded.posterior.scale > 0).all()
        assert len(folded.recommend(n=4)) == 4
    empty = posterior.fold_in(pd.DataFrame({"item_id": [], "rating": []}))
    assert torch.equal(empty.posterior.loc, posterior.fold_in({}).posterior.loc)


def test_many_at_once_are_each_alone(exact: Posterior) -> None:
    ratings = {"zoe": {1000: 5.0, 1007: 1.0}, "abe": {}, "mia": {1308: 4.5}}
    many = exact.fold_in_users(ratings)
    assert len(many) == 3
    assert many.vocabulary.ids.tolist() == ["abe", "mia", "zoe"]
    assert many.counts.tolist() == [0, 1, 2]
    for name, given in ratings.items():
        alone = exact.fold_in(given)
        np.testing.assert_allclose(many[name].posterior.loc, alone.posterior.loc, atol=1e-12)
        pd.testing.assert_frame_equal(many[name].recommend(n=4), alone.recommend(n=4), atol=1e-10)
    table = many.recommend(["zoe", "abe"], n=4)
    assert table["user_id"].tolist() == ["zoe"] * 4 + ["abe"] * 4
    assert len(many.recommend(n=4)) == 12
    assert not table[table["user_id"] == "zoe"]["item_id"].isin([1000, 1007]).any()
    rows = [("zoe", 1007, 1.0), ("mia", 1308, 4.5), ("zoe", 1000, 5.0)]
    frame = exact.fold_in_users(pd.DataFrame(rows, columns=["user_id", "item_id", "rating"]))
    np.testing.assert_allclose(frame["zoe"].posterior.loc, many["zoe"].posterior.loc, atol=1e-12)
    assert many.predict(["mia", "abe"], [1000, 1000])["user_id"].tolist() == ["mia", "abe"]


def test_new_items_find_their_users(exact: Posterior) -> None:
    given = ratings_of(exact, "item", 2)
    new = exact.fold_in(given, side="item")
    table = new.recommend(n=5)
    assert list(table.columns) == [
        "rank",
        "user_id",
        "mean",
        "sd",
        "lower",
        "upper",
        "smallest_set",
        "set_probability",
    ]
    assert not table["user_id"].isin(list(given)).any()
    own = exact.predict(exact.user_vocabulary.ids, 1014)
    best = own[~own["user_id"].isin(list(given))].nlargest(5, "mean")
    assert table["user_id"].tolist() == best["user_id"].tolist()
    np.testing.assert_allclose(table["mean"], best["mean"], atol=1e-10)
    many = exact.fold_in_items({7: given, 9: {}})
    assert many.recommend(n=2)["item_id"].tolist() == [7, 7, 9, 9]


def test_draws_of_a_new_row_share_the_items_draws(posterior: Posterior) -> None:
    new = posterior.fold_in({1000: 5.0})
    drawn = new.sample([1007, 1014], 4_000, 3, kind="eta")
    table = new.predict([1007, 1014])
    np.testing.assert_allclose(drawn.mean(0), table["mean"], atol=0.06)
    np.testing.assert_allclose(drawn.std(0), table["mean_sd"], rtol=0.08)
    # Its own noise is not that of the user who happens to have index 0.
    other = posterior.sample(5, [1007, 1014], 4_000, 3, kind="eta")
    shared = np.corrcoef(drawn[:, 0], other[:, 0])[0, 1]
    users, items = posterior.user_rows, posterior.item_rows
    # What is left is the covariance through the common item: its factors' and its bias's.
    own, loc, spread = new.posterior.loc[0], users.loc[0], items.scale[1]
    assert items.bias_scale is not None
    expected = float((own * loc * spread**2).sum() + items.bias_scale[1] ** 2)
    expected /= float(table["mean_sd"][0] * posterior.predict(5, 1007)["mean_sd"][0])
    assert shared == pytest.approx(expected, abs=0.07)


def test_folding_in_changes_nothing_else(train: Ratings) -> None:
    posterior = train_posterior(train, iterations=1)
    before = posterior.recommend(n=5), posterior.guide.item_factors.clone()  # type: ignore[attr-defined]
    posterior.fold_in({1000: 0.5, 1007: 5.0}).recommend()
    posterior.fold_in_items({3: {5: 1.0}}).recommend()
    pd.testing.assert_frame_equal(before[0], posterior.recommend(n=5))
    assert torch.equal(before[1], posterior.guide.item_factors)  # type: ignore[attr-defined]


def test_intervals_shrink_as_ratings_come_in() -> None:
    posterior = train_posterior(planted(n_ratings=1800), iterations=40, batch_size=60)
    rng = np.random.default_rng(0)
    ids = rng.permutation(posterior.item_vocabulary.ids)
    stars = rng.choice([2.0, 3.0, 4.0, 5.0], 30)
    widths = []
    for count in (0, 5, 30):
        new = posterior.fold_in(dict(zip(ids[:count].tolist(), stars[:count].tolist(), strict=True)))
        widths.append(new.predict(ids[30:])["mean_sd"].mean())
    assert widths[0] > widths[1] > widths[2]


@pytest.mark.parametrize(
    ("ratings", "named"),
    [
        ({1000: float("nan")}, "nan of item 1000 is not a finite number"),
        ({1000: 7.0}, "7 of item 1000 is not on the rating scale 0.5:5:0.5"),
        ({1000: 3.25}, "3.25 of item 1000 is not on the rating scale"),
        ({1000: "good"}, "must be numbers"),
        ({1000: "3"}, "must be numbers"),
        ({1000: 10**400}, "must be numbers: int too large"),
        ({1000: 3j}, "must be numbers, not complex128"),
        ([(1000, 3.0), (1007, 3.0), (1000, 4.0)], "4 of item 1000 is the second one"),
        ([(1000, 3.0, 1)], "pairs"),
        (pd.DataFrame({"item": [1000], "rating": [3.0]}), "no column item_id"),
    ],
)
def test_wrong_ratings_are_named(posterior: Posterior, ratings: Any, named: str) -> None:
    with pytest.raises(DataError, match=named):
        posterior.fold_in(ratings)


@pytest.mark.parametrize("ratings", [None, [1000], "a"])
def test_many_new_users_are_a_mapping_or_a_frame(posterior: Posterior, ratings: Any) -> None:
    with pytest.raises(DataError, match="must be a mapping of user_id to ratings, or a data frame"):
        posterior.fold_in_users(ratings)


def test_the_same_item_for_two_new_users_is_no_repetition(posterior: Posterior) -> None:
    rows = [("a", 1000, 3.0), ("b", 1000, 4.0)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])
    assert len(posterior.fold_in_users(frame)) == 2
    with pytest.raises(DataError, match="second one"):
        posterior.fold_in_users(pd.concat([frame, frame.iloc[1:]]))
    with pytest.raises(DataError, match="no column user_id"):
        posterior.fold_in_users(frame.drop(columns="user_id"))


def test_ratings_outside_the_support_are_refused() -> None:
    posterior = handmade(
        random_rows(3, 2), random_rows(3, 2), likelihood=PoissonLikelihood(), scale="0:5:0.5"
    )
    assert posterior.fold_in({0: 3.0}).count == 1
    with pytest.raises(DataError, match=r"2\.5 is outside the support"):
        posterior.fold_in({0: 2.5})


def test_text_ids(text_posterior: Posterior) -> None:
    new = text_posterior.fold_in({"é2": 4.0})
    assert new.recommend(n=1)["item_id"][0].startswith("é")
    frame = pd.DataFrame({"user_id": ["n"], "item_id": ["é2"], "rating": [4.0]})
    assert torch.equal(text_posterior.fold_in_users(frame).rows.loc, new.posterior.loc)
