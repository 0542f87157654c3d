r"""What rows' ratings say of their prior means, and the preconditioner of the system for implicit weights.

With row i integrated out, its ratings say of its prior mean a Normal of precision :math:`G_i` (see
`pyro_bmf.methods.kernel`). The system for the weights has :math:`A^T G A`, A the scaled mask, and its
preconditioner one D x D block a column, :math:`\lambda + \sum_i G_i / n_i` over the column's rows. Two forms:

- `DenseInformation` holds every :math:`G_i` and every block: fastest where there are some ten thousands of
  rows.
- `FewInformation` holds :math:`G_i = H_i^T H_i` by its factors where rows have few ratings. Columns with
  many ratings have their own blocks, in which rows with few stand by the mean of those with as many; all
  others share one matrix: with :math:`c_j = \sum_i 1 / n_i` and the mean :math:`\bar G` of what they are
  rated by, their blocks are :math:`\lambda + c_j \bar G`, which one eigendecomposition inverts for all. What
  is approximated changes how many steps conjugate gradients take, never what they converge to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...numerics.chunks import chunks
from ...numerics.packed_symmetric import pack, unpack
from ...numerics.room import cells_on
from ...numerics.segment_sums import Pieces, Segments, bag_sum, device_pieces, segment_sum
from ..few_entries import FewConditional, RowPlan
from ..kernel import Conditional, Entries, RowConditional
from .block_solvers import DenseBlocks, FewBlocks

Solver = Callable[[Tensor], Tensor]

_CELLS = 8_000_000


class Information(Protocol):
    """G_i of all rows of one side."""

    def total(self) -> Tensor:
        """Return the sum over rows, (D, D)."""

    def apply(self, means: Tensor) -> Tensor:
        """Return G_i x_i for (n, D)."""

    def products(self, means: Tensor) -> Tensor:
        """Return the sums over rows of x_ik G_i,kl x_il for (n, D): (D, D)."""

    def pair_sums(self, pairs: Tensor) -> Tensor:
        """Return sums of G_i weighted by each column of (n, p), flattened: (p, D * D)."""

    def block_solver(
        self, weights_precision: Tensor, location_block: Tensor, pairs: Tensor
    ) -> tuple[Solver, Tensor]:
        """Return the solver of the blocks of all columns and, last, the location: (n_columns + 1, D).

        Beside it are these blocks' sums weighted by each column of pairs (n_columns + 1, p): (p, D * D).
        """


@dataclass(frozen=True, eq=False)
class GivenOther:
    """The rows of one side given the other side.

    Attributes
    ----------
    conditional : RowConditional
    information : callable
        Gives what each row's ratings say of its prior mean.
    """

    conditional: RowConditional
    information: Callable[[], Information]


class RowsOfSide(Protocol):
    """The form in which the conditionals of one side's rows are made: `DenseRows`, or `FewRows`."""

    def given(
        self,
        prior_precision: Tensor,
        features: Tensor,
        column_precision: Tensor,
        row_precision: Tensor,
        linear: Tensor,
    ) -> GivenOther:
        """Return the rows' conditionals; parameters as `RowPlan.conditional` has them."""


@dataclass(frozen=True, eq=False)
class DenseRows:
    """One matrix a row.

    Attributes
    ----------
    entries : Entries
        Rated pairs.
    mask : Entries
        Pairs of the implicit feedback; the same ones, as a rule.
    """

    entries: Entries
    mask: Entries

    def given(
        self,
        prior_precision: Tensor,
        features: Tensor,
        column_precision: Tensor,
        row_precision: Tensor,
        linear: Tensor,
    ) -> GivenOther:
        """Return the rows' conditionals."""
        width = features.shape[1]
        products = pack(features.unsqueeze(2) * features.unsqueeze(1)) * column_precision.unsqueeze(-1)
        said = unpack(self.entries.sum(products) * row_precision, width)
        conditional = Conditional.of(prior_precision, said, linear, checked=False)

        return GivenOther(conditional, lambda: DenseInformation(self.mask, conditional.mean_precision(said)))


@dataclass(frozen=True, eq=False)
class FewRows:
    """Matrices of low rank about the prior for rows with few ratings."""

    plan: RowPlan
    columns: ColumnPlan

    @classmethod
    def build(cls, entries: Entries, width: int) -> FewRows:
        """Sort rows and columns by their number of entries."""
        plan = RowPlan.build(entries, width)
        return cls(plan, ColumnPlan.build(plan))

    def given(
        self,
        prior_precision: Tensor,
        features: Tensor,
        column_precision: Tensor,
        row_precision: Tensor,
        linear: Tensor,
    ) -> GivenOther:
        """Return the rows' conditionals."""
        conditional = self.plan.conditional(
            prior_precision, features, column_precision, row_precision, linear
        )
        return GivenOther(conditional, lambda: FewInformation.of(self.columns, conditional))


@dataclass(frozen=True, eq=False)
class DenseInformation:
    """G_i as one tensor.

    Attributes
    ----------
    mask : Entries
    tensor : Tensor, shape (n, D, D)
    """

    mask: Entries
    tensor: Tensor

    def total(self) -> Tensor:
        """Return the sum over rows, (D, D)."""
        return self.tensor.sum(0)

    def apply(self, means: Tensor) -> Tensor:
        """Return G_i x_i for (n, D)."""
        return (self.tensor @ means.unsqueeze(-1)).squeeze(-1)

    def products(self, means: Tensor) -> Tensor:
        """Return the sums over rows of x_ik G_i,kl x_il for (n, D): (D, D)."""
        return _products(self.tensor, means)

    def pair_sums(self, pairs: Tensor) -> Tensor:
        """Return sums of G_i weighted by each column of (n, p), flattened: (p, D * D)."""
        return pairs.mT @ self.tensor.reshape(len(pairs), -1)

    def block_solver(
        self, weights_precision: Tensor, location_block: Tensor, pairs: Tensor
    ) -> tuple[Solver, Tensor]:
        """Return the solver of the blocks, and their weighted sums (p, D * D)."""
        width = self.tensor.shape[-1]
        shares = pack(self.tensor) * (self.mask.root_counts**2).unsqueeze(-1)
        blocks = unpack(self.mask.sum_back(shares), width) + torch.diag(weights_precision)
        blocks = torch.cat([blocks, location_block.unsqueeze(0)])
        return DenseBlocks.of(blocks), pairs.mT @ blocks.flatten(1)


@dataclass(frozen=True, eq=False)
class ColumnPlan:
    """Columns of one side by their number of entries, for the preconditioner.

    Attributes
    ----------
    own, light, back : Tensor
        Columns with D entries or more and, last, the location's; the others; and where each column stands in
        the two, one after the other.
    heavy_indptr, heavy_rows, heavy_shares, heavy_pieces : Tensor
        Entries of heavy columns in rows that have many: compressed, the place of each row in the order of
        `RowPlan`, and 1 / n_i. Last stands a column without any, in whose place the location comes.
    heavy_few : Tensor, shape (n_heavy + 1, n_classes)
        Sums of 1 / n_i over each column's rows of each class of `RowPlan.few`; 0 for the last.
    light_sums : Tensor, shape (n_light,)
        c_j: the sum of 1 / n_i over all rows of each column.
    light_shares : Tensor, shape (n_rows,)
        Light columns of each row by its n_i, in the order of `RowPlan`.
    """

    own: Tensor
    light: Tensor
    back: Tensor
    heavy_indptr: Tensor
    heavy_rows: Tensor
    heavy_shares: Tensor
    heavy_pieces: Pieces | None
    heavy_few: Tensor
    light_sums: Tensor
    light_shares: Tensor

    @classmethod
    def build(cls, plan: RowPlan) -> ColumnPlan:
        """Sort the columns that the rows of a plan have entries in."""
        entries = plan.entries
        device = entries.indptr.device
        counts = entries.t_indptr.diff().long()
        heavy, light = (counts >= plan.width).nonzero().flatten(), (counts < plan.width).nonzero().flatten()
        columns = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)
        rows = plan.place[entries.t_indices.long()]
        inverse_counts = (entries.root_counts**2)[plan.order]
        share = inverse_counts[rows]
        heavy_place = torch.full((len(counts),), -1, dtype=torch.int64, device=device)
        heavy_place[heavy] = torch.arange(len(heavy), device=device)
        in_heavy = heavy_place[columns] >= 0
        to_many = in_heavy & (rows < plan.n_many)
        many_counts = torch.bincount(heavy_place[columns[to_many]], minlength=len(heavy) + 1)
        classes = torch.zeros(len(plan.order), dtype=torch.int64, device=device)
        for number, (_, begin, at) in enumerate(plan.few):
            classes[begin : begin + len(at)] = number
        to_few = in_heavy & (rows >= plan.n_many)
        n_classes = max(len(plan.few), 1)

        def summed(index: Tensor, values: Tensor, n: int) -> Tensor:
            return segment_sum(values, Segments.of_index(index, n))

        few = summed(
            heavy_place[columns[to_few]] * n_classes + classes[rows[to_few]],
            share[to_few],
            (len(heavy) + 1) * n_classes,
        )
        light_sums = summed(columns[~in_heavy], share[~in_heavy], len(counts))
        light_shares = summed(rows[~in_heavy], share[~in_heavy], len(plan.order))
        own = torch.cat([heavy, heavy.new_full((1,), len(counts))])
        heavy_indptr = torch.cat([many_counts.new_zeros(1), many_counts.cumsum(0)]).int()
        return cls(
            own=own,
            light=light,
            back=torch.cat([own, light]).argsort(),
            heavy_indptr=heavy_indptr,
            heavy_rows=rows[to_many].int(),
            heavy_shares=share[to_many],
            heavy_pieces=device_pieces(heavy_indptr),
            heavy_few=few.view(len(heavy) + 1, n_classes),
            light_sums=light_sums[light],
            light_shares=light_shares,
        )


@dataclass(frozen=True, eq=False)
class FewInformation:
    """G_i by factors, of a side most of whose rows have few ratings.

    Attributes
    ----------
    plan : RowPlan
    columns : ColumnPlan
    many : Tensor, shape (n_many, D, D)
        Of the rows with D ratings or more.
    halves : tuple of Tensor, shape (n_r, r, D)
        H_i of the others, by their number of ratings.
    """

    plan: RowPlan
    columns: ColumnPlan
    many: Tensor
    halves: tuple[Tensor, ...]

    @classmethod
    def of(cls, columns: ColumnPlan, conditional: FewConditional) -> FewInformation:
        """Make it of the rows' conditionals."""
        halves = tuple(half.to(conditional.linear.dtype) for half in conditional.halves)
        return cls(conditional.plan, columns, conditional.many_information, halves)

    def total(self) -> Tensor:
        """Return the sum over rows, (D, D)."""
        found = self.many.sum(0)
        for half in self.halves:
            flat = half.flatten(0, 1)
            found = found + flat.mT @ flat
        return found

    def apply(self, means: Tensor) -> Tensor:
        """Return G_i x_i for (n, D)."""
        ordered = means[self.plan.order]
        found = torch.zeros_like(ordered)
        n_many = self.plan.n_many
        found[:n_many] = (self.many @ ordered[:n_many].unsqueeze(-1)).squeeze(-1)
        for (r, begin, at), half in zip(self.plan.few, self.halves, strict=True):
            rows = slice(begin, begin + len(at))
            if r == 1:
                flat = half.squeeze(1)
                torch.mul(flat, (flat * ordered[rows]).sum(-1, keepdim=True), out=found[rows])
            else:
                found[rows] = (half.mT @ (half @ ordered[rows].unsqueeze(-1))).squeeze(-1)
        return found[self.plan.place]

    def products(self, means: Tensor) -> Tensor:
        """Return the sums over rows of x_ik G_i,kl x_il for (n, D): (D, D)."""
        ordered = means[self.plan.order]
        found = _products(self.many, ordered[: self.plan.n_many])
        for (_, begin, at), half in zip(self.plan.few, self.halves, strict=True):
            flat = (half * ordered[begin : begin + len(at)].unsqueeze(1)).flatten(0, 1)
            found = found + flat.mT @ flat
        return found

    def _class_means(self) -> Tensor:
        """Return the mean G of the rows of each class, flattened: (n_classes, D * D)."""
        width = self.plan.width
        if not self.halves:
            return self.many.new_zeros(1, width * width)
        flats = [half.flatten(0, 1) for half in self.halves]
        return torch.stack([(f.mT @ f).flatten() / len(h) for f, h in zip(flats, self.halves, strict=True)])

    def pair_sums(self, pairs: Tensor) -> Tensor:
        """Return sums of G_i weighted by each column of (n, p), flattened: (p, D * D).

        Rows with few ratings stand by the mean of those with as many.
        """
        ordered = pairs[self.plan.order]
        n_many = self.plan.n_many
        found = ordered[:n_many].mT @ self.many.reshape(n_many, -1)
        for (_, begin, at), mean in zip(self.plan.few, self._class_means(), strict=False):
            found += torch.outer(ordered[begin : begin + len(at)].sum(0), mean)
        return found

    def block_solver(
        self, weights_precision: Tensor, location_block: Tensor, pairs: Tensor
    ) -> tuple[Solver, Tensor]:
        """Return the solver of the blocks, and their weighted sums (p, D * D)."""
        width, columns, plan = self.plan.width, self.columns, self.plan
        n_many, prior = plan.n_many, torch.diag(weights_precision)
        # In place: of many columns these are as large as all that is known of the rows.
        blocks = bag_sum(
            self.many.flatten(1),
            columns.heavy_rows,
            columns.heavy_indptr,
            columns.heavy_shares,
            columns.heavy_pieces,
        )
        means = self._class_means()
        for part in chunks(len(blocks), cells_on(blocks.device, _CELLS) // width**2):
            blocks[part] += columns.heavy_few[part] @ means
        blocks = blocks.view(-1, width, width)
        blocks[:-1] += prior
        blocks[-1] = location_block
        # Of the light columns: lambda + c mean.
        shared = (columns.light_shares[:n_many] @ self.many.reshape(n_many, -1)).view(width, width)
        for (_, begin, at), half in zip(plan.few, self.halves, strict=True):
            share = columns.light_shares[begin : begin + len(at)]
            weighted = half * share.view(-1, 1, 1)
            shared = shared + weighted.flatten(0, 1).mT @ half.flatten(0, 1)
        mean = shared / columns.light_shares.sum().clamp_min(1e-12)
        own, light, back, light_sums = columns.own, columns.light, columns.back, columns.light_sums
        of_light = pairs[light]
        shares = torch.stack([of_light.sum(0), of_light.mT @ light_sums], dim=1)
        sums = pairs[own].mT @ blocks.flatten(1) + shares @ torch.stack([prior, mean]).flatten(1)
        return FewBlocks.of(blocks, own, light, back, light_sums, mean, weights_precision), sums


def _products(tensor: Tensor, means: Tensor) -> Tensor:
    """Return the sums over rows of x_ik G_i,kl x_il for G (n, D, D) and x (n, D)."""
    found = torch.zeros_like(tensor[:1].sum(0))
    for part in chunks(len(means), cells_on(means.device, _CELLS) // tensor.shape[-1] ** 2):
        x = means[part]
        found += torch.einsum("nk,nkl,nl->kl", x, tensor[part], x)
    return found
