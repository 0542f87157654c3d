r"""The second level of the preconditioner with which implicit weights are solved for.

Block Jacobi takes each column's weights for themselves, and so is slow where many columns move together: on
MovieLens 1M such a direction has two hundred times the curvature that the blocks tell, and one of all columns
against the location a thirtieth. Which directions these are hardly depends on anything but the mask. With
:math:`s_i = n_i / (n_i + 30)` for how much of its prior mean row i's ratings tell, and :math:`c_j = \sum_i
s_i / n_i` over a column's rows, they are the leading right singular vectors of :math:`S^{1/2} A (c +
1)^{-1/2}`, scaled back by the last factor, and the location: together `basis`, Z, found once for a set of
ratings. In the space that Z spans for each of the D numbers of a row the system is solved exactly in place of
by blocks: with B the blocks,

.. math:: B^{-1} + Z \left((Z^T (A^T G A + \lambda) Z)^{-1} - (Z^T B Z)^{-1}\right) Z^T,

which is positive definite for any Z, as :math:`B^{-1} - Z (Z^T B Z)^{-1} Z^T` is positive semidefinite. It
changes how many steps conjugate gradients take, never what they converge to. On spaces of deflation: Tang,
Nabben, Vuik and Erlangga (2009), doi 10.1007/s10915-009-9272-6.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...numerics import factorise
from ...numerics.packed_symmetric import places
from ..kernel import Entries
from .mean_information import Information

#: Directions in which columns move together, the location apart.
N_MODES = 8
#: Ratings of a row that tell half of its prior mean, and what is added to c.
_HALF_TOLD, _ADDED = 30.0, 1.0
#: Products with the mask by which directions are found, and the seed of those that they start from.
_PRODUCTS, _SEED = 12, 0


@dataclass(frozen=True, eq=False)
class CoarseLevel:
    """Directions in which columns move together, and what each adds to every row's mean.

    Attributes
    ----------
    basis : Tensor, shape (n_columns + 1, n_modes + 1)
        Z: of the columns and, last, of the location.
    means : Tensor, shape (n_rows, n_modes + 1)
        The scaled mask, beside the location's column, times Z.
    """

    basis: Tensor
    means: Tensor

    @classmethod
    def build(cls, entries: Entries, n_modes: int = N_MODES) -> CoarseLevel:
        """Find the directions of a mask, by subspace iteration from fixed ones: a few bags of the ratings."""
        dtype, device = entries.root_counts.dtype, entries.root_counts.device
        n, m = entries.n_rows, entries.n_columns
        counts = entries.indptr.diff().to(dtype)
        told = (counts / (counts + _HALF_TOLD)).unsqueeze(-1)
        scale = (entries.means_back(told * entries.root_counts.unsqueeze(-1)) + _ADDED).rsqrt()
        generator = torch.Generator().manual_seed(_SEED)
        start = torch.randn(m, min(n_modes, m), generator=generator, dtype=torch.float64)
        found = torch.linalg.qr(start.to(device, dtype))[0]
        for _ in range(_PRODUCTS):
            found = torch.linalg.qr(scale * entries.means_back(told * entries.means(scale * found)))[0]
        modes = found.shape[1]
        basis = found.new_zeros(m + 1, modes + 1)
        basis[:-1, :modes] = scale * found
        basis[-1, modes] = 1.0
        location = found.new_full((n, 1), max(n, 1) ** -0.5)
        return cls(basis, torch.cat([entries.means(basis[:-1, :modes].contiguous()), location], dim=1))

    def solver(
        self, information: Information, weights_precision: Tensor, location_prior: Tensor, blocks: Tensor
    ) -> CoarseSolver:
        """Return the solver of the system restricted to Z.

        Parameters
        ----------
        information : Information
            G_i: what each row's ratings say of its mean.
        weights_precision : Tensor, shape (D,)
        location_prior : Tensor, shape (D, D)
            Of the scaled location.
        blocks : Tensor, shape (n_pairs, D * D)
            B restricted to Z: its sum over columns weighted by each column of `pairs`.
        """
        width = len(weights_precision)
        columns = self.basis[:-1]
        priors = torch.stack([torch.diag(weights_precision), location_prior]).flatten(1)
        shares = torch.stack([_pairs(columns).sum(0), _pairs(self.basis[-1:]).sum(0)], dim=1)
        system = information.pair_sums(_pairs(self.means)) + shares @ priors
        # In double precision: of numbers of one size each, the small eigenvalues of either matter.
        both = torch.stack([self._joined(system, width), self._joined(blocks, width)]).double()
        exact, by_blocks = factorise.inverse_of_root(factorise.cholesky(both))
        return CoarseSolver(self, (exact - by_blocks).to(self.basis.dtype))

    def pairs(self) -> Tensor:
        """Return the products of Z's columns, each with itself and those before: (n_columns + 1, n_pairs)."""
        return _pairs(self.basis)

    def _joined(self, blocks: Tensor, width: int) -> Tensor:
        """Return the matrix whose blocks (n_pairs, D * D) these are, those above the diagonal too."""
        n_modes = self.basis.shape[1]
        every = blocks.index_select(0, places(n_modes, blocks.device).flatten())
        every = every.view(n_modes, n_modes, width, width)
        return every.transpose(1, 2).reshape(n_modes * width, n_modes * width)


def _pairs(table: Tensor) -> Tensor:
    """Return the products of a table's columns, each with itself and those before: (n, n_pairs)."""
    low, high = torch.tril_indices(table.shape[1], table.shape[1], device=table.device)
    return table.index_select(1, low) * table.index_select(1, high)


@dataclass(frozen=True, eq=False)
class CoarseSolver:
    """What solving exactly in the space of Z adds to solving by blocks.

    Attributes
    ----------
    level : CoarseLevel
    matrix : Tensor, shape (n_modes * D, n_modes * D)
        Inverse of the system restricted to Z, less that of the blocks restricted to Z.
    """

    level: CoarseLevel
    matrix: Tensor

    def __call__(self, left: Tensor) -> Tensor:
        """Return the correction (n_columns + 1, D) of what is left of the system."""
        basis = self.level.basis
        sums = basis.mT @ left
        solved = (self.matrix @ sums.reshape(-1, 1)).view_as(sums)
        correction: Tensor = basis @ solved
        return correction
