"""Fits with an exact head: planted truths, resumed bits, saved files, and sweeps that go on from them."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf import ExactHead, Gibbs, fit, preset, random_split
from pyro_bmf.data import RatingScale, Split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import SavedFileError, SettingsError
from pyro_bmf.methods.exact_head.guide import ExactHeadGuide
from pyro_bmf.methods.exact_head.updates import HeadUpdates
from pyro_bmf.methods.settings import Settings
from pyro_bmf.model import FactorizationModel, StudentTLikelihood
from pyro_bmf.model.implicit_feedback import ImplicitFeedback
from pyro_bmf.model.priors.normal_wishart import NormalWishartPrior
from pyro_bmf.progress import Silent

N_USERS, N_ITEMS, K = 150, 90, 2


def planted(noise: float = 0.5, *, levels: bool = False, seed: int = 0) -> tuple[Split, np.ndarray]:
    """Return a split of ratings from known factors and biases, and the predictor of every pair."""
    rng = np.random.default_rng(seed)
    u, v = rng.normal(0, 0.8, (N_USERS, K)), rng.normal(0, 0.8, (N_ITEMS, K))
    eta = 3.0 + u @ v.T + rng.normal(0, 0.4, (N_USERS, 1)) + rng.normal(0, 0.4, N_ITEMS)
    users, items = np.nonzero(rng.random((N_USERS, N_ITEMS)) < 0.4)
    x = eta[users, items] + rng.normal(0, noise, len(users))
    scale = RatingScale(1, 5, 1) if levels else RatingScale(float(x.min()), float(x.max()), None)
    x = np.clip(np.round(x), 1, 5) if levels else x
    return random_split(ratings_from_arrays(users, items, x, scale=scale), seed=0), eta


def settings(**more: Any) -> Settings:
    return preset("guide").replace(n_factors=K, max_iterations=25, **more)


def quiet(split: Split, given: Settings, **more: Any) -> Any:
    return fit(split, given, threads=1, progress=False, device="cpu", **more)


def test_a_planted_truth_is_found() -> None:
    """Predictors, noise, and intervals of uᵀv and biases together that hold what they say."""
    split, eta = planted()
    result = quiet(split, settings(likelihood="normal", row_noise="none", implicit=False))
    posterior = result.posterior
    users, items = (grid.ravel() for grid in np.indices(eta.shape))
    mean, sd = posterior.predict_mean(users, items), posterior.predict_sd(users, items)
    error = mean - eta.ravel()
    assert float(np.sqrt(np.mean(error**2))) < 0.32
    noise = float(posterior.model.likelihood.noise_sd) * posterior.model.units.scale
    assert noise == pytest.approx(0.5, abs=0.03)
    spread = np.sqrt(np.maximum(sd**2 - noise**2, 1e-6))
    covered = float(np.mean(np.abs(error) < 1.645 * spread))
    assert 0.8 < covered < 0.97


def test_levels_are_predicted_better_than_by_their_shares() -> None:
    split, _ = planted(levels=True)
    result = quiet(split, settings())
    posterior, test = result.posterior, split.test
    mean = posterior.predict_mean(test.users, test.items)
    rmse = float(np.sqrt(np.mean((mean - test.ratings) ** 2)))
    assert rmse < 0.8 * float(test.ratings.std())


@pytest.mark.parametrize("then", [False, True])
def test_a_resumed_fit_repeats_the_bits(tmp_path: Path, then: bool) -> None:
    split, _ = planted(levels=True)
    given = settings(**({"then": Gibbs(), "sweeps": 20, "burn_in": 16, "kept_draws": 4} if then else {}))
    # Interrupted where a chain without a guide would still take ratings for utilities.
    assert given.then is None or given.then.plain_sweeps > 5
    whole = quiet(split, given)

    class Stopped(Exception):
        pass

    class Reporter:
        """A reporter that interrupts a fit."""

        def __init__(self, last: int) -> None:
            self.last = last

        def note(self, text: str) -> None: ...
        def start(self, n_iterations: int, n_blocks: int, done: int) -> None: ...
        def block(self) -> None: ...
        def close(self) -> None: ...

        def iteration(self, record: dict[str, Any]) -> None:
            if record["iteration"] == self.last:
                raise Stopped

    for last in (17, 30) if then else (17,):
        file = tmp_path / f"{last}.safetensors"
        with pytest.raises(Stopped):
            fit(
                split,
                given,
                threads=1,
                device="cpu",
                progress=Reporter(last),
                checkpoint=file,
                checkpoint_every=2,
            )
        again = quiet(split, given, checkpoint=file, resume=True)
        for name, tensor in whole.posterior.guide.state_dict().items():
            assert torch.equal(tensor, again.posterior.guide.state_dict()[name]), name
        for name, tensor in whole.posterior.user_rows.tensors().items():
            assert torch.equal(tensor, again.posterior.user_rows.tensors()[name]), name
        records = [{k: v for k, v in r.items() if k != "seconds"} for r in again.history]
        assert records == [{k: v for k, v in r.items() if k != "seconds"} for r in whole.history]


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    split, _ = planted(levels=True)
    file = tmp_path / "state.safetensors"
    quiet(split, settings(), checkpoint=file, checkpoint_every=3)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(SavedFileError):
        quiet(split, settings(), checkpoint=file, resume=True)


def test_sweeps_go_on_from_the_whole_state() -> None:
    """Cut points that the guide found stand in the first draw, and no sweep takes ratings for utilities."""
    split, _ = planted(levels=True)
    alone = quiet(split, settings())
    given = settings(then=Gibbs(), sweeps=6, burn_in=0, kept_draws=6)
    chain = quiet(split, given).posterior
    first = chain.guide.cuts[0]
    # The same cut points but for place and unit, which the sweeps draw with what they are cuts of.
    found = alone.posterior.guide.cuts.diff()
    torch.testing.assert_close(first.diff() / first.diff().sum(), found / found.sum(), rtol=0.1, atol=0.0)
    with pytest.raises(SettingsError, match="plain_sweeps"):
        quiet(split, given.replace(plain_sweeps=2))


class Alive(Silent):
    """Counts the guides and their updates in memory, without collecting cycles, at each stage's iterations.

    Where a chain is about to begin it says so: updates are counted there too.
    """

    def __init__(self) -> None:
        self.guides: dict[str, set[int]] = {"exact-head": set(), "gibbs": set()}
        self.updates: dict[str, set[int]] = {"exact-head": set(), "between": set()}

    def iteration(self, record: dict[str, Any]) -> None:
        self.guides[record["stage"]].add(number_alive(ExactHeadGuide))
        if record["stage"] == "exact-head":
            self.updates["exact-head"].add(number_alive(HeadUpdates))

    def note(self, text: str) -> None:
        if "Gibbs sweeps" in text:
            self.updates["between"].add(number_alive(HeadUpdates))


def number_alive(kind: type) -> int:
    return sum(type(one) is kind for one in gc.get_objects())


def test_the_guide_is_let_go_of_when_sweeps_have_begun() -> None:
    """Its rows' covariances would be as much memory as the sweeps need beside what they keep."""
    split, _ = planted(levels=True)
    gc.collect()
    alive = Alive()
    given = settings(then=Gibbs(), sweeps=4, burn_in=0, kept_draws=4)
    fit(split, given, threads=1, progress=alive)
    assert max(alive.guides["exact-head"]) == min(alive.guides["gibbs"]) + 1
    assert len(alive.guides["gibbs"]) == 1
    # Nor do what its iterations worked on stand beside what sweeps read the ratings into.
    assert max(alive.updates["exact-head"]) == max(alive.updates["between"]) + 1


def test_a_model_of_ones_own_is_fitted_or_refused() -> None:
    split, _ = planted(levels=True)
    priors = {name: NormalWishartPrior(0.4) for name in ("user_prior", "item_prior")}
    biases = {name: NormalWishartPrior(0.4) for name in ("user_bias_prior", "item_bias_prior")}
    own = FactorizationModel(3, **priors, **biases, implicit=ImplicitFeedback(0.2))
    bare = Settings(method=ExactHead(max_iterations=8))
    assert quiet(split, bare, model=own).posterior.user_rows.n_factors == 3
    tails = FactorizationModel(3, **priors, **biases, likelihood=StudentTLikelihood())
    with pytest.raises(SettingsError, match="StudentTLikelihood"):
        quiet(split, bare, model=tails)


def test_tempering_widens_the_rows() -> None:
    """A smaller weight of the KL trusts the ratings more: rows are narrower."""
    split, _ = planted(levels=True)
    whole = quiet(
        split,
        settings(),
    ).posterior.user_rows.scale.mean()
    tempered = quiet(split, settings(beta_user=0.3, beta_item=0.3)).posterior.user_rows.scale.mean()
    assert float(tempered) < 0.8 * float(whole)
