r"""Amplitudes of what a predictor is the sum of, each drawn with its rows' prior: given utilities alone.

A predictor is the sum of :math:`u_{ik} v_{jk}` over factors, and of b_i + c_j, about the centre. Given the
rows, their prior's precision moves by a few percent a sweep, and given the prior, rows that have few ratings
stay as large as it says: what share of the ratings each part explains creeps. Multiplying by g a part's rows
and the locations and implicit weights that they come from, and dividing by g the rows and columns of
precisions that go with them, leaves their densities as they are but for the volume (`scale_moves`), so that
hyperpriors and utilities are left: with e the part, r = z - eta what predictors leave of the utilities, and
tau their precisions, the logarithm of the density at t = log g is

.. math::

   A t - B e^{-2t} - p \sum \log(1 + C e^{-2t}) + l e^t - \frac{1}{2} q e^{2t}, \qquad
   q = \sum \tau_{ij} e_{ij}^2, \quad l = q + \sum \tau_{ij} e_{ij} r_{ij}.

Factors are scaled on either side, as each side has a prior, all of them and then each: weak ones, of which
ratings say little, would creep longest. All that the ratings say of them is sums of products of two factors'
parts, (K, K), and of parts and r, (K,), in which one amplitude after the other is drawn. Interweaving: Yu and
Meng (2011), doi 10.1198/jcgs.2011.203main.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....model.implicit_feedback import ImplicitFeedback
from ....model.priors.conjugate import ConjugatePrior, log_tails
from ....model.sides import SIDES, Sides
from ....numerics import room
from ....numerics.chunks import chunks
from ....numerics.slice_draw import slice_draw
from ...recording import AS_ASKED, Looks
from ..chain_state import ChainState, SideState
from ..known_parts import SidePriors

#: First interval of the slices of log g.
_WIDTH = 0.4
#: Numbers of pairs' parts that are made at once.
_CELLS = 800_000


@dataclass(frozen=True)
class AmplitudeDensity:
    """The log-density of t = log g.

    slope t - rate exp(-2 t) - power sum log(1 + tails exp(-2 t)) + linear exp(t) - square exp(2 t) / 2.
    """

    slope: float
    rate: float
    linear: float
    square: float
    tails: list[float]
    power: float

    def __call__(self, t: float) -> float:
        """Return the log-density at t."""
        if abs(t) > 300.0:
            return -math.inf
        g = math.exp(t)
        prior = self.slope * t - self.rate / g**2 + log_tails(self.tails, self.power, 1.0 / g**2)
        return prior + g * (self.linear - 0.5 * self.square * g)


def draw_amplitudes(
    state: ChainState,
    priors: Sides[SidePriors],
    implicit: ImplicitFeedback | None,
    pairs: Sides[Tensor],
    left: Tensor,
    precision: Tensor,
    looks: Looks = AS_ASKED,
) -> None:
    """Draw the amplitudes of both sides' biases and of their factors, in place.

    Parameters
    ----------
    state : ChainState
    priors : Sides of SidePriors
        A side without a prior of biases has none.
    implicit : ImplicitFeedback, optional
        Of the model.
    pairs : Sides of Tensor, shape (nnz,)
        Row of either side of every rating.
    left : Tensor, shape (nnz,), float64
        Utilities less predictors.
    precision : Tensor, shape (nnz,), float64
        Of the utilities.
    looks : Looks
        Makes the numbers that are read.
    """
    for side in SIDES:
        prior = priors.of(side).bias
        if prior is not None:
            look = partial(looks, f"Amplitude of {side}s' biases")
            read = partial(look, partial(_read_bias, prior, implicit, pairs.of(side)))
            left = _left_by_bias(state.of(side), read, left, precision)
    of_factors = partial(_read_factors, priors, implicit, pairs)
    _draw_factors(state, looks("Amplitudes of factors", of_factors, _OfFactors(state, left, precision)))


@dataclass(frozen=True, eq=False)
class _OfBias:
    """What is read of a side's biases: the side, utilities less predictors, and their precisions, (nnz,)."""

    own: SideState
    left: Tensor
    precision: Tensor


@dataclass(frozen=True, eq=False)
class _ReadBias:
    """A and p; B, q, q less l and tails in a row; and the biases' part of predictors, (nnz,)."""

    slope: float
    power: float
    numbers: Tensor
    part: Tensor


def _read_bias(
    prior: ConjugatePrior, implicit: ImplicitFeedback | None, rows: Tensor, given: _OfBias
) -> _ReadBias:
    own = given.own
    slope, rate, tails, power = prior.scale_terms(own.precision[-1, -1])
    if implicit is not None:
        slope, rate = slope - 2.0, rate + implicit.scale**2 * own.weights_precision[-1].double()
    part = own.rows[:, -1].index_select(0, rows).double()
    weighted = given.precision * part
    numbers = torch.stack([rate, weighted @ part, weighted @ given.left, *tails])
    return _ReadBias(slope, power, numbers, part)


def _left_by_bias(
    own: SideState, look: Callable[[_OfBias], _ReadBias], left: Tensor, precision: Tensor
) -> Tensor:
    """Draw the amplitude of a side's biases, in place, and return what predictors then leave."""
    found = look(_OfBias(own, left, precision))
    read: list[float] = found.numbers.tolist()
    density = AmplitudeDensity(found.slope, read[0], read[1] + read[2], read[1], read[3:], found.power)
    factor = math.exp(slice_draw(density, _WIDTH))
    own.rows[:, -1] *= factor
    own.location[-1] *= factor
    own.weights[:, -1] *= factor
    own.precision[-1, -1] /= factor**2
    own.weights_precision[-1] /= factor**2
    return left - (factor - 1.0) * found.part


@dataclass(frozen=True, eq=False)
class _OfFactors:
    """What is read of factors: the state, utilities less predictors, and their precisions, (nnz,)."""

    state: ChainState
    left: Tensor
    precision: Tensor


@dataclass(frozen=True, eq=False)
class _ReadFactors:
    """A and p of a factor of either side; sums of parts, B of both sides and tails of both, (K + 5, K)."""

    slopes: tuple[float, ...]
    powers: tuple[float, ...]
    numbers: Tensor


def _read_factors(
    priors: Sides[SidePriors], implicit: ImplicitFeedback | None, pairs: Sides[Tensor], given: _OfFactors
) -> _ReadFactors:
    state = given.state
    k = len(state.user.precision) - (priors.user.bias is not None)
    terms = [priors.of(side).factors.factor_scale_terms(state.of(side).precision[:k, :k]) for side in SIDES]
    slopes, rates = [one.slope for one in terms], [one.rate for one in terms]
    if implicit is not None:
        slopes = [slope - 2.0 for slope in slopes]
        own_rates = (state.of(side).weights_precision[:k].double() for side in SIDES)
        rates = [rate + implicit.scale**2 * more for rate, more in zip(rates, own_rates, strict=True)]
    gram, linear = sums_of_parts(state, pairs, given.left, given.precision, k)
    # One wait for the device: all that densities are made of.
    ours = torch.stack([*rates, *(one.tails for one in terms)])
    numbers = torch.cat([gram, linear.unsqueeze(0), ours])
    return _ReadFactors(tuple(slopes), tuple(one.power for one in terms), numbers)


def _draw_factors(state: ChainState, found: _ReadFactors) -> None:
    """Draw the amplitude of all factors, then of each, first on the users' side, then on the items'."""
    read, device = found.numbers.cpu().numpy(), found.numbers.device
    k = read.shape[1]
    drawn, every = np.ones((2, k)), np.arange(k)
    for i, (own, slope, power) in enumerate(zip(drawn, found.slopes, found.powers, strict=True)):
        for chosen in (every, *every.reshape(-1, 1)):
            rate, tails = read[[k + 1 + i, k + 3 + i]] / own**2
            density = density_of(chosen, drawn.prod(0), read[:k], read[k], slope, rate, tails, power)
            own[chosen] *= math.exp(slice_draw(density, _WIDTH))
    for side, factors in zip(SIDES, drawn, strict=True):
        state.of(side).scale_factors(room.to_device(factors.tolist(), device))


def sums_of_parts(
    state: ChainState, pairs: Sides[Tensor], left: Tensor, precision: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    r"""Return what ratings say of the parts :math:`e_k = u_{ik} v_{jk}`, float64.

    Returns
    -------
    gram : Tensor, shape (k, k)
        :math:`\sum \tau_{ij} e_k e_l`.
    linear : Tensor, shape (k,)
        :math:`\sum \tau_{ij} e_k r_{ij}`.
    """
    u, v = state.user.rows[:, :k].contiguous(), state.item.rows[:, :k].contiguous()
    gram, linear = left.new_zeros(k, k), left.new_zeros(k)
    for part in chunks(len(left), room.cells_on(left.device, _CELLS) // k):
        parts = u.index_select(0, pairs.user[part]) * v.index_select(0, pairs.item[part])
        weighted = parts * precision[part].to(parts.dtype).unsqueeze(1)
        gram += weighted.mT @ parts
        linear += weighted.mT @ left[part].to(parts.dtype)
    return gram, linear


def density_of(
    chosen: NDArray[np.int64],
    drawn: NDArray[np.float64],
    gram: NDArray[np.float64],
    linear: NDArray[np.float64],
    slope: float,
    rates: NDArray[np.float64],
    tails: NDArray[np.float64],
    power: float,
) -> AmplitudeDensity:
    """Return the density of the amplitude that some factors have in common.

    Parameters
    ----------
    chosen : ndarray
        Which factors.
    drawn : ndarray, shape (K,)
        What all have been multiplied by since the sums were made.
    gram, linear : ndarray, shape (K, K) and (K,)
        Of `sums_of_parts`.
    slope : float
        A of one factor: those of several add up.
    rates, tails : ndarray, shape (K,)
        B and C of each factor as it stands.
    power : float
        p, the same of each.
    """
    parts = drawn[chosen]
    square = float(parts @ gram[np.ix_(chosen, chosen)] @ parts)
    left = float(parts @ (linear[chosen] - gram[chosen] @ (drawn - 1.0)))
    slope, rate = len(chosen) * slope, float(rates[chosen].sum())
    return AmplitudeDensity(slope, rate, square + left, square, tails[chosen].tolist(), power)
