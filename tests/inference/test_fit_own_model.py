"""A model of one's own: every stage of a fit is of it, or it is refused by name before any work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyro_bmf.data import RatingScale, Split, random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import SavedFileError, SettingsError
from pyro_bmf.fitting import fit
from pyro_bmf.methods.gibbs.settings import Gibbs
from pyro_bmf.methods.settings import preset
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.implicit_feedback import ImplicitFeedback
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.model.likelihoods.student_t import StudentTLikelihood
from pyro_bmf.model.priors.heavy_tails import StudentTPrior
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior
from pyro_bmf.progress import Silent

AMORTIZED = preset("amortized").replace(n_factors=2, max_iterations=2, n_tower_outputs=3)
CHAIN = {"sweeps": 8, "burn_in": 3, "kept_draws": 5}
AFTER = {"then": Gibbs(), **CHAIN}


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((16, 12)) < 0.7)
    scores = (rng.normal(0, 0.8, (16, 2)) @ rng.normal(0, 0.8, (2, 12)))[users, items]
    stars = np.clip(np.round(3.3 + scores), 1, 5)
    return random_split(ratings_from_arrays(users, items, stars, scale=RatingScale(1, 5, 1)))


class Nothing(Silent):
    """Fails where a fit begins."""

    def start(self, *rest: Any) -> None:
        raise AssertionError("work was done")

    def note(self, text: str) -> None:
        raise AssertionError(f"work was done: {text}")


def wishart(**changes: Any) -> FactorizationModel:
    scales = {f"{side}{kind}": 0.4 for side in ("user", "item") for kind in ("_prior", "_bias_prior")}
    priors = {name: NormalWishartPrior(scale=scale) for name, scale in scales.items()}
    return FactorizationModel(2, **{**priors, **changes})


def test_sweeps_after_a_guide_are_of_the_same_model(split: Split) -> None:
    model = wishart(likelihood=OrderedProbitLikelihood(levels=[1, 2, 3, 4, 5], noise=0.8))
    kept = fit(split, AMORTIZED.replace(**AFTER), model=model, progress=False, threads=1)
    assert kept.stopped == "sweeps"
    found, asked = kept.posterior.model.settings(), model.settings()
    found["likelihood"].pop("noise"), asked["likelihood"].pop("noise")  # a chain draws it
    assert found == asked
    assert kept.posterior.model.user_prior.scale == 0.4
    assert "model" not in kept.posterior.info["settings"]
    # The chain goes on from the guide's rows: another guide's fit gives another chain.
    other = fit(split, AMORTIZED.replace(**AFTER, beta_user=1.0), model=model, progress=False, threads=1)
    user, item = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    assert other.posterior.predict_mean(user, item) != kept.posterior.predict_mean(user, item)


@pytest.mark.parametrize(
    ("settings", "model", "told"),
    [
        (AMORTIZED.replace(**AFTER), FactorizationModel(2), "NormalPrior"),
        (
            AMORTIZED.replace(**AFTER),
            FactorizationModel(2, user_prior=StudentTPrior(df=4), item_prior=StudentTPrior(df=4)),
            "StudentTPrior",
        ),
        (AMORTIZED.replace(**AFTER), wishart(likelihood=StudentTLikelihood()), "StudentTLikelihood.*sweeps"),
        (preset("conjugate").replace(n_factors=2, **AFTER), wishart(), r"then=None.*method=Gibbs\(\)"),
        (preset("conjugate").replace(n_factors=2, **AFTER), FactorizationModel(2), "then=None"),
        (AMORTIZED, wishart(implicit=ImplicitFeedback()), r"implicit feedback.*method=Gibbs\(\)"),
        (preset().replace(n_factors=2), FactorizationModel(2), "NormalPrior"),
        (AMORTIZED.replace(n_factors=3), FactorizationModel(2), "n_factors=3 .* n_factors 2"),
        (AMORTIZED.replace(biases=False), FactorizationModel(2), "biases=False .* biases True"),
        (AMORTIZED.replace(centred=False), FactorizationModel(2), "centred=False .* centred True"),
        (AMORTIZED.replace(row_noise="user"), FactorizationModel(2), "row_noise='user' .* 'none'"),
        (AMORTIZED.replace(noise=0.5), FactorizationModel(2), "noise=0.5 .* its own noise"),
        (AMORTIZED.replace(prior="laplace"), FactorizationModel(2), "prior='laplace' .* its own prior"),
        (AMORTIZED.replace(prior_scale=0.5), FactorizationModel(2), "prior_scale=0.5 .* its own prior_scale"),
        (AMORTIZED.replace(likelihood="auto"), FactorizationModel(2), "likelihood='auto' .* its own"),
    ],
)  # fmt: skip
def test_a_model_that_a_stage_does_not_know_is_refused_first(
    split: Split, settings: Any, model: FactorizationModel, told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        fit(split, settings, model=model, progress=Nothing())


def test_settings_that_say_the_same_as_the_model_are_taken(split: Split) -> None:
    settings = AMORTIZED.replace(biases=True, centred=True, row_noise="none", implicit=False)
    result = fit(split, settings, model=FactorizationModel(2), progress=False, threads=1)
    assert "model" not in result.posterior.info["settings"]


def test_a_chain_of_another_model_is_not_resumed(split: Split, tmp_path: Any) -> None:
    file = tmp_path / "checkpoint.safetensors"
    settings = preset().replace(n_factors=2, **CHAIN)
    common: dict[str, Any] = {"checkpoint": file, "checkpoint_every": 4, "progress": False, "threads": 1}
    fit(split, settings, model=wishart(likelihood=NormalLikelihood()), **common)
    with pytest.raises(SavedFileError, match="its model is"):
        fit(split, settings, model=wishart(likelihood=NormalLikelihood(noise=0.5)), resume=True, **common)


def test_coordinate_ascent_has_nothing_to_resume(split: Split, tmp_path: Any) -> None:
    with pytest.raises(SettingsError, match="no checkpoint"):
        fit(split, preset("conjugate"), checkpoint=tmp_path / "none", resume=True, progress=Nothing())
