"""Predictions in raw ids, and the posterior as something that is evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from posteriors import PoissonLikelihood, handmade, planted, random_rows, train_posterior

from pyro_bmf.data import Ratings, random_split
from pyro_bmf.errors import DataError, FitError, SettingsError, UnknownIdError, WriteError
from pyro_bmf.evaluation import evaluate_with_references
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.fitted import NormalRowsGuide
from pyro_bmf.model.rows import RowPosterior
from pyro_bmf.posterior import Posterior
from pyro_bmf.systems.contract import Predictor

SETS = ["smallest_set", "set_probability"]
MEANS = ["mean_sd", "mean_lower", "mean_upper"]
COLUMNS = ["user_id", "item_id", "mean", "sd", "lower", "upper", *SETS, *MEANS]


def test_predict_tells_the_two_uncertainties_apart(posterior: Posterior) -> None:
    table = posterior.predict([5, 8, 5], [1000, 1007, 1014])
    assert list(table.columns) == COLUMNS
    assert table["user_id"].tolist() == [5, 8, 5]
    assert table["item_id"].tolist() == [1000, 1007, 1014]
    noise = float(posterior.model.likelihood.noise_sd.detach())
    np.testing.assert_allclose(table["sd"] ** 2, table["mean_sd"] ** 2 + noise**2, rtol=1e-9)
    for low, high, sd in (("lower", "upper", "sd"), ("mean_lower", "mean_upper", "mean_sd")):
        np.testing.assert_allclose(table[high] - table[low], 2 * 1.6448536 * table[sd], rtol=1e-6)
        np.testing.assert_allclose((table[high] + table[low]) / 2, table["mean"], rtol=1e-9)
    index = posterior.user_vocabulary.index([5]), posterior.item_vocabulary.index([1000])
    assert table["mean"][0] == posterior.predict_mean(*index)[0]
    assert table["sd"][0] == posterior.predict_sd(*index)[0]


def test_one_id_goes_with_all_of_the_other_side(posterior: Posterior) -> None:
    a = posterior.predict(8, [1000, 1007])
    pd.testing.assert_frame_equal(a, posterior.predict([8, 8], [1000, 1007]))
    b = posterior.predict([8, 5], 1000)
    assert b["user_id"].tolist() == [8, 5]
    assert len(posterior.predict(8, 1000)) == 1
    assert len(posterior.predict([], [])) == 0


def test_wider_intervals_hold_more(posterior: Posterior) -> None:
    half, most = (posterior.predict(5, [1000], interval=p) for p in (0.5, 0.95))
    assert (most["lower"] < half["lower"]).all()
    assert (most["upper"] > half["upper"]).all()


def test_clip_limits_to_the_scale() -> None:
    users = RowPosterior(torch.tensor([[9.0], [-9.0]]), torch.full((2, 1), 0.1))
    items = RowPosterior(torch.tensor([[1.0]]), torch.full((1, 1), 0.1))
    posterior = handmade(users, items, scale="0.5:5:0.5")
    unclipped, clipped = (posterior.predict([0, 1], 0, clip=clip) for clip in (False, True))
    assert unclipped["mean"].tolist() == pytest.approx([9.0, -9.0])
    assert clipped["mean"].tolist() == [5.0, 0.5]
    assert clipped["sd"].tolist() == unclipped["sd"].tolist()
    assert clipped[["lower", "upper", "mean_lower", "mean_upper"]].stack().between(0.5, 5.0).all()


def test_plugin_is_the_mean_at_the_posterior_means() -> None:
    users, items = random_rows(3, 2), random_rows(3, 2, seed=1)
    linear = handmade(users, items)
    pd.testing.assert_frame_equal(
        linear.predict(0, [0, 1, 2]), linear.predict(0, [0, 1, 2], method="plugin"), rtol=1e-12
    )
    curved = handmade(users, items, likelihood=PoissonLikelihood(), scale="0:9:1")
    predictive, plugin = (curved.predict(0, [0, 1, 2], method=method) for method in ("predictive", "plugin"))
    assert (plugin["mean"] < predictive["mean"]).all()
    pd.testing.assert_frame_equal(plugin.drop(columns="mean"), predictive.drop(columns="mean"))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda p: p.predict(6, 1000), "user id 6"),
        (lambda p: p.predict(5, [1000, 999, 998]), "item ids 999, 998"),
        (lambda p: p.predict("5", 1000), "'5' is text"),
        (lambda p: p.recommend(6), "user id 6"),
        (lambda p: p.recommend(5, candidates=[1]), "item id 1"),
        (lambda p: p.sample(5, 1, 2, 0), "item id 1"),
        (lambda p: p.similar_items(1), "item id 1"),
        (lambda p: p.similar_users(1), "user id 1"),
        (lambda p: p.fold_in({1: 3.0}), "item id 1"),
        (lambda p: p.fold_in({1000: 3.0}, side="item"), "user id 1000"),
        (lambda p: p.fold_in({1000: 3.0}).predict(1), "item id 1"),
        (lambda p: p.fold_in_users({9: {1: 3.0}}), "item id 1"),
        (lambda p: p.fold_in_users({9: {1000: 3.0}}).predict(5, 1000), "user id 5"),
        (lambda p: p.recommend(5, exclude=pd.DataFrame({"user_id": [5], "item_id": [3]})), "item id 3"),
    ],
)
def test_an_unknown_id_is_named(posterior: Posterior, call: Any, named: str) -> None:
    with pytest.raises(UnknownIdError, match=named):
        call(posterior)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda p: p.predict([5, 8], [1000, 1007, 1014]), DataError, "2 user ids and 3 item ids"),
        (lambda p: p.predict(5, 1000, interval=1.0), SettingsError, "interval is 1.0"),
        (lambda p: p.predict(5, 1000, method="best"), SettingsError, "'best'"),
        (lambda p: p.recommend(5, n=0), SettingsError, "n is 0"),
        (lambda p: p.sample(5, 1000, 0, 0), SettingsError, "num_samples is 0"),
        (lambda p: p.sample(5, 1000, 2, 0, kind="mean"), SettingsError, "'mean'"),
        (lambda p: p.similar_items(1000, measure="angle"), SettingsError, "'angle'"),
        (lambda p: p.fold_in({}, side="row"), SettingsError, "'row'"),
    ],
)
def test_wrong_settings_are_named(
    posterior: Posterior, call: Any, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        call(posterior)


def test_text_ids_go_in_and_come_out(text_posterior: Posterior) -> None:
    table = text_posterior.predict("u:3", ["é2", "é11"])
    assert table["user_id"].tolist() == ["u:3", "u:3"]
    assert table["item_id"].tolist() == ["é2", "é11"]
    with pytest.raises(UnknownIdError, match="3"):
        text_posterior.predict(3, ["é2"])
    assert text_posterior.recommend("u:3", n=2)["title"].tolist() == ["", ""]


def test_samples_have_the_predictive_moments(posterior: Posterior) -> None:
    items = posterior.item_vocabulary.ids[:6]
    table = posterior.predict(8, items)
    drawn = posterior.sample(8, items, 6_000, 1)
    assert drawn.shape == (6_000, 6)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean(0), table["mean"], atol=4.5 * table["sd"].max() / 6_000**0.5)
    np.testing.assert_allclose(drawn.std(0), table["sd"], rtol=0.05)
    eta = posterior.sample(8, items, 20_000, 1, kind="eta")
    np.testing.assert_allclose(eta.std(0), table["mean_sd"], rtol=0.05)


def test_similar_items_find_the_planted_twin() -> None:
    generator = torch.Generator().manual_seed(1)
    loc = torch.randn(12, 4, generator=generator)
    loc[7] = loc[2] * 1.5  # the same taste, only stronger
    loc[3] = -loc[2]
    scale = torch.full((12, 4), 0.15)
    posterior = handmade(random_rows(200, 4, biases=False), RowPosterior(loc, scale))
    for measure in ("correlation", "cosine"):
        table = posterior.similar_items(2, n=11, measure=measure)
        assert table["item_id"][0] == 7
        assert table["item_id"].iloc[-1] == 3
        assert 2 not in table["item_id"].tolist()
        assert table["similarity"].is_monotonic_decreasing
        assert table["similarity"].between(-1, 1).all()
        assert (table["lower"] <= table["upper"]).all()
    vague = RowPosterior(loc, torch.where(torch.arange(12)[:, None] == 7, 3.0, 0.15).expand(12, 4))
    shrunk = handmade(random_rows(200, 4, biases=False), vague).similar_items(2, n=11, measure="cosine")
    twin = shrunk[shrunk["item_id"] == 7]
    assert float(twin["similarity"].iloc[0]) < 0.6
    assert float(twin["sd"].iloc[0]) > 0.3


def test_cosine_by_hand() -> None:
    items = RowPosterior(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), torch.full((3, 2), 1e-4))
    posterior = handmade(random_rows(5, 2, biases=False), items)
    table = posterior.similar_items(0, n=5, measure="cosine")
    assert table["item_id"].tolist() == [1, 2]
    assert table["similarity"].tolist() == pytest.approx([0.5**0.5, 0.0], abs=1e-6)


def test_correlation_is_that_of_predictions_over_users() -> None:
    """The draws of u.v of two items, over all users and the posterior, correlate as the measure says."""
    users, items = random_rows(400, 3, biases=False, spread=0.3), random_rows(4, 3, biases=False, seed=5)
    # A mean that all users share tells nothing of who likes what.
    posterior = handmade(RowPosterior(users.loc + torch.tensor([0.0, 2.0, -1.0]), users.scale), items)
    table = posterior.similar_items(0, n=3).set_index("item_id")
    drawn = posterior.sample(np.repeat(np.arange(400), 4), np.tile(np.arange(4), 400), 400, 0, kind="eta")
    eta = drawn.reshape(400, 400, 4).astype(np.float64)
    centred = eta - eta.mean(
        axis=1, keepdims=True
    )  # the users' mean of each draw is no correlation of theirs
    correlation = np.corrcoef(centred.reshape(-1, 4).T)
    for item in (1, 2, 3):
        assert table["similarity"][item] == pytest.approx(correlation[0, item], abs=0.03)


def test_similar_users(posterior: Posterior) -> None:
    table = posterior.similar_users(5, n=4)
    assert list(table.columns) == ["user_id", "similarity", "sd", "lower", "upper"]
    assert len(table) == 4


def test_it_is_a_predictor_and_can_be_evaluated() -> None:
    split = random_split(planted(n_ratings=1500), seed=1)
    posterior = train_posterior(split.train, iterations=40)
    assert isinstance(posterior, Predictor)
    comparison = evaluate_with_references(posterior, split, name="posterior")
    table = comparison.table()
    assert "posterior" in str(table)
    users, items = split.test.users, split.test.items
    error = posterior.predict_mean(users, items) - split.test.ratings
    trivial = split.test.ratings - split.train.ratings.mean()
    assert np.sqrt((error**2).mean()) < np.sqrt((trivial**2).mean())
    pmf = posterior.predict_pmf(users, items, split.ratings.scale.levels)
    assert pmf.shape == (len(users), 10)
    np.testing.assert_allclose(pmf.sum(1), 1.0, atol=1e-9)


def test_a_diverged_fit_gives_no_posterior(posterior: Posterior, train: Ratings) -> None:
    class Broken(NormalRowsGuide):
        def encode_side(self, side: str, feedback: Any) -> RowPosterior:
            loc = torch.zeros(feedback.n_rows, 3)
            loc[1, 2] = torch.nan if side == "item" else 0.0
            return RowPosterior(loc, torch.ones_like(loc))

        def settings(self) -> dict[str, Any]:
            return {"kind": "broken"}

    with pytest.raises(FitError, match="items holds numbers that are not finite"):
        Posterior.from_fit(posterior.model, Broken(), train)


def test_what_is_remembered_of_a_fit(train: Ratings) -> None:
    split = random_split(train, seed=3)
    warm = train_posterior(split.train, iterations=1, beta=0.5)
    assert warm.tempered
    assert warm.beta == (0.5, 0.5)
    again = Posterior.from_fit(warm.model, warm.guide, split, info={"beta_user": 1.0, "notes": ("a", "b")})
    assert not again.tempered
    assert again.info["split_hash"] == split.hash
    assert again.info["data_hash"] == train.data_hash
    assert again.info["notes"] == ["a", "b"]
    assert len(again.train) == len(split.train)
    with pytest.raises(SettingsError, match="plain values"):
        Posterior.from_fit(warm.model, warm.guide, split, info={"model": object()})


def test_the_encoders_read_centred_training_ratings(posterior: Posterior) -> None:
    train = posterior.train
    users, items = torch.tensor(train.users), torch.tensor(train.items)
    values = torch.tensor(train.ratings).float() - float(train.ratings.mean())
    for side, rows, columns, expected in (
        ("user", users, items, posterior.user_rows),
        ("item", items, users, posterior.item_rows),
    ):
        size = (60, 45) if side == "user" else (45, 60)
        encoded = posterior.guide.encode_side(side, Feedback.from_coo(rows, columns, values, *size))  # type: ignore[arg-type]
        np.testing.assert_allclose(encoded.loc, expected.loc, atol=1e-5)
        np.testing.assert_allclose(encoded.scale, expected.scale, atol=1e-5)


def test_gradients_are_left_alone(posterior: Posterior) -> None:
    assert not posterior.user_rows.loc.requires_grad
    assert any(parameter.requires_grad for parameter in posterior.guide.parameters())  # type: ignore[attr-defined]


def test_a_copy_on_another_device_is_the_same(posterior: Posterior) -> None:
    copy = posterior.to("cpu")
    assert copy.guide is not posterior.guide
    pd.testing.assert_frame_equal(copy.recommend(n=3), posterior.recommend(n=3))


def test_smallest_sets_are_those_of_the_probabilities(
    posterior: Posterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyro_bmf.posterior.tables.CELLS", 30)  # several parts
    levels = posterior.scale.levels
    users, items = np.arange(5).repeat(4), np.tile(np.arange(4), 5)
    table = posterior.predict(
        posterior.user_vocabulary.raw(users), posterior.item_vocabulary.raw(items), interval=0.8
    )
    pmf = posterior.predict_pmf(users, items, levels)
    for row, words, held in zip(pmf, table["smallest_set"], table["set_probability"], strict=True):
        # One by one, the likeliest first, until 0.8 is there.
        order = np.argsort(-row)
        chosen = sorted(order[: 1 + int((np.cumsum(row[order]) < 0.8).sum())])
        assert held == pytest.approx(row[chosen].sum())
        low, high = levels[chosen[0]], levels[chosen[-1]]
        assert len(chosen) > 2
        assert words == f"{low:g} to {high:g}"  # one hump has no gaps
    best = posterior.recommend(int(posterior.user_vocabulary.ids[0]), n=3)
    again = posterior.predict(best["user_id"].to_numpy(), best["item_id"].to_numpy())
    assert best["smallest_set"].tolist() == again["smallest_set"].tolist()
    new = posterior.fold_in({int(posterior.item_vocabulary.ids[0]): 4.0})
    assert {"smallest_set", "set_probability"} <= set(new.predict([int(posterior.item_vocabulary.ids[1])]))


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (-1, DataError, r"user index -1 is outside 0\.\."),
        (10**6, DataError, r"user index 1000000 is outside 0\.\."),
        (0.5, SettingsError, "user indices must be a one-dimensional array of integers"),
    ],
)
def test_an_index_that_is_of_no_row_is_refused(
    posterior: Posterior, index: float, error: type[Exception], message: str
) -> None:
    """-1 was answered for the last row."""
    users, items = np.array([index]), np.array([0])
    for ask in (
        lambda: posterior.predict_mean(users, items),
        lambda: posterior.predict_sd(users, items),
        lambda: posterior.predict_interval(users, items, 0.9),
        lambda: posterior.score_items(users),
    ):
        with pytest.raises(error, match=message):
            ask()
    with pytest.raises(DataError, match="item index -1"):
        posterior.predict_mean(items, np.array([-1]))


def test_a_place_that_cannot_be_made_is_named(posterior: Posterior) -> None:
    with pytest.raises(WriteError, match="/dev/full cannot be written"):
        posterior.save("/dev/full")
