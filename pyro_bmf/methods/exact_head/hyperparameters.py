"""The q of what rows' priors are made of: conjugate, so given by its means and the number of rows.

A side's prior has the location mu (Normal), the precision of factors (whose q the prior itself knows, a
Wishart) and of biases, and the precisions of the encoder's weights (Gammas).
"""

from __future__ import annotations

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ...model.priors.conjugate import ConjugatePrior
from ...model.sides import Side


class SidePriors(NamedTuple):
    """The priors of one side's factors and biases, and the guess at an implicit weight's scale."""

    factors: ConjugatePrior
    bias: ConjugatePrior | None
    weights_scale: float


def expected_precision(priors: SidePriors, squares: Tensor, n: int) -> Tensor:
    """Return E[Lambda] (D, D), block-diagonal, of the best q.

    Parameters
    ----------
    squares : Tensor, shape (D, D), float64
        Sums of E[(w_i - m_i)(w_i - m_i)^T] and, kappa times, of E[mu mu^T].
    n : int
        Number of rows.
    """
    k = len(squares) - (priors.bias is not None)
    factors = priors.factors.expect(squares[:k, :k], n)
    if priors.bias is None:
        return factors
    bias = priors.bias.expect(squares[k, k], n)
    joined: Tensor = torch.block_diag(factors, bias.reshape(1, 1))  # type: ignore[no-untyped-call]
    return joined


def times_kappa(priors: SidePriors, matrix: Tensor) -> Tensor:
    """Return the block of factors and that of the bias (D, D), each times its prior's kappa.

    Of E[Lambda] it is the precision of the prior of mu; of E[mu mu^T] what the q of Lambda counts of mu.
    """
    kappas = torch.full_like(matrix[0], priors.factors.kappa)
    if priors.bias is not None:
        kappas[-1].fill_(priors.bias.kappa)
    return by_block(matrix, biases=priors.bias is not None) * kappas


def by_block(matrix: Tensor, *, biases: bool) -> Tensor:
    """Return a matrix (D, D) without what is between factors and bias."""
    if not biases:
        return matrix
    joined: Tensor = torch.block_diag(matrix[:-1, :-1], matrix[-1:, -1:])  # type: ignore[no-untyped-call]
    return joined


def weights_gamma(precision: Tensor, n: int) -> dist.Gamma:
    """Return the q of the precisions (D,) of n weights each, by their means."""
    shape = torch.full_like(precision, 1.0 + 0.5 * n)
    return dist.Gamma(shape, shape / precision)


def sample_prior(
    side: Side, priors: SidePriors, location: Tensor, covariance: Tensor, precision: Tensor, n: int
) -> Tensor:
    """Sample the sites of a side's priors from their q, and return the location (D,) in its dtype."""
    k = len(location) - (priors.bias is not None)
    pyro.sample(f"{side}_factors_precision", priors.factors.posterior(precision[:k, :k].double(), n))
    q = dist.MultivariateNormal(location[:k].double(), covariance[:k, :k].double())
    drawn = pyro.sample(f"{side}_factors_location", q)
    if priors.bias is None:
        return drawn.to(location.dtype)
    pyro.sample(f"{side}_bias_precision", priors.bias.posterior(precision[k, k], n))
    bias = pyro.sample(f"{side}_bias_location", dist.Normal(location[k], covariance[k, k].sqrt()))
    return torch.cat([drawn.to(location.dtype), bias.reshape(1)])
