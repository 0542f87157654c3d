r"""The second level of the preconditioner with which implicit weights are solved for.

Block Jacobi takes each column's weights for themselves, and so is slow where many columns move together:
most of all where all of them move against the location. Here columns are put into groups by how often they
are rated, and a weight common to each group, and the location, are solved for exactly (an additive coarse
correction; Tang, Nabben, Vuik and Erlangga 2009, doi 10.1007/s10915-009-9272-6). It changes how many steps
conjugate gradients take, never what they converge to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...numerics import factorise, room
from ...numerics.segment_sums import Segments, segment_sum
from ..kernel import Entries
from .mean_information import Information

N_GROUPS = 8


@dataclass(frozen=True, eq=False)
class CoarseLevel:
    """Groups of columns, and what a weight common to a group adds to each row's mean.

    Attributes
    ----------
    segments : Segments
        Group of each column; the location, last, has one of its own.
    sizes : Tensor, shape (n_groups,)
        Columns in each group, the location's apart.
    means : Tensor, shape (n_rows, n_groups + 1)
    """

    segments: Segments
    sizes: Tensor
    means: Tensor

    @classmethod
    def build(cls, entries: Entries, n_groups: int = N_GROUPS) -> CoarseLevel:
        """Group columns so that each group has about the same number of entries."""
        counts = entries.t_indptr.diff().double()
        order = counts.argsort(descending=True, stable=True)
        before = torch.zeros_like(counts)
        before[order] = counts[order].cumsum(0) - counts[order]
        group = (before * n_groups / counts.sum().clamp_min(1.0)).long().clamp_max(n_groups - 1)
        dtype = entries.root_counts.dtype
        members = torch.zeros(entries.n_columns, n_groups, dtype=dtype, device=counts.device)
        members[torch.arange(entries.n_columns, device=counts.device), group] = 1.0
        location = torch.full((entries.n_rows, 1), entries.n_rows**-0.5, dtype=dtype, device=counts.device)
        return cls(
            segments=Segments.of_index(torch.cat([group, group.new_full((1,), n_groups)]), n_groups + 1),
            sizes=members.sum(0),
            means=torch.cat([entries.means(members), location], dim=1),
        )

    def solver(
        self, information: Information, weights_precision: Tensor, location_prior: Tensor
    ) -> CoarseSolver:
        """Return the solver of the system restricted to the groups.

        Parameters
        ----------
        information : Information
            G_i: what each row's ratings say of its mean.
        weights_precision : Tensor, shape (D,)
        location_prior : Tensor, shape (D, D)
            Of the scaled location.
        """
        width, n_groups = len(weights_precision), self.means.shape[1]
        pairs = (self.means.unsqueeze(2) * self.means.unsqueeze(1)).flatten(1)
        blocks = information.pair_sums(pairs).view(n_groups, n_groups, width, width)
        for g, size in enumerate(self.sizes):
            blocks[g, g] += torch.diag(weights_precision * size.clamp_min(1.0))
        blocks[-1, -1] += location_prior
        root = factorise.cholesky(blocks.transpose(1, 2).reshape(n_groups * width, -1))
        # Triangles are solved for one number after the other, which is slow on a card, not on a CPU.
        inverse = factorise.inverse_of_root(root) if room.waits(root.device) else None
        return CoarseSolver(self.segments, root, inverse)


@dataclass(frozen=True, eq=False)
class CoarseSolver:
    """The solver of the system restricted to the groups.

    Attributes
    ----------
    segments : Segments
        Group of each column.
    root : Tensor, shape (n_groups * D, n_groups * D)
        Cholesky factor of the restricted system.
    inverse : Tensor or None
        Of that system, where products are faster.
    """

    segments: Segments
    root: Tensor
    inverse: Tensor | None

    def __call__(self, left: Tensor) -> Tensor:
        """Return the correction (n_columns + 1, D) of what is left of the system."""
        n_groups, width = len(self.segments), left.shape[1]
        sums = segment_sum(left, self.segments).reshape(-1, 1)
        solved = torch.cholesky_solve(sums, self.root) if self.inverse is None else self.inverse @ sums
        correction: Tensor = solved.view(n_groups, width)[self.segments.index]
        return correction
