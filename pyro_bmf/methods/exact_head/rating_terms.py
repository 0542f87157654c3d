r"""What each rating says of its predictor, as a Normal: a target, and a share of the noise's precision.

A Normal rating is its own target. Of an ordered probit's log-probability at predictor eta, with utility z and
:math:`\tau` the precision of z,

.. math::

   \frac{d \log P}{d \eta} = \tau (E[z] - \eta), \qquad
   -\frac{d^2 \log P}{d \eta^2} = \tau \rho, \quad \rho = 1 - \tau \, \mathrm{var}(z),

so that :math:`\tau \rho` is the precision, and :math:`\eta + (E[z] - \eta) / \rho` the target, of the Normal
that agrees with it there in slope and curvature. A utility with a q of its own would have the precision
:math:`\tau` instead, and rows that are too certain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...model.likelihoods.normal_utilities import Utilities
from ...numerics.chunks import chunks

#: The least share: far from its cell a rating says where its predictor should be nearly to the point.
_LEAST_SHARE = 0.02
#: Ratings at once.
_RATINGS = 1_000_000


@dataclass(frozen=True, eq=False)
class RatingTerms:
    r"""Normals that stand for ratings.

    Attributes
    ----------
    target : Tensor, shape (nnz,)
        Less the centre.
    share : Tensor or None, shape (nnz,)
        rho; None for ones.
    squares : Tensor, shape (nnz,)
        E[(z - eta)^2] at the predictor's mean.
    constant : Tensor, shape (), float64
        The sum of what the log-probability is beyond :math:`-\tau \rho (target - \eta)^2 / 2`, nats.
    """

    target: Tensor
    share: Tensor | None
    squares: Tensor
    constant: Tensor

    def reordered(self, order: Tensor) -> RatingTerms:
        """Return the same ratings in another order."""
        share = None if self.share is None else self.share.index_select(0, order)
        target, squares = self.target.index_select(0, order), self.squares.index_select(0, order)
        return RatingTerms(target, share, squares, self.constant)


def rating_terms(
    utilities: Utilities, cuts: Tensor, eta: Tensor, precision: Tensor, observed: Tensor
) -> RatingTerms:
    """Return the Normals of ratings.

    Parameters
    ----------
    utilities : Utilities
    cuts : Tensor, shape (n_cuts,), float64
        Less the centre.
    eta : Tensor, shape (nnz,)
        Means of predictors, less the centre; what is returned has their dtype.
    precision : Tensor, shape (nnz,)
        Of utilities.
    observed : Tensor, shape (nnz,)
        As `Utilities.observe` gives it.
    """
    target, squares = torch.empty_like(eta), torch.empty_like(eta)
    share = torch.empty_like(eta) if utilities.latent else None
    constant = eta.new_zeros((), dtype=torch.float64)
    for part in chunks(len(eta), _RATINGS):
        at, tau = eta[part].double(), precision[part].double()
        mean, variance, log_prob = utilities.moments(cuts, at, tau.rsqrt(), observed[part])
        step = mean - at
        squares[part] = (step**2 + variance).to(eta.dtype)
        if share is None:
            target[part] = mean.to(eta.dtype)
            constant += (log_prob + 0.5 * tau * step**2).sum()
        else:
            rho = (1.0 - tau * variance).clamp_min(_LEAST_SHARE)
            share[part] = rho.to(eta.dtype)
            target[part] = (at + step / rho).to(eta.dtype)
            constant += (log_prob + 0.5 * tau * step**2 / rho).sum()
    return RatingTerms(target, share, squares, constant)


@dataclass(frozen=True, eq=False)
class AtPredictors:
    """Cut points about the centre, predictors, and the precisions or standard deviations of utilities."""

    cuts: Tensor
    eta: Tensor
    scale: Tensor


def say(unknown: Utilities, observed: Tensor, given: AtPredictors) -> RatingTerms:
    """Return `rating_terms` of these ratings."""
    return rating_terms(unknown, given.cuts, given.eta, given.scale, observed)


def cuts_ahead(
    unknown: Utilities, observed: Tensor, steps: int, given: AtPredictors
) -> tuple[Tensor, Tensor] | None:
    """Return so many steps of cut points, as `Utilities.cuts_ahead` does."""
    return unknown.cuts_ahead(given.cuts, given.eta, given.scale, observed, steps=steps)
