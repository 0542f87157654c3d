"""A chain as a fit: planted truth, calibration, seeds, interruption, settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorders import StopsAt

from pyro_bmf.checkpoint import CHAIN_CHECKPOINT
from pyro_bmf.data import Split, random_split, synthetic_ratings
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import SavedFileError, SettingsError
from pyro_bmf.evaluation import evaluate
from pyro_bmf.export.arviz import chain_diagnostics, to_arviz
from pyro_bmf.fit_result import FitResult
from pyro_bmf.fitting import fit
from pyro_bmf.methods.cross_feedback.settings import CrossFeedback
from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.methods.settings import Settings, preset
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.row_draws import RowDraws
from pyro_bmf.tensor_files import read_tensors, write_tensors

SMALL = preset("gibbs").replace(n_factors=3, sweeps=60, burn_in=20, kept_draws=40)


@pytest.fixture(scope="module")
def planted() -> Any:
    return synthetic_ratings(n_users=150, n_items=120, n_ratings=6000, n_factors=3, noise=0.5, seed=3)


@pytest.fixture(scope="module")
def split(planted: Any) -> Split:
    return random_split(planted.ratings, seed=0)


@pytest.fixture(scope="module")
def stars() -> Split:
    """Five levels, cut unevenly from planted utilities, with users of unequal noise."""
    rng = np.random.default_rng(4)
    n_users, n_items = 120, 80
    u, v = rng.normal(size=(n_users, 2)), rng.normal(size=(n_items, 2))
    users, items = np.nonzero(rng.random((n_users, n_items)) < 0.45)
    noise = np.where(users % 2 == 0, 0.4, 1.2)
    utility = 0.8 * (u[users] * v[items]).sum(1) + noise * rng.normal(size=len(users))
    ratings = 1.0 + np.digitize(utility, [-1.5, -0.5, 0.1, 1.2])
    return random_split(ratings_from_arrays(users, items, ratings, scale="1:5:1"), seed=0)


def run(split: Split, settings: Settings = SMALL, **how: Any) -> FitResult:
    return fit(split, settings, threads=1, **{"progress": False, **how})


@pytest.fixture(scope="module")
def fitted(split: Split) -> FitResult:
    return run(split)


@pytest.fixture(scope="module")
def starred(stars: Split) -> FitResult:
    return run(stars)


def test_planted_truth_is_recovered(planted: Any, split: Split, fitted: FitResult) -> None:
    posterior = fitted.posterior
    units = posterior.model.units
    assert units.scale * float(posterior.model.likelihood.noise_sd) == pytest.approx(0.5, abs=0.04)
    test = split.test
    found = evaluate(posterior, split)
    assert found.rmse < 0.62
    at = found.calibration.levels.index(0.9)
    assert found.calibration.overall.pit_coverage[at] == pytest.approx(0.9, abs=0.04)
    mean, variance = posterior.pairs.eta_moments(test.users, test.items)
    error = units.standard(planted.truth.eta[split.test_rows]) - mean.cpu().numpy()
    z = error / np.sqrt(variance.cpu().numpy())
    # Posterior intervals of the identifiable predictor are as wide as they must be.
    assert z.std() == pytest.approx(1.0, abs=0.15)


def test_ordered_chain_beats_the_normal_one_on_uneven_cuts(stars: Split, starred: FitResult) -> None:
    normal = run(stars, SMALL.replace(likelihood="normal", row_noise="none"))
    one, other = evaluate(starred.posterior, stars), evaluate(normal.posterior, stars)
    assert one.nll is not None
    assert other.nll is not None
    assert one.nll < other.nll - 0.03
    noise = starred.posterior.user_rows.noise_factor
    assert noise is not None
    # Planted: odd users are three times as noisy as even ones.
    ratio = float(noise[1::2].median() / noise[::2].median())
    assert 1.6 < ratio < 4.5


def test_seed_decides_every_bit(split: Split, fitted: FitResult) -> None:
    again, other = run(split), run(split, SMALL.replace(seed=1))
    for side in ("user_rows", "item_rows"):
        one, two = getattr(fitted.posterior, side), getattr(again.posterior, side)
        assert isinstance(one, RowDraws)
        assert torch.equal(one.draws, two.draws)
        assert not torch.equal(one.draws, getattr(other.posterior, side).draws)


@pytest.mark.parametrize("stop", [7, 13, 31, 44])
def test_resumed_chain_repeats_the_bits(tmp_path: Path, stars: Split, starred: FitResult, stop: int) -> None:
    file = tmp_path / "chain.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(stars, progress=StopsAt(stop), checkpoint=file, checkpoint_every=3)
    resumed = run(stars, checkpoint=file, checkpoint_every=3, resume=True)
    assert torch.equal(resumed.posterior.user_rows.draws, starred.posterior.user_rows.draws)  # type: ignore[union-attr]
    assert torch.equal(resumed.posterior.item_rows.means, starred.posterior.item_rows.means)  # type: ignore[union-attr]
    assert torch.equal(resumed.posterior.guide.cuts, starred.posterior.guide.cuts)  # type: ignore[attr-defined]
    for one, two in (
        (resumed.posterior.user_rows, starred.posterior.user_rows),
        (resumed.posterior.item_rows, starred.posterior.item_rows),
    ):
        assert one.noise_spread is not None
        assert two.noise_spread is not None
        assert torch.equal(one.noise_spread, two.noise_spread)
        assert bool((one.noise_spread > 0.0).all())
    assert len(resumed.history) == len(starred.history)
    with pytest.raises(SavedFileError, match="another fit"):
        run(stars, SMALL.replace(seed=5), checkpoint=file, resume=True)


FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "fewer sweeps": ({"sweep": 3}, "its history differs"),
    "fewer draws": ({"kept": 0}, "its history differs"),
    "no history": ({"history": []}, "its history differs"),
    "a mean of more": ({"averaged": 1000}, "a mean over 1000 of 30 sweeps"),
    "no cut points": ({"drawing_cuts": False}, "no cut points are drawn after sweep 30"),
    "a word": ({"integrates": "no"}, "integrates is"),
}


@pytest.fixture(scope="module")
def interrupted(stars: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("chain") / "chain.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(stars, progress=StopsAt(31), checkpoint=file, checkpoint_every=3)
    return file


@pytest.mark.parametrize("case", FORGED)
def test_a_chains_counts_that_do_not_agree_are_refused(
    case: str, stars: Split, interrupted: Path, tmp_path: Path
) -> None:
    changes, message = FORGED[case]
    document, tensors = read_tensors(interrupted, CHAIN_CHECKPOINT)
    file = tmp_path / "chain.safetensors"
    write_tensors(file, CHAIN_CHECKPOINT, document | changes, tensors)
    with pytest.raises(SavedFileError, match=message):
        run(stars, checkpoint=file, checkpoint_every=3, resume=True)


def test_a_chain_that_an_earlier_version_began_goes_on_as_it_began(
    stars: Split, starred: FitResult, interrupted: Path, tmp_path: Path
) -> None:
    document, tensors = read_tensors(interrupted, CHAIN_CHECKPOINT)
    later = {"kept.user.log_noise", "kept.user.log_noise_squares"}
    later |= {name.replace("user", "item") for name in later}
    assert later <= tensors.keys()
    older = {name: tensor for name, tensor in tensors.items() if name not in later}
    file = tmp_path / "chain.safetensors"
    header = {name: value for name, value in document.items() if name != "noise_spread"}
    write_tensors(file, CHAIN_CHECKPOINT, header, older)
    resumed = run(stars, checkpoint=file, checkpoint_every=3, resume=True).posterior
    assert torch.equal(resumed.user_rows.draws, starred.posterior.user_rows.draws)  # type: ignore[union-attr]
    assert resumed.user_rows.noise_spread is None
    assert torch.equal(resumed.user_rows.noise_factor, starred.posterior.user_rows.noise_factor)  # type: ignore[arg-type]


def test_a_state_whose_squares_are_infinite_is_refused(
    stars: Split, interrupted: Path, tmp_path: Path
) -> None:
    document, tensors = read_tensors(interrupted, CHAIN_CHECKPOINT)
    name = "state.user.row_precision"
    file = tmp_path / "chain.safetensors"
    write_tensors(file, CHAIN_CHECKPOINT, document, tensors | {name: torch.full_like(tensors[name], 1e38)})
    with pytest.raises(SavedFileError, match=f"{name} holds 1e\\+38, whose square is infinite"):
        run(stars, checkpoint=file, checkpoint_every=3, resume=True)


STATES = {
    "noise_precision": (lambda tensor: tensor.long(), "noise_precision is torch.int64"),
    "cuts": (lambda tensor: tensor.float(), "cuts is torch.float32 beside rows of torch.float32"),
    "user.row_precision": (lambda tensor: -tensor, "user.row_precision is not positive"),
    "item.location": (lambda tensor: tensor.double(), "item.location is torch.float64"),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_of_other_types_is_refused(
    name: str, stars: Split, interrupted: Path, tmp_path: Path
) -> None:
    change, message = STATES[name]
    document, tensors = read_tensors(interrupted, CHAIN_CHECKPOINT)
    file = tmp_path / "chain.safetensors"
    changed = tensors | {f"state.{name}": change(tensors[f"state.{name}"])}
    write_tensors(file, CHAIN_CHECKPOINT, document, changed)
    with pytest.raises(SavedFileError, match=message):
        run(stars, checkpoint=file, checkpoint_every=3, resume=True)


def test_chain_goes_on_from_a_guide(split: Split, tmp_path: Path) -> None:
    settings = SMALL.replace(
        method=CrossFeedback(),
        then=SMALL.gibbs,
        max_iterations=4,
        user_batch_size=50,
        item_batch_size=40,
        n_tower_outputs=8,
    )
    whole = run(split, settings)
    assert [record.get("stage") for record in whole.history][3:5] == [None, "gibbs"]
    assert whole.posterior.number_of_draws(None) == 40
    assert not whole.posterior.tempered
    file = tmp_path / "both.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(split, settings, progress=StopsAt(25), checkpoint=file, checkpoint_every=2)
    resumed = run(split, settings, checkpoint=file, checkpoint_every=2, resume=True)
    assert torch.equal(resumed.posterior.user_rows.draws, whole.posterior.user_rows.draws)  # type: ignore[union-attr]


def test_test_ratings_change_nothing(split: Split, fitted: FitResult) -> None:
    ratings = split.ratings
    changed = ratings.ratings.copy()
    changed[split.test_rows] += 1.0
    changed[split.valid_rows] -= 1.0
    moved = replace(ratings, ratings=changed)
    other = Split(moved, split.train_rows, split.valid_rows, split.test_rows, split.scheme, split.settings)
    again = run(other)
    assert torch.equal(again.posterior.user_rows.draws, fitted.posterior.user_rows.draws)  # type: ignore[union-attr]


def test_refit_reads_validation_ratings_too(split: Split) -> None:
    refitted = run(split, refit=True)
    assert len(refitted.posterior.train) == len(split.train_rows) + len(split.valid_rows)
    assert refitted.history[-1]["valid_rmse"] is None


def test_diagnostics_of_a_chain(split: Split, fitted: FitResult) -> None:
    tree = to_arviz(fitted.posterior, split, user_ids=fitted.posterior.user_vocabulary.ids[:8])
    assert tree["posterior"].dataset.sizes["draw"] == 40
    table = chain_diagnostics(fitted.posterior, n_pairs=50)
    assert len(table) == 50
    assert float(table["r_hat"].median()) < 1.1
    assert float(table["ess_bulk"].median()) > 15
    for name in ("user_factors", "item_bias"):
        assert bool(np.isfinite(tree["log_prior"][name]).all())
    with pytest.raises(SettingsError, match="kept 40 draws"):
        to_arviz(fitted.posterior, split, num_samples=41)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"implicit": True, "method": CrossFeedback()}, "implicit is True"),
        ({"sweeps": 0}, "sweeps is 0: give a whole number of 1 or more"),
        ({"sweeps": 50, "kept_draws": 40, "burn_in": 20}, "as many sweeps after the burn-in"),
        ({"plain_sweeps": 30}, "must all be burnt in"),
        ({"row_noise": "everyone"}, "row_noise is 'everyone'"),
        ({"likelihood": "cauchy"}, "There is no likelihood 'cauchy'"),
        ({"solver_tolerance": 0.0}, "solver_tolerance is 0"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        SMALL.replace(**changes)


def test_what_a_chain_refuses(split: Split, fitted: FitResult) -> None:
    with pytest.raises(SettingsError, match="needs a discrete rating scale"):
        run(split, SMALL.replace(likelihood="ordered-probit"))
    with pytest.raises(SettingsError, match="NormalPrior"):
        run(split, model=FactorizationModel(3))
    with pytest.raises(SettingsError, match="takes no warm start"):
        run(split, warm_start=fitted.posterior)
    guide = run(split, preset("amortized").replace(n_factors=2, max_iterations=1)).posterior
    with pytest.raises(SettingsError, match="draws of a chain"):
        chain_diagnostics(guide)


def test_rows_are_overrelaxed_once_a_chain_has_left_its_start(
    stars: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while ratings stand in for utilities, nor soon after precisions are drawn, nor in the burn-in."""
    asked: list[tuple[bool, bool, float]] = []
    sweep = Sweeps.sweep

    def note(self: Sweeps, state: ChainState, **how: Any) -> Any:
        asked.append((how["latent"], how["precisions"], how["overrelaxation"]))
        return sweep(self, state, **how)

    monkeypatch.setattr(Sweeps, "sweep", note)
    few = SMALL.replace(likelihood="ordered-probit", sweeps=30, burn_in=20, kept_draws=10, plain_sweeps=18)
    posterior = run(stars, few).posterior
    assert [share for *_, share in asked] == [0.0] * 20 + [0.8] * 10
    assert all(latent and precisions for latent, precisions, share in asked if share)
    for changes, first in (
        ({"burn_in": 0, "kept_draws": 30, "plain_sweeps": 0}, 16),
        ({"kept_draws": 6}, 24),
        ({"kept_draws": 5}, 30),
        ({"kept_draws": 5, "overrelaxation": 0.8}, 20),
    ):
        asked.clear()
        run(stars, few.replace(**changes))
        assert [share for *_, share in asked] == [0.0] * first + [0.8] * (30 - first)
    asked.clear()
    anew = run(stars, few.replace(overrelaxation=0.0)).posterior
    assert not any(share for *_, share in asked)
    test = stars.test
    assert not np.allclose(
        posterior.predict_mean(test.users, test.items), anew.predict_mean(test.users, test.items), atol=1e-4
    )
