r"""Moves along the directions in which ratings say nothing: exact, and of the size that the prior leaves.

No predictor changes when

1. every user's bias and their location rise by d while every item's bias and their location fall by d;
2. every item's factors and their location move by a vector d while user i's bias falls by
   :math:`u_i \cdot d`; and the same with the sides exchanged.

Single-site sweeps creep along these lines, as one side's biases are drawn given the other's. Each line is
the orbit of a group of translations, so a draw of d from its conditional, which is Normal, leaves the
posterior as it is (Liu and Sabatti 2000, doi 10.1093/biomet/87.2.353).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...model.sides import Sides
from ...numerics import factorise
from .chain_state import ChainState, SideState


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
