"""By how much rows differ in their noise, drawn with utilities integrated out: densities and quadrature."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_bmf.methods.gibbs.chain_state import ChainState, SideState
from pyro_bmf.methods.gibbs.hyper_draws import draw_noise_spreads, draw_row_noise
from pyro_bmf.model.sides import Sides
from pyro_bmf.numerics.cuts.noise_spread import NoisyRows, _point_at, draw_spreads

RATE = 6.0


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def log_density_of(rows: NoisyRows, s: Tensor) -> Tensor:
    """Return the log-density per ds of rows moved by s, written out: priors, and both Jacobians."""
    t = s.exp()
    logs, shape = t * rows.logs, rows.shape / t**2
    prior = torch.distributions.Gamma(shape, shape).log_prob(logs.exp()).sum()
    # d(w^t) / dw = t w^(t - 1) of every row; the shape's prior is that of its spread, a' of a has 1 / t^2.
    jacobian = len(logs) * s + (t - 1.0) * rows.logs.sum() - 2.0 * s
    spread = torch.distributions.Exponential(double(rows.rate)).log_prob(shape.rsqrt()) - 1.5 * shape.log()
    return prior + jacobian + spread


@pytest.mark.parametrize("shape", [0.3, 4.0, 900.0, 3e4])
def test_the_prior_of_a_move_and_its_derivatives(shape: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logs = torch.randn(7, generator=generator, dtype=torch.float64) * shape**-0.5
    rows = NoisyRows(logs, double(shape), torch.arange(7), RATE)
    s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    found, slope, curved = rows.prior()
    expected = log_density_of(rows, s)
    (first,) = torch.autograd.grad(expected, s, create_graph=True)
    (second,) = torch.autograd.grad(first, s)
    torch.testing.assert_close(slope, first.detach(), rtol=1e-7, atol=1e-6)
    torch.testing.assert_close(curved, -second, rtol=1e-5, atol=1e-4)
    for step in (-0.4, 0.7):
        there, _, _ = rows.moved(double(step).exp()).prior()
        change = log_density_of(rows, double(step)) - log_density_of(rows, double(0.0))
        torch.testing.assert_close(there - found + 7 * step, change, rtol=1e-7, atol=1e-6)


def test_a_spread_of_next_to_nothing_has_a_finite_prior() -> None:
    logs = double([1e-8, -2e-8, 0.0])
    height, slope, curved = NoisyRows(logs, double(1e16), torch.arange(3), RATE).prior()
    assert all(bool(torch.isfinite(one)) for one in (height, slope, curved))
    assert float(slope) == pytest.approx(1.0, abs=5.0)


CUTS = double([-0.9, 0.2, 1.1])
#: Sides of the problem: each has a pattern of multipliers, and the row of each rating.
N = 48
USER = NoisyRows(double([0.9, -1.0, 0.5]), double(3.0), torch.arange(N) % 3, 1.5)
ITEM = NoisyRows(double([-0.8, 0.7]), double(4.0), torch.arange(N) // 24, 1.5)


def problem() -> tuple[Tensor, Tensor, Tensor]:
    """Return predictors, the noise's standard deviations without the sides' multipliers, and levels."""
    generator = torch.Generator().manual_seed(2)
    eta = 0.5 * torch.randn(N, generator=generator, dtype=torch.float64)
    base = 0.5 + 0.4 * torch.rand(N, generator=generator, dtype=torch.float64)
    differing = sd_of(base, [USER.moved(double(1.5)), ITEM.moved(double(1.5))])
    z = eta + differing * torch.randn(N, generator=generator, dtype=torch.float64)
    return eta, base, torch.searchsorted(CUTS, z)


def sd_of(base: Tensor, sides: list[NoisyRows]) -> Tensor:
    return base * torch.stack([(-0.5 * one.logs)[one.of] for one in sides]).sum(0).exp()


def log_posterior(s: tuple[float, ...], sides: list[NoisyRows]) -> float:
    eta, base, place = problem()
    there = [one.moved(double(step).exp()) for one, step in zip(sides, s, strict=True)]
    ends = torch.cat([double([-math.inf]), CUTS, double([math.inf])])
    sd = sd_of(base, there)
    high, low = (stats.norm.cdf(((ends[at] - eta) / sd).numpy()) for at in (place + 1, place))
    said = double(high - low).clamp_min(1e-300).log().sum()
    prior = sum(log_density_of(one, double(step)) for one, step in zip(sides, s, strict=True))
    return float(said + prior)


@pytest.mark.parametrize("sides", [[USER], [USER, ITEM]], ids=["one", "both"])
def test_spreads_have_their_posterior(sides: list[NoisyRows]) -> None:
    """By quadrature along the moves, with few ratings, under which a wrong measure is far from right."""
    line = torch.linspace(-6.0, 2.0, 81).double()
    grid = torch.cartesian_prod(*[line] * len(sides)).reshape(-1, len(sides))
    weight = double([log_posterior(tuple(point.tolist()), sides) for point in grid])
    weight = (weight - weight.max()).exp()
    weight = weight / weight.sum()
    eta, base, place = problem()
    torch.manual_seed(0)
    kept, now = [], double([0.0] * len(sides))
    for _ in range(6_000):
        there = [one.moved(step.exp()) for one, step in zip(sides, now, strict=True)]
        now = now + draw_spreads(there, CUTS, eta, sd_of(base, there), place).log()
        kept.append(now)
    found = torch.stack(kept[200:])
    # The shares below some points: a mean would follow the long tail of next to no spread.
    for at in (-0.8, -0.4, -0.1, 0.1, 0.4, 0.7):
        edge = at + 0.5 * float(line.diff()[0])
        expected = weight @ (grid <= edge).double()
        torch.testing.assert_close((found <= edge).double().mean(0), expected, rtol=0.0, atol=0.04)
    assert 0.3 < float((found.diff(dim=0).abs().sum(1) > 0).double().mean()) < 1.0


@pytest.mark.parametrize("far", [0.0, 40.0])
def test_slopes_by_ratings_and_priors(far: float) -> None:
    """By differences of the height, also where a rating lies so far out that logarithms are taken."""
    eta, base, place = problem()
    eta[0] += far
    given = [USER, ITEM], CUTS, eta, sd_of(base, [USER, ITEM]), place
    at = double([0.3, -0.2])
    steps = 1e-5 * torch.eye(2, dtype=torch.float64)
    expected = [(_point_at(at + e, *given).height - _point_at(at - e, *given).height) / 2e-5 for e in steps]
    found = _point_at(at, *given)
    torch.testing.assert_close(found.gradient, torch.stack(expected), rtol=1e-6, atol=1e-5)
    assert bool((found.root.diagonal() >= 1.0).all())


def test_ratings_far_from_their_cells_move_nothing_out_of_order() -> None:
    """One rating lies fifty standard deviations from its level: scores are by logarithms, and finite."""
    eta, base, place = problem()
    eta[0] = 60.0 if int(place[0]) == 0 else -60.0
    torch.manual_seed(0)
    drawn = torch.stack(
        [draw_spreads([USER, ITEM], CUTS, eta, sd_of(base, [USER, ITEM]), place) for _ in range(50)]
    )
    assert bool(torch.isfinite(drawn).all() & (drawn > 0).all())
    assert float(drawn.std(0).max()) > 0.0


def side_of(n: int) -> SideState:
    return SideState(
        rows=torch.zeros(n, 2),
        location=torch.zeros(2),
        precision=torch.eye(2),
        weights=torch.zeros(n, 2),
        weights_precision=torch.ones(2),
        row_precision=torch.rand(n) + 0.5,
        row_precision_shape=double(6.0),
    )


def test_a_state_is_moved_in_place_and_only_the_sides_that_are_noisy() -> None:
    torch.manual_seed(0)
    state = ChainState(side_of(3), side_of(2), double(1.0), CUTS)
    before = state.user.row_precision.clone(), state.item.row_precision.clone()
    pairs = Sides(USER.of, ITEM.of)
    draw_noise_spreads(state, ("item",), pairs, lambda rows, power: power, double([2.0]))
    torch.testing.assert_close(state.user.row_precision, before[0], rtol=0.0, atol=0.0)
    torch.testing.assert_close(state.item.row_precision, before[1] ** 2)
    assert state.item.row_precision.dtype == torch.float32
    assert float(state.item.row_precision_shape) == pytest.approx(1.5)
    draw_noise_spreads(state, (), pairs, lambda rows: double([]))
    torch.testing.assert_close(state.item.row_precision, before[1] ** 2)


def test_no_multiplier_is_nothing_in_single_precision() -> None:
    """Of a spread of ten and more, which ratings of the two ends of a scale alone may lead to."""
    torch.manual_seed(0)
    counts = torch.zeros(4_000, dtype=torch.float64)
    drawn = draw_row_noise(counts, counts, double(0.005))
    assert bool(torch.isfinite(drawn.float().rsqrt()).all())
    assert float(drawn.min()) == pytest.approx(1e-30)
    state = ChainState(side_of(3), side_of(2), double(1.0), CUTS)
    draw_noise_spreads(state, ("user",), Sides(USER.of, ITEM.of), lambda rows, power: power, double([900.0]))
    assert bool(torch.isfinite(state.user.row_precision.rsqrt()).all())
