r"""Rows whose factors are correlated under q: a Cholesky factor from a head's outputs, and its KL.

The variance network's first outputs are the *marginal* standard deviations :math:`s_k`, as without
correlations; further outputs give the Cholesky factor C of a correlation matrix, so that

.. math:: \Sigma = \mathrm{diag}(s) \, C C^T \, \mathrm{diag}(s).

``full``: one output for each entry below the diagonal; row k of C is
:math:`(c_{k1}, \dots, c_{k,k-1}, 1)` divided by its length. ``low-rank``: outputs F of shape (K, rank), and
:math:`C C^T` is :math:`I + F F^T` scaled to a unit diagonal. Both are positive definite whatever the outputs.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, register_kl

from .settings import Covariance


class RowFactors(Protocol):
    """q of rows' factors: `IndependentRows` or `CorrelatedNormal`."""

    @property
    def mean(self) -> Tensor:
        """Means, shape (n, n_factors)."""

    @property
    def variance(self) -> Tensor:
        """Marginal variances, shape (n, n_factors)."""

    @property
    def tril(self) -> Tensor | None:
        """Cholesky factors of the rows' covariances, (n, n_factors, n_factors); None for diagonal ones."""


class IndependentRows(dist.Independent):
    """q of rows whose factors are independent: Pyro's own distribution."""

    tril: Tensor | None = None


class CorrelatedNormal(dist.MultivariateNormal):
    """q of rows' factors: Pyro's own distribution, with an analytic KL to independent Normals.

    A class of its own, as that KL would otherwise have to be registered for torch's, in the whole process.
    """

    @property
    def tril(self) -> Tensor:
        """Cholesky factors of the rows' covariances."""
        return self.scale_tril


def full_tril(q: RowFactors) -> Tensor:
    """Return the Cholesky factor of each row's covariance, (n, n_factors, n_factors)."""
    return torch.diag_embed(q.variance.sqrt()) if q.tril is None else q.tril


@register_kl(CorrelatedNormal, Independent)  # type: ignore[no-untyped-call,untyped-decorator]
def _kl_correlated_independent(q: CorrelatedNormal, p: Independent[Any]) -> Tensor:
    r"""KL(N(m, L L^T) || prod_k N(m0_k, s_k^2)), shape (n,), in nats."""
    base = p.base_dist
    if not isinstance(base, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    tril = q.scale_tril
    second = tril.square().sum(-1) + (q.loc - base.loc).square()
    entropy = tril.diagonal(dim1=-2, dim2=-1).log()
    return (0.5 * (second / base.scale**2 - 1.0) + base.scale.log() - entropy).sum(-1)


def n_correlations(n_factors: int, covariance: Covariance, rank: int) -> int:
    """Return how many outputs the correlations of a row need."""
    if covariance == "diagonal":
        return 0
    return n_factors * (n_factors - 1) // 2 if covariance == "full" else n_factors * rank


def correlation_tril(outputs: Tensor, n_factors: int, covariance: Covariance) -> Tensor:
    """Return C, the Cholesky factor of each row's correlation matrix.

    Parameters
    ----------
    outputs : Tensor, shape (n_rows, n_correlations)
    n_factors : int
    covariance : {"low-rank", "full"}

    Returns
    -------
    Tensor, shape (n_rows, n_factors, n_factors)
        Lower triangular, rows of length one.
    """
    if covariance == "full":
        below = torch.tril_indices(n_factors, n_factors, -1, device=outputs.device)
        eye = torch.eye(n_factors, dtype=outputs.dtype, device=outputs.device)
        places = below[0] * n_factors + below[1]
        flat = outputs.new_zeros(len(outputs), n_factors * n_factors).index_copy(1, places, outputs)
        tril = flat.view(-1, n_factors, n_factors) + eye
        return tril / cast(Tensor, torch.linalg.vector_norm(tril, dim=-1, keepdim=True))
    directions = outputs.view(len(outputs), n_factors, -1)
    # Rows of length one of [I, F]: their products are the correlations.
    length = torch.sqrt(1.0 + directions.square().sum(-1, keepdim=True))
    return tril_of_root(torch.cat([torch.diag_embed(1.0 / length.squeeze(-1)), directions / length], -1))


def tril_of_root(root: Tensor) -> Tensor:
    """Return the Cholesky factor of A A^T for A of shape (n, K, m), m at least K, of full rank.

    By QR of A^T: the product, whose condition is the square of A's, is never formed, and in single precision
    rows with correlations near one need that.
    """
    tril: Tensor = torch.linalg.qr(root.mT).R.mT
    sign = torch.where(tril.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(tril)
    result: Tensor = tril * sign.unsqueeze(-2)
    return result


def row_tril(scale: Tensor, correlation: Tensor, extra: Tensor | None, n_factors: int) -> Tensor:
    """Return the Cholesky factor of each row's covariance over factors and, last, the bias.

    The bias is independent of the factors: block-diagonal.

    Parameters
    ----------
    scale : Tensor, shape (n_rows, D)
        Marginal standard deviations without `extra`; D is `n_factors`, or one more with a bias.
    correlation : Tensor, shape (n_rows, n_factors, n_factors)
        Cholesky factor of the factors' correlations.
    extra : Tensor or None, shape (n_rows, D)
        Variances of independent parts that are added.

    Returns
    -------
    Tensor, shape (n_rows, D, D)
    """
    tril = scale[:, :n_factors, None] * correlation
    if extra is not None:
        tril = tril_of_root(torch.cat([tril, torch.diag_embed(extra[:, :n_factors].sqrt())], dim=-1))
    if scale.shape[1] == n_factors:
        return tril
    bias = scale[:, n_factors] if extra is None else (scale[:, n_factors] ** 2 + extra[:, n_factors]).sqrt()
    return torch.nn.functional.pad(tril, (0, 1, 0, 1)) + torch.diag_embed(
        torch.nn.functional.pad(bias[:, None], (n_factors, 0))
    )
