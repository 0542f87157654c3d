"""Priors of the factors that have a mean: what starts there, what refuses it, what it does on raw ratings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf.checking.calibration import from_prior as simulation
from pyro_bmf.data import random_split, synthetic_ratings
from pyro_bmf.errors import SettingsError
from pyro_bmf.fitting import fit
from pyro_bmf.methods.build_model import build_model
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.methods.model_settings import ModelSettings
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.priors.heavy_tails import LaplacePrior
from pyro_bmf.model.priors.hierarchical import HierarchicalNormalPrior
from pyro_bmf.model.priors.normal import NormalPrior
from pyro_bmf.model.priors.normal_half_t import NormalHalfTPrior

LEVELS = np.arange(1.0, 6.0)


def raw(**changes: Any) -> ModelSettings:
    return ModelSettings(
        **{"n_factors": 4, "biases": False, "centred": False, "prior_mean": "ratings"} | changes
    )


def test_products_of_prior_means_are_the_mean_rating() -> None:
    model = build_model(raw(), LEVELS, mean_rating=3.6)
    assert 4 * model.user_prior.origin * model.item_prior.origin == pytest.approx(3.6)
    assert model.item_prior.settings() == {"kind": "normal", "loc": model.user_prior.origin, "scale": 1.0}
    drawn = model.user_prior("users", 4).sample((20_000,))
    # Four standard errors of a mean of 20,000 draws of a standard deviation of one.
    assert bool(((drawn.mean(0) - model.user_prior.origin).abs() < 4 / 20_000**0.5).all())


def test_where_the_mean_comes_from() -> None:
    assert build_model(raw(centred=True), LEVELS).user_prior.origin == 0.0, "products are about a centre"
    assert build_model(raw(prior_mean=-0.2), LEVELS).user_prior.origin == pytest.approx(-0.2)
    assert build_model(raw(prior="normal:loc=0.7"), LEVELS, mean_rating=3.6).user_prior.origin == 0.7
    assert build_model(ModelSettings(), LEVELS).user_prior.origin == 0.0
    # A log-normal prior's loc is another thing, and keeps the default of its own.
    words = ModelSettings(prior="log-normal", biases=False, centred=False)
    assert build_model(words, LEVELS).user_prior.settings()["loc"] == -0.5
    assert HierarchicalNormalPrior(0.5).origin == LaplacePrior(0.5).origin == 0.0


@pytest.mark.parametrize(
    ("settings", "how", "message"),
    [
        ({}, {}, "the mean rating is not known"),
        ({}, {"mean_rating": -1.5}, "the mean rating is -1.5"),
        ({"prior_mean": 0.5}, {"gibbs": True}, "Gibbs sweeps draw the mean of the factors"),
        ({"prior_mean": 0.0, "prior": "normal:loc=0.4"}, {"gibbs": True}, "as 0.4"),
    ],
)
def test_means_that_cannot_be(settings: dict[str, Any], how: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_model(raw(**settings), LEVELS, **how)


def test_sweeps_learn_a_mean_that_was_to_follow_from_ratings() -> None:
    settings = raw(prior_scale=0.4)
    prior = build_model(settings, LEVELS, gibbs=True).user_prior
    assert isinstance(prior, NormalHalfTPrior)
    assert prior.guess(settings.n_factors) == pytest.approx(0.4)


def test_simulated_truths_and_their_fit_have_one_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def spy(split: Any, settings: Any, **how: Any) -> Any:
        seen.append(settings)
        return fit(split, settings, **how)

    monkeypatch.setattr(simulation, "fit", spy)
    split = random_split(synthetic_ratings(40, 30, 400, seed=2).ratings, seed=0)
    settings = preset("paper").replace(n_factors=2, max_iterations=1, user_batch_size=20, item_batch_size=15)
    simulation.refit_ranks(split, settings, 0, threads=1, device="cpu")
    assert seen[0].model.prior_mean == pytest.approx((float(split.train.ratings.mean()) / 2) ** 0.5)


def test_settings_refuse_means_of_nothing() -> None:
    with pytest.raises(SettingsError, match="prior_mean is 'rating'"):
        raw(prior_mean="rating")
    with pytest.raises(SettingsError, match="prior_mean is nan"):
        raw(prior_mean=float("nan"))
    with pytest.raises(SettingsError, match="the mean of a Normal prior"):
        raw(prior="laplace")


def test_sweeps_take_what_a_prior_word_says_of_scales() -> None:
    """Of a half-t it is the scale, of a Normal-Wishart one the guess or its own s: ten factors."""
    scales = {
        word: build_model(ModelSettings(prior=word, prior_scale=0.9), LEVELS, gibbs=True).user_prior.scale
        for word in (
            *("normal", "normal:scale=0.4", "normal-half-t", "normal-half-t:scale=0.2,kappa=5"),
            *("normal-wishart", "normal-wishart:scale=0.2,kappa=5"),
        )
    }
    assert list(scales.values()) == pytest.approx([0.9, 0.4, 0.9, 0.2, 0.45, 0.2])
    for kind in ("normal-wishart", "normal-half-t"):
        model = build_model(ModelSettings(prior=f"{kind}:kappa=5"), LEVELS, gibbs=True)
        assert model.user_prior.settings()["kind"] == kind
        assert model.user_prior.settings()["kappa"] == 5


def make(loc: float) -> CrossFeedbackGuide:
    torch.manual_seed(0)
    return CrossFeedbackGuide(
        EncoderSettings(input_power=0.5),
        400,
        300,
        4,
        biases=True,
        user_scales=(0.3, 0.5),
        item_scales=(0.2, 0.5),
        origins=(loc, -2.0 * loc),
        mean_counts=(20.0, 20.0),
    )


def test_q_and_the_first_feedback_start_about_the_prior_mean() -> None:
    guide, about_zero = make(0.9), make(0.0)
    # Algorithm 1, line 2: four standard errors of a mean of 400 x 4 (300 x 4) draws.
    assert float(guide.user_factors.mean()) == pytest.approx(0.9, abs=4 * 0.3 / 1600**0.5)
    assert float(guide.item_factors.mean()) == pytest.approx(-1.8, abs=4 * 0.2 / 1200**0.5)
    torch.testing.assert_close(guide.user_factors - 0.9, about_zero.user_factors)
    rng = np.random.default_rng(0)
    rows, columns = np.nonzero(rng.random((400, 300)) < 20 / 300)
    values = torch.from_numpy(rng.normal(size=len(rows))).float()
    feedback = Feedback.from_coo(torch.from_numpy(rows), torch.from_numpy(columns), values, 400, 300)
    with torch.no_grad():
        q = guide.encode_rows("user", feedback)
        before = about_zero.encode_rows("user", feedback, other_factors=guide.item_factors)
    # Biases have a prior about zero, and stay there; the factors' spread shrinks with the prior's scale.
    torch.testing.assert_close(q.bias_loc, before.bias_loc)
    torch.testing.assert_close((q.loc - 0.9) / 0.3, before.loc, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(q.scale, before.scale)


def test_coordinate_ascent_refuses_a_mean() -> None:
    ratings = synthetic_ratings(30, 20, 200, seed=0).ratings
    settings = preset("conjugate").replace(prior="normal:loc=0.5", likelihood="normal", max_iterations=1)
    with pytest.raises(SettingsError, match=r"priors about zero, and there is one with another mean"):
        fit(random_split(ratings, seed=0), settings, threads=1, progress=False)
    assert NormalPrior(0.5).origin == 0.5


def test_raw_ratings_are_fitted_by_products_about_the_mean() -> None:
    """Without biases and a centre, two iterations say whether products start where ratings are."""
    ratings = synthetic_ratings(150, 100, 4000, n_factors=2, noise=0.5, seed=1).ratings
    split = random_split(ratings, seed=0)
    settings = preset("paper").replace(
        prior_scale=0.3, user_batch_size=50, item_batch_size=50, max_iterations=2, patience=None
    )
    rmse = {
        mean: fit(split, settings.replace(prior_mean=mean), threads=1, progress=False).history[-1][
            "valid_rmse"
        ]
        for mean in (0.0, "ratings")
    }
    spread = float(split.train.ratings.std())
    assert rmse["ratings"] < 1.3 * spread
    assert rmse[0.0] > 2.0 * spread, "this data says nothing of the mean"
