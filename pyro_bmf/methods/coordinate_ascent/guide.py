r"""The exact coordinate-ascent guide: every row's q is its conditional given the moments of the other side.

.. math::

   q^*(u_i) = N\left(P_i^{-1} h_i, P_i^{-1}\right), \quad
   P_i = \mathrm{diag}(s^{-2}) + \tau \sum_j E[f_j f_j^T], \quad
   h_i = \tau \sum_j E[f_j (z_{ij} - c_j)], \quad f_j = [v_j, 1],

with full covariances over factors and bias. Under a Normal likelihood z is the rating; under an ordered
probit it is the mean of a utility that has a q of its own, a truncated Normal about E[eta] (a local
Gaussian approximation whose natural-gradient step is this same update). New rows are given by the same
formula.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import SettingsError
from ...model.feedback import Feedback
from ...model.fitted import NormalRowsGuide, RowPriors
from ...model.likelihoods.normal import Likelihood
from ...model.likelihoods.normal_utilities import Utilities
from ...model.rows import RowPosterior
from ...model.sides import Side, TwoSides
from ..kernel import Conditional, Entries

_LOCAL_STEPS = 25
#: Standard deviation of what stands for a point: small beside every factor, and a covariance has a root.
POINT_SCALE = 1e-6


class RowMoments(nn.Module):
    """Moments of one side's rows, and of their prior.

    Attributes
    ----------
    loc : Tensor, shape (n, D)
    covariance : Tensor, shape (n, D, D)
    prior_precision : Tensor, shape (D,)
        Of each factor and, last, the bias.
    """

    loc: Tensor
    covariance: Tensor
    prior_precision: Tensor

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(n, width))
        self.register_buffer("covariance", torch.eye(width).repeat(n, 1, 1))
        self.register_buffer("prior_precision", torch.ones(width))

    def second(self) -> Tensor:
        """Return E[u u^T], (n, D, D)."""
        return self.covariance + self.loc.unsqueeze(2) * self.loc.unsqueeze(1)


class ConjugateGuide(NormalRowsGuide, TwoSides[RowMoments], nn.Module):
    """Normal rows with full covariances, and the moments that give new rows theirs.

    Parameters
    ----------
    n_users, n_items, n_factors : int
    biases : bool
    n_cuts : int
        Of an ordered likelihood; 0 for a Normal one.
    point : bool
        Whether q is a point, the conditional's mean: all its standard deviations are 1e-6.

    Attributes
    ----------
    user, item : RowMoments
    noise_precision : Tensor, shape ()
        Of a rating or utility.
    cuts : Tensor, shape (n_cuts,)
    centre : Tensor, shape ()
    """

    joint_bias = True
    noise_precision: Tensor
    cuts: Tensor
    centre: Tensor

    def __init__(
        self,
        n_users: int,
        n_items: int,
        n_factors: int,
        *,
        biases: bool,
        n_cuts: int = 0,
        point: bool = False,
    ) -> None:
        super().__init__()
        self.n_users, self.n_items, self.n_factors = n_users, n_items, n_factors
        self.biases, self.n_cuts, self.point = biases, n_cuts, point
        width = n_factors + biases
        self.user, self.item = RowMoments(n_users, width), RowMoments(n_items, width)
        self.register_buffer("noise_precision", torch.ones((), dtype=torch.float64))
        self.register_buffer("cuts", torch.zeros(n_cuts, dtype=torch.float64))
        self.register_buffer("centre", torch.zeros((), dtype=torch.float64))
        self._utilities: Utilities | None = None

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this guide's shape by `from_settings`, as plain values."""
        return {
            "kind": "conjugate",
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_factors": self.n_factors,
            "biases": self.biases,
            "n_cuts": self.n_cuts,
            "point": self.point,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> ConjugateGuide:
        """Build a guide of a saved shape; its moments are to be loaded into it."""
        return cls(**{name: value for name, value in settings.items() if name != "kind"})

    def attach(self, users: Any, items: Any, likelihood: Likelihood) -> None:
        """Put the likelihood in place, by which new rows' ratings are read."""
        del users, items
        self._utilities = likelihood.utilities()

    # ---------------------------------------------------------------- the step

    def features(self, side: Side) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the other side's E[f] (m, D), E[f f^T] flattened (m, D D), E[f c] (m, D), E[c] (m,)."""
        other = self.opposite(side)
        loc, second = other.loc, other.second()
        if not self.biases:
            nothing = torch.zeros_like(loc)
            return loc, second.flatten(1), nothing, nothing[:, 0]
        mean, bias, with_bias = loc.clone(), loc[:, -1].clone(), second[:, :, -1].clone()
        mean[:, -1] = 1.0
        products = second.clone()
        products[:, -1, :] = mean
        products[:, :, -1] = mean
        with_bias[:, -1] = bias
        return mean, products.flatten(1), with_bias, bias

    def conditional(self, side: Side, entries: Entries, utilities: Tensor) -> tuple[Conditional, Tensor]:
        """Return q* of the rows of `entries`, and their ratings' information (n, D, D).

        Parameters
        ----------
        utilities : Tensor, shape (nnz,)
            Ratings, or means of utilities, less the centre.
        """
        mean, products, with_bias, _ = self.features(side)
        tau = self.noise_precision.to(mean.dtype)
        width = mean.shape[1]
        information = tau * entries.sum(products).view(-1, width, width)
        linear = tau * (entries.sum(mean, utilities) - entries.sum(with_bias))
        prior = torch.diag(self.of(side).prior_precision)
        return Conditional.of(prior, information, linear), information

    def covariance(self, found: Conditional) -> Tensor:
        """Return the covariances of q* whose conditionals these are, (n, D, D)."""
        if not self.point:
            return found.covariance()
        eye = torch.eye(found.linear.shape[1], dtype=found.linear.dtype, device=found.linear.device)
        return (POINT_SCALE**2 * eye).expand(len(found.linear), -1, -1)

    def rows(self, loc: Tensor, covariance: Tensor) -> RowPosterior:
        """Return rows with these moments over [factors, bias]."""
        scale = covariance.diagonal(dim1=1, dim2=2).sqrt()
        tril = torch.linalg.cholesky(covariance)
        if not self.biases:
            return RowPosterior(loc, scale, tril=tril)
        return RowPosterior(loc[:, :-1], scale[:, :-1], loc[:, -1], scale[:, -1], tril=tril)

    def known_rows(self, side: Side) -> RowPosterior:
        """Return the training rows' q."""
        return self.rows(self.of(side).loc, self.of(side).covariance)

    def row_priors(self, side: Side, feedback: Feedback) -> RowPriors:
        """Return the Normals about zero whose scales were learned with the rest."""
        precision = torch.diag(self.of(side).prior_precision.double())
        mean = precision.new_zeros(feedback.n_rows, len(precision))
        return RowPriors(lambda draw: (precision, mean), shared=True)

    def predictors(self, loc: Tensor, entries: Entries, side: Side) -> Tensor:
        """Return E[eta] less the centre of every entry, for rows with these means."""
        mean, _, _, bias = self.features(side)
        at = entries.indices.long()
        eta: Tensor = (mean[at] * loc[entries.rows]).sum(-1) + bias[at]
        return eta

    @torch.no_grad()
    def encode_side(self, side: Side, feedback: Feedback) -> RowPosterior:
        """Return q* of new rows from their own ratings: no training, nothing else moves."""
        if self._utilities is None:
            raise SettingsError("The likelihood is not attached: load or make the posterior as a whole.")
        dtype = self.of(side).loc.dtype
        entries, values = Entries.of(feedback, dtype), feedback.values.to(dtype)
        found, _ = self.conditional(side, entries, values)
        zero = torch.zeros_like(found.linear[0])
        loc = found.mean(zero)
        if self._utilities.latent:
            observed, cuts = self._utilities.observe(values + self.centre), self.cuts - self.centre
            for _ in range(_LOCAL_STEPS):
                eta = self.predictors(loc, entries, side).double()
                utilities = self._utilities.expect(cuts, eta, self.noise_precision.rsqrt(), observed)[0]
                found, _ = self.conditional(side, entries, utilities.to(dtype))
                loc = found.mean(zero)
        return self.rows(loc, self.covariance(found))
