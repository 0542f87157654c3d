"""Cells of a Normal against arithmetic of sixty digits; draws and means in them against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from scipy import stats

from pyro_bmf.numerics.normal_cells import (
    Cells,
    cell_ends,
    cell_probabilities,
    cell_probability,
    log_cell_probability,
    midway,
    normal_pmf,
    symmetric_cells,
)
from pyro_bmf.numerics.truncated_normal import draw_in_cells, truncated_mean

CELLS = [(-np.inf, -3.0), (-8.0, -7.5), (-1.0, 2.0), (0.3, 0.3001), (5.0, 6.0), (9.0, np.inf), (-30.0, -29.0)]
CUTS = (-1.5, -0.2, 0.7, 2.0)


def exact(low: float, high: float) -> mpf:
    """Return Phi(high) - Phi(low) to sixty digits."""
    mp.dps = 60
    if low + high < 0:
        low, high = -high, -low
    return (mp.erfc(mpf(low) / mp.sqrt(2)) - mp.erfc(mpf(high) / mp.sqrt(2))) / 2


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-4)])
def test_a_cell_s_probability(dtype: torch.dtype, tolerance: float) -> None:
    low, high = torch.tensor(CELLS, dtype=dtype).T
    if dtype == torch.float32:  # neither far out nor narrow: there single precision has no digits
        few = torch.tensor([0, 2, 4])
        low, high = low[few], high[few]
    found = cell_probability(low, high)
    assert found.dtype == dtype
    for a, b, value in zip(low.tolist(), high.tolist(), found.tolist(), strict=True):
        assert value == pytest.approx(float(exact(a, b)), rel=tolerance), (a, b)


def test_logarithms_of_cells_that_double_precision_has_no_probability_of() -> None:
    low, high = torch.tensor([*CELLS, (50.0, 51.0), (-np.inf, -60.0), (200.0, np.inf)]).double().T
    found = log_cell_probability(low, high)
    for a, b, value in zip(low.tolist(), high.tolist(), found.tolist(), strict=True):
        assert value == pytest.approx(float(mp.log(exact(a, b))), rel=1e-9, abs=1e-9), (a, b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_all_forms_say_the_same_of_a_scale(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(3, 2, 40), rng.uniform(0.1, 2, 40)
    levels = np.array([1.0, 2.0, 2.5, 4.0, 5.0])
    cuts = torch.tensor(midway(levels))
    table = normal_pmf(mean, sd, levels)
    edges = np.concatenate([[-np.inf], midway(levels), [np.inf]])
    scipys = np.diff(stats.norm.cdf(edges, mean[:, None], sd[:, None]), axis=1)
    np.testing.assert_allclose(table, scipys, atol=1e-15)
    mean_t, sd_t = torch.tensor(mean, dtype=dtype), torch.tensor(sd, dtype=dtype)
    close = 1e-14 if dtype == torch.float64 else 2e-6
    found = cell_probabilities(mean_t, sd_t, cuts)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, table, atol=close)
    # One cell each, with shared cuts and with cuts of each pair's own.
    for place in range(len(levels)):
        places = torch.full((40,), place)
        for of in (cuts, cuts.expand(40, -1)):
            one = cell_probability(*cell_ends(mean_t.double(), sd_t.double(), of, places))
            np.testing.assert_allclose(one, found[:, place], rtol=1e-12)
            share = Cells.of(mean_t.double(), sd_t.double(), of, places).share
            np.testing.assert_allclose(share, found[:, place], atol=1e-15)


def test_a_heavy_tail_s_cells() -> None:
    cuts = np.array([[-6.0, -1.0, 0.5, 8.0]])
    found = symmetric_cells(lambda z: stats.t.cdf(z, 4.0), cuts)
    law = stats.t(4.0)
    assert found[0] == pytest.approx(
        [
            law.cdf(-6),
            law.cdf(-1) - law.cdf(-6),
            law.cdf(0.5) - law.cdf(-1),
            law.sf(0.5) - law.sf(8),
            law.sf(8),
        ]
    )


@pytest.mark.parametrize("place", range(5))
def test_derivatives_are_finite_at_the_ends_of_the_scale(place: int) -> None:
    cuts = torch.tensor(CUTS, dtype=torch.float64, requires_grad=True)
    eta = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.8], dtype=torch.float64, requires_grad=True)
    places = torch.tensor([place])

    def log_probability(eta: torch.Tensor, scale: torch.Tensor, cuts: torch.Tensor) -> torch.Tensor:
        return cell_probability(*cell_ends(eta, scale, cuts, places)).log()

    assert torch.autograd.gradcheck(log_probability, (eta, scale, cuts))


@pytest.mark.parametrize("place", range(5))
def test_means_and_draws_in_a_cell_are_scipys(place: int) -> None:
    n, eta, scale = 4_000, 0.4, 0.8
    edges = [-np.inf, *CUTS, np.inf]
    law = stats.truncnorm((edges[place] - eta) / scale, (edges[place + 1] - eta) / scale, eta, scale)
    etas, scales = torch.full((n,), eta).double(), torch.full((n,), scale).double()
    cuts, places = torch.tensor(CUTS, dtype=torch.float64), torch.full((n,), place)
    assert float(truncated_mean(etas, scales, cuts, places)[0][0]) == pytest.approx(law.mean())
    torch.manual_seed(place)
    drawn = draw_in_cells(etas, scales, Cells.of(etas, scales, cuts, places))
    assert stats.kstest(drawn.numpy(), law.cdf).pvalue > 1e-3


def test_draws_of_a_cell_far_out_stay_in_it() -> None:
    eta = torch.full((500,), -20.0, dtype=torch.float64)
    scale = torch.full((500,), 0.8, dtype=torch.float64)
    cuts, places = torch.tensor(CUTS, dtype=torch.float64), torch.full((500,), 4)
    torch.manual_seed(0)
    drawn = draw_in_cells(eta, scale, Cells.of(eta, scale, cuts, places))
    # Exponential about the edge: the tail's mean excess is nearly scale^2 / distance.
    assert bool((drawn > CUTS[-1]).all())
    assert float((drawn - CUTS[-1]).mean()) == pytest.approx(0.8**2 / 22.0, rel=0.2)
