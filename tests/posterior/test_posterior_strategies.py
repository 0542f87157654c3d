"""Decisions from joint draws: each strategy against its own definition, one user and one draw at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf import Posterior, fit, preset, random_split
from pyro_bmf.data import synthetic_ratings
from pyro_bmf.errors import SettingsError


@pytest.fixture(autouse=True, scope="module")
def single_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module", params=["conjugate", "gibbs"])
def posterior(request: pytest.FixtureRequest) -> Posterior:
    split = random_split(synthetic_ratings(30, 25, 300, n_factors=2, seed=0, scale="1:5:1").ratings, seed=0)
    changes: dict[str, Any] = {"n_factors": 2, "max_iterations": 10}
    if request.param == "gibbs":
        changes = {"n_factors": 2, "sweeps": 40, "burn_in": 10, "kept_draws": 30, "plain_sweeps": 5}
    return fit(split, preset(request.param).replace(**changes), threads=1, progress=False).posterior


def every_draw(posterior: Posterior, num_samples: int, seed: int = 0) -> np.ndarray:
    """Predictors of every pair under each draw, from the draws of rows."""
    kept = getattr(posterior.user_rows, "n_draws", num_samples)
    draws = np.arange(min(num_samples, kept))
    u, b = posterior.pairs.draw_rows("user", np.arange(posterior.n_users), draws, seed)
    v, c = posterior.pairs.draw_rows("item", np.arange(posterior.n_items), draws, seed)
    eta = torch.einsum("sik,sjk->sij", u, v) + b[:, :, None] + c[:, None, :] + posterior.model.centre
    units = posterior.model.units
    return np.asarray(eta.cpu().numpy() * units.scale + units.shift)


def test_prob_top_is_the_share_of_draws_in_which_an_item_is_among_the_best(posterior: Posterior) -> None:
    eta = every_draw(posterior, 60)
    for user, item in zip(posterior.train.users, posterior.train.items, strict=True):
        eta[:, user, item] = -np.inf
    share = np.zeros(eta.shape[1:])
    for one in eta:
        for user in range(len(one)):
            share[user, np.argsort(-one[user])[:4]] += 1 / len(eta)
    table = posterior.recommend(n=4, strategy="prob-top", num_samples=60)
    users = posterior.user_vocabulary.index(table["user_id"])
    items = posterior.item_vocabulary.index(table["item_id"])
    np.testing.assert_allclose(table["score"], share[users, items], atol=1e-6)
    for user in range(posterior.n_users):
        got = table["score"][users == user].to_numpy()
        np.testing.assert_allclose(got, np.sort(share[user])[::-1][: len(got)], atol=1e-6)


def test_lower_is_the_quantile_of_the_means_posterior(posterior: Posterior) -> None:
    eta = every_draw(posterior, 80).astype(float)
    expected = eta.mean(0) - 1.2815515655 * eta.std(0, ddof=1)
    table = posterior.recommend(n=5, strategy="lower", num_samples=80, exclude_seen=False)
    users = posterior.user_vocabulary.index(table["user_id"])
    items = posterior.item_vocabulary.index(table["item_id"])
    np.testing.assert_allclose(table["score"], expected[users, items], atol=2e-3)
    best = np.sort(expected, axis=1)[:, ::-1][:, :5]
    np.testing.assert_allclose(table["score"].to_numpy().reshape(-1, 5), best, atol=2e-3)


def test_thompson_is_one_draw_and_tries_others(posterior: Posterior) -> None:
    lists = [
        tuple(posterior.recommend(n=3, strategy="thompson", seed=seed)["item_id"]) for seed in (0, 0, 1, 2)
    ]
    assert lists[0] == lists[1]
    assert len(set(lists)) > 1
    table = posterior.recommend(n=3, strategy="thompson", seed=4, exclude_seen=False)
    kept = getattr(posterior.user_rows, "n_draws", None)
    place = 0 if kept is None else int(np.random.default_rng(4).integers(kept))
    eta = every_draw(posterior, 10**6 if kept else 1, seed=4)[place]
    best = np.sort(eta, axis=1)[:, ::-1][:, :3]
    np.testing.assert_allclose(table["score"].to_numpy().reshape(-1, 3), best, rtol=1e-5)


def test_bad_choices_are_named(posterior: Posterior) -> None:
    for changes, message in (
        ({"strategy": "best"}, "strategy is 'best'"),
        ({"strategy": "lower", "quantile": 1.0}, "quantile is 1.0"),
        ({"strategy": "lower", "num_samples": 1}, "num_samples is 1"),
    ):
        with pytest.raises(SettingsError, match=message):
            posterior.recommend(n=2, **changes)
