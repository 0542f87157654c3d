"""Draws of utilities, and of what is drawn with these integrated out, as one launch each on a card.

Either is hundreds of small operations, of the same shapes in every sweep. Draws that ask the device for a
number, of likelihoods of one's own or about levels that hardly any rating has, are not recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from ..model.likelihoods.normal_utilities import Utilities
from ..numerics.cuts.draws import Drawn
from ..numerics.cuts.noise_spread import NoisyRows
from ..numerics.cuts.stretch import Stretch
from .recording import Recording, Repeated


@dataclass(frozen=True, eq=False)
class _Draw:
    """What a draw of utilities is of."""

    cuts: Tensor
    eta: Tensor
    sd: Tensor
    stretch: Stretch | None


@dataclass(frozen=True, eq=False)
class _Spreads:
    """What a draw of the spreads of rows' noise is of: what changes of the rows, side by side."""

    logs: tuple[Tensor, ...]
    shapes: tuple[Tensor, ...]
    cuts: Tensor
    eta: Tensor
    sd: Tensor


class UtilityDraws:
    """What sweeps draw by a likelihood's utilities.

    Parameters
    ----------
    utilities : Utilities
    recording : Recording
    """

    def __init__(self, utilities: Utilities, recording: Recording) -> None:
        self.utilities, self.recording = utilities, recording
        self._observed: Tensor | None = None
        self._records = False
        self._drawn = Repeated(recording, "A draw of utilities")
        self._spread = Repeated(recording, "A draw of noise's spreads")
        self._slope: tuple[float | None] | None = None

    def draw(self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor, stretch: Stretch | None) -> Drawn:
        """Do as `Utilities.draw`; of what an earlier call returned nothing is to be used any more."""
        slope = (None if stretch is None else stretch.slope,)
        if self._slope is None:
            self._slope = slope  # a number of Python's is part of a recording
        if slope != self._slope or not self._may_record(observed):
            return self.utilities.draw(cuts, eta, sd, observed, stretch)
        return self._drawn(partial(_draw, self.utilities, observed), _Draw(cuts, eta, sd, stretch))

    def draw_spreads(
        self, rows: Sequence[NoisyRows], cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor
    ) -> Tensor:
        """Do as `Utilities.draw_spreads`, of the same sides in every call."""
        if not self._may_record(observed):
            return self.utilities.draw_spreads(rows, cuts, eta, sd, observed)
        logs, shapes = tuple(one.logs for one in rows), tuple(one.shape for one in rows)
        work = partial(_spreads, self.utilities, observed, rows)
        return self._spread(work, _Spreads(logs, shapes, cuts, eta, sd))

    def _may_record(self, observed: Tensor) -> bool:
        """Whether draws about these ratings are recorded: they are part of it, the first ones that come."""
        if self.recording.recorder is None:
            return False
        if self._observed is None:
            self._observed, self._records = observed, self.utilities.asks_nothing(observed)
        return self._records and observed is self._observed


def _draw(utilities: Utilities, observed: Tensor, given: _Draw) -> Drawn:
    return utilities.draw(given.cuts, given.eta, given.sd, observed, given.stretch)


def _spreads(utilities: Utilities, observed: Tensor, rows: Sequence[NoisyRows], given: _Spreads) -> Tensor:
    """Draw them for rows of which all but what is given stays as it was."""
    known = zip(rows, given.logs, given.shapes, strict=True)
    now = [replace(one, logs=logs, shape=shape) for one, logs, shape in known]
    return utilities.draw_spreads(now, given.cuts, given.eta, given.sd, observed)
