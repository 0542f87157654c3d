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

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...model.feedback import Feedback
from ...model.fitted import NormalRowsGuide, RowPriors
from ...model.rows import RowPosterior
from ...numerics.truncated_normal import truncated_mean
from ..kernel import Conditional, Entries

Side = Literal["user", "item"]
_LOCAL_STEPS = 25


class ConjugateGuide(NormalRowsGuide, nn.Module):
    """Normal rows with full covariances, and the moments that give new rows theirs.

    Parameters
    ----------
    n_users, n_items, n_factors : int
    biases : bool
    n_cuts : int
        Of an ordered likelihood; 0 for a Normal one.

    Attributes
    ----------
    {side}_loc : Tensor, shape (n, D)
    {side}_covariance : Tensor, shape (n, D, D)
    {side}_prior : Tensor, shape (D,)
        Prior precision of each factor and, last, the bias.
    noise : Tensor, shape ()
        Precision of a rating or utility.
    cuts, middles : Tensor, shape (n_cuts,)
    centre : Tensor, shape ()
    """

    joint_bias = True
    noise: Tensor
    cuts: Tensor
    middles: Tensor
    centre: Tensor

    def __init__(self, n_users: int, n_items: int, n_factors: int, *, biases: bool, n_cuts: int = 0) -> None:
        super().__init__()
        self.n_users, self.n_items, self.n_factors = n_users, n_items, n_factors
        self.biases, self.n_cuts = biases, n_cuts
        width = n_factors + biases
        for side, n in (("user", n_users), ("item", n_items)):
            self.register_buffer(f"{side}_loc", torch.zeros(n, width))
            self.register_buffer(f"{side}_covariance", torch.eye(width).repeat(n, 1, 1))
            self.register_buffer(f"{side}_prior", torch.ones(width))
        self.register_buffer("noise", torch.ones((), dtype=torch.float64))
        self.register_buffer("cuts", torch.zeros(n_cuts, dtype=torch.float64))
        self.register_buffer("middles", torch.zeros(n_cuts, dtype=torch.float64))
        self.register_buffer("centre", torch.zeros((), dtype=torch.float64))

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this guide's shape by `from_settings`, as plain values."""
        return {
            "kind": "conjugate",
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_factors": self.n_factors,
            "biases": self.biases,
            "n_cuts": self.n_cuts,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> ConjugateGuide:
        """Build a guide of a saved shape; its moments are to be loaded into it."""
        return cls(**{name: value for name, value in settings.items() if name != "kind"})

    # ---------------------------------------------------------------- the step

    def features(self, side: Side) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the other side's E[f] (m, D), E[f f^T] flattened (m, D D), E[f c] (m, D), E[c] (m,)."""
        other = "item" if side == "user" else "user"
        loc, covariance = getattr(self, f"{other}_loc"), getattr(self, f"{other}_covariance")
        second = covariance + loc.unsqueeze(2) * loc.unsqueeze(1)
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
        tau = self.noise.to(mean.dtype)
        width = mean.shape[1]
        information = tau * entries.sum(products).view(-1, width, width)
        linear = tau * (entries.sum(mean, utilities) - entries.sum(with_bias))
        prior = torch.diag(getattr(self, f"{side}_prior"))
        return Conditional.of(prior, information, linear), information

    def rows(self, loc: Tensor, covariance: Tensor) -> RowPosterior:
        """Return rows with these moments over [factors, bias]."""
        scale = covariance.diagonal(dim1=1, dim2=2).sqrt()
        tril = torch.linalg.cholesky(covariance)
        if not self.biases:
            return RowPosterior(loc, scale, tril=tril)
        return RowPosterior(loc[:, :-1], scale[:, :-1], loc[:, -1], scale[:, -1], tril=tril)

    def known_rows(self, side: Side) -> RowPosterior:
        """Return the training rows' q."""
        return self.rows(getattr(self, f"{side}_loc"), getattr(self, f"{side}_covariance"))

    def row_priors(self, side: Side, feedback: Feedback) -> RowPriors:
        """Return the Normals about zero whose scales were learned with the rest."""
        precision = torch.diag(getattr(self, f"{side}_prior").double())
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
        dtype = getattr(self, f"{side}_loc").dtype
        entries = Entries.build(
            feedback.indptr, feedback.indices, feedback.t_indptr, feedback.t_indices, dtype
        )
        values = feedback.values.to(dtype)
        found, _ = self.conditional(side, entries, values)
        zero = torch.zeros(getattr(self, f"{side}_loc").shape[1], dtype=dtype, device=values.device)
        loc = found.mean(zero)
        if self.n_cuts:
            place = torch.searchsorted(self.middles - self.centre, values.double())
            for _ in range(_LOCAL_STEPS):
                eta = self.predictors(loc, entries, side).double()
                utilities = truncated_mean(eta, self.noise.rsqrt(), self.cuts - self.centre, place)[0]
                found, _ = self.conditional(side, entries, utilities.to(dtype))
                loc = found.mean(zero)
        return self.rows(loc, found.covariance())
