"""The collapsed bound against Pyro's ELBO of the public model and guide, and its gradient and updates."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from small_head import N_ITEMS, N_USERS, K, Small, make
from torch import Tensor

from pyro_bmf.methods.exact_head.head import head_of
from pyro_bmf.methods.exact_head.objective import Collapsed, CollapsedELBO
from pyro_bmf.methods.kernel import Entries
from pyro_bmf.model.blocks import Block
from pyro_bmf.model.feedback import Feedback


def whole_block(small: Small) -> Block:
    """Return the block that holds all ratings."""
    ratings = small.ratings
    users, items = (torch.from_numpy(column.astype("int64")) for column in (ratings.users, ratings.items))
    values = torch.from_numpy(ratings.ratings.astype(float))
    centred = values - small.model.centre
    return Block(
        users=torch.arange(N_USERS),
        items=torch.arange(N_ITEMS),
        rating_users=users,
        rating_items=items,
        ratings=values,
        user_feedback=Feedback.from_coo(users, items, centred, N_USERS, N_ITEMS),
        item_feedback=Feedback.from_coo(items, users, centred, N_ITEMS, N_USERS),
        user_weight=1.0,
        item_weight=1.0,
        global_weight=1.0,
    )


def collapsed(small: Small, side: str = "user", beta: float = 1.0) -> Collapsed:
    """Return a side with its rows integrated out, at the state's own terms."""
    updates, guide = small.updates, small.updates.guide
    with torch.no_grad():
        terms = updates._terms(fit_cuts=False, begun=False)
        if side == "item":
            terms = terms.reordered(updates.item_order)
        own, entries, other = guide.of(side), updates.entries.of(side), guide.moments(side)  # type: ignore[arg-type]
        row_precision = guide.noise_precision.to(own.loc.dtype) * own.row_precision / beta
        head = head_of(other, entries, terms.target, terms.share, own.precision, row_precision)
        return Collapsed.of(guide, side, entries, head, other, terms, beta)  # type: ignore[arg-type]


def at_means(small: Small) -> dict[str, Tensor]:
    """Return the hyperparameters' sites at their means, and the items' weights."""
    found: dict[str, Tensor] = {}
    for side in ("user", "item"):
        own = small.updates.guide.of(side)  # type: ignore[arg-type]
        found |= {
            f"{side}_factors_precision": own.precision[:K, :K],
            f"{side}_factors_location": own.location[:K],
            f"{side}_bias_precision": own.precision[K, K],
            f"{side}_bias_location": own.location[K],
            f"{side}_weights_precision": own.weights_precision,
        }
    found["item_weights"] = small.updates.guide.item.weights.detach()
    return found


@pytest.mark.parametrize(("n_draws", "most"), [(300, 0.6), pytest.param(4000, 0.15, marks=pytest.mark.slow)])
def test_the_bound_is_what_pyro_estimates(n_draws: int, most: float) -> None:
    """With q(V) and hyperparameters frozen: draws of Pyro's ELBO, within three standard errors."""
    small = make(noisy=False)
    guide, block = small.updates.guide, whole_block(small)
    for side in (guide.user, guide.item):
        side.location_covariance = torch.zeros_like(side.location_covariance)
    fixed = at_means(small)
    model = poutine.condition(small.model, data=fixed)
    items = guide.item

    def frozen(block: Block, *, beta: tuple[float, float]) -> None:
        """The guide's users; items by their marginals."""
        q = dist.Normal(guide.user.weights, guide.user.weights_sd).to_event(2)
        entries = small.updates.entries.user
        means = entries.means(pyro.sample("user_weights", q)) + guide.user.location
        guide.sample_rows("user", block, means, beta=1.0)
        with pyro.plate("items", N_ITEMS):
            cov = items.covariance
            v = pyro.sample("item_factors", dist.MultivariateNormal(items.loc[:, :K], cov[:, :K, :K]))
            solved = torch.linalg.solve(cov[:, :K, :K], cov[:, :K, K:]).squeeze(-1)
            mean = items.loc[:, K] + (solved * (v - items.loc[:, :K])).sum(-1)
            variance = cov[:, K, K] - (solved * cov[:, :K, K]).sum(-1)
            pyro.sample("item_bias", dist.Normal(mean, variance.sqrt()))

    torch.manual_seed(2)
    draws = []
    loss = TraceMeanField_ELBO()
    with torch.no_grad(), pyro.settings.context(module_local_params=True):
        for _ in range(n_draws):
            draws.append(-loss.loss(model, frozen, block, beta=(1.0, 1.0)))
    estimate = torch.tensor(draws, dtype=torch.float64)
    # Pyro counts the densities of what is conditioned on; KL(V) is known.
    told = poutine.trace(poutine.condition(small.model, data=fixed)).get_trace(block, beta=(1.0, 1.0))
    told.compute_log_prob()
    given = sum(
        float(site["log_prob_sum"]) for name, site in told.nodes.items() if name in fixed and name != "rating"
    )
    prior = dist.MultivariateNormal(
        small.updates.entries.item.means(items.weights.detach()) + items.location,
        precision_matrix=items.precision,
    )
    kl = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(items.loc, items.covariance),
        torch.distributions.MultivariateNormal(prior.loc, items.covariance * 0 + prior.covariance_matrix),
    ).sum()
    exact = -CollapsedELBO().loss(small.model, guide, collapsed(small)) - float(kl) + given
    error = float(estimate.std()) / len(estimate) ** 0.5
    assert error < most
    assert abs(float(estimate.mean()) - exact) < 3 * error


@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("ordered", [False, True])
def test_gradients_are_finite_differences(side: str, ordered: bool, beta: float) -> None:
    small = make(ordered=ordered)
    given, weights = collapsed(small, side, beta), small.updates.guide.of(side).weights  # type: ignore[arg-type]
    elbo = CollapsedELBO()(small.model, small.updates.guide)
    weights.grad = None
    elbo(given).backward()
    assert weights.grad is not None
    step = 1e-5
    for place in ((0, 0), (2, 1), (3, K)):
        with torch.no_grad():
            weights[place] += step
            above = float(elbo(given))
            weights[place] -= 2 * step
            below = float(elbo(given))
            weights[place] += step
        assert float(weights.grad[place]) == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_the_weights_spread_is_where_the_bound_is_highest(beta: float) -> None:
    small = make()
    own, entries = small.updates.guide.user, small.updates.entries.user

    def bound() -> float:
        with torch.no_grad():
            return -CollapsedELBO().loss(small.model, small.updates.guide, collapsed(small, "user", beta))

    diagonals, _ = collapsed(small, "user", beta).head.mean_precision()
    said = beta * entries.means_back(diagonals * entries.root_counts.unsqueeze(-1))
    own.weights_sd = (said + own.weights_precision).rsqrt()
    best = bound()
    for factor in (0.98, 1.02):
        for column in range(K + 1):
            moved = own.weights_sd.clone()
            kept = own.weights_sd
            moved[:, column] *= factor
            own.weights_sd = moved
            assert bound() < best
            own.weights_sd = kept


def test_iterations_of_a_normal_likelihood_climb() -> None:
    """With the means of the weights held, every update is the best of its block, and the loss falls."""
    small = make(noisy=False)
    for _, optimizer in small.updates.weight_steps.optimizers.by_side():  # type: ignore[union-attr]
        optimizer.param_groups[0]["lr"] = 0.0
    losses = [small.updates.iteration()["loss"] for _ in range(30)]
    assert all(after < before for before, after in pairwise(losses))


@pytest.mark.parametrize("ordered", [False, True])
def test_the_guide_samples_what_the_model_samples(ordered: bool) -> None:
    """Pyro's own ELBO takes the public model and guide as they are, hyperparameters and cut points too."""
    small = make(ordered=ordered, drawn=True)
    for side in (small.updates.guide.user, small.updates.guide.item):
        side.location_covariance = side.location_covariance + 0.01 * torch.eye(K + 1)
    block = whole_block(small)
    small.updates.guide.requires_grad_(False)
    with pyro.settings.context(module_local_params=True):
        torch.manual_seed(0)
        elbo = TraceMeanField_ELBO(num_particles=2)(small.model, small.updates.guide)
        loss = float(elbo(block, beta=(1.0, 1.0)).detach())
        sites = [poutine.trace(one).get_trace(block, beta=(1.0, 1.0)) for one in (small.model, elbo.guide)]
    sampled = [
        {name for name, site in trace.nodes.items() if site["type"] == "sample" and not site["is_observed"]}
        - {"users", "items", "ratings"}  # plates
        for trace in sites
    ]
    assert sampled[0] == sampled[1]
    assert ("cuts" in sampled[1]) == ordered
    assert 0.0 < loss < 1e4


@pytest.mark.parametrize("side", ["user", "item"])
def test_prior_means_of_other_pairs_than_the_rated_ones(side: str) -> None:
    """The evidence has the gradient in the weights that dense algebra gives."""
    small = make()
    guide = small.updates.guide
    seen = torch.from_numpy(np.random.default_rng(8).random((N_USERS, N_ITEMS)) < 0.4)
    ones = torch.ones(int(seen.sum()), dtype=torch.float64)
    feedback = Feedback.from_coo(*seen.nonzero(as_tuple=True), ones, N_USERS, N_ITEMS)
    mask = Entries.of(feedback, torch.float64)
    if side == "item":
        mask, seen = Entries.of_transpose(feedback, torch.float64), seen.T
    rated = collapsed(small, side)
    own = guide.of(side)  # type: ignore[arg-type]
    other = dataclasses.replace(rated, mask=mask)
    loss = CollapsedELBO()(small.model, guide)
    loss(other).backward()
    shares = seen.double() / seen.sum(1, keepdim=True).clamp_min(1).double().sqrt()
    weights = own.weights.detach().clone().requires_grad_()
    mean = own.location + shares @ weights
    prior, linear = own.precision, rated.head.conditional.linear
    evidence = torch.zeros((), dtype=torch.float64)
    for i in range(len(mean)):
        tril = rated.head.conditional.precision_tril[i]
        h = linear[i] + prior @ mean[i]
        evidence = evidence + 0.5 * h @ torch.linalg.solve(tril @ tril.T, h) - 0.5 * mean[i] @ prior @ mean[i]
    (evidence - 0.5 * (own.weights_precision * weights**2).sum()).backward()
    torch.testing.assert_close(-own.weights.grad, weights.grad, rtol=1e-9, atol=1e-10)
    assert not torch.allclose(own.weights.grad, torch.zeros(()).double())
    mean_found, variance = guide.encode_means(side, mask)  # type: ignore[arg-type]
    torch.testing.assert_close(mean_found, mean)
    torch.testing.assert_close(variance, shares**2 @ own.weights_sd**2)
