"""The objective of a block against Eq. 7 written out: value, parts, gradients, and the sum over blocks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_tools import (
    N_ITEMS,
    N_USERS,
    PRIORS,
    FixedDraws,
    K,
    Problem,
    TappedGuide,
    eq_7,
    log_normal,
    make_model,
    make_objective,
)
from pyro import poutine
from torch import Tensor, nn

from pyro_bmf.methods.cross_feedback.objective import Objective
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.priors.normal import Prior

ELBOS = ["mean-field", "trace"]
RAGGED = [(100, 100), (3, 2), (1, 1), (5, 3)]


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def gradients(total: Tensor, objective: Objective) -> dict[str, Tensor]:
    """Of every parameter and of every row's tap."""
    named = dict(objective.named_parameters())
    for side, (loc, log_scale) in objective.guide.taps.items():
        named |= {f"{side} loc": loc, f"{side} scale": log_scale}
    grads = torch.autograd.grad(total, named.values(), allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), grads, strict=True)
    }


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(
            value, theirs[name], rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


def over_blocks(
    objective: Objective, blocks: Any, draws: FixedDraws, beta: tuple[float, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    total, sums = torch.zeros(()), {}
    for block in blocks:
        with draws.at(block):
            loss, parts = objective(block, beta=beta)
        total = total + loss
        sums = {name: sums.get(name, 0.0) + value for name, value in parts.items()}
    return total, sums


@pytest.mark.parametrize("elbo", ELBOS)
@pytest.mark.parametrize(("user_size", "item_size"), RAGGED)
@pytest.mark.parametrize("biases", [False, True])
def test_the_blocks_of_an_iteration_sum_to_eq_7_for_every_user_and_item(
    elbo: str, user_size: int, item_size: int, biases: bool
) -> None:
    """Values, parts, and gradients: of the weights, and of each user's and item's own parameters."""
    problem, beta = Problem.draw(), (0.7, 1.9)
    objective = make_objective(elbo=elbo, biases=biases)
    draws = FixedDraws.standard(biases=biases)
    blocks = problem.blocks(user_size, item_size)
    total, sums = over_blocks(objective, blocks, draws, beta)
    expected = eq_7(objective, problem, draws, analytic=elbo == "mean-field")
    torch.testing.assert_close(total, expected.loss(beta), rtol=1e-10, atol=0)
    assert sums.keys() == {"log_likelihood", *(f"kl_{name}" for name in expected.kl)}
    torch.testing.assert_close(sums["log_likelihood"], expected.log_likelihood.sum(), rtol=1e-10, atol=0)
    for name, value in expected.kl.items():
        torch.testing.assert_close(sums[f"kl_{name}"], value.sum(), rtol=1e-9, atol=1e-10)
    ours = gradients(total, objective)
    assert_equal(ours, gradients(expected.loss(beta), objective))
    assert bool((ours["user scale"].abs().sum(1) > 0).all()), "every row has a share, with or without ratings"


@pytest.mark.parametrize(("user_size", "item_size"), RAGGED)
def test_values_per_row_sum_to_eq_7_too(user_size: int, item_size: int) -> None:
    """Each user's KL and log-likelihood, read off the traces of the blocks, against the whole problem's."""
    problem, beta = Problem.draw(), (0.7, 1.9)
    objective = make_objective(seed=1)
    draws = FixedDraws.standard(seed=1)
    per_user = {name: torch.zeros(N_USERS) for name in ("kl", "likelihood")}
    per_item = {name: torch.zeros(N_ITEMS) for name in ("kl", "likelihood")}
    for block in problem.blocks(user_size, item_size):
        with draws.at(block), torch.no_grad():
            q = poutine.trace(objective.guide).get_trace(block, beta=beta)
            p = poutine.trace(poutine.replay(objective.model, trace=q)).get_trace(block, beta=beta)
        q.compute_log_prob()
        p.compute_log_prob()
        for sums, rows, side in ((per_user, block.users, "user"), (per_item, block.items, "item")):
            for name in (f"{side}_factors", f"{side}_bias"):
                sums["kl"][rows] += q.nodes[name]["log_prob"] - p.nodes[name]["log_prob"]
        if len(block.ratings):
            share = p.nodes["rating"]["log_prob"]
            per_user["likelihood"].index_add_(0, block.users[block.rating_users], share)
            per_item["likelihood"].index_add_(0, block.items[block.rating_items], share)
    with torch.no_grad():
        expected = eq_7(objective, problem, draws, analytic=False)
    kl = expected.kl
    torch.testing.assert_close(per_user["kl"], beta[0] * (kl["user_factors"] + kl["user_bias"]))
    torch.testing.assert_close(per_item["kl"], beta[1] * (kl["item_factors"] + kl["item_bias"]))
    for sums, ids, n in ((per_user, problem.users, N_USERS), (per_item, problem.items, N_ITEMS)):
        whole = torch.zeros(n).index_add_(0, ids, expected.log_likelihood)
        torch.testing.assert_close(sums["likelihood"], whole)


@pytest.mark.parametrize("elbo", ELBOS)
def test_per_block_counting_is_algorithm_1_to_the_letter(elbo: str) -> None:
    """A user's KL counts once for every item batch, an item's once for every user batch."""
    problem, beta = Problem.draw(), (0.7, 1.9)
    objective, draws = make_objective(elbo=elbo), FixedDraws.standard()
    blocks = problem.blocks(3, 2, kl_counting="per_block")
    n_p, n_q = len(blocks.user_batches), len(blocks.item_batches)
    assert (n_p, n_q) == (3, 3)
    total, _ = over_blocks(objective, blocks, draws, beta)
    expected = eq_7(objective, problem, draws, analytic=elbo == "mean-field").loss(
        (beta[0] * n_q, beta[1] * n_p)
    )
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=0)
    assert_equal(gradients(total, objective), gradients(expected, objective))


@pytest.mark.parametrize("elbo", ELBOS)
def test_beta_scales_kl_and_nothing_else(elbo: str) -> None:
    """The loss is linear in either beta, its slope that side's KL; the rating term does not move."""
    problem = Problem.draw()
    objective, draws = make_objective(elbo=elbo), FixedDraws.standard()
    expected = eq_7(objective, problem, draws, analytic=elbo == "mean-field")
    user_kl = (expected.kl["user_factors"] + expected.kl["user_bias"]).sum()
    item_kl = (expected.kl["item_factors"] + expected.kl["item_bias"]).sum()
    rating = -expected.log_likelihood.sum()
    block = problem.blocks().block(0, 0)
    noise_gradient = torch.autograd.grad(rating, objective.model.likelihood.parameters(), retain_graph=True)
    for beta in ((1.0, 1.0), (0.1, 1.0), (1.0, 0.1), (3.0, 0.5), (1e-3, 20.0)):
        with draws.at(block):
            loss, parts = objective(block, beta=beta)
        torch.testing.assert_close(loss, rating + beta[0] * user_kl + beta[1] * item_kl, rtol=1e-10, atol=0)
        torch.testing.assert_close(parts["log_likelihood"], -rating, rtol=1e-10, atol=0)
        for name, value in expected.kl.items():
            torch.testing.assert_close(parts[f"kl_{name}"], value.sum(), rtol=1e-9, atol=1e-10)
        together = -parts["log_likelihood"]
        for name, value in parts.items():
            if name.startswith("kl_"):
                together = together + beta[0 if "user" in name else 1] * value
        torch.testing.assert_close(loss.detach(), together, rtol=1e-10, atol=0)
        assert all(not value.requires_grad for value in parts.values())
        ours = gradients(loss, objective)
        assert_equal(ours, gradients(expected_loss(objective, problem, draws, elbo, beta), objective))
        torch.testing.assert_close(ours["model.likelihood._log_noise_sd"], noise_gradient[0])


def expected_loss(
    objective: Objective, problem: Problem, draws: FixedDraws, elbo: str, beta: tuple[float, float]
) -> Tensor:
    return eq_7(objective, problem, draws, analytic=elbo == "mean-field").loss(beta)


@pytest.mark.parametrize("elbo", ELBOS)
def test_particles_are_averaged(elbo: str) -> None:
    problem, beta = Problem.draw(), (0.7, 1.9)
    objective = make_objective(elbo=elbo, num_particles=3)
    draws = FixedDraws.standard(3)
    block = problem.blocks().block(0, 0)
    for _ in range(2):  # parts start afresh at every call
        with draws.at(block):
            loss, parts = objective(block, beta=beta)
        expected = eq_7(objective, problem, draws, analytic=elbo == "mean-field")
        torch.testing.assert_close(loss, expected.loss(beta), rtol=1e-10, atol=0)
        torch.testing.assert_close(parts["log_likelihood"], expected.log_likelihood.sum(), rtol=1e-10, atol=0)
        for name, value in expected.kl.items():
            torch.testing.assert_close(parts[f"kl_{name}"], value.sum(), rtol=1e-9, atol=1e-10)
    assert_equal(gradients(loss, objective), gradients(expected.loss(beta), objective))


@pytest.mark.parametrize("elbo", ELBOS)
def test_a_beta_of_zero_is_a_beginning_and_no_error(elbo: str) -> None:
    problem = Problem.draw()
    objective, draws = make_objective(elbo=elbo), FixedDraws.standard()
    block = problem.blocks().block(0, 0)
    with draws.at(block):
        loss, parts = objective(block, beta=(0.0, 0.0))
    expected = eq_7(objective, problem, draws, analytic=elbo == "mean-field")
    assert float(loss.detach()) == pytest.approx(-float(expected.log_likelihood.sum().detach()), abs=1e-3)
    torch.testing.assert_close(parts["kl_user_factors"], expected.kl["user_factors"].sum(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("elbo", ELBOS)
def test_both_elbos_estimate_the_same(elbo: str) -> None:
    """Pyro's own draws, many of them: the mean of the loss agrees with Eq. 7 within four standard errors."""
    pyro.set_rng_seed(0)
    problem, beta = Problem.draw(), (0.7, 1.9)
    objective = make_objective(elbo=elbo)
    block = problem.blocks().block(0, 0)
    with torch.no_grad():
        losses = torch.stack([objective(block, beta=beta)[0] for _ in range(80)])
        many = FixedDraws.standard(1000, seed=3)
        reference = eq_7(objective, problem, many, analytic=True).loss(beta)
    error = losses.std() / len(losses) ** 0.5
    assert abs(float(losses.mean() - reference)) < 4 * float(error)


class LearnedLocation(Prior):
    """A prior with a hyperparameter of its own: loc ~ N(0, 1), u ~ N(loc, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.q_loc = nn.Parameter(torch.tensor(0.4))
        self.q_log_scale = nn.Parameter(torch.tensor(-1.0))

    def forward(self, side: str, n_factors: int | None) -> dist.TorchDistribution:
        loc = pyro.sample(f"{side}_loc", dist.Normal(torch.tensor(0.0), torch.tensor(1.0)))
        return dist.Normal(loc.expand(n_factors), torch.ones(n_factors)).to_event(1)

    def guide(self, side: str, n_factors: int | None) -> None:
        del n_factors
        pyro.sample(f"{side}_loc", dist.Normal(self.q_loc, self.q_log_scale.exp()))

    @property
    def scale(self) -> float:
        return 1.0

    def settings(self) -> dict[str, Any]:
        return {"kind": "learned-location"}


@pytest.mark.parametrize("elbo", ELBOS)
def test_hyperparameters_count_once_an_iteration_and_are_not_tempered(elbo: str) -> None:
    torch.manual_seed(0)
    prior = LearnedLocation()
    model = FactorizationModel(K, user_prior=prior, likelihood=NormalLikelihood(0.9), biases=False)
    guide = TappedGuide(EncoderSettings(n_units=4, n_tower_outputs=4), biases=False)
    objective, problem, beta = Objective(model, guide, elbo=elbo), Problem.draw(), (0.25, 4.0)
    model.start(problem.ratings.numpy())
    draws = FixedDraws.standard(biases=False)
    hyper = prior.q_loc.detach() + 0.7 * prior.q_log_scale.detach().exp()
    total, sums = torch.zeros(()), {}
    for block in problem.blocks(3, 2):
        with draws.at(block):
            loss, parts = _conditioned(objective, block, beta, hyper)
        total = total + loss.detach()
        sums = {name: sums.get(name, 0.0) + value for name, value in parts.items()}
    scale = prior.q_log_scale.detach().exp()
    if elbo == "mean-field":
        kl = -torch.log(scale) + (scale**2 + prior.q_loc.detach() ** 2) / 2 - 0.5
    else:
        kl = log_normal(hyper, prior.q_loc.detach(), scale) - log_normal(hyper, 0.0, 1.0)
    torch.testing.assert_close(sums["kl_user_factors_loc"], kl, rtol=1e-9, atol=1e-12)
    together = -sums["log_likelihood"] + sums["kl_user_factors_loc"]
    together = together + beta[0] * sums["kl_user_factors"] + beta[1] * sums["kl_item_factors"]
    torch.testing.assert_close(total, together, rtol=1e-10, atol=0)


def _conditioned(objective: Objective, block: Any, beta: Any, hyper: Tensor) -> Any:
    """The objective with the hyperparameter's draw fixed, in the guide and so in the model."""

    class Fixed(poutine.messenger.Messenger):
        def _pyro_sample(self, msg: Any) -> None:
            if msg["name"] == "user_factors_loc" and not msg["done"]:
                msg["value"], msg["done"] = hyper, True

    with Fixed():
        return objective(block, beta=beta)


@pytest.mark.parametrize("elbo", ELBOS)
def test_a_block_without_ratings_is_its_share_of_the_kl(elbo: str) -> None:
    problem, beta = Problem.draw(), (0.7, 1.9)
    objective, draws = make_objective(elbo=elbo), FixedDraws.standard()
    empty = [block for block in problem.blocks(1, 1) if not len(block.ratings)]
    assert empty
    with draws.at(empty[0]):
        loss, parts = objective(empty[0], beta=beta)
    assert float(parts["log_likelihood"]) == 0.0
    expected = sum(beta[0 if "user" in n else 1] * v for n, v in parts.items() if n.startswith("kl_"))
    torch.testing.assert_close(loss.detach(), expected)


@pytest.mark.parametrize("elbo", ELBOS)
def test_a_step_leaves_no_trace_in_pyros_param_store_and_warns_of_nothing(elbo: str) -> None:
    """Names of parameters are ours; and model and guide sample in one order, of which Pyro would warn."""
    pyro.clear_param_store()
    problem = Problem.draw()
    objective = make_objective(elbo=elbo)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    before = [p.detach().clone() for p in objective.parameters()]
    with warnings.catch_warnings(), pyro.validation_enabled():
        warnings.simplefilter("error")
        for block in problem.blocks(3, 2):
            loss, _ = objective(block, beta=(1.0, 1.0))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, objective.parameters(), strict=True))
    assert dict(pyro.get_param_store().items()) == {}


def test_model_and_guide_sample_in_one_order() -> None:
    problem = Problem.draw()
    objective = make_objective()
    block = problem.blocks().block(0, 0)
    orders = []
    for program in (objective.model, objective.guide):
        trace = poutine.trace(program).get_trace(block, beta=(1.0, 1.0))
        orders.append([name for name in trace.nodes if name in PRIORS])
    assert orders[0] == orders[1] == ["user_factors", "user_bias", "item_factors", "item_bias"]
    assert make_model(biases=False).user_bias_prior is None
