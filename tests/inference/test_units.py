"""The unit of the ratings decides nothing: a x + b gives the same fit, and figures in its own unit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch

from pyro_bmf.data import RatingScale, Split, random_split
from pyro_bmf.data.units import AS_GIVEN, Units
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import DataError, SettingsError
from pyro_bmf.evaluation import evaluate
from pyro_bmf.fit_result import FitResult
from pyro_bmf.fitting import fit
from pyro_bmf.in_units import settings_in, units_of
from pyro_bmf.methods.settings import Settings, preset
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.likelihoods.counts import PoissonLikelihood
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.likelihoods.student_t import StudentTLikelihood
from pyro_bmf.model.standard_units import InUnits
from pyro_bmf.posterior import Posterior

pytestmark = pytest.mark.filterwarnings("ignore::pyro_bmf.data.notices.DataNotice")
N_USERS, N_ITEMS = 24, 18


@cache
def pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((N_USERS, N_ITEMS)) < 0.7)
    eta = rng.normal(0, 1, (N_USERS, 2)) @ rng.normal(0, 0.7, (2, N_ITEMS)) + rng.normal(0, 0.5, (1, N_ITEMS))
    return users, items, 3.0 + eta[users, items] + 0.4 * rng.normal(size=len(users))


def stars() -> np.ndarray:
    return np.clip(np.rint(pairs()[2]), 1, 5)


def split_of(ratings: np.ndarray, scale: RatingScale | None = None) -> Split:
    users, items, _ = pairs()
    return random_split(ratings_from_arrays(users, items, ratings, scale=scale), seed=0)


def settings_of(word: str, **changes: Any) -> Settings:
    name, _, likelihood = word.partition(" ")
    quick: dict[str, Any] = {"n_factors": 2, **changes}
    if likelihood:
        quick["likelihood"] = likelihood
    if name == "default":
        quick |= {"sweeps": 16, "burn_in": 8, "kept_draws": 8}
    elif name == "conjugate":
        quick |= {"max_iterations": 6}
    else:
        quick |= {"max_iterations": 6, "n_tower_outputs": 4}
        quick |= {"user_batch_size": 100, "item_batch_size": 100}
    return preset(name).replace(**quick)


@dataclass(frozen=True)
class Figures:
    result: FitResult
    mean: np.ndarray
    sd: np.ndarray
    rmse: float
    nll: float
    coverage: float
    valid: float
    noise: float

    @classmethod
    def of(cls, split: Split, settings: Settings, **more: Any) -> Figures:
        result = fit(split, settings, threads=1, progress=False, **more)
        found = evaluate(result.posterior, split, protocols=())
        users, items = split.test.users, split.test.items
        nll = found.density_nll if found.nll is None else found.nll
        assert nll is not None
        return cls(
            result,
            result.posterior.predict_mean(users, items),
            result.posterior.predict_sd(users, items),
            found.rmse,
            nll,
            found.calibration.overall.pit_coverage[2],
            result.history[-1]["valid_rmse"],
            result.history[-1]["noise"],
        )


CONTINUOUS = ["default", "conjugate", "amortized", "amortized student-t:df=5"]


@cache
def original(word: str) -> Figures:
    return Figures.of(split_of(pairs()[2]), settings_of(word))


@cache
def seeds(word: str) -> list[float]:
    """Test RMSE of five seeds of the fit."""
    return [Figures.of(split_of(pairs()[2]), settings_of(word, seed=seed)).rmse for seed in range(5)]


@pytest.mark.parametrize("word", CONTINUOUS)
@pytest.mark.parametrize("factor", [8.0, 0.25])
def test_a_power_of_two_gives_the_same_bits(word: str, factor: float) -> None:
    here, there = original(word), Figures.of(split_of(factor * pairs()[2]), settings_of(word))
    assert np.array_equal(there.mean, factor * here.mean)
    assert np.array_equal(there.sd, factor * here.sd)
    assert there.valid == factor * here.valid
    assert there.noise == factor * here.noise


@pytest.mark.parametrize("word", CONTINUOUS)
@pytest.mark.parametrize(
    ("factor", "shift"), [(200.0, 0.0), (1e6, 0.0), (1e-3, 0.0), (1.0, 1e9), (-2.0, 7.0)]
)
def test_any_unit_gives_the_same_fit(word: str, factor: float, shift: float) -> None:
    here, there = original(word), Figures.of(split_of(factor * pairs()[2] + shift), settings_of(word))
    if factor < 0:  # mirrored: another fit of the same quality, as other seeds give
        others = seeds(word)
        assert 0.8 * min(others) < there.rmse / abs(factor) < 1.2 * max(others)
        return
    np.testing.assert_allclose((there.mean - shift) / factor, here.mean, atol=2e-3)
    assert there.rmse / factor == pytest.approx(here.rmse, rel=1e-3)
    assert there.nll - np.log(factor) == pytest.approx(here.nll, abs=3e-3)
    assert there.coverage == pytest.approx(here.coverage, abs=0.02)
    assert there.valid / factor == pytest.approx(here.valid, rel=1e-3)
    assert there.noise / factor == pytest.approx(here.noise, rel=1e-3)


@pytest.mark.parametrize("word", ["default", "conjugate", "amortized", "amortized ordered-logistic"])
@pytest.mark.parametrize(("factor", "shift"), [(100.0, 0.0), (0.2, 0.0), (1.0, 1e6), (0.25, -0.25)])
def test_the_same_levels_by_other_names_give_the_same_bits(word: str, factor: float, shift: float) -> None:
    here = Figures.of(split_of(stars()), settings_of(word))
    there = Figures.of(split_of(factor * stars() + shift), settings_of(word))
    for side in ("user_rows", "item_rows"):
        mine, theirs = getattr(here.result.posterior, side), getattr(there.result.posterior, side)
        for name, tensor in mine.tensors().items():
            assert torch.equal(tensor, theirs.tensors()[name]), name
    assert there.nll == pytest.approx(here.nll, abs=1e-9)
    np.testing.assert_allclose((there.mean - shift) / factor, here.mean, rtol=0, atol=1e-7)


def test_what_a_user_sees_is_in_the_users_unit() -> None:
    here = original("conjugate").result.posterior
    there = Figures.of(split_of(100.0 * pairs()[2]), settings_of("conjugate")).result.posterior
    ids = here.train.user_vocabulary.ids, here.train.item_vocabulary.ids
    new = {int(ids[1][0]): 2.5, int(ids[1][1]): 4.0}
    for one, other in (
        (here.predict(ids[0][0], ids[1]), there.predict(ids[0][0], ids[1])),
        (
            here.fold_in(new).predict(ids[1]),
            there.fold_in({key: 100.0 * value for key, value in new.items()}).predict(ids[1]),
        ),
        (here.recommend(ids[0][:3], 4), there.recommend(ids[0][:3], 4)),
    ):
        assert one["item_id"].tolist() == other["item_id"].tolist()
        for name in {"mean", "sd", "lower", "upper"} & set(one.columns):
            np.testing.assert_allclose(other[name] / 100.0, one[name], rtol=1e-4, atol=1e-4)
    for kind in ("rating", "eta"):
        np.testing.assert_allclose(
            there.sample(ids[0][0], ids[1], 5, 0, kind=kind) / 100.0,
            here.sample(ids[0][0], ids[1], 5, 0, kind=kind),
            rtol=1e-3,
            atol=1e-3,
        )
    np.testing.assert_allclose(
        there.score_items(np.arange(3)) / 100.0, here.score_items(np.arange(3)), rtol=1e-3
    )


@pytest.mark.parametrize("word", ["default", "amortized"])
def test_exports_are_in_the_users_unit(word: str) -> None:
    from pyro_bmf.export.arviz import to_arviz

    factor = 64.0
    here = original(word)
    there = Figures.of(split_of(factor * pairs()[2]), settings_of(word))
    trees = []
    for one, scale in ((here, 1.0), (there, factor)):
        split = split_of(scale * pairs()[2])
        trees.append(to_arviz(one.result.posterior, split, num_samples=6, functionals=True))
    mine, theirs = trees
    for name, unit in (
        ("user_factors", 8.0), ("item_factors", 8.0), ("user_bias", factor), ("eta", factor), ("uv", factor)
    ):  # fmt: skip
        np.testing.assert_allclose(
            theirs["posterior"][name].values / unit, mine["posterior"][name].values, rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(
        theirs["log_likelihood"]["rating"].values + np.log(factor),
        mine["log_likelihood"]["rating"].values,
        rtol=1e-4,
        atol=1e-4,
    )
    np.testing.assert_allclose(
        theirs["log_prior"]["user_factors"].values + 2 * np.log(8.0),
        mine["log_prior"]["user_factors"].values,
        rtol=1e-3,
        atol=1e-3,
    )


def test_numbers_that_are_given_are_in_the_users_unit() -> None:
    factor = 16.0
    given = {"noise": 0.5, "prior_scale": 0.4, "bias_scale": 0.3}
    scaled = {"noise": 8.0, "prior_scale": 1.6, "bias_scale": 4.8}
    here = Figures.of(split_of(pairs()[2]), settings_of("conjugate", **given))
    there = Figures.of(split_of(factor * pairs()[2]), settings_of("conjugate", **scaled))
    np.testing.assert_allclose(there.mean / factor, here.mean, rtol=1e-5)
    assert here.noise == pytest.approx(0.5)
    assert there.noise == pytest.approx(8.0)
    noted = there.result.posterior.info["settings"]["model"]
    assert {name: noted[name] for name in scaled} == scaled
    same = Figures.of(split_of(factor * pairs()[2]), settings_of("conjugate", **given))
    assert not np.allclose(same.mean / factor, here.mean, rtol=1e-3)


def test_numbers_in_words_are_in_the_users_unit() -> None:
    units = Units(2.0, 4.0)
    model = preset("amortized").replace(prior="student-t:df=5,scale=0.6", likelihood="normal:noise=2").model
    assert settings_in(model, units).prior == "student-t:df=5,scale=0.3"
    assert settings_in(model, units).likelihood == "normal:noise=0.5"
    for word, expected in (
        ("gamma:shape=2,rate=3", "gamma:shape=2,rate=6.0"),
        ("horseshoe", "horseshoe"),
        ("normal:loc=1,scale=2", "normal:loc=0.5,scale=1.0"),
    ):
        assert settings_in(preset("amortized").replace(prior=word).model, units).prior == expected
    assert settings_in(preset().model, units) == preset().model


def test_saving_keeps_the_units(tmp_path: Path) -> None:
    for word, ratings in (("amortized", 50.0 * pairs()[2]), ("default", 50.0 * stars())):
        found = Figures.of(split_of(ratings), settings_of(word))
        again = Posterior.load(found.result.posterior.save(tmp_path / word))
        posterior = found.result.posterior.to("cpu")  # where files are read
        users, items = posterior.train.users, posterior.train.items
        assert again.model.units == posterior.model.units
        assert np.array_equal(again.predict_mean(users, items), posterior.predict_mean(users, items))
        new = {0: float(ratings.max()), 1: float(ratings.min())}
        assert again.fold_in(new).predict([2, 3]).equals(posterior.fold_in(new).predict([2, 3]))


def test_exempt_are_raw() -> None:
    train = split_of(stars()).train
    assert units_of(preset("paper").model, train) == AS_GIVEN
    assert units_of(preset("amortized").replace(likelihood="poisson").model, train) == AS_GIVEN
    own = FactorizationModel(2, likelihood=NormalLikelihood())
    assert units_of(preset("amortized").model, train, own=own) == AS_GIVEN
    assert (
        fit(
            split_of(stars()), settings_of("amortized"), model=own, threads=1, progress=False
        ).posterior.model.units
        == AS_GIVEN
    )
    with pytest.raises(SettingsError, match="no standard units"):
        PoissonLikelihood().finish_in(Units(1.0, 2.0))


def test_a_warm_start_goes_on_in_the_earlier_units() -> None:
    split = split_of(stars())
    earlier = fit(split, settings_of("amortized"), threads=1, progress=False).posterior
    more = random_split(
        ratings_from_arrays(*pairs()[:2], np.minimum(stars(), 3.0), scale=split.ratings.scale), seed=1
    )
    later = fit(more, settings_of("amortized"), warm_start=earlier, threads=1, progress=False).posterior
    assert later.model.units == earlier.model.units
    assert later.model.units != Units.of(more.train)


@pytest.mark.parametrize("word", ["default", "conjugate", "amortized"])
def test_units_that_are_given_say_where_predictors_start(word: str) -> None:
    split = split_of(pairs()[2])
    usual = fit(split, settings_of(word), threads=1, progress=False).posterior.model
    assert abs(float(usual.centre)) < 1e-6  # of its own standard units
    posterior = fit(split, settings_of(word), threads=1, progress=False, units=AS_GIVEN).posterior
    assert float(posterior.model.centre) == 0.0
    drawn = posterior.guide.hyperparameters()
    if word == "default":  # biases take up where the ratings lie, and their prior is told
        locations = [drawn[f"{side}_bias_location"].values.mean() for side in ("user", "item")]
        assert float(sum(locations)) > 1.5


def test_ratings_in_their_own_units_keep_their_mean_as_the_centre() -> None:
    split = split_of(stars())
    settings = preset("paper").replace(n_factors=2, max_iterations=1, n_tower_outputs=4, centred=True)
    posterior = fit(split, settings, threads=1, progress=False, units=AS_GIVEN).posterior
    assert float(posterior.model.centre) == pytest.approx(split.train.ratings.mean())


@pytest.mark.filterwarnings("ignore:ratings:pyro_bmf.data.DataWarning")  # a user each, on purpose
def test_units_of_hard_ratings() -> None:
    def of(ratings: list[float], scale: RatingScale, **more: Any) -> Units:
        n = len(ratings)
        return Units.of(
            ratings_from_arrays(np.arange(n), np.arange(n) % 2, np.array(ratings), scale=scale), **more
        )

    interval = RatingScale(0.0, 10.0, None)
    assert of([3.7] * 5, interval) == Units(3.7, 5.0)
    assert of([5.0] * 5, RatingScale(1.0, 5.0, 1.0)) == Units(4.0, 1.0, 1.0, 1.0)
    assert of([5.0, 5.0], RatingScale(1.0, 5.0, 1.0)).scale == 1.0
    big = of([1e9 + 0.25, 1e9 + 0.5, 1e9 + 0.75], RatingScale(1e9, 1e9 + 1, None))
    np.testing.assert_allclose(big.standard([1e9 + 0.25, 1e9 + 0.75]), [-(1.5**0.5), 1.5**0.5], rtol=1e-9)
    raw = of([2.0, 4.0], interval, centred=False)
    assert (raw.shift, raw.scale) == (0.0, 1.0)
    with pytest.raises(DataError, match="not units"):
        Units(0.0, 0.0)


def test_a_likelihood_in_units_is_the_one_of_converted_ratings() -> None:
    units, eta = Units(30.0, 4.0), torch.tensor([-0.5, 0.2, 1.0], dtype=torch.float64)
    values = torch.tensor([20.0, 31.0, 33.0], dtype=torch.float64)
    for kind in (NormalLikelihood(0.7), StudentTLikelihood(5.0, 0.6)):
        plain = type(kind)(**{k: v for k, v in kind.settings().items() if k != "kind"})
        kind.finish_in(units)
        inside = (values - 30.0) / 4.0
        torch.testing.assert_close(kind(eta).log_prob(values), plain(eta).log_prob(inside) - np.log(4.0))
        mean, variance = kind.predictive_moments(eta, 0.3 * eta**2)
        expected = plain.predictive_moments(eta, 0.3 * eta**2)
        torch.testing.assert_close(mean, 4.0 * expected[0] + 30.0)
        torch.testing.assert_close(variance, 16.0 * expected[1])
        levels = torch.tensor([22.0, 30.0, 38.0], dtype=torch.float64)
        torch.testing.assert_close(
            kind.predictive_pmf(eta, 0.3 * eta**2, levels),
            plain.predictive_pmf(eta, 0.3 * eta**2, (levels - 30.0) / 4.0),
        )
        places = torch.tensor([0, 1, 2])
        torch.testing.assert_close(
            kind.log_prob_observed(eta, places, levels),
            plain.log_prob_observed(eta, places, (levels - 30.0) / 4.0),
        )


def test_draws_of_ratings_are_in_their_unit() -> None:
    eta = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    units = Units(centre=3.5, spread=2.0)
    law = InUnits(dist.Normal(eta, 0.5), units)
    torch.manual_seed(5)
    drawn = law.sample((20_000,))
    assert torch.allclose(drawn.mean(0), 2.0 * eta + 3.5, atol=0.04)
    assert torch.allclose(drawn.mean(0), law.mean, atol=0.04)
    assert torch.allclose(drawn.var(0), law.variance, rtol=0.05)
    exact = torch.distributions.Normal(2.0 * eta + 3.5, 1.0).log_prob(drawn)
    assert torch.allclose(law.log_prob(drawn), exact)
