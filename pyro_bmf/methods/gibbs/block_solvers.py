"""Solvers of the diagonal blocks of the system for implicit weights: what its preconditioner is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class DenseBlocks:
    """The solver of blocks by their inverses.

    They are multiplied with in every step, which takes a third of the time of solving triangles.

    Attributes
    ----------
    inverse : Tensor, shape (n_columns + 1, D, D)
    """

    inverse: Tensor

    def __call__(self, left: Tensor) -> Tensor:
        """Solve for (n_columns + 1, D)."""
        return (self.inverse @ left.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True, eq=False)
class FewBlocks:
    """The solver of blocks of which those of light columns share a basis.

    Attributes
    ----------
    inverse : Tensor, shape (n_heavy + 1, D, D)
        Of the blocks of heavy columns and, last, of the location.
    own, light : Tensor
        Where those stand, and the light columns.
    basis : Tensor, shape (D, D)
    shrink : Tensor, shape (n_light, D)
    """

    inverse: Tensor
    own: Tensor
    light: Tensor
    basis: Tensor
    shrink: Tensor

    def __call__(self, left: Tensor) -> Tensor:
        """Solve for (n_columns + 1, D)."""
        found = torch.empty_like(left)
        found[self.own] = (self.inverse @ left[self.own].unsqueeze(-1)).squeeze(-1)
        found[self.light] = ((left[self.light] @ self.basis) * self.shrink) @ self.basis.mT
        return found
