r"""The first layer with weights that are Normal, or combinations of bases: moments, draws, KL.

With independent weights :math:`w_j \sim \mathcal{N}(\bar w_j, \tau_j^2)` the sum :math:`h = \sum_j x_j w_j`
is Normal with mean :math:`\sum_j x_j \bar w_j` and variance :math:`\sum_j x_j^2 \tau_j^2`: the same sparse
product with everything squared. Drawing h instead of the weights (local reparametrisation; Kingma et al.,
2015, arXiv 1506.02557) is exact for whatever depends on one row, and has far less noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class PreActivation(NamedTuple):
    """Independent Normals: what a ReLU is applied to.

    Attributes
    ----------
    mean : Tensor, shape (n_rows, width)
    variance : Tensor or None, shape (n_rows, width)
        None where the weights are known.
    """

    mean: Tensor
    variance: Tensor | None = None

    def finish(self, shrink: Tensor | None, bias: Tensor) -> PreActivation:
        """Return the same times `shrink`, (n_rows, 1), plus `bias`, (width,)."""
        mean, variance = self
        if shrink is not None:
            mean = mean * shrink
            variance = None if variance is None else variance * shrink**2
        return PreActivation(mean + bias, variance)

    def sample(self) -> Tensor:
        """Draw from torch's current generator, differentiably in both moments."""
        if self.variance is None:
            return self.mean
        return self.mean + _root(self.variance) * torch.randn_like(self.mean)


def _root(variance: Tensor) -> Tensor:
    # Clamped away from zero, where the root has no derivative: a row that reads nothing has no variance.
    return variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()


def rectified_moments(units: PreActivation) -> tuple[Tensor, Tensor]:
    r"""Return mean and variance of max(0, h), each (n_rows, width), h Normal with the given moments.

    With :math:`z = \bar h / \sigma`, :math:`E = \bar h \Phi(z) + \sigma \varphi(z)` and
    :math:`E_2 = (\bar h^2 + \sigma^2) \Phi(z) + \bar h \sigma \varphi(z)`.
    """
    if units.variance is None:
        return units.mean.relu(), torch.zeros_like(units.mean)
    sd = _root(units.variance)
    z = units.mean / sd
    below = torch.special.ndtr(z)
    density = torch.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    mean = (units.mean * below + sd * density).clamp_min(0.0)
    second = (units.mean**2 + sd**2) * below + units.mean * sd * density
    return mean, (second - mean**2).clamp_min(0.0)


def basis_tables(
    coefficients: Tensor, bases: Tensor, other_factors: Tensor, scale: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    r"""Return :math:`P_j = v_j \sum_b s_{jb} B_b` for every row j of the other side, and its variance.

    Parameters
    ----------
    coefficients : Tensor, shape (n_other, 2, n_bases)
        :math:`s_{jb}`, of the network of the means and of that of the variances.
    bases : Tensor, shape (n_bases, n_factors, 2 width)
        :math:`B_b`, the two networks' side by side.
    other_factors : Tensor, shape (n_other, n_factors)
        :math:`v_j`: constants.
    scale : Tensor or None, shape (n_other, 2, n_bases)
        Standard deviations of the coefficients.

    Returns
    -------
    means : Tensor, shape (n_other, 2 width)
    variances : Tensor or None, shape (n_other, 2 width)
        None without `scale`.
    """
    factors = other_factors.detach()
    n_bases, n_factors, both = bases.shape
    means, variances = [], []
    for network, part in enumerate(bases.split(both // 2, dim=-1)):  # type: ignore[no-untyped-call]
        # [s_jb v_jk] times the bases below each other: one product, and no table of Phi_j.
        weighted = coefficients[:, network, :, None] * factors[:, None, :]
        means.append(weighted.flatten(1) @ part.reshape(n_bases * n_factors, -1))
        if scale is not None:
            projected = torch.einsum("jk,bkm->jbm", factors, part)
            variances.append(torch.einsum("jb,jbm->jm", scale[:, network] ** 2, projected**2))
    return torch.cat(means, dim=-1), torch.cat(variances, dim=-1) if variances else None


class TablePosterior(nn.Module):
    """What the Normal posterior of a table of weights has beside its means.

    Parameters
    ----------
    table : Tensor
        The means.
    start, prior : float
        Standard deviation of the posterior at the start, and of the prior.
    """

    prior_scale: Tensor

    def __init__(self, table: Tensor, *, start: float, prior: float) -> None:
        super().__init__()
        self.register_buffer("prior_scale", torch.tensor(prior))
        self.log_scale = nn.Parameter(torch.full_like(table, math.log(start)))

    def scale(self) -> Tensor:
        """Return the standard deviations, of the table's shape."""
        return self.log_scale.exp()

    def kl(self, table: Tensor) -> Tensor:
        """Return KL(q || p) of the whole table, a scalar in nats."""
        return weights_kl(table, self.log_scale, self.prior_scale)


def weights_kl(loc: Tensor, log_scale: Tensor, prior_scale: Tensor) -> Tensor:
    """Return the sum of KL(N(loc, scale^2) || N(0, prior_scale^2)) over a table, in nats."""
    relative = (2.0 * log_scale).exp().sum() + loc.square().sum()
    n = loc.numel()
    return 0.5 * (relative / prior_scale**2 - n) + (prior_scale.log() - log_scale).sum()
