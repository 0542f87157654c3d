"""What Gibbs sweeps need of a prior: Normal rows, whose location and precision have full conditionals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pyro.distributions import TorchDistribution
from torch import Tensor


class ScaleTerms(NamedTuple):
    r"""How the density of a precision changes when rows are multiplied by g, up to a constant.

    At :math:`\Lambda / g^2`, and times the Jacobian of that scaling, it is in proportion to

    .. math:: g^A e^{-B g^{-2}} \prod_k (1 + C_k g^{-2})^{-p}.

    Attributes
    ----------
    slope : float
        A.
    rate : Tensor, shape (), or (K,) of each factor alone
        B: of a Wishart, and of what keeps a half-t away from zero.
    tails : Tensor, shape (n,), or (K,) of each factor alone
        C: of a half-t, one of every standard deviation; zeros of a Wishart.
    power : float
        p: zero of a Wishart.
    """

    slope: float
    rate: Tensor
    tails: Tensor
    power: float


def log_tails(tails: Sequence[float], power: float, inverse_square: float) -> float:
    """Return the logarithm of the product of (1 + C / g^2)^(-power) over tails C, given 1 / g^2."""
    if power == 0.0:
        return 0.0
    return -power * sum([math.log1p(tail * inverse_square) for tail in tails])


class ConjugatePrior(Protocol):
    r"""Normal rows with a Normal location, and a prior of the precision that has a full conditional.

    .. math:: u_i \sim N(\mu, \Lambda^{-1}), \qquad \mu \mid \Lambda \sim N(0, (\kappa \Lambda)^{-1}).

    A prior whose `Prior.conjugate` gives this is sampled by the sweeps, whatever the prior of its precision.
    """

    @property
    def kappa(self) -> float:
        """Weight of the prior mean of the location, in rows."""

    def guess(self, n_factors: int | None) -> float:
        """Return the prior's guess at the standard deviation of one of K factors, or of a bias (None)."""

    def draw(self, rows: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Draw location and precision given rows, and what the precision was.

        Parameters
        ----------
        rows : Tensor, shape (n, K), or (n,) of a bias, float64
        precision : Tensor, shape (K, K) or ()
            Given which hyperparameters of its prior are drawn first, where it has some.

        Returns
        -------
        location : Tensor, shape (K,) or ()
        precision : Tensor, shape (K, K) or ()
        """

    def scale_terms(self, precision: Tensor) -> ScaleTerms:
        """Return how the precision's density changes when rows are multiplied by a factor."""

    def factor_scale_terms(self, precision: Tensor) -> ScaleTerms:
        """Return the same of each factor, (K,), where that one alone is multiplied."""

    def expect(self, squares: Tensor, n: int) -> Tensor:
        r"""Return the mean of the best q of the precision, where rows and location have q of their own.

        Parameters
        ----------
        squares : Tensor, shape (K, K), or () of a bias, float64
            :math:`\sum_i E[(u_i - \mu)(u_i - \mu)^T] + \kappa E[\mu \mu^T]`.
        n : int
            Number of rows.

        Returns
        -------
        Tensor, shape (K, K) or ()
        """

    def posterior(self, mean: Tensor, n: int) -> TorchDistribution:
        """Return the q of the precision that n rows and their location leave, by its mean."""
