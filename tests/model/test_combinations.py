"""Every prior, likelihood and guide together: what runs, and what is refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf import Posterior, fit, random_split
from pyro_bmf.data import Split, synthetic_ratings
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import DataError, SettingsError
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.catalogue import LIKELIHOODS, PRIORS

SHORT: dict[str, Any] = {
    "n_factors": 3,
    "max_iterations": 2,
    "user_batch_size": 20,
    "item_batch_size": 15,
    "n_tower_outputs": 6,
}
PAIRS = (
    [(prior, likelihood) for prior in PRIORS for likelihood in ("normal", "ordered-logistic")]
    + [(prior, likelihood) for prior in ("normal", "hierarchical-normal") for likelihood in LIKELIHOODS]
    + [(prior, "poisson") for prior in ("gamma", "log-normal")]
)
#: A slice in which every prior and every likelihood stands once at least.
SLICE = {
    ("lkj", "normal"),
    ("hierarchical-normal", "ordered-logistic"),
    ("student-t", "ordered-logistic"),
    ("gamma", "poisson"),
    ("hierarchical-normal", "negative-binomial"),
    ("horseshoe", "normal"),
    ("laplace", "normal"),
    ("log-normal", "ordered-logistic"),
    ("normal-wishart", "ordered-logistic"),
    ("normal-half-t", "normal"),
    ("normal", "beta"),
    ("normal", "bernoulli"),
    ("normal", "student-t"),
    ("hierarchical-normal", "ordered-probit"),
}


@pytest.fixture(autouse=True)
def single_precision() -> Iterator[None]:
    """Fits compute in the precision that users have."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def split() -> Split:
    ratings = synthetic_ratings(40, 30, 600, n_factors=2, noise=0.5, seed=0, scale="1:5:1").ratings
    return random_split(ratings, seed=0)


def check_fit(split: Split, folder: Path, **changes: Any) -> Posterior:
    """Fit, predict, fold in, save and load."""
    settings = preset("amortized").replace(**{**SHORT, **changes})
    posterior = fit(split, settings, threads=1, progress=False, device="cpu").posterior
    test = split.test
    mean, sd = posterior.predict_mean(test.users, test.items), posterior.predict_sd(test.users, test.items)
    assert bool(np.isfinite(mean).all())
    assert bool((sd > 0).all())
    assert mean.min() > 0.0
    assert mean.max() < 8.0
    share = posterior.pairs.pmf(test.users, test.items, np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    np.testing.assert_allclose(share.sum(-1), 1.0, atol=1e-6)
    drawn = posterior.pairs.sample(test.users, test.items, 3, seed=0, kind="rating")
    assert bool(np.isfinite(np.asarray(drawn)).all())
    again = Posterior.load(posterior.save(folder))
    assert np.array_equal(again.predict_mean(test.users, test.items), mean)
    folded = again.fold_in({test.item_vocabulary.ids[0]: 4.0, test.item_vocabulary.ids[1]: 2.0})
    assert bool(np.isfinite(folded.recommend(n=3)["mean"]).all())
    return posterior


def of_slice(pair: tuple[str, str]) -> Any:
    return pytest.param(pair, marks=[] if pair in SLICE else pytest.mark.slow, id="-".join(pair))


@pytest.mark.parametrize("pair", [of_slice(pair) for pair in dict.fromkeys(PAIRS)])
def test_the_cross_feedback_guide_runs(pair: tuple[str, str], split: Split, tmp_path: Path) -> None:
    posterior = check_fit(split, tmp_path / "model", prior=pair[0], likelihood=pair[1])
    assert posterior.model.user_prior.settings()["kind"] == pair[0]
    assert posterior.model.likelihood.settings()["kind"] == pair[1]
    assert (posterior.user_rows.positive is not None) is (pair[0] in ("gamma", "log-normal"))


def test_positive_factors_alone_make_a_rating(split: Split, tmp_path: Path) -> None:
    posterior = check_fit(
        split,
        tmp_path / "model",
        prior="gamma:shape=0.5,rate=0.5",
        likelihood="poisson:link=identity",
        biases=False,
        centred=False,
    )
    assert float(posterior.user_rows.loc.min()) > 0
    u, _ = posterior.pairs.draw_rows("user", np.arange(5), np.arange(50), 0)
    assert float(u.min()) > 0
    # A saved posterior knows that its factors are positive, and draws the same.
    again, _ = Posterior.load(tmp_path / "model").pairs.draw_rows("user", np.arange(5), np.arange(50), 0)
    assert bool((again == u).all())


RUNS = {
    "conjugate": {"normal"},
    "gibbs": {"normal", "normal-wishart", "normal-half-t"},
}


@pytest.mark.parametrize("guide", RUNS)
@pytest.mark.parametrize("prior", PRIORS)
def test_other_guides_run_or_say_why_not(guide: str, prior: str, split: Split) -> None:
    settings = preset("conjugate" if guide == "conjugate" else "default").replace(
        n_factors=2, likelihood="normal", prior=prior
    )
    settings = (
        settings.replace(max_iterations=2)
        if guide == "conjugate"
        else settings.replace(sweeps=6, burn_in=3, kept_draws=3)
    )
    if prior in RUNS[guide]:
        posterior = fit(split, settings, threads=1, progress=False).posterior
        assert bool(np.isfinite(posterior.predict_mean(split.test.users, split.test.items)).all())
        return
    with pytest.raises(SettingsError, match=r"needs? Normal priors|do not know the prior"):
        fit(split, settings, threads=1, progress=False)


@pytest.mark.parametrize("covariance", ["full", "low-rank"])
def test_correlated_rows_of_positive_factors_are_refused(covariance: str, split: Split) -> None:
    with pytest.raises(SettingsError, match="factors are positive"):
        fit(
            split,
            preset("amortized").replace(**SHORT, prior="gamma", covariance=covariance),
            threads=1,
            progress=False,
        )


def test_half_stars_are_levels_and_no_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cells = rng.permutation(40 * 30)[:500]
    values = rng.integers(1, 11, 500) / 2
    half = random_split(ratings_from_arrays(cells // 30, cells % 30, values, scale="0.5:5:0.5"), seed=0)
    settings = preset("amortized").replace(**SHORT, likelihood="ordered-logistic")
    posterior = fit(half, settings, threads=1, progress=False).posterior
    assert len(posterior.model.likelihood.levels) == 10
    with pytest.raises(DataError, match=r"rating of [0-9.]+ is outside .*half stars"):
        fit(half, settings.replace(likelihood="poisson"), threads=1, progress=False)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("studnet-t", "did you mean student-t"),
        ("student-t:dof=4", "no argument 'dof': it takes df, scale"),
        ("student-t:df=many", "df of student-t is 'many': give a number"),
        ("student-t:df", "write NAME=VALUE"),
        ("student-t:", "ends in a colon"),
        ("student-t:df=4,df=5", "stands twice"),
        ("nothing-like-it", "there are normal"),
    ],
)
def test_words_that_are_wrong(word: str, message: str) -> None:
    for name in ("prior", "likelihood"):
        with pytest.raises(SettingsError, match=message):
            preset("amortized").replace(**{name: word})
