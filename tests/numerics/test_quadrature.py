"""Gauss-Hermite nodes against moments of the Normal and against adaptive quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from pyro_bmf.numerics.quadrature import gauss_hermite, normal_nodes


@pytest.mark.parametrize("n", [5, 15, 32])
def test_moments_of_the_normal(n: int) -> None:
    nodes, weights = gauss_hermite(n)
    double_factorials = [1.0, 1.0, 3.0, 15.0, 105.0]
    for power in range(5):
        assert weights @ nodes ** (2 * power) == pytest.approx(double_factorials[power], rel=1e-12)
        assert weights @ nodes ** (2 * power + 1) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_an_expectation_under_any_normal(dtype: torch.dtype, tolerance: float) -> None:
    mean, variance = torch.tensor([0.3, -2.0], dtype=dtype), torch.tensor([0.5, 2.0], dtype=dtype)
    points, weights = normal_nodes(mean, variance, 32)
    assert points.shape == (2, 32)
    assert points.dtype == weights.dtype == dtype
    found = (torch.sigmoid(points) * weights).sum(-1)
    for m, v, value in zip(mean.tolist(), variance.tolist(), found.tolist(), strict=True):
        expected, _ = integrate.quad(
            lambda x, m=m, v=v: stats.norm.pdf(x, m, v**0.5) / (1 + np.exp(-x)), m - 20, m + 20, epsabs=1e-12
        )
        assert value == pytest.approx(expected, abs=tolerance)
