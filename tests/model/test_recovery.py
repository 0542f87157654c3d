"""A planted truth is found again, whatever the likelihood and the prior, by a real fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf import Posterior, fit
from pyro_bmf.checking.calibration import Truth, simulate
from pyro_bmf.data import Split, random_split, synthetic_ratings
from pyro_bmf.methods.build_model import build_model
from pyro_bmf.methods.setting import values_of
from pyro_bmf.methods.settings import Settings, preset

LEVELS = np.array([1.0, 2.0, 3.0, 4.0, 5.0])


@pytest.fixture(autouse=True)
def single_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def pairs() -> Split:
    ratings = synthetic_ratings(150, 80, 6_000, n_factors=2, seed=0, scale="1:5:1").ratings
    return random_split(ratings, seed=0, fractions=(0.9, 0.05, 0.05))


def settings_of(**changes: Any) -> Settings:
    small = {
        "n_factors": 2,
        "user_batch_size": 75,
        "item_batch_size": 40,
        "n_tower_outputs": 12,
        "max_iterations": 60,
        "beta_user": 1.0,
        "beta_item": 1.0,
        "residual": True,
        "patience": None,
    }
    return preset("amortized").replace(**{**small, **changes})


def planted(
    pairs: Split, settings: Settings, *, centre: float = 3.0, seed: int = 1
) -> tuple[Posterior, Truth]:
    """Fit ratings drawn from the configuration's own model."""
    model = build_model(settings.model, LEVELS)
    model.start(pairs.train.ratings)
    simulated, truth = simulate(model, pairs, centre=centre, noise_prior=False, seed=seed)
    own = build_model(settings.model, LEVELS)
    # The model stands for its settings, which are then nobody's wish.
    model_names = dict(values_of(settings.model)).keys()
    settings = replace(settings, given=settings.given - model_names, unasked=settings.values())
    fitted = fit(simulated, settings, model=own, threads=1, progress=False)
    return fitted.posterior.to("cpu"), truth


def correlation(posterior: Posterior, truth: Truth, pairs: Split, *, biases: bool = False) -> float:
    """Of the posterior mean of u.v (and the biases) with the truth, over the training pairs."""
    users, items = (torch.tensor(rows) for rows in (pairs.train.users, pairs.train.items))
    values, rows_u, rows_v = truth.values, posterior.user_rows, posterior.item_rows
    true = (values["user_factors"][users] * values["item_factors"][items]).sum(-1)
    found = (rows_u.loc[users] * rows_v.loc[items]).sum(-1)
    if biases:
        true = true + values["user_bias"][users] + values["item_bias"][items]
        found = found + rows_u.bias_loc[users] + rows_v.bias_loc[items]
    return float(np.corrcoef(true.numpy(), found.numpy())[0, 1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("likelihood", "least"),
    [
        ("normal", 0.85),
        ("student-t:df=4,scale=0.5", 0.85),
        ("ordered-logistic", 0.8),
        ("ordered-probit", 0.75),
        ("poisson", 0.5),
        ("negative-binomial:dispersion=20", 0.5),
        ("beta", 0.6),
    ],
)
def test_products_of_factors_are_found_again(likelihood: str, least: float, pairs: Split) -> None:
    settings = settings_of(likelihood=likelihood)
    posterior, truth = planted(pairs, settings)
    assert correlation(posterior, truth, pairs) > least


@pytest.mark.slow
def test_one_bit_a_rating_still_tells_the_predictor(pairs: Split) -> None:
    settings = settings_of(likelihood="bernoulli", max_iterations=200, learning_rate=1e-2)
    posterior, truth = planted(pairs, settings)
    assert correlation(posterior, truth, pairs, biases=True) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["hierarchical-normal", "lkj", "student-t", "laplace", "horseshoe"])
def test_priors_let_the_truth_be_found(prior: str, pairs: Split) -> None:
    settings = settings_of(prior=prior, noise=0.5)
    posterior, truth = planted(pairs, settings)
    # Factors with a mean trade it with biases: only the whole predictor has an identity then.
    learned = posterior.model.user_prior.learned and prior != "horseshoe"
    assert correlation(posterior, truth, pairs, biases=learned) > (0.9 if learned else 0.75)


@pytest.mark.slow
def test_positive_factors_are_found_again(pairs: Split) -> None:
    settings = settings_of(
        prior="gamma:shape=1,rate=0.7", likelihood="poisson:link=identity", biases=False, centred=False
    )
    posterior, truth = planted(pairs, settings)
    assert correlation(posterior, truth, pairs) > 0.75
    assert float(posterior.item_rows.loc.min()) > 0


@pytest.mark.slow
def test_a_hierarchical_prior_switches_off_the_factors_that_are_not_needed(pairs: Split) -> None:
    one = settings_of(n_factors=1, noise=0.5)
    model = build_model(one.model, LEVELS)
    model.start(pairs.train.ratings)
    simulated, _ = simulate(model, pairs, centre=3.0, noise_prior=False, seed=2)
    wide = settings_of(n_factors=4, prior="hierarchical-normal", noise=0.5)
    posterior = fit(simulated, wide, threads=1, progress=False).posterior.to("cpu")
    size = (posterior.user_rows.loc.std(0) * posterior.item_rows.loc.std(0)).sort(descending=True).values
    assert float(size[1]) < 0.25 * float(size[0])
