"""With one side fixed, the best diagonal guide is known in closed form, and the objective leads to it.

With q(v) fixed and a Normal likelihood of precision tau, the posterior of u_i tempered by beta is Normal with
precision Lambda_i = diag(1/s^2) + (tau/beta) sum_j E[v_j v_j^T] and mean
Lambda_i^-1 (m/s^2 + (tau/beta) sum_j x_ij E[v_j]). The best *diagonal* Normal has that mean and variances
1/Lambda_kk, not (Lambda^-1)_kk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from objective_tools import N_ITEMS, N_USERS, PRIORS, FixedDraws, K, Problem, make_model
from torch import Tensor, nn

from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.objective import Objective
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.model.blocks import Block
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.rows import RowPosterior

NOISE = 0.7
SIZES = {"user": N_USERS, "item": N_ITEMS}


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class FreeGuide(CrossFeedbackGuide):
    """A guide with enough capacity: every row has parameters of its own. One side's are given and fixed."""

    def __init__(self, fixed_side: str, fixed: RowPosterior, *, biases: bool) -> None:
        super().__init__(EncoderSettings(n_units=1, n_tower_outputs=1), N_USERS, N_ITEMS, K, biases=biases)
        self.fixed_side, self.fixed = fixed_side, fixed
        free_side = "item" if fixed_side == "user" else "user"
        self.loc = nn.Parameter(0.1 * torch.randn(SIZES[free_side], K + biases))
        self.log_scale = nn.Parameter(torch.full((SIZES[free_side], K + biases), -1.0))
        self.rows: dict[str, Tensor] = {}

    def forward(self, block: Block, *, beta: tuple[float, float]) -> None:
        self.rows = {"user": block.users, "item": block.items}
        super().forward(block, beta=beta)

    def encode_rows(
        self, side: Any, feedback: Feedback, other_factors: Tensor | None = None, **more: Any
    ) -> RowPosterior:
        rows = self.rows[side]
        if side == self.fixed_side:
            return self.fixed.select(rows)
        loc, scale = self.loc[rows], self.log_scale[rows].exp()
        if not self.biases:
            return RowPosterior(loc, scale)
        return RowPosterior(loc[:, :K], scale[:, :K], loc[:, K], scale[:, K])


def exact_draws(*, biases: bool) -> FixedDraws:
    """All sign patterns of the factors' draws: the mean over them *is* the expectation of (x - eta)^2.

    That square is of degree two in each draw, and signs have the Normal's first three moments. The biases'
    signs are products of those of the factors, so that no cross moment that matters survives.
    """
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=2 * K)))
    n = len(signs)
    noise = {
        "user_factors": signs[:, None, :K].expand(n, N_USERS, K),
        "item_factors": signs[:, None, K:].expand(n, N_ITEMS, K),
    }
    if biases:
        # The fixed side's bias has a draw too; its variance moves nothing that is compared.
        noise["user_bias"] = signs.prod(1)[:, None].expand(n, N_USERS)
        noise["item_bias"] = torch.zeros(n, N_ITEMS)
    return FixedDraws(noise)


def closed_form(
    problem: Problem, fixed: RowPosterior, side: str, beta: float, *, biases: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, 1/Lambda_kk and (Lambda^-1)_kk of the rows of the free side, row by row."""
    own, other = (problem.users, problem.items) if side == "user" else (problem.items, problem.users)
    m = torch.full((K,), PRIORS[f"{side}_factors"][0])
    s = torch.full((K,), PRIORS[f"{side}_factors"][1])
    regressors, spread = fixed.loc, fixed.scale
    offset = problem.ratings.mean().expand(len(regressors))
    if biases:
        m = torch.cat([m, torch.tensor([PRIORS[f"{side}_bias"][0]])])
        s = torch.cat([s, torch.tensor([PRIORS[f"{side}_bias"][1]])])
        regressors = torch.cat([regressors, torch.ones(len(regressors), 1)], dim=1)
        spread = torch.cat([spread, torch.zeros(len(spread), 1)], dim=1)
        offset = offset + fixed.bias_loc
    weight = 1.0 / (NOISE**2 * beta)
    means, diagonal, marginal = [], [], []
    for row in range(SIZES[side]):
        precision, pull = torch.diag(1.0 / s**2), m / s**2
        for entry in (own == row).nonzero()[:, 0]:
            j = other[entry]
            v = regressors[j]
            precision = precision + weight * (torch.outer(v, v) + torch.diag(spread[j] ** 2))
            pull = pull + weight * (problem.ratings[entry] - offset[j]) * v
        means.append(torch.linalg.solve(precision, pull))
        diagonal.append(1.0 / precision.diagonal())
        marginal.append(torch.linalg.inv(precision).diagonal())
    return torch.stack(means), torch.stack(diagonal), torch.stack(marginal)


@pytest.mark.parametrize(
    ("side", "beta", "given_scale", "biases"),
    [
        ("user", 1.0, 1e-6, False),
        ("user", 1.0, 0.4, False),
        ("user", 0.3, 0.4, True),
        ("item", 2.5, 0.4, False),
    ],
)
def test_the_best_diagonal_guide(side: str, beta: float, given_scale: float, biases: bool) -> None:
    torch.manual_seed(0)
    problem = Problem.draw()
    other = "item" if side == "user" else "user"
    n = SIZES[other]
    scale = given_scale * (0.5 + torch.rand(n, K))
    bias = (torch.randn(n), torch.full((n,), 0.2)) if biases else (None, None)
    fixed = RowPosterior(torch.randn(n, K), scale, *bias)
    guide = FreeGuide(other, fixed, biases=biases)
    draws = exact_draws(biases=biases)
    objective = Objective(
        make_model(biases=biases, noise=NOISE), guide, num_particles=len(draws.noise["user_factors"])
    )
    block = problem.blocks().block(0, 0)
    weights = (beta, 1.0) if side == "user" else (1.0, beta)
    optimizer = torch.optim.LBFGS(
        [guide.loc, guide.log_scale],
        max_iter=100,
        tolerance_grad=1e-8,
        tolerance_change=1e-13,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        with draws.at(block):
            loss, _ = objective(block, beta=weights)
        loss.backward()
        return loss

    optimizer.step(evaluate)
    mean, diagonal, marginal = closed_form(problem, fixed, side, beta, biases=biases)
    variance = (2 * guide.log_scale.detach()).exp()
    torch.testing.assert_close(guide.loc.detach(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(variance, diagonal, rtol=1e-5, atol=0)
    assert float((marginal / diagonal).max()) > 1.1, "here the two kinds of variance can be told apart"
