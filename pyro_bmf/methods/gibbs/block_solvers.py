"""Solvers of the diagonal blocks of the system for implicit weights: what its preconditioner is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...numerics import factorise
from ...numerics.chunks import chunks
from ...numerics.room import cells_on

_CELLS = 8_000_000


@dataclass(frozen=True, eq=False)
class DenseBlocks:
    """The solver of blocks by their inverses.

    They are multiplied with in every step, which takes a third of the time of solving triangles.

    Attributes
    ----------
    inverse : Tensor, shape (n_columns + 1, D, D)
    """

    inverse: Tensor

    @classmethod
    def of(cls, blocks: Tensor) -> DenseBlocks:
        """Invert blocks (n_columns + 1, D, D)."""
        return cls(factorise.inverse_of_root(factorise.cholesky(blocks)))

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
    back : Tensor, shape (n_columns + 1,)
        Where each column stands in the two, one after the other.
    basis : Tensor, shape (D, D)
    shrink : Tensor, shape (n_light, D)
    """

    inverse: Tensor
    own: Tensor
    light: Tensor
    back: Tensor
    basis: Tensor
    shrink: Tensor

    @classmethod
    def of(
        cls,
        blocks: Tensor,
        own: Tensor,
        light: Tensor,
        back: Tensor,
        light_sums: Tensor,
        mean: Tensor,
        precision: Tensor,
    ) -> FewBlocks:
        r"""Invert the heavy columns' blocks, in place, and make the basis of the light ones'.

        Parameters
        ----------
        blocks : Tensor, shape (n_heavy + 1, D, D)
        own, light, back : Tensor
        light_sums : Tensor, shape (n_light,)
            c_j: light columns' blocks are :math:`\lambda + c_j \bar G`.
        mean : Tensor, shape (D, D)
            :math:`\bar G`.
        precision : Tensor, shape (D,)
            Of the weights' prior: :math:`\lambda`.
        """
        for part in chunks(len(blocks), cells_on(blocks.device, _CELLS) // blocks.shape[-1] ** 2):
            blocks[part] = factorise.inverse_of_root(factorise.cholesky(blocks[part]))
        # lambda + c mean = lambda^{1/2} Q (1 + c gamma) Q^T lambda^{1/2}.
        root = precision.rsqrt()
        gamma, turn = torch.linalg.eigh((root.unsqueeze(1) * mean * root).double())
        basis = (root.unsqueeze(1) * turn.to(root.dtype)).contiguous()
        shrink = 1.0 / (1.0 + torch.outer(light_sums, gamma.clamp_min(0.0).to(root.dtype)))
        return cls(blocks, own, light, back, basis, shrink)

    def __call__(self, left: Tensor) -> Tensor:
        """Solve for (n_columns + 1, D)."""
        # Put in order by a read: on a card deterministic assignments by index are sorted first.
        own = (self.inverse @ left.index_select(0, self.own).unsqueeze(-1)).squeeze(-1)
        light = ((left.index_select(0, self.light) @ self.basis) * self.shrink) @ self.basis.mT
        return torch.cat([own, light]).index_select(0, self.back)
