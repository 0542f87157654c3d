"""What fits and posteriors ask of a card, on one that is not there: tensors of host and card do not mix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pretend_card import CARD, CardTensor, MixedDevicesError, pretend_card

import pyro_bmf
from pyro_bmf.checking.loo import psis_loo
from pyro_bmf.data import Split, random_split, synthetic_ratings
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import Settings, preset

#: Methods that draw nothing: on either device they find the same to rounding.
WITHOUT_DRAWS: dict[str, Settings] = {
    "guide": preset("guide").replace(n_factors=3, max_iterations=3),
    "conjugate": preset("conjugate").replace(n_factors=3, max_iterations=3),
}
#: Methods whose draws differ, as a card takes other random numbers.
WITH_DRAWS: dict[str, Settings] = {
    "default": preset("default").replace(n_factors=3, max_iterations=3, sweeps=24, burn_in=8, chains=2),
    "normal": preset("gibbs").replace(
        n_factors=3, sweeps=36, burn_in=8, likelihood="normal", row_noise="none"
    ),
    "amortized": preset("amortized").replace(n_factors=3, max_iterations=2, n_tower_outputs=8),
    "paper": preset("paper").replace(n_factors=3, max_iterations=2, n_tower_outputs=8),
}


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(synthetic_ratings(40, 30, 700, n_factors=2, scale="1:5:1", seed=0).ratings, seed=0)


def test_what_a_card_refuses_is_refused() -> None:
    with pretend_card():
        card = torch.arange(6.0, device=CARD).reshape(2, 3)
        host = torch.ones(2, 3)
        with pytest.raises(MixedDevicesError):
            card + host
        with pytest.raises(MixedDevicesError):
            card.index_select(0, torch.tensor([0]))
        with pytest.raises(TypeError, match="numpy"):
            card.numpy()
        assert isinstance(card + 1.0, CardTensor)
        assert isinstance(card * torch.tensor(2.0), CardTensor)  # one number is no array
        assert type(card.cpu()) is torch.Tensor
        card[0] = 0.0
        assert card.mul_(2).tolist() == [[0.0, 0.0, 0.0], [6.0, 8.0, 10.0]]
        leaf = card.clone().requires_grad_()
        (leaf**2).sum().backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        assert leaf.grad.device == CARD
        assert torch.equal(leaf.grad.cpu(), 2 * card.cpu())
    assert torch.ones(1).device.type == "cpu"


@pytest.mark.parametrize("name", WITHOUT_DRAWS)
def test_methods_without_draws_find_what_the_cpu_finds(split: Split, name: str) -> None:
    pairs = split.test.users, split.test.items
    expected = fit(split, WITHOUT_DRAWS[name], device="cpu", threads=1, progress=False)
    with pretend_card() as card:
        found = fit(split, WITHOUT_DRAWS[name], device=str(card), threads=1, progress=False)
        assert found.device == str(card)
        np.testing.assert_allclose(
            found.posterior.predict_mean(*pairs), expected.posterior.predict_mean(*pairs), atol=1e-5
        )
        _use(found.posterior, split)


@pytest.mark.parametrize("name", WITH_DRAWS)
def test_methods_with_draws_run_whole(split: Split, name: str) -> None:
    with pretend_card() as card:
        found = fit(split, WITH_DRAWS[name], device=str(card), threads=1, progress=False)
        mean = found.posterior.predict_mean(split.test.users, split.test.items)
        assert np.isfinite(mean).all()
        _use(found.posterior, split)


def _use(posterior: Any, split: Split) -> None:
    """Do with a posterior that lies on a card what users do with it."""
    ratings = split.ratings
    users = ratings.user_vocabulary.raw(split.test.users[:9])
    assert len(posterior.predict(users, ratings.item_vocabulary.raw(split.test.items[:9]))) == 9
    recommender = pyro_bmf.Recommender(posterior, pyro_bmf.fit_selection(split, posterior=posterior))
    user, items = ratings.user_vocabulary.raw(np.arange(1))[0], ratings.item_vocabulary.raw(np.arange(3))
    assert len(recommender.recommend(user, n=5)) == 5
    assert len(posterior.similar_items(items[0], n=3)) == 3
    new = dict(zip(items.tolist(), (5, 4, 1), strict=True))
    assert len(recommender.fold_in(new).recommend(n=5)) == 5
    row = pyro_bmf.evaluate(posterior, split, protocols=("rated",)).row()
    assert np.isfinite([row["rmse"], row["nll"]]).all()
    assert np.isfinite(psis_loo(posterior, split.train).elpd).all()
