"""The expected log-likelihood in closed form: against loops over pairs, draws, and sums over blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from objective_tools import (
    N_ITEMS,
    N_USERS,
    PRIORS,
    FixedDraws,
    K,
    Problem,
    eq_7,
    make_model,
    make_objective,
)
from pyro import poutine
from torch import Tensor

from pyro_bmf.errors import SettingsError
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.objective import Objective, eta_moments
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.model import FactorizationModel, RowNoise
from pyro_bmf.model.likelihoods.normal import Likelihood, NormalLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.model.rows import RowPosterior

RAGGED = [(100, 100), (3, 2), (1, 1), (5, 3)]
COVARIANCES = ["diagonal", "low-rank", "full"]


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def plain_objective(elbo: str, *, biases: bool = True, num_particles: int = 1, **changes: Any) -> Objective:
    """An objective whose guide is the package's own, with every parameter drawn anew."""
    torch.manual_seed(0)
    guide = CrossFeedbackGuide(
        EncoderSettings(**{"n_units": 4, "n_tower_outputs": 4, **changes}),
        N_USERS,
        N_ITEMS,
        K,
        biases=biases,
        user_scales=(0.8, 0.4),
        item_scales=(0.6, 0.5),
    )
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model = make_model(biases=biases)
    return Objective(model, guide, elbo=elbo, num_particles=num_particles)  # type: ignore[arg-type]


def rows_of(objective: Objective, problem: Problem) -> dict[str, RowPosterior]:
    block = problem.blocks().block(0, 0)
    order = {"user": torch.argsort(block.users), "item": torch.argsort(block.items)}
    return {
        side: objective.guide.encode_rows(side, feedback, rows=rows).select(order[side])  # type: ignore[arg-type]
        for side, feedback, rows in (
            ("user", block.user_feedback, block.users),
            ("item", block.item_feedback, block.items),
        )
    }


def literal_expectation(objective: Objective, problem: Problem) -> Tensor:
    """E_q[log p(x_ij)] of each rating, every moment by loops over factors: shape (n_ratings,)."""
    rows = rows_of(objective, problem)
    noise = objective.model.likelihood.noise_sd
    found = []
    for i, j, x in zip(problem.users, problem.items, problem.ratings, strict=True):
        u, v = rows["user"], rows["item"]
        su, sv = u.covariance()[i], v.covariance()[j]
        mean = objective.model.centre + sum(u.loc[i, k] * v.loc[j, k] for k in range(K))
        # E[(u.v)^2] = sum_kl E[u_k u_l] E[v_k v_l], less the square of the mean.
        second = torch.zeros(())
        for k in range(K):
            for m in range(K):
                uu = su[k, m] + u.loc[i, k] * u.loc[i, m]
                vv = sv[k, m] + v.loc[j, k] * v.loc[j, m]
                second = second + uu * vv
        variance = second - (mean - objective.model.centre) ** 2
        if u.bias_loc is not None:
            mean = mean + u.bias_loc[i] + v.bias_loc[j]
            variance = variance + su[K, K] + sv[K, K]
        square = (x - mean) ** 2 + variance
        found.append(-square / (2 * noise**2) - torch.log(noise) - math.log(2 * math.pi) / 2)
    return torch.stack(found)


def literal_kl(objective: Objective, problem: Problem) -> dict[str, Tensor]:
    """KL of each row's factors and bias to their priors, as of dense Normals: site -> (n_rows,)."""
    found = {}
    for side, rows in rows_of(objective, problem).items():
        covariance = rows.covariance()
        for site, loc, part, prior in (
            (f"{side}_factors", rows.loc, slice(0, K), getattr(objective.model, f"{side}_prior")),
            (f"{side}_bias", rows.bias_loc, slice(K, K + 1), getattr(objective.model, f"{side}_bias_prior")),
        ):
            if loc is None:
                continue
            loc = loc.reshape(len(loc), -1)
            q = torch.distributions.MultivariateNormal(loc, covariance[:, part, part])
            p = torch.distributions.MultivariateNormal(
                prior.location.expand(loc.shape[1]), torch.eye(loc.shape[1]) * prior.spread**2
            )
            found[site] = torch.distributions.kl_divergence(q, p)
    return found


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(("user_size", "item_size"), RAGGED)
def test_blocks_sum_to_the_expectation_over_q(
    covariance: str, biases: bool, user_size: int, item_size: int
) -> None:
    """Value, parts, and gradients of all parameters, against loops over pairs and factors."""
    problem, beta = Problem.draw(), (0.7, 1.9)
    objective = plain_objective("closed-form", biases=biases, covariance=covariance)
    total, sums = torch.zeros(()), {}
    for block in problem.blocks(user_size, item_size):
        loss, parts = objective(block, beta=beta)
        total = total + loss
        sums = {name: sums.get(name, 0.0) + value for name, value in parts.items()}
    likelihood, kl = literal_expectation(objective, problem), literal_kl(objective, problem)
    expected = -likelihood.sum()
    for name, value in kl.items():
        expected = expected + beta[0 if name.startswith("user") else 1] * value.sum()
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(sums["log_likelihood"], likelihood.sum().detach(), rtol=1e-10, atol=0)
    assert sums.keys() == {"log_likelihood", *(f"kl_{name}" for name in kl)}
    for name, value in kl.items():
        torch.testing.assert_close(sums[f"kl_{name}"], value.sum().detach(), rtol=1e-9, atol=1e-10)
    parameters = dict(objective.named_parameters())
    grads = [
        torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for value in (total, expected)
    ]
    for name, ours, theirs in zip(parameters, *grads, strict=True):
        assert theirs is not None, name
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_it_is_what_sampled_objectives_average_to(covariance: str) -> None:
    problem, beta = Problem.draw(), (0.7, 1.9)
    block = problem.blocks().block(0, 0)
    exact = plain_objective("closed-form", covariance=covariance)
    with torch.no_grad():
        reference, _ = exact(block, beta=beta)
        again, _ = exact(block, beta=beta)
        assert float(reference) == float(again), "there is no noise left"
        for elbo in ("mean-field", "trace"):
            sampled = plain_objective(elbo, covariance=covariance, num_particles=8)
            sampled.load_state_dict(exact.state_dict())
            losses = torch.stack([sampled(block, beta=beta)[0] for _ in range(25)])
            error = losses.std() / len(losses) ** 0.5
            assert abs(float(losses.mean() - reference)) < 4 * float(error)


def test_gradients_of_sampled_objectives_average_to_its_gradient() -> None:
    problem, beta = Problem.draw(), (0.7, 1.9)
    block = problem.blocks().block(0, 0)
    exact, sampled = plain_objective("closed-form"), plain_objective("mean-field", num_particles=10)
    sampled.load_state_dict(exact.state_dict())

    def gradient(objective: Objective) -> Tensor:
        loss, _ = objective(block, beta=beta)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(objective.parameters()))])

    reference = gradient(exact)
    drawn = torch.stack([gradient(sampled) for _ in range(120)])
    # Along a few directions: single entries are far from independent of each other.
    ways = torch.randn(len(reference), 20)
    along = (drawn - reference) @ ways
    error = along.std(0) / len(along) ** 0.5
    assert bool((along.mean(0).abs() < 4.5 * error).all())
    assert bool((error < 0.3 * (reference @ ways).abs().mean()).all()), "enough draws to see an error"


@pytest.mark.parametrize("biases", [False, True])
def test_moments_of_the_predictor_against_draws(biases: bool) -> None:
    """Rows of all kinds of covariance, the two sides' unlike each other."""
    problem = Problem.draw()
    block = problem.blocks().block(0, 0)
    traces = {}
    for covariance in COVARIANCES:
        objective = plain_objective("closed-form", biases=biases, covariance=covariance)
        trace = poutine.trace(objective.guide).get_trace(block, beta=(1.0, 1.0))
        traces[covariance] = {n: trace.nodes[n]["fn"] for n in PRIORS if n in trace.nodes}
    centre = torch.tensor(3.0)
    for left, right in (
        ("diagonal", "diagonal"),
        ("full", "full"),
        ("full", "diagonal"),
        ("diagonal", "full"),
    ):
        q = {
            **{n: fn for n, fn in traces[left].items() if n.startswith("user")},
            **{n: fn for n, fn in traces[right].items() if n.startswith("item")},
        }
        with torch.no_grad():
            mean, variance = eta_moments(q, centre, block.rating_users, block.rating_items)
            torch.manual_seed(1)
            n = 40_000
            drawn = {name: fn.sample((n,)) for name, fn in q.items()}
            eta = (
                drawn["user_factors"][:, block.rating_users] * drawn["item_factors"][:, block.rating_items]
            ).sum(-1) + centre
            if biases:
                eta = eta + drawn["user_bias"][:, block.rating_users]
                eta = eta + drawn["item_bias"][:, block.rating_items]
        assert bool(((eta.mean(0) - mean).abs() < 5 * variance.sqrt() / n**0.5).all())
        assert bool(((eta.var(0) / variance - 1).abs() < 0.08).all())


@pytest.mark.parametrize("biases", [False, True])
def test_draws_play_no_part(biases: bool) -> None:
    """Whatever is drawn, the objective is Eq. 7 with exact expectations; other parts are the mean-field's."""
    problem, beta = Problem.draw(), (0.7, 1.9)
    block = problem.blocks().block(0, 0)
    exact = make_objective(elbo="closed-form", biases=biases)
    mean_field = make_objective(elbo="mean-field", biases=biases)
    found = []
    for seed in (0, 1):
        draws = FixedDraws.standard(biases=biases, seed=seed)
        with draws.at(block), torch.no_grad():
            found.append(exact(block, beta=beta))
        with draws.at(block), torch.no_grad():
            _, parts = mean_field(block, beta=beta)
            assert float(parts["log_likelihood"]) != float(found[-1][1]["log_likelihood"])
        for name in parts.keys() - {"log_likelihood"}:
            assert torch.equal(parts[name], found[-1][1][name])
    assert float(found[0][0]) == float(found[1][0])
    many = FixedDraws.standard(4000, biases=biases, seed=2)
    with torch.no_grad():
        drawn = eq_7(exact, problem, many, analytic=True)
    assert float(drawn.loss(beta)) == pytest.approx(float(found[0][0]), rel=0.01)


def test_the_likelihoods_expectation_for_any_predictor() -> None:
    """E[log N(x; eta, s^2)] depends on two moments of eta alone: here eta has two values."""
    likelihood = NormalLikelihood(0.7)
    x, low, high = torch.tensor([1.0, 4.5]), torch.tensor([0.5, 3.0]), torch.tensor([2.0, 5.5])
    expected = (likelihood(low).log_prob(x) + 3.0 * likelihood(high).log_prob(x)) / 4.0
    mean = (low + 3.0 * high) / 4.0
    variance = ((low - mean) ** 2 + 3.0 * (high - mean) ** 2) / 4.0
    torch.testing.assert_close(likelihood.expected_log_prob(x, mean, variance), expected)


class NoClosedForm(Likelihood):
    """A likelihood of a user's own, without an expectation."""


def test_a_likelihood_without_a_closed_form_is_refused() -> None:
    for likelihood in (OrderedProbitLikelihood([1.0, 2.0, 3.0]), NoClosedForm()):
        model = FactorizationModel(K, likelihood=likelihood)
        guide = make_objective().guide
        with pytest.raises(SettingsError, match=type(likelihood).__name__):
            Objective(model, guide, elbo="closed-form")
        Objective(model, guide)
    with pytest.raises(SettingsError, match="noise by row"):
        Objective(FactorizationModel(K, row_noise=RowNoise()), guide, elbo="closed-form")


def test_a_block_without_ratings() -> None:
    problem, beta = Problem.draw(), (0.7, 1.9)
    objective = make_objective(elbo="closed-form")
    empty = [block for block in problem.blocks(1, 1) if not len(block.ratings)]
    loss, parts = objective(empty[0], beta=beta)
    assert float(parts["log_likelihood"]) == 0.0
    expected = sum(beta[0 if "user" in n else 1] * v for n, v in parts.items() if n.startswith("kl_"))
    torch.testing.assert_close(loss.detach(), expected)
