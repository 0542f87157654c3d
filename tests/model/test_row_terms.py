"""Noise and cut points of rows' own: their densities, and that the encoders find planted ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit
from test_combinations import SHORT, check_fit

from pyro_bmf import Posterior, fit, random_split
from pyro_bmf.checking.held_out import held_out_log_prob
from pyro_bmf.checking.row_diagnosis import diagnose_rows
from pyro_bmf.data import Split, synthetic_ratings
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import SettingsError
from pyro_bmf.methods.cross_feedback.rating_histogram import StyleEncoder, style_edges
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.likelihoods.ordered_logistic import OrderedLogisticLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.model.pair_terms import PairTerms

LEVELS = [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.fixture(autouse=True)
def single_precision() -> Iterator[None]:
    """Fits compute in the precision that users have."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


def cuts_by_hand(shifts: np.ndarray) -> np.ndarray:
    """Cut points about the third of four, which stays, from shifts (n, 3) of gaps of one."""
    gaps = np.exp(shifts)
    own = np.concatenate([np.zeros((len(shifts), 1)), np.cumsum(gaps, 1)], 1)
    return own - own[:, 1:2] + 2.5


@pytest.mark.parametrize("kind", ["logistic", "probit"])
def test_cut_points_of_pairs(kind: str) -> None:
    rng = np.random.default_rng(0)
    n = 7
    eta, shifts, scale = rng.normal(3, 1, n), rng.normal(0, 0.4, (n, 3)), rng.uniform(0.5, 2, n)
    likelihood: Any
    if kind == "logistic":
        likelihood, unit, cdf = OrderedLogisticLikelihood(LEVELS, cuts="user"), 0.45, expit
    else:
        likelihood, unit, cdf = OrderedProbitLikelihood(LEVELS, cuts="user"), 0.8, stats.norm.cdf
    below = cdf((cuts_by_hand(shifts) - eta[:, None]) / (unit * scale[:, None]))
    expected = np.diff(np.concatenate([np.zeros((n, 1)), below, np.ones((n, 1))], 1), axis=1)
    at, terms = torch.tensor(eta), PairTerms(torch.tensor(scale), torch.tensor(shifts))
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    found = likelihood.log_prob_rating(at, levels, terms).exp()
    np.testing.assert_allclose(found.detach(), expected, atol=1e-12)
    places = torch.tensor(rng.integers(0, 5, n))
    own = likelihood.log_prob_observed(at, places, levels, terms).exp()
    np.testing.assert_allclose(own.detach(), expected[np.arange(n), places], atol=1e-12)
    observed = likelihood(at, terms).log_prob(levels[places]).exp()
    np.testing.assert_allclose(observed.detach(), expected[np.arange(n), places], atol=1e-12)
    np.testing.assert_allclose(likelihood.mean(at, terms).detach(), expected @ LEVELS, atol=1e-9)
    # An uncertain predictor, by brute force.
    nodes = np.random.default_rng(1).normal(size=(400_000, 1)) * 0.3
    low = cdf((cuts_by_hand(shifts[:1]) - eta[0] - nodes) / (unit * scale[0]))
    brute = np.diff(np.concatenate([0 * nodes, low, 1 + 0 * nodes], 1), axis=1).mean(0)
    pmf = likelihood.predictive_pmf(at, torch.full((n,), 0.09, dtype=torch.float64), levels, terms)
    np.testing.assert_allclose(pmf[0].detach(), brute, atol=2e-3)
    drawn = likelihood(at[:1].expand(200_000), terms[[0]].expand_as(at[:1].expand(200_000))).sample()
    share = [(drawn == level).double().mean().item() for level in LEVELS]
    np.testing.assert_allclose(share, expected[0], atol=0.006)


def test_no_shift_is_the_shared_cut_points() -> None:
    likelihood = OrderedLogisticLikelihood([1, 2, 4, 5], cuts="user")
    with torch.no_grad():
        likelihood.log_gaps.add_(torch.tensor([0.3, -0.2]))
    terms = PairTerms(torch.ones(2), torch.zeros(2, 2))
    np.testing.assert_allclose(
        likelihood.pair_cuts(terms).detach(), likelihood.cuts.detach().expand(2, 3), atol=1e-12
    )


def test_terms_move_like_a_tensor() -> None:
    terms = PairTerms(torch.arange(6.0).view(2, 3), torch.arange(12.0).view(2, 3, 2))
    for moved, shape in (
        (terms[:, None], (2, 1, 3)),
        (terms[None], (1, 2, 3)),
        (terms.unsqueeze(-1), (2, 3, 1)),
        (terms.unsqueeze(1), (2, 1, 3)),
        (terms[1:], (1, 3)),
    ):
        assert tuple(moved.scale.shape) == shape
        assert tuple(moved.shifts.shape) == (*shape, 2)
    wide = terms.unsqueeze(-1).expand_as(torch.zeros(2, 3, 4))
    assert torch.equal(wide.shifts[1, 2, 3], terms.shifts[1, 2])


@pytest.mark.parametrize(
    ("levels", "cuts", "message"),
    [([1, 2, 3], "item", "may be shared or user"), ([1, 2], "user", "Leave cuts shared")],
)
def test_cuts_that_cannot_be(levels: list[float], cuts: str, message: str) -> None:
    for kind in (OrderedLogisticLikelihood, OrderedProbitLikelihood):
        with pytest.raises(SettingsError, match=message):
            kind(levels, cuts=cuts)


def test_a_style_is_of_the_row_s_own_ratings() -> None:
    rows, columns = torch.tensor([0, 0, 0, 2]), torch.tensor([0, 1, 2, 1])
    feedback = Feedback.from_coo(rows, columns, torch.tensor([-1.0, 0.0, 1.0, 2.0]), 3, 3)
    edges = style_edges(feedback.values, torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    assert edges.tolist() == [-0.5, 0.5, 1.5]
    encoder = StyleEncoder(3, 3, 2)
    encoder.start(edges, feedback)
    assert encoder.centres.tolist() == pytest.approx([-1 / 6, 2 / 7, 1 / 6])
    read, weight = encoder._features(feedback)
    assert weight[:, 0].tolist() == pytest.approx([3 / 8, 0.0, 1 / 6])
    third = 1 / 3
    left = np.std([-1 + 1 / 6, -2 / 7, 1 - 1 / 6])
    assert read[0].tolist() == pytest.approx(
        [3 / 8 * x for x in (third, third, third, 0, 0, (2 / 3) ** 0.5, left)] + [np.log(4) / 5]
    )
    loc, scale = encoder(feedback)
    assert loc[1].tolist() == [0.0, 0.0]
    assert bool((scale > 0).all())
    hidden = encoder(feedback.hide(torch.tensor([1.0, 1.0, 1.0, 0.0])))
    assert hidden[0][2].tolist() == [0.0, 0.0]
    assert len(style_edges(torch.randn(1000), None)) == 9


@pytest.fixture(scope="module")
def split() -> Split:
    ratings = synthetic_ratings(40, 30, 600, n_factors=2, noise=0.5, seed=0, scale="1:5:1").ratings
    return random_split(ratings, seed=0)


NOISY = [
    ("normal", "normal", "user"),
    ("normal", "normal", "item"),
    ("hierarchical-normal", "normal", "both"),
    ("normal", "student-t", "both"),
    ("normal", "ordered-logistic", "user"),
    ("hierarchical-normal", "ordered-logistic:cuts=user", "none"),
    ("normal", "ordered-probit:cuts=user", "both"),
    ("gamma", "ordered-logistic:cuts=user", "item"),
]


def test_drawn_terms_are_those_of_q(split: Split) -> None:
    settings = preset("amortized").replace(**SHORT, likelihood="ordered-probit:cuts=user", row_noise="both")
    posterior = fit(split, settings, threads=1, progress=False, device="cpu").posterior
    pairs, users, items = posterior.pairs, np.array([3, 3, 8]), np.array([1, 2, 1])
    (terms,) = pairs.draw_terms(users, items, np.arange(4000), 5)
    assert tuple(terms.scale.shape) == (4000, 3)
    assert tuple(terms.shifts.shape) == (4000, 3, 3)
    u, v = posterior.user_rows, posterior.item_rows
    for at, (i, j) in enumerate(zip(users, items, strict=True)):
        spread = float((u.noise_factor_log_sd[i] ** 2 + v.noise_factor_log_sd[j] ** 2).sqrt())  # type: ignore[index,union-attr]
        logs = terms.scale[:, at].log()
        expected = float((u.noise_factor[i] * v.noise_factor[j]).log())  # type: ignore[index]
        assert float(logs.mean()) == pytest.approx(expected, abs=5 * spread / 4000**0.5)
        assert float(logs.std()) == pytest.approx(spread, rel=0.06)
        shifts = terms.shifts[:, at]
        sd = u.cuts_scale[i].double()  # type: ignore[index,union-attr]
        assert bool(((shifts.mean(0) - u.cuts[i]).abs() < 5 * sd / 4000**0.5).all())  # type: ignore[index,union-attr]
        assert bool((shifts.std(0) / sd - 1).abs().max() < 0.06)
    # A user's draw is common to its pairs, and the same in any request.
    assert torch.equal(terms.shifts[:, 0], terms.shifts[:, 1])
    (alone,) = pairs.draw_terms(users[2:], items[2:], np.arange(7, 9), 5)
    assert torch.equal(alone.shifts[:, 0], terms.shifts[7:9, 2])
    assert torch.allclose(alone.scale[:, 0], terms.scale[7:9, 2])
    # A new user's are others than those of the known user in its place.
    new = posterior.fold_in({split.ratings.item_vocabulary.ids[0]: 4.0}).all_rows.pairs
    (folded,) = new.draw_terms(np.array([0]), items[:1], np.arange(50), 5)
    (known,) = pairs.draw_terms(np.array([0]), items[:1], np.arange(50), 5)
    z = [(one.shifts[:, 0] - one.shifts[:, 0].mean(0)) for one in (folded, known)]
    assert abs(float((z[0] * z[1]).sum() / (z[0].norm() * z[1].norm()))) < 0.4


@pytest.mark.parametrize(("prior", "likelihood", "row_noise"), NOISY, ids="/".join)
def test_they_run_under_the_encoders(
    prior: str, likelihood: str, row_noise: str, split: Split, tmp_path: Path
) -> None:
    posterior = check_fit(split, tmp_path / "model", prior=prior, likelihood=likelihood, row_noise=row_noise)
    assert (posterior.user_rows.noise_factor is not None) == (row_noise in ("user", "both"))
    assert (posterior.item_rows.noise_factor is not None) == (row_noise in ("item", "both"))
    assert (getattr(posterior.user_rows, "cuts", None) is not None) == ("cuts=user" in likelihood)
    if prior == "normal":
        table = diagnose_rows(posterior, "user", num_samples=50, searched=2).table
        assert bool(np.isfinite(table["k_hat"]).all())


def test_what_does_not_know_them_says_so(split: Split) -> None:
    with pytest.raises(SettingsError, match="coordinate ascent does not know"):
        preset("conjugate").replace(row_noise="user")
    for name in ("conjugate", "default"):
        with pytest.raises(SettingsError, match=r"cut points"):
            fit(split, preset(name).replace(likelihood="ordered-probit:cuts=user"), progress=False)
    with pytest.raises(SettingsError, match="has no noise, so rows"):
        fit(
            split,
            preset("amortized").replace(**SHORT, row_noise="user", likelihood="bernoulli"),
            progress=False,
        )


def test_a_warm_start_keeps_what_was_learned_of_them(split: Split) -> None:
    settings = preset("amortized").replace(**SHORT, likelihood="ordered-logistic:cuts=user", row_noise="user")
    earlier = fit(split, settings, threads=1, progress=False, device="cpu").posterior
    still = settings.replace(learning_rate=1e-12, final_learning_rate=1e-12, max_iterations=1)
    again = fit(split, still, warm_start=earlier, threads=1, progress=False, device="cpu").posterior
    for name in ("noise_factor", "cuts"):
        before, after = getattr(earlier.user_rows, name), getattr(again.user_rows, name)
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    assert again.model.row_cuts is not None
    assert earlier.model.row_cuts is not None
    torch.testing.assert_close(again.model.row_cuts.spread.loc, earlier.model.row_cuts.spread.loc)
    with pytest.raises(SettingsError, match=r"row_noise is \(True, False\) in the earlier"):
        fit(split, still.replace(row_noise="none"), warm_start=earlier, progress=False)


LONG: dict[str, Any] = {
    "n_factors": 2,
    "n_tower_outputs": 16,
    "user_batch_size": 150,
    "item_batch_size": 60,
    "learning_rate": 1e-2,
    "max_iterations": 250,
    "patience": None,
    "keep": "last",
    "beta_user": 1.0,
    "beta_item": 1.0,
}


def pairs(rng: np.random.Generator, n_users: int, n_items: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    cells = rng.permutation(n_users * n_items)[:n]
    return cells // n_items, cells % n_items


def test_planted_noise_of_users_is_found() -> None:
    rng = np.random.default_rng(0)
    users, items = pairs(rng, 150, 60, 5400)
    own = np.exp(rng.normal(0.0, 0.5, 150))
    eta = 5 + rng.normal(0, 0.5, 150)[users] + rng.normal(0, 0.5, 60)[items]
    values = eta + 0.7 * own[users] * rng.normal(size=len(users))
    split = random_split(ratings_from_arrays(users, items, values, scale="-10:20"), seed=0)
    fits = {
        by: fit(split, preset("amortized").replace(**LONG, row_noise=by), progress=False, threads=1).posterior
        for by in ("none", "user")
    }
    noisy = fits["user"]
    found = noisy.user_rows.noise_factor
    assert found is not None
    found = found.cpu().numpy()
    assert np.corrcoef(np.log(found), np.log(own))[0, 1] > 0.85
    # sigma times the multiplier is what is identified.
    sigma = float(noisy.model.likelihood.noise_sd.detach()) * found
    assert np.median(np.abs(sigma / (0.7 * own) - 1)) < 0.25
    gain = held_out_log_prob(noisy, split.test) - held_out_log_prob(fits["none"], split.test)
    assert gain.mean() > 0.05
    # New users: a steady one, a wild one, and one with a single rating, who stays near the typical noise.
    ids = split.ratings.item_vocabulary.ids[:30].tolist()
    wild = np.where(np.arange(30) % 2, 9.0, 1.0)
    folded = [
        noisy.fold_in({item: 5.0 + 0.1 * (-1) ** at for at, item in enumerate(ids)}).posterior,
        noisy.fold_in(dict(zip(ids, wild.tolist(), strict=True))).posterior,
        noisy.fold_in({ids[0]: 9.0}).posterior,
    ]
    steady, restless, new = (float(rows.noise_factor) for rows in folded)  # type: ignore[union-attr,arg-type]
    assert steady < 0.8
    assert restless > 1.25
    assert 0.75 < new < 1.5


def test_planted_cut_points_of_users_are_found() -> None:
    rng = np.random.default_rng(1)
    users, items = pairs(rng, 150, 60, 5400)
    # Half of the users keep to the middle, the others to the ends.
    shifts = np.where(np.arange(150)[:, None] < 75, 0.7, -0.7) * np.ones((1, 3))
    eta = 3 + rng.normal(0, 0.7, 150)[users] + rng.normal(0, 0.7, 60)[items]
    utility = eta + rng.logistic(0, 0.45, len(users))
    stars = 1.0 + (utility[:, None] > cuts_by_hand(shifts)[users]).sum(1)
    split = random_split(ratings_from_arrays(users, items, stars, scale="1:5:1"), seed=0)
    found: dict[str, Posterior] = {
        word: fit(
            split, preset("amortized").replace(**LONG, likelihood=word), progress=False, threads=1
        ).posterior
        for word in ("ordered-logistic", "ordered-logistic:cuts=user")
    }
    own = found["ordered-logistic:cuts=user"]
    cuts = own.user_rows.cuts  # type: ignore[union-attr]
    assert cuts is not None
    widths = cuts.mean(1).cpu().numpy()
    assert widths[:75].mean() - widths[75:].mean() > 0.7
    assert np.corrcoef(widths, shifts[:, 0])[0, 1] > 0.8
    gain = held_out_log_prob(own, split.test) - held_out_log_prob(found["ordered-logistic"], split.test)
    assert gain.mean() > 0.02
    # A user with three ratings stays near the shared cuts.
    ids = split.ratings.item_vocabulary.ids[:3].tolist()
    few = own.fold_in(dict.fromkeys(ids, 3.0)).posterior.cuts  # type: ignore[union-attr]
    assert few is not None
    assert float(few.abs().max()) < 0.7 * np.abs(widths).max() + 0.2
