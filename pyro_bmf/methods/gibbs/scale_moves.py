r"""A move along the scale of an ordered likelihood's utilities: exact, and of the size that the priors leave.

Where rows have noise of their own no probability changes when, with a factor g,

- users' factors, both sides' biases, the locations and implicit weights they come from, and the cuts about
  the centre are multiplied by g, and the precisions of their priors divided by g squared;
- the precision multipliers of one side's noise are divided by g squared.

Sweeps creep along this line, as cuts are drawn given predictors and predictors given utilities. It is the
orbit of a group of scalings, so a draw of g from its conditional under Haar's measure leaves the posterior
as it is (Liu and Sabatti 2000, doi 10.1093/biomet/87.2.353). Densities of rows, locations and weights change
by just what the Jacobian takes back; of what is left, hyperpriors, multipliers and flat cuts, the logarithm
is :math:`A \log g - B g^{-2}`, so that :math:`g^{-2} \sim \mathrm{Gamma}(-A / 2, B)`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...model import FactorizationModel
from .chain_state import ChainState, SideState


def rescale_utilities(state: ChainState, model: FactorizationModel, centre: float) -> None:
    """Draw the scale of utilities, in place; nothing is done where no row has noise of its own.

    Parameters
    ----------
    state : ChainState
        Of an ordered likelihood.
    model : FactorizationModel
        Whose priors are conjugate.
    centre : float
        Of the predictors, which stays.
    """
    if model.row_noise is None:
        return
    for side in model.row_noise.sides:
        noisy = state.of(side)
        slope, rate = _conditional(state, model, noisy)
        shrink = torch._standard_gamma(torch.tensor(-0.5 * slope, dtype=torch.float64)) / rate
        scale_by(state, model, noisy, shrink.to(state.cuts.device).rsqrt(), centre)


def scale_by(
    state: ChainState, model: FactorizationModel, noisy: SideState, factor: Tensor, centre: float
) -> None:
    """Multiply everything on the line by a factor (its powers), in place."""
    k = model.n_factors
    for side, part in ((state.user, slice(None)), (state.item, slice(k, None))):
        g = factor.to(side.rows.dtype)
        side.rows[:, part] *= g
        side.location[part] *= g
        side.weights[:, part] *= g
        side.precision[part, part] /= g**2
        side.weights_precision[part] /= g**2
    noisy.row_precision /= (factor**2).to(noisy.row_precision.dtype)
    state.cuts = centre + factor * (state.cuts - centre)


def _conditional(state: ChainState, model: FactorizationModel, noisy: SideState) -> tuple[float, Tensor]:
    """Return A and B of the module's density."""
    k = model.n_factors
    slope = float(len(state.cuts))
    rate = torch.zeros((), dtype=torch.float64, device=state.cuts.device)
    scaled = [
        (model.user_prior, state.user.precision[:k, :k]),
        (model.user_bias_prior, state.user.precision[-1, -1]),
        (model.item_bias_prior, state.item.precision[-1, -1]),
    ]
    for prior, precision in scaled:
        if prior is not None and prior.conjugate is not None:
            terms = prior.conjugate.scale_terms(precision)
            slope, rate = slope + terms[0], rate + terms[1]
    if model.implicit is not None:
        own, other = state.user.weights_precision, state.item.weights_precision[k:]
        slope -= 2.0 * (len(own) + len(other))
        rate = rate + model.implicit.scale**2 * (own.double().sum() + other.double().sum())
    shape = noisy.row_precision_shape.double()
    slope -= 2.0 * float(shape) * len(noisy.row_precision)
    return slope, rate + shape * noisy.row_precision.double().sum()
