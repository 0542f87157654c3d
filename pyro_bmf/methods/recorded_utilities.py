"""Draws of utilities, and of what is drawn with these integrated out, as one launch each on a card.

Either is hundreds of small operations, of the same shapes in every sweep. Draws that ask the device for a
number, of likelihoods of one's own or about levels that hardly any rating has, are not recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    observed : Tensor, shape (nnz,)
        What they know of the ratings, in every draw.
    recording : Recording
    """

    def __init__(self, utilities: Utilities, observed: Tensor, recording: Recording) -> None:
        self.utilities, self.observed = utilities, observed
        self._records = recording.recorder is not None and utilities.asks_nothing(observed)
        self._draw = Repeated(recording, "A draw of utilities", self._draw_now)
        self._spreads = Repeated(recording, "A draw of noise's spreads", self._spreads_now)
        self._slope: float | None = None
        self._rows: Sequence[NoisyRows] = ()

    def draw(self, cuts: Tensor, eta: Tensor, sd: Tensor, stretch: Stretch | None) -> Drawn:
        """Do as `Utilities.draw`; of what an earlier call returned nothing is to be used any more."""
        given = _Draw(cuts, eta, sd, stretch)
        slope = None if stretch is None else stretch.slope
        if not self._records or self._slope not in (None, slope):
            return self._draw_now(given)  # numbers of Python are part of a recording
        self._slope = slope
        return self._draw(given)

    def draw_spreads(self, rows: Sequence[NoisyRows], cuts: Tensor, eta: Tensor, sd: Tensor) -> Tensor:
        """Do as `Utilities.draw_spreads`, of the same sides in every call."""
        self._rows = rows
        logs, shapes = tuple(one.logs for one in rows), tuple(one.shape for one in rows)
        given = _Spreads(logs, shapes, cuts, eta, sd)
        return self._spreads(given) if self._records else self._spreads_now(given)

    def _draw_now(self, given: _Draw) -> Drawn:
        return self.utilities.draw(given.cuts, given.eta, given.sd, self.observed, given.stretch)

    def _spreads_now(self, given: _Spreads) -> Tensor:
        known = zip(self._rows, given.logs, given.shapes, strict=True)
        rows = [replace(one, logs=logs, shape=shape) for one, logs, shape in known]
        return self.utilities.draw_spreads(rows, given.cuts, given.eta, given.sd, self.observed)
