"""What a sweep draws of one side between two looks of the host: on a card each is one launch.

Draws of a side's priors given its rows, the system of its location and weights with the rows integrated out
(`collapsed_means`), and what their scales are drawn from (`weights_scale`). Every one is a function of
tensors that `pyro_bmf.methods.recording.Repeated` may record; on a CPU it is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ...model import FactorizationModel
from ..kernel import RowConditional
from ..recording import NOT_RECORDED, Looks, Recording
from .chain_state import ChainState, SideState, block_precision
from .collapsed_means import Begun, RecordedSteps
from .hyper_draws import draw_weights_precision
from .known_parts import SidePriors
from .mean_information import Information
from .weights_scale import scale_tables


@dataclass(eq=False)
class BegunSide:
    """What a side's means and rows are drawn from.

    Attributes
    ----------
    conditional : RowConditional
        Of the rows given the other side.
    information : Information or None
        G_i: what each row's ratings say of its prior mean, until means are drawn: it takes memory.
    system : Begun or None
        Of location and weights, where there is implicit feedback, until it is solved.
    location : Tensor or None, shape (D,)
        The draw of it where there is none.
    apart : Tensor or None, shape (n, D)
        What rows are apart from their conditional means, where it was asked for: N(0, P^-1), whatever these
        are.
    """

    conditional: RowConditional
    information: Information | None = None
    system: Begun | None = None
    location: Tensor | None = None
    apart: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Rows:
    """A side, and what implicit feedback adds to its rows' prior means, (n, D)."""

    own: SideState
    implicit: Tensor


@dataclass(frozen=True, eq=False)
class _Given:
    """A state and utilities, and perhaps what implicit feedback adds to rows' prior means."""

    state: ChainState
    utilities: Tensor
    implicit: Tensor | None


@dataclass(frozen=True, eq=False)
class _Told:
    """What implicit feedback adds to prior means, what ratings say of these, both (n, D), and how surely."""

    own: SideState
    means: Tensor
    said: Tensor
    information: Information


@dataclass(frozen=True, eq=False)
class _Priors:
    """What a prior's rows are drawn about: (D,), (D, D), and the precision (D,) of implicit weights."""

    location: Tensor
    precision: Tensor
    weights_precision: Tensor


#: What begins a side, `Sweeps.begin_side` of it.
Begin = Callable[[ChainState, Tensor, Tensor | None], BegunSide]


class SideDraws:
    """Draws of one side.

    Parameters
    ----------
    priors : SidePriors
    model : FactorizationModel
    recording : Recording
    few : bool
        Whether rows are of low rank: their system is not recorded, as its eigendecomposition asks the card.
    """

    def __init__(
        self, priors: SidePriors, model: FactorizationModel, recording: Recording, few: bool
    ) -> None:
        self.priors, self.model, fixed = priors, model, RecordedSteps.FIXED
        self._looks = Looks(recording, fixed)
        self._begun = Looks(NOT_RECORDED if few else recording, fixed)

    def draw_priors(self, own: SideState, implicit: Tensor) -> None:
        """Draw the rows' prior, and the precision of implicit weights, given both, in place.

        The location for the precision's sake: it is drawn anew with the rows integrated out.

        Parameters
        ----------
        own : SideState
        implicit : Tensor, shape (n, D)
            What implicit feedback adds to every row's prior mean.
        """
        scale = None if self.model.implicit is None else self.model.implicit.scale
        work = partial(_draw_priors, self.priors, self.model.n_factors, scale)
        drawn = self._looks("A draw of priors", work, _Rows(own, implicit))
        # Copies, as the next draw is at the same place.
        own.location, own.precision = drawn.location.clone(), drawn.precision.clone()
        own.weights_precision = drawn.weights_precision.clone()

    def begin(self, work: Begin, state: ChainState, utilities: Tensor, implicit: Tensor | None) -> BegunSide:
        """Return what `work` makes of this; on a card, the next call writes over it."""
        begun = self._begun("The system of a side", partial(_begin, work), _Given(state, utilities, implicit))
        return replace(begun)

    def scale_tables(self, own: SideState, means: Tensor, said: Tensor, information: Information) -> Tensor:
        """Return what `weights_scale.rescale_weights` reads, (D + 2, D); parameters as there."""
        assert self.model.implicit is not None
        work = partial(_tables, self.model.implicit.scale)
        told = _Told(own, means, said, information)
        return self._looks("The scales of implicit weights", work, told)


def _draw_priors(priors: SidePriors, k: int, scale: float | None, given: _Rows) -> _Priors:
    own, kind = given.own, given.own.rows.dtype
    about, bias_precision = (own.rows - given.implicit).double(), None
    location, precision = priors.factors.draw(about[:, :k], own.precision[:k, :k])
    if priors.bias is not None:
        bias_location, bias_precision = priors.bias.draw(about[:, k], own.precision[k, k])
        location = torch.cat([location, bias_location.reshape(1)])
    weights_precision = own.weights_precision
    if scale is not None:
        weights_precision = draw_weights_precision(own.weights.double(), scale).to(kind)
    joined = block_precision(precision, bias_precision)
    return _Priors(location.to(kind), joined.to(kind), weights_precision)


def _begin(work: Begin, given: _Given) -> BegunSide:
    return work(given.state, given.utilities, given.implicit)


def _tables(scale: float, given: _Told) -> Tensor:
    return scale_tables(given.own, given.means, given.said, given.information, scale)
