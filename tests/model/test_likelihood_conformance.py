"""Every likelihood under the same checks, and each against another library's statement of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_bmf.conformance import check_likelihood
from pyro_bmf.errors import DataError, SettingsError
from pyro_bmf.model.likelihoods.bernoulli import BernoulliLikelihood
from pyro_bmf.model.likelihoods.beta import BetaLikelihood
from pyro_bmf.model.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from pyro_bmf.model.likelihoods.normal import Likelihood, NormalLikelihood
from pyro_bmf.model.likelihoods.ordered_logistic import OrderedLogisticLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.model.likelihoods.student_t import StudentTLikelihood

STARS = [1.0, 2.0, 3.0, 4.0, 5.0]
HALVES = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
AROUND_THREE = (1.6, 2.9, 4.2)

CASES: list[tuple[Callable[[], Likelihood], list[float], dict[str, Any]]] = [
    (NormalLikelihood, STARS, {"eta": AROUND_THREE, "levels": STARS}),
    (lambda: StudentTLikelihood(df=6.0), STARS, {"eta": AROUND_THREE, "levels": STARS}),
    (lambda: StudentTLikelihood(df=5.0, scale=0.7), STARS, {"eta": AROUND_THREE, "levels": HALVES}),
    (lambda: OrderedLogisticLikelihood(STARS), STARS, {"eta": AROUND_THREE, "levels": STARS}),
    (lambda: OrderedLogisticLikelihood(HALVES, 0.2), HALVES, {"eta": (0.6, 1.4, 2.7), "levels": HALVES}),
    (lambda: OrderedProbitLikelihood(STARS), STARS, {"eta": AROUND_THREE, "levels": STARS}),
    (PoissonLikelihood, STARS, {"eta": AROUND_THREE, "levels": STARS}),
    (lambda: PoissonLikelihood("exp"), STARS, {"levels": STARS}),
    (lambda: PoissonLikelihood("identity"), STARS, {"eta": AROUND_THREE, "levels": STARS}),
    (NegativeBinomialLikelihood, STARS, {"eta": AROUND_THREE, "levels": STARS}),
    (lambda: NegativeBinomialLikelihood("exp", 2.5), STARS, {"levels": STARS}),
    (lambda: BernoulliLikelihood(STARS), STARS, {"levels": STARS}),
    (lambda: BernoulliLikelihood(HALVES, 2.0), HALVES, {"levels": HALVES}),
    (lambda: BetaLikelihood(-10.0, 10.0), [-9.0, 3.0, 8.5], {}),
]


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda i: f"{i}-{type(CASES[i][0]()).__name__}")
def test_conformance(case: int) -> None:
    make, ratings, more = CASES[case]
    check_likelihood(make(), ratings, **more)


def test_a_broken_likelihood_does_not_pass() -> None:
    class Wrong(NormalLikelihood):
        def log_prob_rating(self, eta: Any, levels: Any, relative: Any = None) -> Any:
            return super().log_prob_rating(eta + 0.1, levels, relative)

    class Biased(NormalLikelihood):
        def mean(self, eta: Any, relative: Any = None) -> Any:
            return eta + 0.2

    with pytest.raises(AssertionError, match="share of draws"):
        check_likelihood(Wrong(), STARS, eta=AROUND_THREE, levels=STARS)
    with pytest.raises(AssertionError, match="mean"):
        check_likelihood(Biased(), STARS, eta=AROUND_THREE, levels=STARS)


# ---------------------------------------------------------------- against scipy

ETA = torch.tensor([-0.4, 0.8, 2.1], dtype=torch.float64)


def cells(cdf: Callable[[np.ndarray], np.ndarray], levels: list[float]) -> np.ndarray:
    """Shares of the levels' cells, shape (n_eta, n_levels), from a distribution function of cuts."""
    cuts = (np.array(levels)[1:] + np.array(levels)[:-1]) / 2
    inner = np.stack([cdf(cut) for cut in cuts], axis=-1)
    ends = np.zeros((len(ETA), 1))
    return np.diff(np.concatenate([ends, inner, ends + 1], axis=-1), axis=-1)


def test_student_t() -> None:
    likelihood = StudentTLikelihood(df=3.0, scale=0.6)
    reference = stats.t(3.0, loc=ETA.numpy(), scale=0.6)
    np.testing.assert_allclose(likelihood(ETA).log_prob(torch.tensor(1.7)), reference.logpdf(1.7), rtol=1e-7)
    found = likelihood.log_prob_rating(ETA, torch.tensor(STARS)).exp()
    np.testing.assert_allclose(found, cells(reference.cdf, STARS), rtol=1e-10)
    moments = likelihood.predictive_moments(ETA, torch.zeros(3, dtype=torch.float64))
    np.testing.assert_allclose(moments[1], reference.var(), rtol=1e-6)


@pytest.mark.parametrize("df", [2.5, 4.0, 30.0])
def test_student_t_of_an_uncertain_predictor_is_the_integral(df: float) -> None:
    likelihood = StudentTLikelihood(df=df, scale=0.6)
    variance = torch.tensor([0.04, 0.3, 1.0], dtype=torch.float64)
    found = likelihood.predictive_pmf(ETA, variance, torch.tensor(STARS)).numpy()
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    total = np.zeros_like(found)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        centre = ETA.numpy() + np.sqrt(variance.numpy()) * node
        total += weight * cells(stats.t(df, loc=centre, scale=0.6).cdf, STARS)
    np.testing.assert_allclose(found, total, atol=2e-6)


def test_ordered_logistic() -> None:
    likelihood = OrderedLogisticLikelihood(STARS, scale=0.5)
    with torch.no_grad():
        likelihood.first_cut.fill_(-0.3)
        likelihood.log_gaps.copy_(torch.tensor([0.1, -0.2, 0.3]))
    cuts = likelihood.cuts.detach().numpy()
    upper = stats.logistic.cdf((cuts - ETA.numpy()[:, None]) / 0.5)
    expected = np.diff(np.concatenate([np.zeros((3, 1)), upper, np.ones((3, 1))], axis=1), axis=1)
    found = likelihood.log_prob_rating(ETA, torch.tensor(STARS)).exp().detach()
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    value = torch.tensor([1.0, 3.0, 5.0])
    picked = expected[np.arange(3), [0, 2, 4]]
    np.testing.assert_allclose(likelihood(ETA).log_prob(value).detach(), np.log(picked), rtol=1e-9)
    # Far from every cut nothing is rounded away.
    far = likelihood.log_prob_rating(torch.tensor([-400.0, 400.0]).double(), torch.tensor(STARS))
    assert bool(torch.isfinite(far).all())


@pytest.mark.parametrize(("link", "function"), [("softplus", lambda x: np.log1p(np.exp(x))), ("exp", np.exp)])
def test_counts(link: str, function: Any) -> None:
    rate = function(ETA.numpy()) + 1e-6
    poisson = PoissonLikelihood(link)
    np.testing.assert_allclose(
        poisson(ETA).log_prob(torch.tensor(3.0)), stats.poisson(rate).logpmf(3), rtol=1e-9
    )
    found = poisson.log_prob_rating(ETA, torch.tensor(STARS)).exp()
    np.testing.assert_allclose(found, cells(stats.poisson(rate).cdf, STARS), rtol=1e-9)
    binomial = NegativeBinomialLikelihood(link, dispersion=2.5)
    reference = stats.nbinom(2.5, 2.5 / (2.5 + rate))
    np.testing.assert_allclose(binomial(ETA).log_prob(torch.tensor(3.0)), reference.logpmf(3), rtol=1e-7)
    found = binomial.log_prob_rating(ETA, torch.tensor(STARS)).exp()
    np.testing.assert_allclose(found, cells(reference.cdf, STARS), rtol=1e-7)


def test_a_negative_binomial_of_great_shape_is_a_poisson() -> None:
    nearly = NegativeBinomialLikelihood("softplus", dispersion=1e9)
    value = torch.tensor(4.0)
    found, expected = nearly(ETA).log_prob(value), PoissonLikelihood()(ETA).log_prob(value)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_bernoulli() -> None:
    likelihood = BernoulliLikelihood(STARS, threshold=3.0)
    likelihood.start(np.array([1.0, 2.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0]))
    share = 1 / (1 + np.exp(-ETA.numpy()))
    low, high = np.array([2, 3, 1]) / 6, np.array([2, 5]) / 7  # one added to every count
    expected = np.concatenate([(1 - share)[:, None] * low, share[:, None] * high], axis=1)
    found = likelihood.log_prob_rating(ETA, torch.tensor(STARS)).exp()
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(likelihood.mean(ETA), expected @ np.array(STARS), rtol=1e-10)


def test_beta() -> None:
    likelihood = BetaLikelihood(1.0, 5.0, squeeze=0.05)
    with torch.no_grad():
        likelihood.log_concentration.fill_(math.log(3.0))
    share = 1 / (1 + np.exp(-ETA.numpy()))
    slope = 0.95 / 4.0
    reference = stats.beta(share * 3.0, (1 - share) * 3.0)
    y = 0.025 + slope * (2.2 - 1.0)
    found = likelihood(ETA).log_prob(torch.tensor(2.2)).detach()
    np.testing.assert_allclose(found, reference.logpdf(y) + np.log(slope), rtol=1e-9)
    found = likelihood.log_prob_rating(ETA, torch.tensor(STARS)).exp()
    np.testing.assert_allclose(
        found, cells(lambda cut: reference.cdf(0.025 + slope * (cut - 1.0)), STARS), rtol=1e-8
    )
    assert bool(torch.isfinite(likelihood(ETA).log_prob(torch.tensor([1.0, 5.0, 1.0]))).all())


# ---------------------------------------------------------------- centres, borders


@pytest.mark.parametrize(
    "likelihood",
    [
        NormalLikelihood(),
        StudentTLikelihood(),
        PoissonLikelihood(),
        PoissonLikelihood("exp"),
        BernoulliLikelihood(STARS),
        BetaLikelihood(1.0, 5.0),
    ],
    ids=lambda likelihood: type(likelihood).__name__,
)
def test_a_predictor_at_the_centre_has_the_centre_as_its_mean(likelihood: Likelihood) -> None:
    centre = torch.tensor(3.2, dtype=torch.float64)
    mean = likelihood.mean(likelihood.predictor_centre(centre))
    assert float(mean.detach()) == pytest.approx(3.2, abs=1e-3)


def test_ratings_outside_the_support_are_refused_with_what_to_take() -> None:
    with pytest.raises(DataError, match=r"rating of 3\.5 is outside .*ordered-probit take half stars"):
        PoissonLikelihood().check(np.array([3.0, 3.5]))
    whole = r"outside the support of the negative binomial likelihood \(whole numbers from 0 on\)"
    with pytest.raises(DataError, match=whole):
        NegativeBinomialLikelihood().check(np.array([3.0, 3.5]))
    with pytest.raises(DataError, match=r"rating of 3\.5 is not a level of the ordered logistic"):
        OrderedLogisticLikelihood(STARS).check(np.array([3.0, 3.5]))
    many = np.full(1_000_000, 3.0)
    OrderedLogisticLikelihood(STARS).check(many)
    many[-2:] = 3.25, 3.5
    with pytest.raises(DataError, match=r"rating of 3\.25 is not a level of the ordered logistic"):
        OrderedLogisticLikelihood(STARS).check(many)
    with pytest.raises(
        DataError, match=r"outside the support of the Beta likelihood \(numbers from 0 to 1\)"
    ):
        BetaLikelihood(0.0, 1.0).check(np.array([0.5, 1.5]))
    for refused in (PoissonLikelihood(), BetaLikelihood(0.0, 5.0), BernoulliLikelihood(STARS)):
        with pytest.raises(SettingsError, match="has no noise, so rows"):
            refused(ETA, torch.ones(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StudentTLikelihood(df=1.5), "df is 1.5"),
        (lambda: StudentTLikelihood(scale="wide"), "scale is 'wide'"),
        (lambda: OrderedLogisticLikelihood([1.0]), "two or more"),
        (lambda: OrderedLogisticLikelihood(STARS, scale=0.0), "scale is"),
        (lambda: PoissonLikelihood("log"), "link is 'log'"),
        (lambda: NegativeBinomialLikelihood(dispersion=-1.0), "dispersion is"),
        (lambda: BernoulliLikelihood(STARS, threshold=7.0), "either side"),
        (lambda: BetaLikelihood(5.0, 1.0), "lower first"),
        (lambda: BetaLikelihood(1.0, 5.0, squeeze=0.9), "squeeze is"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], Likelihood], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make()
