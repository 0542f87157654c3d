"""The coarse level is the system restricted to its directions, and saves steps without moving a draw."""

from __future__ import annotations

import pytest
import torch
from tiny_chain import random_state, tiny_model, tiny_sweeps
from torch import Tensor

from pyro_bmf.methods.conjugate_gradients import conjugate_gradient
from pyro_bmf.methods.few_entries import RowPlan
from pyro_bmf.methods.gibbs.coarse_level import CoarseLevel
from pyro_bmf.methods.gibbs.collapsed_means import Operator, Preconditioner
from pyro_bmf.methods.gibbs.mean_information import ColumnPlan, DenseInformation, FewInformation, Information
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.methods.kernel import Entries
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.sides import Side


def dense_system(entries: Entries, information: Tensor, precision: Tensor, location_prior: Tensor) -> Tensor:
    """Return A^T G A + lambda from its definition: one column after the other, and the location last."""
    n, width = information.shape[:2]
    design = torch.zeros(n, entries.n_columns + 1, dtype=torch.float64)
    design[entries.rows.long(), entries.indices.long()] = 1.0
    design[:, :-1] /= design[:, :-1].sum(1, keepdim=True).clamp_min(1.0).sqrt()
    design[:, -1] = n**-0.5
    system = torch.einsum("ia,ikl,ib->akbl", design, information, design)
    for column in range(entries.n_columns):
        system[column, :, column] += torch.diag(precision)
    system[-1, :, -1] += location_prior
    side = (entries.n_columns + 1) * width
    return system.reshape(side, side)


def the_system(side: Side) -> tuple[Sweeps, Entries, Tensor, Tensor, Tensor]:
    """Return a small system's parts: G, the weights' precision, and the location's prior."""
    sweeps = tiny_sweeps(tiny_model())
    state = random_state(sweeps)
    own, entries = state.of(side), sweeps.entries.of(side)
    information = sweeps.given_other(side, state, sweeps.ratings).information().tensor
    location_prior = sweeps.priors.of(side).location_precision(own.precision) / len(information)
    return sweeps, entries, information, own.weights_precision, location_prior


def preconditioned(
    information: Information, level: CoarseLevel, precision: Tensor, prior: Tensor, n: int
) -> Preconditioner:
    """Return both levels."""
    location_block = information.total() / n + prior
    blocks, sums = information.block_solver(precision, location_block, level.pairs())
    return Preconditioner(blocks, level.solver(information, precision, prior, sums))


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("n_modes", [1, 3])
def test_directions_of_the_coarse_level_are_solved_for_exactly(side: Side, n_modes: int) -> None:
    _, entries, g, precision, prior = the_system(side)
    system = dense_system(entries, g, precision, prior)
    width, m = g.shape[1], entries.n_columns
    level = CoarseLevel.build(entries, n_modes)
    both = preconditioned(DenseInformation(entries, g), level, precision, prior, len(g))
    # The formula of the module, from the dense system.
    spread = torch.kron(level.basis, torch.eye(width, dtype=torch.float64))
    blocks = torch.zeros_like(system)
    for start in range(0, len(system), width):
        own = slice(start, start + width)
        blocks[own, own] = system[own, own]
    inverse = (
        torch.linalg.inv(blocks)
        + spread
        @ (torch.linalg.inv(spread.T @ system @ spread) - torch.linalg.inv(spread.T @ blocks @ spread))
        @ spread.T
    )
    left = torch.randn(m + 1, width, dtype=torch.float64)
    torch.testing.assert_close(both(left).flatten(), inverse @ left.flatten())
    assert float(torch.linalg.eigvalsh(inverse).min()) > 0.0
    # What the blocks make of a direction is solved exactly.
    direction = blocks @ spread[:, 1]
    torch.testing.assert_close(
        spread.T @ system @ both(direction.view(m + 1, width)).flatten(), spread.T @ direction
    )


@pytest.mark.parametrize("side", ["user", "item"])
def test_rows_with_few_ratings_have_the_sums_of_the_blocks_they_solve_with(side: Side) -> None:
    sweeps, entries, g, precision, prior = the_system(side)
    width, m = g.shape[1], entries.n_columns
    plan = RowPlan.build(entries, width)
    columns = ColumnPlan.build(plan)
    state = random_state(sweeps)
    other = state.opposite(side)
    conditional = plan.conditional(
        state.of(side).precision,
        sweeps.features(side, state),
        other.row_precision,
        state.of(side).row_precision.unsqueeze(-1) * state.noise_precision,
        torch.zeros_like(state.of(side).rows),
    )
    information = FewInformation.of(columns, conditional)
    level = CoarseLevel.build(entries, 2)
    location_block = information.total() / len(g) + prior
    blocks, sums = information.block_solver(precision, location_block, level.pairs())
    eye = torch.eye(width, dtype=torch.float64)
    # The blocks themselves, from what their solver makes of unit vectors.
    solved = torch.stack([blocks(unit.expand(m + 1, width).contiguous()) for unit in eye], dim=2)
    expected = level.pairs().mT @ torch.linalg.inv(solved).flatten(1)
    torch.testing.assert_close(sums, expected)
    # Those of heavy columns are sums over their rows, in which rows with few ratings stand by the mean of
    # those with as many; the location's is given.
    own = torch.linalg.inv(solved)
    torch.testing.assert_close(own[-1], location_block)
    before = state.of(side).precision
    said = before - before @ conditional.covariance() @ before
    counts = entries.indptr.diff()
    for r in range(1, width):
        alike = counts == r
        said[alike] = said[alike].mean(0)
    rated = torch.zeros(len(g), m, dtype=torch.float64)
    rated[entries.rows.long(), entries.indices.long()] = 1.0
    sums_of_rows = torch.einsum("ij,ikl->jkl", rated / counts.clamp_min(1).unsqueeze(1), said)
    heavy = columns.own[:-1]
    assert len(heavy) > 0
    torch.testing.assert_close(own[heavy], (sums_of_rows + torch.diag(precision))[heavy])


def clustered_mask(n: int, m: int, dtype: torch.dtype) -> Feedback:
    """Return the mask of users in three groups, each of which rates a third of the items more often."""
    generator = torch.Generator().manual_seed(3)
    popular = torch.rand(m, generator=generator).square()
    chance = 0.25 * popular.expand(n, m).clone()
    group, kind = torch.arange(n) % 3, torch.arange(m) % 3
    chance *= torch.where(group[:, None] == kind[None, :], 3.0, 0.3)
    users, items = (torch.rand(n, m, generator=generator) < chance).nonzero(as_tuple=True)
    return Feedback.from_coo(users, items, torch.ones(len(users), dtype=dtype), n, m)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_coarse_level_saves_most_steps_and_the_solution_is_the_same(dtype: torch.dtype) -> None:
    n, m, width = 400, 300, 4
    entries = Entries.of(clustered_mask(n, m, dtype), dtype)
    torch.manual_seed(0)
    counts = entries.indptr.diff().to(dtype)
    factors = torch.randn(n, width, 2 * width, dtype=dtype)
    told = (counts / (counts + 20.0)).view(-1, 1, 1)
    g = told * (factors @ factors.mT) / width
    information = DenseInformation(entries, g)
    precision, prior = torch.full((width,), 0.5, dtype=dtype), 0.01 * torch.eye(width, dtype=dtype)
    operator = Operator(entries, information, precision, prior)
    target = torch.randn(m + 1, width, dtype=dtype)
    exact = torch.linalg.solve(
        dense_system(entries, g.double(), precision.double(), prior.double()), target.double().flatten()
    )
    taken = {}
    for n_modes in (0, 8):
        level = CoarseLevel.build(entries, max(n_modes, 1))
        both = preconditioned(information, level, precision, prior, n)
        found, taken[n_modes], _ = conjugate_gradient(
            operator,
            both if n_modes else both.blocks,
            target,
            torch.zeros_like(target),
            tolerance=1e-5,
            max_steps=500,
        )
        assert float((found.double().flatten() - exact).norm() / exact.norm()) < 1e-3
    assert taken[8] <= 0.5 * taken[0]


@pytest.mark.parametrize(("n", "m", "pairs"), [(3, 1, [(0, 0), (2, 0)]), (1, 4, [(0, 1)]), (2, 3, [])])
def test_a_mask_with_few_columns_has_no_more_directions(n: int, m: int, pairs: list[tuple[int, int]]) -> None:
    index = torch.tensor(pairs, dtype=torch.int64).view(-1, 2)
    feedback = Feedback.from_coo(index[:, 0], index[:, 1], torch.ones(len(index), dtype=torch.float64), n, m)
    level = CoarseLevel.build(Entries.of(feedback, torch.float64))
    assert level.basis.shape == (m + 1, min(m, 8) + 1)
    assert bool(torch.isfinite(level.basis).all())
    assert int(torch.linalg.matrix_rank(level.basis)) == min(m, 8) + 1
