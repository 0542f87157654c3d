r"""Moves along the directions in which ratings say nothing: exact, and of the size that the prior leaves.

No predictor changes when

1. every user's bias and their location rise by d while every item's bias and their location fall by d;
2. every item's factors and their location move by a vector d while user i's bias falls by
   :math:`u_i \cdot d`; and the same with the sides exchanged;
3. every user's k-th factor is multiplied by g and every item's divided by it, with the locations and implicit
   weights that they come from, and the precisions of all these accordingly.

Single-site sweeps creep along these lines, as one side's rows are drawn given the other's. Each of the first
two is the orbit of a group of translations, so a draw of d from its conditional, which is Normal, leaves the
posterior as it is (Liu and Sabatti 2000, doi 10.1093/biomet/87.2.353). Of the third the densities of rows,
locations and weights are left but for the volume, so that hyperpriors alone draw g.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ....model.implicit_feedback import ImplicitFeedback
from ....model.priors.conjugate import ConjugatePrior
from ....model.sides import Sides
from ....numerics import factorise, room
from ....numerics.slice_draw import slice_draw
from ..chain_state import ChainState, SideState

#: First interval of the slices of log g.
_WIDTH = 0.4


def shift_biases(state: ChainState, kappas: tuple[float, float]) -> None:
    """Draw the shift of users' against items' biases, in place.

    Parameters
    ----------
    state : ChainState
        Of rows whose last column is a bias.
    kappas : tuple of float
        Weights of the users' and the items' prior means of biases, in rows.
    """
    sides = (state.user, state.item)
    pulls = [k * side.precision[-1, -1].double() for k, side in zip(kappas, sides, strict=True)]
    total = pulls[0] + pulls[1]
    mean = (pulls[1] * state.item.location[-1] - pulls[0] * state.user.location[-1]) / total
    shift = mean + torch.randn_like(total) / total.sqrt()
    for side, sign in zip(sides, (1.0, -1.0), strict=True):
        moved = (sign * shift).to(side.rows.dtype)
        side.rows[:, -1] += moved
        side.location[-1] += moved


def shift_factors(moved: SideState, other: SideState, kappa: float, other_means: Tensor) -> None:
    r"""Draw the shift of one side's factors, which the other side's biases take up, in place.

    The shift's precision is :math:`\kappa \Lambda + \lambda \sum_i u_i u_i^T`, and its precision times its
    mean :math:`\lambda \sum_i u_i r_i - \kappa \Lambda \mu`, with :math:`r_i` the other side's biases about
    their prior means.

    Parameters
    ----------
    moved, other : SideState
        The side whose factors move, with location mu and precision Lambda, and the other one.
    kappa : float
        Weight of the moved factors' prior mean, in rows.
    other_means : Tensor, shape (n_other,)
        Prior means of the other side's biases.
    """
    factors = other.rows[:, :-1].double()
    about = (other.rows[:, -1] - other_means).double()
    pull = kappa * moved.precision[:-1, :-1].double()
    precision_of_bias = other.precision[-1, -1].double()
    precision = pull + precision_of_bias * factors.mT @ factors
    linear = precision_of_bias * factors.mT @ about - pull @ moved.location[:-1].double()
    root = factorise.cholesky(precision)
    mean = torch.cholesky_solve(linear.unsqueeze(-1), root)
    noise = torch.randn_like(mean)
    shift = (mean + torch.linalg.solve_triangular(root.mT, noise, upper=True)).squeeze(-1)
    step = shift.to(moved.rows.dtype)
    moved.rows[:, :-1] += step
    moved.location[:-1] += step
    other.rows[:, -1] -= (factors @ shift).to(other.rows.dtype)


@dataclass(frozen=True)
class ScaleDensity:
    """The log-density of t = log g.

    slope t - own exp(-2 t) - partner exp(2 t), and of either side's tail C -power log(1 + C exp(-2 t)), of
    the partner's with exp(2 t).
    """

    slope: float
    powers: tuple[float, float]
    own: float
    partner: float
    own_tail: float
    partner_tail: float

    def __call__(self, t: float) -> float:
        """Return the log-density at t."""
        if abs(t) > 300.0:
            return -math.inf
        down, up = math.exp(-2.0 * t), math.exp(2.0 * t)
        of_tails = self.powers[0] * math.log1p(self.own_tail * down)
        of_tails += self.powers[1] * math.log1p(self.partner_tail * up)
        return self.slope * t - self.own * down - self.partner * up - of_tails


def rescale_factors(
    state: ChainState, k: int, priors: Sides[ConjugatePrior], implicit: ImplicitFeedback | None
) -> None:
    """Draw the scale of each of the users' factors against that of the items', in place.

    Parameters
    ----------
    state : ChainState
    k : int
        Number of factors.
    priors : Sides of ConjugatePrior
        Of the factors.
    implicit : ImplicitFeedback, optional
        Of the model.
    """
    found, rates = [], []
    for side, prior in priors.by_side():
        own = state.of(side)
        terms = prior.factor_scale_terms(own.precision[:k, :k])
        rate = terms.rate
        if implicit is not None:
            rate = rate + implicit.scale**2 * own.weights_precision[:k].double()
        found.append(terms)
        rates.append(rate)
    # A of the weights' precisions is the same on either side.
    slope, powers = found[0].slope - found[1].slope, (found[0].power, found[1].power)
    read: list[list[float]] = torch.stack([*rates, *(terms.tails for terms in found)], 1).tolist()
    factors = [math.exp(slice_draw(ScaleDensity(slope, powers, *both), _WIDTH)) for both in read]
    drawn = room.to_device(factors, state.user.rows.device)
    state.user.scale_factors(drawn)
    state.item.scale_factors(1.0 / drawn)


def with_cuts_at(state: ChainState, means: Sides[Tensor], place: Tensor) -> tuple[ChainState, Sides[Tensor]]:
    """Return a state and the conditional means of its rows with the cuts' mean elsewhere.

    Parameters
    ----------
    state : ChainState
        Of an ordered likelihood, whose rows have a bias.
    means : Sides of Tensor, shape (n, D)
    place : Tensor, shape ()
        Where the cuts' mean is to be.
    """
    shift = place.to(state.cuts) - state.cuts.mean()
    step = torch.zeros_like(state.user.location)
    step[-1] = shift
    user = replace(state.user, rows=state.user.rows + step, location=state.user.location + step)
    moved = replace(state, user=user, cuts=state.cuts + shift)
    return moved, Sides(means.user + step, means.item)
