r"""Amplitudes of what a predictor is the sum of, each drawn with its rows' prior: given utilities alone.

A predictor is u.v + b_i + c_j about the centre. Given the rows, their prior's precision moves by a few
percent a sweep, and given the prior, rows that have few ratings stay as large as it says: what share of the
ratings each part explains creeps. Multiplying by g a part's rows and the locations and implicit weights that
they come from, and dividing the precisions of all three by g squared, leaves their densities as they are but
for the volume (`scale_moves`), so that hyperpriors and utilities are left: with e the part, r = z - eta what
predictors leave of the utilities, and tau their precisions, the logarithm of the density at t = log g is

.. math::

   A t - B e^{-2t} + l e^t - \frac{1}{2} q e^{2t}, \qquad
   q = \sum \tau_{ij} e_{ij}^2, \quad l = q + \sum \tau_{ij} e_{ij} r_{ij}.

Factors are scaled on either side, as each has a prior. Interweaving: Yu and Meng (2011), doi
10.1198/jcgs.2011.203main.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...model.implicit_feedback import ImplicitFeedback
from ...model.priors.conjugate import ConjugatePrior
from ...model.sides import SIDES, Sides
from ...numerics.slice_draw import slice_draw
from .chain_state import ChainState, SideState
from .known_parts import SidePriors

#: First interval of the slices of log g.
_WIDTH = 0.4


@dataclass(frozen=True, eq=False)
class Parts:
    """What predictors about the centre are the sum of, at every rating: float64, (nnz,).

    Attributes
    ----------
    product : Tensor
        u.v.
    biases : Sides of Tensor
        b_i and c_j, 0 where there are none.
    """

    product: Tensor
    biases: Sides[Tensor]

    @classmethod
    def of(cls, state: ChainState, pairs: Sides[Tensor], about: Tensor, *, biases: bool) -> Parts:
        """Return the parts of predictors about the centre, (nnz,), of pairs of rows."""
        if not biases:
            zero = about.new_zeros((), dtype=torch.float64)
            return cls(about.double(), Sides(zero, zero))
        user = state.user.rows[:, -1].index_select(0, pairs.user).double()
        item = state.item.rows[:, -1].index_select(0, pairs.item).double()
        return cls(about.double() - user - item, Sides(user, item))


@dataclass(frozen=True)
class AmplitudeDensity:
    """The log-density of t = log g: slope t - rate exp(-2 t) + linear exp(t) - square exp(2 t) / 2."""

    slope: float
    rate: float
    linear: float
    square: float

    def __call__(self, t: float) -> float:
        """Return the log-density at t."""
        if abs(t) > 300.0:
            return -math.inf
        g = math.exp(t)
        return self.slope * t - self.rate / g**2 + g * (self.linear - 0.5 * self.square * g)


def draw_amplitudes(
    state: ChainState,
    priors: Sides[SidePriors],
    implicit: ImplicitFeedback | None,
    parts: Parts,
    left: Tensor,
    precision: Tensor,
) -> Tensor:
    """Draw the amplitudes of both sides' biases and factors, in place.

    Parameters
    ----------
    state : ChainState
    priors : Sides of SidePriors
    implicit : ImplicitFeedback, optional
        Of the model.
    parts : Parts
        What the predictors are the sum of.
    left : Tensor, shape (nnz,), float64
        Utilities less predictors.
    precision : Tensor, shape (nnz,), float64
        Of the utilities.

    Returns
    -------
    Tensor, shape (nnz,), float64
        What the predictors are more than before.
    """
    before = left
    for side in SIDES:
        own, prior = state.of(side), priors.of(side)
        k = len(own.precision) - (prior.bias is not None)
        if prior.bias is not None:
            density = amplitude_density(
                own, prior.bias, implicit, slice(k, None), parts.biases.of(side), left, precision
            )
            factor = _draw(own, slice(k, None), density)
            left = left - (factor - 1.0) * parts.biases.of(side)
    product = parts.product
    for side in SIDES:
        own, prior = state.of(side), priors.of(side)
        k = len(own.precision) - (prior.bias is not None)
        density = amplitude_density(own, prior.factors, implicit, slice(None, k), product, left, precision)
        factor = _draw(own, slice(None, k), density)
        left, product = left - (factor - 1.0) * product, factor * product
    return before - left


def amplitude_density(
    own: SideState,
    prior: ConjugatePrior,
    implicit: ImplicitFeedback | None,
    columns: slice,
    part: Tensor,
    left: Tensor,
    precision: Tensor,
) -> AmplitudeDensity:
    """Return the density of the amplitude of some columns of a side's rows (see `draw_amplitudes`).

    Parameters
    ----------
    columns : slice
        All of the factors, or the bias.
    part : Tensor, shape (nnz,), float64
        What these columns make of the predictors.
    """
    block = own.precision[columns, columns]
    slope, rate = prior.scale_terms(block if columns.start is None else block.squeeze())
    if implicit is not None:
        weights = own.weights_precision[columns].double()
        slope, rate = slope - 2.0 * len(weights), rate + implicit.scale**2 * weights.sum()
    weighted = precision * part
    read: list[float] = torch.stack([rate, weighted @ part, weighted @ left]).tolist()
    return AmplitudeDensity(slope, read[0], read[1] + read[2], read[1])


def _draw(own: SideState, columns: slice, density: AmplitudeDensity) -> float:
    """Draw a factor, and multiply by it what it is of."""
    factor = math.exp(slice_draw(density, _WIDTH))
    own.rows[:, columns] *= factor
    own.location[columns] *= factor
    own.weights[:, columns] *= factor
    own.precision[columns, columns] /= factor**2
    own.weights_precision[columns] /= factor**2
    return factor
