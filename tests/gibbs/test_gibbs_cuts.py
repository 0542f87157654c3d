"""Cut points where ratings say little of them: absent and rare levels, and ratings without noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from scipy import stats
from torch import Tensor

from pyro_bmf.checking.calibration import refit_ranks
from pyro_bmf.data import Split, random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.numerics.cuts import newton
from pyro_bmf.numerics.cuts.density import CutDensity
from pyro_bmf.numerics.cuts.draws import draw_cuts_and_utilities, draw_utilities
from pyro_bmf.numerics.cuts.newton import fit_cuts, point_at
from pyro_bmf.numerics.normal_cells import log_cell_probability
from pyro_bmf.numerics.truncated_normal import draw_tail, truncated_mean

MIDDLES = (-1.5, -0.5, 0.5, 1.5)
SPREAD, BEND = 2.0, 0.08
PRIOR, FREE = CutDensity(MIDDLES, SPREAD, BEND), CutDensity(MIDDLES, SPREAD)
TRUE = (-1.4, -0.3, 0.4, 1.6)


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def problem(n: int = 2_000) -> tuple[Tensor, Tensor]:
    """Return predictors and levels of utilities with a spread of 0.8."""
    eta = 0.7 * torch.randn(n, dtype=torch.float64)
    return eta, torch.searchsorted(double(TRUE), eta + 0.8 * torch.randn(n, dtype=torch.float64))


def without(*levels: int) -> tuple[Tensor, Tensor]:
    eta, place = problem()
    kept = torch.isin(place, torch.tensor(levels), invert=True)
    return eta[kept], place[kept]


STARS = torch.arange(5)
CASES = {
    "no first level": (MIDDLES, without(0), 0.8),
    "no middle level": (MIDDLES, without(2), 0.8),
    "no last level": (MIDDLES, without(4), 0.8),
    "no first two levels": (MIDDLES, without(0, 1), 0.8),
    "only the second and the fourth": (MIDDLES, without(0, 2, 4), 0.8),
    "all ratings equal": (MIDDLES, without(0, 1, 3, 4), 0.8),
    "one rating a level": (MIDDLES, (STARS - 2.0, STARS), 0.8),
    "one rating a level, against the predictors": (MIDDLES, (2.0 - STARS, STARS), 0.8),
    "separable": (MIDDLES, (STARS.repeat(20) - 2.0, STARS.repeat(20)), 1e-3),
    "separable the wrong way": (MIDDLES, (2.0 - STARS.repeat(20), STARS.repeat(20)), 1e-3),
    "large predictors": (MIDDLES, (1e4 * problem()[0], problem()[1]), 0.8),
    "huge predictors": (MIDDLES, (1e9 * problem()[0], problem()[1]), 0.8),
    "next to no noise": (MIDDLES, problem(), 1e-8),
    "two levels": ((0.0,), (problem()[0], (problem()[1] > 2).long()), 0.8),
    "two levels, one unseen": ((0.0,), (problem()[0], torch.zeros(2_000, dtype=torch.int64)), 0.8),
    "one against many": (MIDDLES, (problem()[0], torch.full((2_000,), 4).index_fill(0, STARS[:1], 3)), 0.8),
    "fifty levels, five ratings": (
        torch.arange(49) - 24.5,
        ([-10.0, 0.0, 3.0, 5.0, 20.0], torch.tensor([3, 20, 25, 30, 49])),
        0.8,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_cuts_stay_finite_and_in_order_and_utilities_in_their_cells(name: str) -> None:
    middles, (eta, place), noise = CASES[name]
    cuts, eta = double(middles), double(eta)
    scale, prior = torch.full_like(eta, noise), CutDensity(list(middles), SPREAD, BEND)
    cuts = fit_cuts(cuts, eta, scale, place, prior)
    assert bool(torch.isfinite(truncated_mean(eta, scale, cuts, place)[0]).all())
    end = double([1e300])
    rounding = 1e-14 * float(eta.abs().max())
    for _ in range(60):
        assert bool(torch.isfinite(cuts).all())
        assert bool((cuts.diff() > 0).all())
        # What the model keeps of them: logarithms of gaps.
        assert bool(torch.isfinite(cuts.diff().log()).all())
        cuts, utilities, _ = draw_cuts_and_utilities(cuts, eta, scale, place, prior)
        assert bool(torch.isfinite(utilities).all())
        edges = torch.cat([-end, cuts, end])
        assert bool((utilities >= edges[place] - rounding).all())
        assert bool((utilities <= edges[place + 1] + rounding).all())


@pytest.mark.parametrize("rare", [False, True])
def test_many_ratings_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch, rare: bool) -> None:
    """With the same numbers to draw by, cuts and utilities are those of all ratings at once."""
    torch.manual_seed(5)
    eta, place = problem()
    if rare:
        place = place.masked_fill(place == 0, 1)
        place[:3] = 0
    cuts, scale = double(MIDDLES), 0.8 + 0.1 * torch.rand(len(eta), dtype=torch.float64)

    def found() -> list[Tensor]:
        torch.manual_seed(7)
        fitted = fit_cuts(cuts, eta, scale, place, PRIOR)
        drawn, utilities, _ = draw_cuts_and_utilities(fitted, eta, scale, place.int(), PRIOR)
        own = drawn + 0.1 * torch.randn(len(eta), 1, dtype=torch.float64)
        alone = [draw_utilities(one, eta, scale, place) for one in (drawn, own)]
        return [fitted, drawn, utilities, *alone]

    assert point_at(cuts, eta, scale, place, PRIOR).cells is not None
    whole = found()
    monkeypatch.setattr(newton, "RATINGS_AT_ONCE", 48)
    assert point_at(cuts, eta, scale, place, PRIOR).cells is None
    for one, other in zip(found(), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_an_unseen_level_has_about_the_probability_of_one_rating() -> None:
    for level in range(5):
        eta, place = without(level)
        cuts = fit_cuts(double(MIDDLES), eta, torch.full_like(eta, 0.8), place, FREE)
        edges = torch.cat([double([-1e9]), cuts, double([1e9])])
        normal = torch.distributions.Normal(eta, 0.8)
        expected = len(eta) * float((normal.cdf(edges[level + 1]) - normal.cdf(edges[level])).mean())
        assert 0.3 < expected < 2.0, level


def bent_problem() -> tuple[Tensor, Tensor, Tensor]:
    """Return predictors, scales and levels of eighteen ratings on four levels."""
    eta = torch.linspace(-1.5, 1.5, 18).double()
    place = torch.tensor([0, 0, 0, 1, 0, 1, 1, 0, 2, 1, 1, 3, 2, 1, 3, 3, 2, 3])
    return eta, 0.7 + 0.02 * torch.arange(18).double(), place


def log_posterior(cuts: Tensor, bend: float) -> Tensor:
    """Return it by SciPy's Cauchy of what a regression on the middles leaves, for cuts (n, 3)."""
    eta, scale, place = bent_problem()
    end = torch.full((len(cuts), 1), math.inf).double()
    edges = torch.cat([-end, cuts, end], 1)

    def cells(at: Tensor, sd: Tensor, level: Tensor) -> Tensor:
        normal = torch.distributions.Normal(at, sd, validate_args=False)
        return (normal.cdf(edges[:, level + 1]) - normal.cdf(edges[:, level])).log().sum(1)

    four = torch.arange(4)
    found = cells(eta, scale, place) + cells(0.0 * four.double(), SPREAD + 0.0 * four.double(), four)
    found = found - 0.5 * (cuts / SPREAD).square().sum(1)
    design = np.column_stack([np.ones(3), [2.0, 3.0, 4.0]])
    left = cuts.numpy() - (design @ np.linalg.lstsq(design, cuts.numpy().T, rcond=None)[0]).T
    # Of three cuts one number is left: along (1, -2, 1) / 6 ** 0.5.
    return found + double(stats.cauchy(scale=bend).logpdf(left @ np.array([1.0, -2.0, 1.0]) / 6**0.5))


def test_a_bent_scale_has_its_density_and_derivatives() -> None:
    eta, scale, place = bent_problem()
    prior = CutDensity([7.0, 7.5, 8.0], SPREAD, 0.3)
    cuts = double([[-0.9, 0.1, 0.6], [-0.5, 0.2, 2.0]])
    exact = log_posterior(cuts, 0.3)
    found = torch.stack([point_at(one, eta, scale, place, prior).height for one in cuts])
    torch.testing.assert_close(found.diff(), exact.diff())
    step = 1e-5 * torch.eye(3).double()
    slope = (log_posterior(cuts[:1] + step, 0.3) - log_posterior(cuts[:1] - step, 0.3)) / 2e-5
    torch.testing.assert_close(
        point_at(cuts[0], eta, scale, place, prior).gradient, slope, rtol=1e-6, atol=1e-6
    )
    # Given a pull what is left is Normal, of that precision and exactly so curved.
    pull = double(4.0)
    given = [point_at(one, eta, scale, place, prior, pull) for one in cuts]
    free = [point_at(one, eta, scale, place, CutDensity([7.0, 7.5, 8.0], SPREAD)) for one in cuts]
    bend = (cuts @ double([1.0, -2.0, 1.0])) / 6**0.5
    for one, other, b in zip(given, free, bend, strict=True):
        assert float(one.height - other.height) == pytest.approx(-2.0 * float(b) ** 2)
        along = double([1.0, -2.0, 1.0]) / 6**0.5
        torch.testing.assert_close(one.gradient - other.gradient, -4.0 * b * along)
        curvature = one.root @ one.root.mT - other.root @ other.root.mT
        torch.testing.assert_close(curvature, 4.0 * torch.outer(along, along))


@pytest.mark.parametrize("bend", [0.08, 0.5])
def test_cuts_of_a_bent_scale_have_their_posterior(bend: float) -> None:
    """By quadrature: in three dimensions, with few ratings, so that the prior is most of what is known."""
    eta, scale, place = bent_problem()
    prior = CutDensity([1.5, 2.5, 3.5], SPREAD, bend)
    axis = torch.linspace(-3.2, 3.4, 111).double()
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    # The density is narrow in the bend alone: the grid is of location, slope and bend.
    basis = torch.linalg.qr(double([[1.0, -1.0, 1.0], [1.0, 0.0, -2.0], [1.0, 1.0, 1.0]])).Q
    grid = grid * double([1.0, 1.0, 0.4]) @ basis.mT
    grid = grid[(grid.diff(dim=1) > 0).all(1)]
    weight = torch.cat([log_posterior(part, bend) for part in grid.split(50_000)])
    weight = (weight - weight.max()).exp()
    weight = weight / weight.sum()
    coordinates = grid @ basis
    mean = weight @ coordinates
    sd = (weight @ (coordinates - mean).square()).sqrt()
    cuts, kept = double([-0.8, 0.0, 0.9]), []
    for _ in range(4_000):
        cuts, _, _ = draw_cuts_and_utilities(cuts, eta, scale, place, prior, [])
        kept.append(cuts)
    found = torch.stack(kept) @ basis
    assert float(((found.mean(0) - mean) / sd).abs().max()) < 0.12
    torch.testing.assert_close(found.std(0), sd, rtol=0.12, atol=0.0)


def test_a_step_that_overshoots_is_halved() -> None:
    eta, place = problem(300)
    scale = torch.full_like(eta, 0.8)
    best = fit_cuts(double(MIDDLES), eta, scale, place, PRIOR, steps=50)
    far = fit_cuts(double([40.0, 41.0, 42.0, 43.0]), eta, scale, place, PRIOR, steps=50)
    torch.testing.assert_close(far, best, rtol=1e-6, atol=1e-6)
    assert float(point_at(far, eta, scale, place, PRIOR).gradient.abs().max()) < 1e-4


def test_probabilities_of_far_and_narrow_cells() -> None:
    mp.dps = 60
    narrow = [(0.3, 0.3 + 1e-9), (20.0, 20.0 + 1e-8)]
    cells = [(-40.0, -39.0), (7.0, 9.0), (12.0, 12.5), (300.0, 1e30), (-1.0, 2.0), *narrow]
    found = log_cell_probability(double([a for a, _ in cells]), double([b for _, b in cells]))
    for (a, b), value in zip(cells, found.tolist(), strict=True):
        flip = a + b > 0
        low, high = (-b, -a) if flip else (a, b)
        exact = mp.log((mp.erfc(-mpf(high) / mp.sqrt(2)) - mp.erfc(-mpf(low) / mp.sqrt(2))) / 2)
        assert value == pytest.approx(float(exact), rel=1e-8), (a, b)


@pytest.mark.parametrize("cell", [(9.0, 9.4), (-9.4, -9.0), (6.5, 1e30), (-12.0, -11.0)])
def test_draws_from_a_tail_have_its_distribution(cell: tuple[float, float]) -> None:
    low, high = cell
    drawn = draw_tail(torch.full((4_000,), low).double(), torch.full((4_000,), high).double()).numpy()
    assert ((drawn >= low) & (drawn <= high)).all()
    a, b = (low, high) if low > 0 else (-high, -low)
    tail = np.exp(stats.norm.logsf(np.abs(drawn)) - stats.norm.logsf(a))
    end = np.exp(stats.norm.logsf(b) - stats.norm.logsf(a))
    assert stats.kstest((tail - end) / (1.0 - end), "uniform").pvalue > 1e-3


def split_of(stars: np.ndarray) -> Split:
    users, items = (side.ravel() for side in np.indices(stars.shape))
    return random_split(ratings_from_arrays(users, items, stars.ravel().astype(float)), seed=0)


NOISELESS = np.tile(np.arange(1, 6), (6, 1))
COUNTS = np.random.default_rng(0).poisson(2.0, (12, 9))
COUNTS[0, 0] = 17


@pytest.mark.filterwarnings("ignore::pyro_bmf.data.notices.DataNotice")
@pytest.mark.parametrize("name", ["default", "conjugate"])
@pytest.mark.parametrize("stars", [NOISELESS, COUNTS], ids=["without noise", "counts with rare levels"])
def test_such_ratings_are_fitted(name: str, stars: np.ndarray) -> None:
    split = split_of(stars)
    settings = preset(name).replace(n_factors=3)
    if name == "default":
        settings = settings.replace(sweeps=80, burn_in=30, kept_draws=50)
    posterior = fit(split, settings, threads=1, progress=False).posterior
    users, items = (side.ravel() for side in np.indices(stars.shape))
    mean = posterior.predict_mean(users, items)
    assert np.isfinite(mean).all()
    known = np.isin(items, np.unique(split.train.items))
    error = (mean - stars.ravel())[known]
    assert np.sqrt((error**2).mean()) < 1.05 * stars.std()


@pytest.mark.filterwarnings("ignore::pyro_bmf.data.notices.DataNotice")
@pytest.mark.parametrize("seed", range(3))
def test_ratings_drawn_from_the_prior_are_fitted(seed: int) -> None:
    # The prior's scales are drawn too, and now and then make ratings that are all at the ends.
    stars = np.random.default_rng(1).integers(1, 6, (20, 15))
    settings = preset().replace(sweeps=40, burn_in=20, kept_draws=20, n_factors=4)
    found = refit_ranks(split_of(stars), settings, seed, threads=1)
    assert all(0.0 < rank < 1.0 for ranks in found.ranks.values() for rank in ranks)
