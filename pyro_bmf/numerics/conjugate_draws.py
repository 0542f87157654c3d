"""Draws of a Normal's location and precision from their full conditionals, by conjugacy."""

from __future__ import annotations

import torch
from torch import Tensor

from . import factorise


def draw_gamma(shape: Tensor, rate: Tensor) -> Tensor:
    """Draw from Gamma(shape, rate), elementwise."""
    drawn: Tensor = torch._standard_gamma(shape) / rate
    return drawn


def draw_wishart(degrees: float, inverse_scale: Tensor) -> Tensor:
    """Draw a precision from W(degrees, inverse_scale^{-1}) by Bartlett's decomposition: (d, d)."""
    d = len(inverse_scale)
    root = factorise.cholesky(factorise.inverse(inverse_scale))
    lower = torch.tril(torch.randn(d, d, dtype=root.dtype, device=root.device), -1)
    half = (degrees - torch.arange(d, dtype=root.dtype, device=root.device)) / 2
    lower.diagonal().copy_((2.0 * torch._standard_gamma(half)).sqrt())
    factor = root @ lower
    precision: Tensor = factor @ factor.mT
    return precision


def draw_normal_wishart(
    rows: Tensor, inverse_scale: Tensor, kappa: float, *, degrees: float
) -> tuple[Tensor, Tensor]:
    r"""Draw location (K,) and precision (K, K) given rows (n, K) of N(location, precision^{-1}).

    Parameters
    ----------
    rows : Tensor, shape (n, K)
    inverse_scale : Tensor, shape (K,)
    kappa, degrees : float
        Of the prior: :math:`\Lambda \sim W(\nu, \mathrm{diag}(w)^{-1})` with nu = `degrees` and w =
        `inverse_scale`, and :math:`\mu \mid \Lambda \sim N(0, (\kappa \Lambda)^{-1})`.
    """
    n, k = rows.shape
    mean = rows.mean(0)
    about = rows - mean
    inverse = (
        torch.diag(inverse_scale) + about.mT @ about + (kappa * n / (kappa + n)) * torch.outer(mean, mean)
    )
    precision = draw_wishart(degrees + n, inverse)
    noise = torch.randn(k, 1, dtype=rows.dtype, device=rows.device)
    root = factorise.cholesky((kappa + n) * precision)
    spread = torch.linalg.solve_triangular(root.mT, noise, upper=True).squeeze(-1)
    return n * mean / (kappa + n) + spread, precision


def draw_normal_gamma(values: Tensor, rate: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """Draw location and precision, both (), given values (n,) of N(location, 1 / precision).

    The prior of the precision is Gamma(1, `rate`), and kappa as in `draw_normal_wishart`.
    """
    n = len(values)
    mean = values.mean()
    square = ((values - mean) ** 2).sum() + (kappa * n / (kappa + n)) * mean**2
    shape = values.new_full((), 1.0 + 0.5 * n)
    precision = draw_gamma(shape, rate + 0.5 * square)
    noise = torch.randn((), dtype=values.dtype, device=values.device)
    return n * mean / (kappa + n) + noise / ((kappa + n) * precision).sqrt(), precision
