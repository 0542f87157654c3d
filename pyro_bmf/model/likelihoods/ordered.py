"""What ordered likelihoods share: levels, learned cut points, and users' own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from ...data.units import Units
from ...errors import SettingsError
from ...numerics.normal_cells import midway
from ..pair_terms import Relative, split_terms
from .normal import Likelihood
from .rating_levels import check_levels


class OrderedLikelihood(Likelihood):
    """Ratings as the cells of a latent utility between cut points.

    Parameters
    ----------
    levels : sequence of float
        The scale's levels, ascending; at least two.
    cuts : {"shared", "user"}
        Whether users have cut points of their own, which shrink towards the shared ones (see `RowCuts`).

    Raises
    ------
    SettingsError
        If there are fewer than two levels, they do not ascend, `cuts` is something else, or users are to
        have cuts of their own and there is only one, which their bias moves.
    """

    levels: Tensor
    standardises = True
    called = "ordered"

    def __init__(self, levels: Sequence[float], cuts: str) -> None:
        super().__init__()
        given = [float(level) for level in levels]
        if len(given) < 2 or any(b <= a for a, b in pairwise(given)):
            raise SettingsError(f"levels are {given}: an {self.called} needs two or more, ascending.")
        if cuts not in ("shared", "user"):
            raise SettingsError(f"cuts of an {self.called} are {cuts!r}: they may be shared or user.")
        if cuts == "user" and len(given) < 3:
            raise SettingsError(
                f"levels are {given}: there is one cut, which a user's bias moves. Leave cuts shared."
            )
        self._given, self.cuts_by = given, cuts
        self.register_buffer("levels", torch.tensor(given, dtype=torch.float64))
        middle = midway(self.levels)
        self.first_cut = nn.Parameter(middle[0].clone())
        self.log_gaps = nn.Parameter(middle.diff().log())
        self.n_shifts = len(self.log_gaps) if cuts == "user" else 0

    @property
    def cuts(self) -> Tensor:
        """The shared cut points, shape (n_levels - 1,), ascending, rating units."""
        return torch.cat([self.first_cut.reshape(1), self.first_cut + self.log_gaps.exp().cumsum(0)])

    def finish_in(self, units: Units) -> None:
        """Call the levels by their own values, with predictors and cut points in standard units as before."""
        super().finish_in(units)
        self._given = units.raw(self._given).tolist()
        self.levels = torch.tensor(self._given, dtype=torch.float64, device=self.levels.device)

    def check(self, ratings: np.ndarray) -> None:
        """Raise DataError for the first rating that is no level."""
        check_levels(ratings, self._given, f"the {self.called} likelihood")

    def pair_cuts(self, relative: Relative | None) -> Tensor:
        """Return the cut points of pairs, (*pairs, n_levels - 1), or (n_levels - 1,) where shared."""
        shifts = split_terms(relative)[1]
        if shifts is None:
            return self.cuts
        gaps = (self.log_gaps + shifts.to(self.log_gaps.dtype)).exp().cumsum(-1)
        own = torch.cat([torch.zeros_like(gaps[..., :1]), gaps], -1)
        middle = (own.shape[-1] - 1) // 2
        return own - own[..., middle : middle + 1] + self.cuts[middle]

    @staticmethod
    def pair_scale(relative: Relative | None) -> Tensor | None:
        """Return what multiplies the utility's spread, of the pairs' shape; None for ones."""
        return split_terms(relative)[0]
