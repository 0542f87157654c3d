"""What pairs bring to a likelihood beside their predictors: noise and cut points of their rows' own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PairTerms:
    """Noise multipliers and shifts of cut points of pairs, moved together as one tensor of their shape.

    Attributes
    ----------
    scale : Tensor, shape (*pairs,)
        What multiplies the noise's standard deviation.
    shifts : Tensor, shape (*pairs, n_shifts)
        Added to the logarithms of the gaps between cut points.
    """

    scale: Tensor
    shifts: Tensor

    def __getitem__(self, index: Any) -> PairTerms:
        """Index the pairs' dimensions."""
        return PairTerms(self.scale[index], self.shifts[index])

    @property
    def T(self) -> PairTerms:
        """The two dimensions of the pairs, exchanged."""
        return PairTerms(self.scale.T, self.shifts.transpose(0, 1))

    def unsqueeze(self, dim: int) -> PairTerms:
        """Add a dimension of size one among the pairs'."""
        return PairTerms(self.scale.unsqueeze(dim), self.shifts.unsqueeze(dim if dim >= 0 else dim - 1))

    def expand_as(self, eta: Tensor) -> PairTerms:
        """Repeat to the shape of predictors."""
        return PairTerms(self.scale.expand(eta.shape), self.shifts.expand(*eta.shape, self.shifts.shape[-1]))


#: What `Likelihood.forward` is given as `relative`: noise multipliers, alone or with shifts of cut points.
Relative: TypeAlias = Tensor | PairTerms


def split_terms(relative: Relative | None) -> tuple[Tensor | None, Tensor | None]:
    """Return noise multipliers and shifts of cut points, None for those that there are not."""
    if isinstance(relative, PairTerms):
        return relative.scale, relative.shifts
    return relative, None


def pair_terms(noises: Sequence[Tensor], cuts: Tensor | None) -> tuple[Any, ...]:
    """Return the pairs' terms as arguments of a likelihood: none where no row has anything of its own.

    Parameters
    ----------
    noises : sequence of Tensor, shape (*pairs,)
        Noise multipliers of the pairs' users, of their items, or both.
    cuts : Tensor or None, shape (*pairs, n_shifts)
        Shifts of the users' cut points.
    """
    scale = torch.stack(list(noises)).prod(0) if noises else None
    if cuts is None:
        return () if scale is None else (scale,)
    return (PairTerms(torch.ones_like(cuts[..., 0]) if scale is None else scale, cuts),)
