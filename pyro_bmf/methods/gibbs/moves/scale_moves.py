r"""Moves along the shift and the scales of an ordered likelihood's utilities: exact, as far as the priors go.

No rating's probability changes when, about the centre,

1. users' biases, their location and the cuts rise by d;
2. with a factor g, users' factors, both sides' biases, the locations and implicit weights they come from, and
   the cuts are multiplied by g, the precisions of their priors divided by g squared, and so are the
   multipliers of one side's noise, where rows have noise of their own;
3. the same, with the utilities multiplied by g instead of multipliers divided: utilities stay in their cells,
   and what they say of g beside the priors is how far they are from their predictors.

Sweeps creep along these lines, as cuts are drawn given predictors and predictors given utilities. Each is the
orbit of a group, of translations or scalings, so a draw from its conditional under Haar's measure leaves the
posterior as it is (Liu and Sabatti 2000, doi 10.1093/biomet/87.2.353). Densities of rows, locations and
weights change by just what the Jacobian takes back; of what is left, hyperpriors, multipliers, utilities and
the cuts' prior, the logarithm is :math:`A \log g - B g^{-2}
- \sum p \log(1 + C g^{-2}) - \frac{1}{2} S g^2 + \log p(g c)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from ....model import FactorizationModel
from ....model.priors.conjugate import ScaleTerms, log_tails
from ....model.sides import Side
from ....numerics.cuts.density import CutDensity
from ....numerics.cuts.stretch import Stretch
from ....numerics.slice_draw import slice_draw
from ...recording import AS_ASKED, Looks
from ..chain_state import ChainState

#: First intervals of slices, in standard deviations of what is drawn.
_WIDTH = 3.0


@dataclass(frozen=True, eq=False)
class Line:
    """The log-density of the logarithm t of a scale.

    A t - B exp(-2 t) - sum p log(1 + C exp(-2 t)) - S exp(2 t) / 2 + log p(exp(t) c): of every prior its
    tails C, and their power p.
    """

    slope: float
    rate: float
    square: float
    tails: list[tuple[list[float], float]]
    cuts: list[float]
    cut_density: CutDensity

    def __call__(self, t: float) -> float:
        """Return the log-density at t."""
        if abs(t) > 300.0:
            return -math.inf
        g = math.exp(t)
        return (
            self.slope * t
            - self.rate / g**2
            - 0.5 * self.square * g**2
            + sum([log_tails(tails, power, 1.0 / g**2) for tails, power in self.tails])
            + self.cut_density.of_numbers([g * cut for cut in self.cuts])
        )


def shift_cuts(state: ChainState, kappa: float, centre: float, cut_density: CutDensity) -> None:
    """Draw the shift of cuts and users' biases, in place.

    Parameters
    ----------
    state : ChainState
        Of an ordered likelihood, whose rows have a bias.
    kappa : float
        Weight of the prior mean of the users' biases, in rows.
    centre : float
        Of the predictors.
    cut_density : CutDensity
        Of the cuts' prior.
    """
    own = state.user
    location, precision, *cuts = _numbers(own.location[-1], own.precision[-1, -1], state.cuts - centre)
    pull = kappa * precision

    def log_density(d: float) -> float:
        return -0.5 * pull * (location + d) ** 2 + cut_density.of_numbers([cut + d for cut in cuts])

    d = slice_draw(log_density, _WIDTH * (pull + len(cuts) / cut_density.spread**2) ** -0.5)
    state.user.rows[:, -1] += d
    state.user.location[-1] += d
    state.cuts = state.cuts + d


def rescale_noise(
    state: ChainState,
    model: FactorizationModel,
    centre: float,
    cut_density: CutDensity,
    looks: Looks = AS_ASKED,
) -> None:
    """Draw the scale against the rows' noise, in place: nothing where no row has noise of its own."""
    for side in model.noisy_sides:
        noisy = state.of(side)
        line = noise_line(state, model, side, centre, cut_density, looks)
        factor = _draw(line, state)
        scale_by(state, model, factor, centre)
        noisy.row_precision /= (factor**2).to(noisy.row_precision.dtype)


def rescale_utilities(
    state: ChainState,
    model: FactorizationModel,
    centre: float,
    cut_density: CutDensity,
    squares: Tensor,
    n: int,
    looks: Looks = AS_ASKED,
) -> Tensor:
    """Draw the scale of utilities and all that predicts them, in place, and return the factor.

    Parameters
    ----------
    state : ChainState
    model : FactorizationModel
        Whose priors are conjugate.
    centre : float
        Of the predictors and utilities, which stays.
    cut_density : CutDensity
        Of the cuts' prior.
    squares : Tensor, shape ()
        Sum of the squares of what utilities are from their predictors, in units of their variances.
    n : int
        Number of utilities.
    looks : Looks
        Makes the numbers that are read.
    """
    line, (square,) = _priors_line(
        "The scale of utilities", state, model, centre, cut_density, looks, squares
    )
    factor = _draw(replace(line, slope=line.slope + n, square=square), state)
    scale_by(state, model, factor, centre)
    return factor


def stretch_of(state: ChainState, model: FactorizationModel) -> Stretch:
    """Return what priors say of a common factor of all predictors, whatever cuts are."""
    slope, rates, terms = _prior_terms(state, model)
    tails = torch.cat([one.tails for one in terms]).double()
    powers = torch.cat([torch.full_like(one.tails, one.power) for one in terms]).double()
    return Stretch(slope, torch.stack([rate.double() for rate in rates]).sum(), tails, powers)


def scale_predictors(state: ChainState, model: FactorizationModel, factor: Tensor) -> None:
    """Multiply predictors, and all they are made of, by a factor about the centre, in place."""
    k = model.n_factors
    for side, part in ((state.user, slice(None)), (state.item, slice(k, None))):
        g = factor.to(side.rows.dtype)
        side.rows[:, part] *= g
        side.location[part] *= g
        side.weights[:, part] *= g
        side.precision[part, part] /= g**2
        side.weights_precision[part] /= g**2


def scale_by(state: ChainState, model: FactorizationModel, factor: Tensor, centre: float) -> None:
    """Multiply predictors, all they are made of, and cuts by a factor about the centre, in place."""
    scale_predictors(state, model, factor)
    state.cuts = centre + factor * (state.cuts - centre)


def noise_line(
    state: ChainState,
    model: FactorizationModel,
    side: Side,
    centre: float,
    cut_density: CutDensity,
    looks: Looks = AS_ASKED,
) -> Line:
    """Return the density of the scale where one side's noise takes it up."""
    noisy = state.of(side)
    multipliers = noisy.row_precision
    more = noisy.row_precision_shape, multipliers.double().sum()
    name = f"The scale against {side}s' noise"
    line, (shape, total) = _priors_line(name, state, model, centre, cut_density, looks, *more)
    slope = line.slope - 2.0 * shape * len(multipliers)
    return replace(line, slope=slope, rate=line.rate + shape * total)


def _numbers(*tensors: Tensor) -> list[float]:
    """Return tensors, () or (n,), as one list: one wait for the device."""
    found: list[float] = torch.cat([one.double().reshape(-1) for one in tensors]).tolist()
    return found


@dataclass(frozen=True, eq=False)
class _Asked:
    """A state, and more numbers, each ()."""

    state: ChainState
    more: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class _Read:
    """A, how many parts B has, the number and the power of each prior's tails, and all numbers in a row."""

    slope: float
    n_rates: int
    tails: tuple[tuple[int, float], ...]
    numbers: Tensor


def _read(model: FactorizationModel, centre: float, asked: _Asked) -> _Read:
    """Return what priors say of the scale: parts of B, tails, more numbers, and cuts about the centre."""
    slope, rates, terms = _prior_terms(asked.state, model)
    every = *rates, *(one.tails for one in terms), *asked.more, asked.state.cuts - centre
    numbers = torch.cat([one.double().reshape(-1) for one in every])
    return _Read(slope, len(rates), tuple((len(one.tails), one.power) for one in terms), numbers)


def _priors_line(
    name: str,
    state: ChainState,
    model: FactorizationModel,
    centre: float,
    cut_density: CutDensity,
    looks: Looks,
    *more: Tensor,
) -> tuple[Line, list[float]]:
    """Return the density of the scale by the priors of hyperparameters and cuts alone, and more numbers."""
    found = looks(name, partial(_read, model, centre), _Asked(state, more))
    read = iter(found.numbers.tolist())
    rate = sum(islice(read, found.n_rates))
    tails = [(list(islice(read, n)), power) for n, power in found.tails]
    others, cuts = list(islice(read, len(more))), list(read)
    return Line(found.slope + len(cuts), rate, 0.0, tails, cuts, cut_density), others


def _prior_terms(
    state: ChainState, model: FactorizationModel
) -> tuple[float, list[Tensor], list[ScaleTerms]]:
    """Return A, the parts of B, and what has tails, of hyperparameters' priors for a factor of predictors."""
    k = model.n_factors
    slope, rates, found = 0.0, list[Tensor](), list[ScaleTerms]()
    scaled = [
        (model.user_prior, state.user.precision[:k, :k]),
        (model.user_bias_prior, state.user.precision[-1, -1]),
        (model.item_bias_prior, state.item.precision[-1, -1]),
    ]
    for prior, precision in scaled:
        if prior is not None and prior.conjugate is not None:
            terms = prior.conjugate.scale_terms(precision)
            slope += terms.slope
            rates.append(terms.rate)
            found.append(terms)
    if model.implicit is not None:
        own, other = state.user.weights_precision, state.item.weights_precision[k:]
        slope -= 2.0 * (len(own) + len(other))
        rates.append(model.implicit.scale**2 * (own.double().sum() + other.double().sum()))
    return slope, rates, found


def _draw(line: Line, state: ChainState) -> Tensor:
    """Draw a factor."""
    width = _WIDTH * (2.0 * abs(line.slope)) ** -0.5
    return state.cuts.new_full((), math.exp(slice_draw(line, width)))
