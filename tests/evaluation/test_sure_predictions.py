"""Ratings that hardly differ: a fit, small standard deviations and their measures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf.data import RatingScale, Split, random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import FitError
from pyro_bmf.evaluation import evaluate
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.likelihoods.ordered_logistic import OrderedLogisticLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.systems.contract import BasePredictor

pytestmark = pytest.mark.filterwarnings("ignore::pyro_bmf.data.notices.DataNotice")
STARS, INTERVAL = RatingScale(1.0, 5.0, 1.0), RatingScale(0.0, 1.0, None)


class Sure(BasePredictor):
    """Says one rating of every pair, with one standard deviation."""

    def __init__(self, mean: float, sd: float, split: Split) -> None:
        self.mean, self.sd, self.n_items = mean, sd, split.ratings.n_items

    def predict_mean(self, users: Any, items: Any) -> Any:
        del items
        return np.full(len(users), self.mean)

    def predict_sd(self, users: Any, items: Any) -> Any:
        del items
        return np.full(len(users), self.sd)

    def predict_pmf(self, users: Any, items: Any, levels: Any) -> Any:
        del items
        return np.tile((levels == self.mean).astype(float), (len(users), 1))

    def score_items(self, users: Any) -> Any:
        return np.zeros((len(users), self.n_items))


def split_of(ratings: np.ndarray, scale: RatingScale) -> Split:
    users, items = (side.ravel() for side in np.indices(ratings.shape))
    return random_split(ratings_from_arrays(users, items, ratings.ravel(), scale=scale), seed=0)


def test_a_sure_prediction_is_measured() -> None:
    split = split_of(np.full((12, 10), 5.0), STARS)
    found = evaluate(Sure(5.0, 0.0, split), split)
    assert (found.rmse, found.nll, found.rps, found.n_impossible) == (0.0, 0.0, 0.0, 0)
    assert np.isnan(found.calibration.sd_error_correlation)
    assert found.to_dict()["calibration"]["sd_error_correlation"] is None
    assert found.calibration.overall.width == (0.0,) * 4
    # Sure and wrong: a finite loss, and a count of what was held for impossible.
    wrong = evaluate(Sure(1.0, 0.0, split), split)
    assert wrong.nll == pytest.approx(708.4, abs=0.1)
    assert wrong.n_impossible == wrong.n_ratings


def test_a_sure_prediction_on_a_continuous_scale_has_a_finite_density() -> None:
    split = split_of(np.full((12, 10), 0.25), INTERVAL)
    found = evaluate(Sure(0.25, 0.0, split), split)
    assert found.density_nll == pytest.approx(np.log(1e-9) + 0.5 * np.log(2 * np.pi))
    assert np.isfinite(evaluate(Sure(0.75, 0.0, split), split).density_nll or np.nan)


def test_a_negative_standard_deviation_is_refused() -> None:
    split = split_of(np.full((12, 10), 5.0), STARS)
    with pytest.raises(FitError, match="negative standard deviation"):
        evaluate(Sure(5.0, -1e-9, split), split)


def test_small_variances_keep_their_digits() -> None:
    likelihood = OrderedProbitLikelihood([4.0, 5.0])
    likelihood.set_cuts(torch.tensor([0.0]), 1.0)
    eta = torch.tensor([7.0, 7.5, 0.3], dtype=torch.float64)
    tail = 0.5 * torch.special.erfc(eta / 2**0.5)  # of level 4, one below 5
    _, variance = likelihood.predictive_moments(eta, torch.zeros_like(eta))
    torch.testing.assert_close(variance, tail * (1.0 - tail), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(likelihood(eta).variance, variance, rtol=1e-6, atol=0.0)
    logistic = OrderedLogisticLikelihood([4.0, 5.0])
    with torch.no_grad():
        logistic.first_cut.fill_(0.0)
        far = torch.tensor([30.0, 40.0], dtype=torch.float64)
        _, variance = logistic.predictive_moments(far, torch.zeros_like(far))
    torch.testing.assert_close(variance, torch.exp(-far / logistic.scale), rtol=1e-5, atol=0.0)


def one_four() -> np.ndarray:
    stars = np.full((14, 12), 5.0)
    stars[3, 4] = 4.0
    return stars


CASES = {
    "one 4 among 5s": (one_four(), RatingScale(4.0, 5.0, 1.0)),
    "all equal": (np.full((14, 12), 5.0), STARS),
    "every user constant": (np.tile(np.arange(14.0)[:, None] % 5 + 1, (1, 12)), STARS),
    "two levels": (np.random.default_rng(0).integers(0, 2, (14, 12)) * 1.0, RatingScale(0.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("name", ["default", "conjugate"])
@pytest.mark.parametrize("case", CASES)
def test_ratings_that_hardly_differ_are_fitted_and_measured(name: str, case: str) -> None:
    ratings, scale = CASES[case]
    split = split_of(ratings, scale)
    settings = preset(name).replace(n_factors=2)
    if name == "default":
        settings = settings.replace(sweeps=40, burn_in=20, kept_draws=20)
    found = evaluate(fit(split, settings, threads=1, progress=False).posterior, split)
    assert found.nll is not None
    assert found.nll < {"two levels": 1.2}.get(case, 0.5)
    assert found.rmse < {"two levels": 0.7}.get(case, 0.4)


def test_a_level_that_only_the_test_part_has_is_possible() -> None:
    stars = np.random.default_rng(0).integers(2, 6, (20, 15)) * 1.0
    split = split_of(stars, STARS)
    stars[split.test.users[0], split.test.items[0]] = 1.0
    split = split_of(stars, STARS)
    assert (split.train.ratings > 1.0).all()
    settings = preset().replace(n_factors=2, sweeps=40, burn_in=20, kept_draws=20)
    found = evaluate(fit(split, settings, threads=1, progress=False).posterior, split)
    assert found.n_impossible == 0
    assert "nll" in found.per_rating.losses
    assert found.per_rating.losses["nll"].max() < 12.0


def test_a_normal_likelihood_needs_no_care() -> None:
    likelihood = NormalLikelihood(1e-9)
    eta = torch.tensor([3.0], dtype=torch.float64)
    assert float(likelihood.predictive_moments(eta, torch.zeros_like(eta))[1]) == pytest.approx(1e-18)
