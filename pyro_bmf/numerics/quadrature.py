"""Gauss-Hermite quadrature: expectations over a Normal as sums over a few nodes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def gauss_hermite(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return n nodes and weights of the standard Normal; the weights sum to one.

    Exact for polynomials of degree up to 2 n - 1.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return nodes, weights / weights.sum()


def normal_nodes(mean: Tensor, variance: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return nodes of N(mean, variance), shape (*mean.shape, n), and their weights, (n,)."""
    nodes, weights = gauss_hermite(n)
    points = torch.as_tensor(nodes, dtype=mean.dtype, device=mean.device)
    shares = torch.as_tensor(weights, dtype=mean.dtype, device=mean.device)
    return mean.unsqueeze(-1) + variance.sqrt().unsqueeze(-1) * points, shares
