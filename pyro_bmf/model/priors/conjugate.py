"""What Gibbs sweeps need of a prior: Normal rows, whose location and precision have full conditionals."""

from __future__ import annotations

from typing import Protocol

from pyro.distributions import TorchDistribution
from torch import Tensor


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

    def scale_terms(self, precision: Tensor) -> tuple[float, Tensor, Tensor]:
        r"""Return A, B and C of the precision's density when rows are multiplied by g.

        At :math:`\Lambda / g^2`, and times the Jacobian of that scaling, it is in proportion to
        :math:`g^A e^{-B g^{-2}} (1 + C g^{-2})^{-3/2}`: see `pyro_bmf.methods.gibbs.scale_moves`.
        """

    def factor_scale_terms(self, precision: Tensor) -> tuple[float, Tensor]:
        """Return A, and B of each factor, (K,), where that one alone is multiplied: as `scale_terms`."""

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
