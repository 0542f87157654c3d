"""What predicted ratings say of choices: the fit, its sampling of pairs, and calibration on planted data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from plants import confounded_split, split_of
from scipy import sparse
from scipy.optimize import minimize

from pyro_bmf.data.ratings import RatingScale
from pyro_bmf.data.splits import Split
from pyro_bmf.errors import SavedFileError
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.selection import Horizon, Recommender, Selection, dependence, fit_selection
from pyro_bmf.selection.predicted import Predicted
from pyro_bmf.selection.rate_map import Cells, RateMap
from pyro_bmf.selection.rated_sets import RatedSets
from pyro_bmf.selection.rating_term import RatingTerm
from pyro_bmf.selection.saved import FILE
from pyro_bmf.tensor_files import read_tensors, write_tensors

ABOUT = Horizon(0.7, 0.15, "validation")


def planted(n: int, per_sd: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rates, predicted means, and which pairs that were not trained on were held out."""
    rng = np.random.default_rng(seed)
    eta, z = rng.normal(-2.5, 1.3, n), rng.normal(size=n)
    completed = rng.random(n) < 1 / (1 + np.exp(-(0.9 * eta - 0.2 + per_sd * z)))
    part = rng.random(n)
    left = ~(completed & (part < 0.7))
    held = completed & (part >= 0.7) & (part < 0.85)
    return 1 / (1 + np.exp(-eta[left])), 3.5 + 0.6 * z[left], held[left].astype(float)


@pytest.mark.parametrize("per_sd", [0.0, 0.4, -0.3])
def test_a_planted_dependence_is_found(per_sd: float) -> None:
    rates, means, true = planted(400_000, per_sd)
    found = RatingTerm.fit(rates, means, true, np.ones(len(rates)), ABOUT)
    slope, _, own = found.coefficients
    # A standard deviation of z is that of held-out pairs, .6 ratings: they have the same spread.
    assert found.scale[1] == pytest.approx(0.6, rel=0.02)
    assert own == pytest.approx(per_sd, abs=0.04)
    assert slope == pytest.approx(0.9, abs=0.05)


def test_the_fit_is_the_maximum_of_the_posterior() -> None:
    rates, means, true = planted(3_000, 0.3)
    weights = np.random.default_rng(1).uniform(0.5, 3.0, len(rates))
    found = RatingTerm.fit(rates, means, true, weights, ABOUT)
    z = np.clip((means - found.scale[0]) / found.scale[1], -3, 3)

    def loss(c: np.ndarray) -> float:
        r = 1 / (1 + np.exp(-(c[0] * np.log(rates / (1 - rates)) + c[1] + c[2] * z)))
        p = 0.15 * r / (1 - 0.7 * r)
        likelihood = weights @ (true * np.log(p) + (1 - true) * np.log(1 - p))
        return float(-likelihood + 5.0 * ((c - np.array([1.0, 0.0, 0.0])) ** 2).sum())

    best = minimize(loss, np.array([1.0, 0.0, 0.0]), method="Nelder-Mead",
                    options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 5000})  # fmt: skip
    np.testing.assert_allclose(found.coefficients, best.x, atol=2e-5)


def test_no_rate_is_above_the_most() -> None:
    rng = np.random.default_rng(0)
    rates, means = rng.random(1000) ** 6, rng.normal(3, 2, 1000)
    for per_sd in (-0.7, 0.0, 0.7):
        term = RatingTerm(np.array([1.1, -0.2, per_sd]), np.array([3.4, 0.5]))
        own, most = term.rate(rates, means), term.most(rates)
        assert (own <= most).all()
        assert ((own > 0) & (most < 1)).all()
        far = term.rate(rates, np.full(1000, 9.0 if per_sd >= 0 else -9.0))
        np.testing.assert_allclose(far, most, rtol=1e-12)
        ends = term.most(np.array([0.0, 1.0]))
        assert np.isfinite(ends).all()
        assert (np.diff(term.most(np.sort(rates))) >= 0).all()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_pairs_leave_rates_nearly_as_they_were(n: int) -> None:
    rates, means, true = np.full(n, 0.2), np.full(n, 4.0), np.zeros(n)
    term = RatingTerm.fit(rates, means, true, np.ones(n), ABOUT)
    assert term.rate(np.array([0.3]), np.array([4.0]))[0] == pytest.approx(0.3, abs=0.03)


def test_pairs_that_are_drawn_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    n_users, n_items = 500, 400
    eta = rng.normal(-3.0, 1.2, (n_users, n_items))
    z = rng.normal(size=eta.shape)
    rates = 1 / (1 + np.exp(-eta))
    completed = rng.random(eta.shape) < 1 / (1 + np.exp(-(eta + 0.4 * z)))
    part = rng.random(eta.shape)
    scores = np.where(completed & (part < 0.7), np.nan, rates).astype(np.float32)
    held = completed & (part >= 0.7) & (part < 0.85)
    cells = Cells(scores, sparse.csr_matrix(held.astype(float)), np.ones(n_users), np.ones(n_items))
    mapped = RateMap.fit(cells, seen=0.7, share=0.15)
    asked: list[int] = []

    def means(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        asked.append(len(users))
        return z[users, items]

    found: list[Any] = []
    for pairs in (10**9, 4_000):
        monkeypatch.setattr(dependence, "PAIRS", pairs)
        own = dependence.with_rating_term(mapped, cells, np.arange(n_users), means, ABOUT, rng)
        assert own.term is not None
        found.append(own.term.coefficients)
    assert asked[0] == np.isfinite(scores).sum()
    assert asked[1] <= 8_000
    assert found[0][2] == pytest.approx(0.4, abs=0.06)
    # A twentieth of the pairs is asked for, and the estimate is the same but for little noise.
    np.testing.assert_allclose(found[1], found[0], atol=0.04)


# --- both models --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def confounded() -> tuple[Split, Any]:
    split = confounded_split(900, 80, seed=3)[0]
    return split, fit(split, preset("conjugate").replace(n_factors=2), progress=False).posterior


def test_choices_are_calibrated_by_predicted_rating(confounded: tuple[Split, Any]) -> None:
    """Where what is liked is chosen, a selection model that reads no ratings is not."""
    split, posterior = confounded
    known = (RatedSets.of(split.train).matrix + RatedSets.of(split.valid).matrix).toarray() > 0
    own, items = np.nonzero(~known)
    true = RatedSets.of(split.test).matrix.toarray()[own, items] > 0
    means = posterior.predict_mean(own, items)
    groups = np.digitize(means, np.quantile(means[true], [0.2, 0.8]))
    n = len(split.ratings)
    about = Horizon((n - len(split.test_rows)) / n, len(split.test_rows) / n, "test")
    ratios: list[np.ndarray] = []
    for given in (None, posterior):
        found = Recommender(posterior, fit_selection(split, posterior=given), horizon=about)
        p = found.product().chosen_pairs(own, items)
        ratios.append(np.bincount(groups, true) / np.bincount(groups, p))
        assert true.sum() == pytest.approx(p.sum(), rel=0.05)
    assert ratios[0][2] / ratios[0][0] > 1.3
    # The standard errors are .03 to .06.
    np.testing.assert_allclose(ratios[1], 1.0, atol=0.15)


def test_choices_without_reason_are_left_as_they_are() -> None:
    split = split_of(np.full((600, 60), 0.25))
    posterior = fit(split, preset("conjugate").replace(n_factors=2), progress=False).posterior
    term = fit_selection(split, posterior=posterior).known.term
    assert term is not None
    assert abs(term.coefficients[2]) < 0.1


def test_a_posterior_that_has_read_validation_is_not_asked(confounded: tuple[Split, Any]) -> None:
    split, posterior = confounded
    settings = preset("conjugate").replace(n_factors=2, max_iterations=5)
    refitted = fit(split, settings, refit=True, progress=False).posterior
    notes: list[str] = []
    found = fit_selection(split, refit=True, posterior=refitted, head="factors", note=notes.append)
    assert found.known.term is None
    assert found.new.term is None
    assert found.info["rating_term"] is None
    assert any("does not depend on predicted ratings" in one for one in notes)
    notes.clear()
    bare = Split(split.ratings, split.train_rows, np.zeros(0, dtype=np.int64), split.test_rows, "random")
    assert fit_selection(bare, posterior=posterior, head="factors", note=notes.append).known.term is None
    assert notes
    notes.clear()
    # Which validation pairs were rated is in implicit feedback of all of them.
    settings = preset("gibbs").replace(n_factors=2, sweeps=8, burn_in=4, kept_draws=4)
    told = fit(split, settings, implicit=split.train_valid, progress=False).posterior
    assert fit_selection(split, posterior=told, head="factors", note=notes.append).known.term is None
    assert notes
    notes.clear()
    own = fit_selection(split, posterior=posterior, head="factors", note=notes.append)
    assert own.info["rating_term"] == own.known.term.coefficients.tolist()
    assert not notes


def test_means_are_of_the_levels_where_there_are_any(confounded: tuple[Split, Any]) -> None:
    posterior = confounded[1]
    users, items = np.array([3, 5, 5]), np.array([7, 0, 9])
    mean, liking = Predicted(posterior.pairs, posterior.scale).mean_and_liking(users, items, 3.0)
    pmf = posterior.predict_pmf(users, items, np.arange(1.0, 6.0))
    np.testing.assert_allclose(mean, (pmf * np.arange(1.0, 6.0)).sum(axis=1))
    np.testing.assert_allclose(liking, pmf[:, 3] + pmf[:, 4])
    free = Predicted(posterior.pairs, RatingScale(1.0, 5.0, None))
    assert free.scale.levels is None
    mean, liking = free.mean_and_liking(users, items, 3.0)
    centre, sd = posterior.pairs.rating_moments(users, items)
    np.testing.assert_array_equal(mean, centre)
    np.testing.assert_allclose(
        liking, [NormalDist(m, s).cdf(2 * m - 3.0) for m, s in zip(mean, sd, strict=True)]
    )
    assert free.mean(users, items).tolist() == mean.tolist()


def test_it_is_saved_and_a_file_without_it_is_read(confounded: tuple[Split, Any], tmp_path: Path) -> None:
    split, posterior = confounded
    found = fit_selection(split, posterior=posterior, head="factors")
    path = found.save(tmp_path / "selection.safetensors")
    again = Selection.load(path, split.train)
    for own, other in ((found.known, again.known), (found.new, again.new)):
        np.testing.assert_array_equal(own.term.coefficients, other.term.coefficients)
        np.testing.assert_array_equal(own.term.scale, other.term.scale)
    document, tensors = read_tensors(path, FILE)
    # A file of an earlier version knows nothing of predicted ratings, and goes on without them.
    write_tensors(
        path, replace(FILE, version=1), document, {k: v for k, v in tensors.items() if ".term." not in k}
    )
    older = Selection.load(path, split.train)
    assert older.known.term is None
    rated = older.rated.take(np.arange(3))
    np.testing.assert_array_equal(older.chosen(rated), found.chosen(rated))
    for name, value in (("coefficients", [-1.0, 0.0, 0.0]), ("scale", [3.0, 0.0]), ("scale", [3.0])):
        broken = tensors | {f"known.term.{name}": tensors["known.term.scale"].new_tensor(value)}
        write_tensors(path, FILE, document, broken)
        with pytest.raises(SavedFileError, match="do not fit together"):
            Selection.load(path, split.train)
