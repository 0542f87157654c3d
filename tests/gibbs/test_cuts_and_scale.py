"""Cut points and the scale of predictors, drawn together: derivatives, and the posterior by quadrature."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_bmf.numerics.cuts.density import CutDensity
from pyro_bmf.numerics.cuts.draws import draw_cuts_and_utilities
from pyro_bmf.numerics.cuts.newton import point_at
from pyro_bmf.numerics.cuts.stretch import Stretch
from pyro_bmf.numerics.truncated_normal import truncated_moments

PRIOR = CutDensity([1.5, 2.5], 2.0)


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def problem(n: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    eta = torch.randn(n, generator=generator, dtype=torch.float64)
    scale = 0.6 + 0.4 * torch.rand(n, generator=generator, dtype=torch.float64)
    z = 1.3 * eta + scale * torch.randn(n, generator=generator, dtype=torch.float64)
    return eta, scale, torch.searchsorted(double([-0.5, 0.6]), z)


def stretch() -> Stretch:
    return Stretch(-3.0, double(0.7), double([0.4, 6.0]), double([1.5, 2.0]))


def log_stretch(t: Tensor) -> Tensor:
    """Return its density per d log g, written out."""
    said = -3.0 * t - 0.7 * (-2.0 * t).exp()
    return said - 1.5 * (1.0 + 0.4 * (-2.0 * t).exp()).log() - 2.0 * (1.0 + 6.0 * (-2.0 * t).exp()).log()


def log_cells(cuts: Tensor, t: Tensor) -> Tensor:
    """Return the log-likelihood of cuts (n, 2) and of logarithms (n,) of the predictors' factor, by SciPy."""
    eta, scale, place = problem()
    ends = torch.cat(
        [torch.full_like(cuts[:, :1], -math.inf), cuts, torch.full_like(cuts[:, :1], math.inf)], 1
    )
    mean = t.exp().unsqueeze(1) * eta
    high = stats.norm.cdf(((ends[:, place + 1] - mean) / scale).numpy())
    low = stats.norm.cdf(((ends[:, place] - mean) / scale).numpy())
    return double(high - low).clamp_min(1e-300).log().sum(1)


def log_cuts(cuts: Tensor) -> Tensor:
    """Return the cuts' prior: Dirichlet shares of the cells of a Normal of standard deviation 2."""
    below = double(stats.norm.cdf((cuts / 2.0).numpy()))
    shares = torch.cat([below[:, :1], below.diff(dim=1), 1.0 - below[:, 1:]], 1)
    return shares.log().sum(1) + double(stats.norm.logpdf((cuts / 2.0).numpy())).sum(1)


def test_the_density_of_a_factor_and_its_derivatives() -> None:
    density, g = stretch(), double(1.7)
    expected = log_stretch(g.log()) - log_stretch(double(0.0))
    torch.testing.assert_close(density.change(g), expected)
    # About other predictors it is the same, counted from these.
    torch.testing.assert_close(
        density.after(g).change(2.0 / g), density.change(double(2.0)) - density.change(g)
    )
    at = double(1.0).requires_grad_()
    per_dg = log_stretch(at.log()) - at.log()
    (slope,) = torch.autograd.grad(per_dg, at, create_graph=True)
    torch.testing.assert_close(density.gradient(), slope.detach())
    (curved,) = torch.autograd.grad(slope, at)
    torch.testing.assert_close(density.curvature(), -curved)
    assert math.isnan(float(density.change(double(-0.5))))


@pytest.mark.parametrize("far", [0.0, 30.0])
def test_derivatives_by_cuts_and_factor(far: float) -> None:
    """By differences of the height, of which the stretch's own part is left out."""
    eta, scale, place = problem()
    eta[0] += far
    cuts, density = double([-0.4, 0.5]), stretch()

    def height(x: Tensor) -> Tensor:
        return point_at(x[:2], x[2] * eta, scale, place, PRIOR).height

    at = torch.cat([cuts, double([1.0])])
    step = 1e-4 * torch.eye(3).double()
    found = point_at(cuts, eta, scale, place, PRIOR, None, density)
    slope = torch.stack([(height(at + e) - height(at - e)) / 2e-4 for e in step])

    def curvature(e: Tensor, f: Tensor) -> Tensor:
        return (height(at + e + f) - height(at + e - f) - height(at - e + f) + height(at - e - f)) / 4e-8

    curved = torch.stack([torch.stack([curvature(e, f) for f in step]) for e in step])
    slope[2] += density.gradient()
    curved[2, 2] -= density.curvature()
    torch.testing.assert_close(found.gradient, slope, rtol=1e-5, atol=1e-5)
    hessian = found.root @ found.root.mT - 1e-3 * torch.eye(3).double()
    torch.testing.assert_close(hessian, -curved, rtol=1e-4, atol=1e-3)


def test_cuts_and_factor_have_their_posterior() -> None:
    """By quadrature, with few ratings, under which a wrong measure of the factor is far from right."""
    eta, scale, place = problem()
    first = torch.linspace(-3.5, 3.0, 90).double()
    log_g = torch.linspace(-3.5, 3.0, 91).double()
    grid = torch.cartesian_prod(first, first, log_g)
    grid = grid[grid[:, 1] > grid[:, 0]]
    weight = log_cells(grid[:, :2], grid[:, 2]) + log_cuts(grid[:, :2]) + log_stretch(grid[:, 2])
    weight = (weight - weight.max()).exp()
    weight = weight / weight.sum()
    mean = weight @ grid
    sd = (weight @ (grid - mean).square()).sqrt()
    torch.manual_seed(0)
    cuts, factor, kept = double([-0.4, 0.5]), double(1.0), []
    for _ in range(12_000):
        density = stretch().after(factor)
        cuts, _, more = draw_cuts_and_utilities(cuts, factor * eta, scale, place, PRIOR, [], density)
        factor = factor * more
        kept.append(torch.cat([cuts, factor.log().reshape(1)]))
    found = torch.stack(kept[200:])
    assert float(((found.mean(0) - mean) / sd).abs().max()) < 0.1
    torch.testing.assert_close(found.std(0), sd, rtol=0.1, atol=0.0)
    assert 0.3 < float((found.diff(dim=0).abs().sum(1) > 0).double().mean()) < 1.0


def test_utilities_are_drawn_about_the_new_predictors() -> None:
    eta, scale, place = problem(4_000)
    torch.manual_seed(0)
    drawn = draw_cuts_and_utilities(double([-0.5, 0.6]), 0.9 * eta, scale, place, PRIOR, [], stretch())
    assert float(drawn.factor) > 1.05
    mean, variance, _ = truncated_moments(0.9 * drawn.factor * eta, scale, drawn.cuts, place)
    apart = (drawn.utilities - mean) / variance.sqrt()
    assert abs(float(apart.mean())) < 0.05
    assert float(apart.std()) == pytest.approx(1.0, abs=0.05)
    assert abs(float(apart @ eta) / 4_000) < 0.05
