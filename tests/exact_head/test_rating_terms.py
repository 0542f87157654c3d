"""What a rating says of its predictor: against automatic differentiation and SciPy's truncated Normal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from pyro_bmf.methods.exact_head.rating_terms import rating_terms
from pyro_bmf.model import NormalLikelihood, OrderedProbitLikelihood
from pyro_bmf.numerics.truncated_normal import truncated_moments

CUTS = torch.tensor([-1.2, -0.3, 0.4, 1.9], dtype=torch.float64)


def log_prob(eta: Tensor, precision: Tensor, place: Tensor) -> Tensor:
    """Return log P of the cell, by SciPy's way of writing it: a difference of distribution functions."""
    edges = torch.cat([torch.tensor([-40.0]), CUTS, torch.tensor([40.0])]).double()
    root = precision.sqrt()
    upper, lower = (edges[place + 1] - eta) * root, (edges[place] - eta) * root
    return (torch.special.ndtr(upper) - torch.special.ndtr(lower)).log()


def test_an_ordered_rating_agrees_in_value_slope_and_curvature() -> None:
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(5).repeat(8)
    eta = torch.randn(40, generator=generator, dtype=torch.float64)
    precision = 0.7 + torch.rand(40, generator=generator, dtype=torch.float64)
    likelihood = OrderedProbitLikelihood([1.0, 2.0, 3.0, 4.0, 5.0])
    terms = rating_terms(likelihood.utilities(), CUTS, eta, precision, place)  # type: ignore[arg-type]
    assert terms.share is not None
    at = eta.clone().requires_grad_()
    value = log_prob(at, precision, place)
    (slope,) = torch.autograd.grad(value.sum(), at, create_graph=True)
    (curve,) = torch.autograd.grad(slope.sum(), at)
    weight = precision * terms.share
    torch.testing.assert_close(weight * (terms.target - eta), slope.detach(), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(-weight, curve, rtol=1e-7, atol=1e-8)
    normal = terms.constant - 0.5 * float((weight * (terms.target - eta) ** 2).sum())
    assert normal == pytest.approx(float(value.detach().sum()), rel=1e-10)


def test_a_normal_rating_is_its_own_target() -> None:
    likelihood = NormalLikelihood(noise=0.8)
    observed, eta = torch.tensor([0.4, -1.0]).double(), torch.tensor([0.1, 0.3]).double()
    precision = torch.tensor([1.5, 0.6]).double()
    terms = rating_terms(likelihood.utilities(), torch.empty(0), eta, precision, observed)  # type: ignore[arg-type]
    assert terms.share is None
    assert torch.equal(terms.target, observed)
    expected = stats.norm(eta.numpy(), precision.rsqrt().numpy()).logpdf(observed.numpy()).sum()
    normal = terms.constant - 0.5 * float((precision * (observed - eta) ** 2).sum())
    assert normal == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("eta", [-9.0, -3.0, 0.0, 0.2, 4.0, 12.0])
def test_moments_of_a_cell_are_those_of_a_truncated_normal(eta: float) -> None:
    """Near by to SciPy's digits; far out, where its differences lose theirs, to 2 % of the quadrature's."""
    scale = 0.9
    edges = [-np.inf, *CUTS.tolist(), np.inf]
    for place in range(5):
        at = torch.tensor([eta]).double(), torch.tensor([scale]).double()
        mean, variance, _ = truncated_moments(*at, CUTS, torch.tensor([place]))
        a, b = (edges[place] - eta) / scale, (edges[place + 1] - eta) / scale
        nearest = a if a > 0 else (b if b < 0 else 0.0)
        lo, hi = max(a, nearest - 8.0), min(b, nearest + 8.0)

        def weight(x: float, power: int, nearest: float = nearest) -> float:
            return (x - nearest) ** power * float(np.exp(-0.5 * (x * x - nearest * nearest)))

        total, first, second = (
            integrate.quad(weight, lo, hi, args=(power,), points=None, limit=200)[0] for power in range(3)
        )
        expected = (second / total - (first / total) ** 2) * scale**2
        far = abs(nearest) > 5.0
        assert float(variance) == pytest.approx(expected, rel=0.02 if far else 1e-6)
        assert float(mean) == pytest.approx(
            eta + scale * (nearest + first / total), rel=0.05 if far else 1e-7
        )
