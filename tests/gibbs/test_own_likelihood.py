"""A likelihood that no method has heard of is swept and climbed by its own utilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import TorchDistribution
from scipy import stats
from torch import Tensor

from pyro_bmf import fit
from pyro_bmf.data import Split, random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.methods.coordinate_ascent.settings import CoordinateAscent
from pyro_bmf.methods.settings import preset
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.likelihoods.normal import Likelihood
from pyro_bmf.model.likelihoods.normal_utilities import Utilities
from pyro_bmf.model.priors.normal import NormalPrior
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior
from pyro_bmf.numerics.normal_cells import Cells, normal_cdf
from pyro_bmf.numerics.truncated_normal import draw_in_cells, truncated_mean

USERS, ITEMS = 40, 30
CUT = torch.zeros(1, dtype=torch.float64)


class Probit(Likelihood):
    """Ratings of 0 and 1: whether a Normal utility of standard deviation one is above zero."""

    @property
    def noise_sd(self) -> Tensor:
        return torch.ones((), dtype=torch.float64)

    def forward(self, eta: Tensor, relative: Tensor | None = None) -> TorchDistribution:
        return dist.Bernoulli(normal_cdf(eta))

    def log_prob_rating(self, eta: Tensor, levels: Tensor, relative: Tensor | None = None) -> Tensor:
        eta = eta.double()
        return torch.stack([normal_cdf(-eta), normal_cdf(eta)], -1).log()

    def check(self, ratings: np.ndarray) -> None:
        assert set(np.unique(ratings)) <= {0.0, 1.0}

    def utilities(self) -> Utilities:
        return ProbitUtilities()

    def settings(self) -> dict[str, Any]:
        return {"kind": "probit"}


class ProbitUtilities(Utilities):
    """Latent, with a cut point that is known."""

    latent = True

    def remember(self, cuts: Tensor, noise_sd: Tensor) -> None:
        assert len(cuts) == 0

    def observe(self, ratings: Tensor) -> Tensor:
        return (ratings > 0.5).long()

    def draw_given(self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor) -> Tensor:
        return draw_in_cells(eta, sd, Cells.of(eta, sd, CUT.to(eta.device), observed))

    def expect(self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        return truncated_mean(eta, sd, CUT.to(eta.device), observed)


@pytest.fixture(scope="module")
def truth() -> tuple[Split, np.ndarray]:
    """Return ratings, and the probability of a one for every pair."""
    rng = np.random.default_rng(1)
    eta = rng.normal(0, 1.2, (USERS, 1)) + rng.normal(0, 1.2, (1, ITEMS))
    users, items = np.nonzero(rng.random((USERS, ITEMS)) < 0.8)
    ones = (eta + rng.normal(size=eta.shape) > 0)[users, items].astype(float)
    ratings = ratings_from_arrays(users, items, ones, scale="0:1:1")
    return random_split(ratings, seed=0), stats.norm.cdf(eta)


def agreement(
    model: FactorizationModel, settings: Any, truth: tuple[Split, np.ndarray]
) -> tuple[float, float]:
    """Return the correlation of probabilities with the true ones: of all pairs, and of a folded-in user."""
    split, probability = truth
    posterior = fit(split, settings, model=model, threads=1, progress=False).posterior
    vocabulary = split.ratings.user_vocabulary.ids, split.ratings.item_vocabulary.ids
    users, items = np.indices((len(vocabulary[0]), len(vocabulary[1]))).reshape(2, -1)
    found = posterior.predict_mean(users, items)
    true = probability[vocabulary[0].astype(int)][:, vocabulary[1].astype(int)].ravel()
    easy = probability.mean(0)  # an average user: likes what all like
    known = [int(one) for one in vocabulary[1]]
    folded = posterior.fold_in({item: float(easy[item] > 0.5) for item in known})
    means = folded.predict(known)["mean"].to_numpy()
    return float(np.corrcoef(found, true)[0, 1]), float(np.corrcoef(means, easy[known])[0, 1])


def model_of(prior: Any, bias: Any) -> FactorizationModel:
    return FactorizationModel(
        1,
        user_prior=prior(),
        item_prior=prior(),
        user_bias_prior=bias(),
        item_bias_prior=bias(),
        likelihood=Probit(),
        centred=False,
    )


def test_sweeps(truth: tuple[Split, np.ndarray]) -> None:
    model = model_of(lambda: NormalWishartPrior(0.2), lambda: NormalWishartPrior(1.0))
    settings = preset("gibbs").replace(n_factors=1, sweeps=120, burn_in=40, kept_draws=40)
    everyone, folded = agreement(model, settings, truth)
    assert everyone > 0.9
    assert folded > 0.7


def test_coordinate_ascent(truth: tuple[Split, np.ndarray]) -> None:
    model = model_of(lambda: NormalPrior(scale=0.2), lambda: NormalPrior(scale=1.0))
    settings = preset("conjugate").replace(n_factors=1)
    assert isinstance(settings.method, CoordinateAscent)
    everyone, folded = agreement(model, settings, truth)
    assert everyone > 0.9
    assert folded > 0.7
