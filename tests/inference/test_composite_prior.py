"""RecVAE's composite prior on both sides: the loss by its definition, what is remembered and refused."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from objective_tools import N_ITEMS, N_USERS, K, Problem
from pyro import poutine
from scipy import stats

from pyro_bmf import fit, preset, random_split
from pyro_bmf.data import Split, synthetic_ratings
from pyro_bmf.errors import SettingsError
from pyro_bmf.methods.cross_feedback.composite_prior import Composite, CompositePriors
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.objective import Objective
from pyro_bmf.methods.cross_feedback.settings import CrossFeedback, EncoderSettings
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.priors.normal import NormalPrior
from pyro_bmf.model.priors.positive import GammaPrior
from pyro_bmf.model.rows import RowPosterior

SHARE = 0.3


def a_model() -> FactorizationModel:
    return FactorizationModel(
        K, user_prior=NormalPrior(0.2, 0.8), item_prior=NormalPrior(-0.1, 0.6),
        likelihood=NormalLikelihood(0.7), biases=False, centred=False,
    )  # fmt: skip


def remembered(priors: CompositePriors) -> CompositePriors:
    torch.manual_seed(4)
    sides = [RowPosterior(torch.randn(n, K), torch.rand(n, K) * 0.5 + 0.2) for n in (N_USERS, N_ITEMS)]
    priors.remember(*sides)
    return priors


def test_the_loss_of_a_block_is_that_of_the_mixture() -> None:
    """-log p(x | u, v) + b_u (log q(u) - log p(u)) + ..., at the draws of one step, by SciPy."""
    model, problem = a_model(), Problem.draw()
    composite = remembered(CompositePriors(model, N_USERS, N_ITEMS, SHARE))
    guide = CrossFeedbackGuide(EncoderSettings(), N_USERS, N_ITEMS, K, biases=False)
    objective = Objective(model, guide, composite=composite).double()
    block = problem.blocks(4, 3).block(1, 0)
    guide_trace = poutine.trace(objective._sample_guide)
    torch.manual_seed(0)
    with torch.no_grad():
        nodes = guide_trace.get_trace(block, (1.0, 1.0)).nodes
    torch.manual_seed(0)
    loss, parts = objective(block, beta=(0.5, 0.25))

    expected, told = 0.0, {}
    for side, rows, prior, beta, weight in (
        ("user", block.users, (0.2, 0.8), 0.5, block.user_weight),
        ("item", block.items, (-0.1, 0.6), 0.25, block.item_weight),
    ):
        drawn, q = nodes[f"{side}_factors"]["value"], nodes[f"{side}_factors"]["fn"]
        own = composite.of(side)
        first = stats.norm(*prior).pdf(drawn.numpy()).prod(1)
        second = stats.norm(own.loc[rows].numpy(), own.scale[rows].numpy()).pdf(drawn.numpy()).prod(1)
        log_prior = np.log((1 - SHARE) * first + SHARE * second).sum()
        log_q = stats.norm(q.mean.numpy(), q.variance.sqrt().numpy()).logpdf(drawn.numpy()).sum()
        told[f"kl_{side}_factors"] = weight * (log_q - log_prior)
        expected += beta * told[f"kl_{side}_factors"]
    u, v = (nodes[f"{side}_factors"]["value"].numpy() for side in ("user", "item"))
    eta = (u[block.rating_users.numpy()] * v[block.rating_items.numpy()]).sum(1)
    expected -= stats.norm(eta, 0.7).logpdf(block.ratings.numpy()).sum()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert {name: float(parts[name]) for name in told} == pytest.approx(told, rel=1e-4)


def test_gradients_are_those_of_the_mixture_written_out() -> None:
    torch.manual_seed(1)
    old = torch.distributions.Independent(torch.distributions.Normal(torch.randn(3, K), 0.4), 1)
    prior = NormalPrior(0.2, 0.8)("user_factors", K)
    at = torch.randn(3, K, requires_grad=True)
    (found,) = torch.autograd.grad(Composite(prior, old, SHARE).log_prob(at).sum(), at)

    def normal(mean: Any, sd: float) -> torch.Tensor:
        return (-0.5 * ((at - mean) / sd) ** 2 - np.log(sd * np.sqrt(2 * np.pi))).sum(1).exp()

    mixture = (1 - SHARE) * normal(0.2, 0.8) + SHARE * normal(old.mean, 0.4)
    (wanted,) = torch.autograd.grad(mixture.log().sum(), at)
    torch.testing.assert_close(found, wanted)


def test_draws_are_of_either_part() -> None:
    torch.manual_seed(2)
    old = torch.distributions.Independent(torch.distributions.Normal(torch.full((1, 1), 9.0), 0.1), 1)
    drawn = Composite(NormalPrior(0.0, 0.1)("user_factors", 1), old, SHARE).sample(torch.Size([4000]))
    share = float((drawn > 4.5).double().mean())
    assert share == pytest.approx(SHARE, abs=5 * np.sqrt(SHARE * (1 - SHARE) / 4000))


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(synthetic_ratings(40, 30, 400, n_factors=2, scale="1:5:1").ratings, seed=1)


SMALL = {"n_factors": 2, "max_iterations": 4, "user_batch_size": 20, "item_batch_size": 30}


def test_the_rows_of_the_iteration_before_are_remembered(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    remember = CompositePriors.remember

    def watched(self: CompositePriors, users: RowPosterior, items: RowPosterior) -> None:
        remember(self, users, items)
        seen.append(copy.deepcopy((self.user.loc, self.item.scale)))
        assert torch.equal(self.user.loc, users.loc)
        assert torch.equal(self.item.scale, items.scale)

    monkeypatch.setattr(CompositePriors, "remember", watched)
    fit(split, preset("amortized").replace(**SMALL, composite_prior=0.5), progress=False)
    assert len(seen) == 5, "at the start, and after each of four iterations"
    assert not any(torch.equal(a[0], b[0]) for a, b in pairwise(seen))


def test_a_large_share_keeps_rows_where_they_were(split: Split) -> None:
    """With a heavy KL, the prior pulls to zero; one that holds on to where rows are pulls less."""

    def spread(share: float) -> float:
        settings = preset("amortized").replace(
            **SMALL | {"max_iterations": 15}, composite_prior=share, beta_user=30.0, beta_item=30.0,
            warmup_iterations=0,
        )  # fmt: skip
        posterior = fit(split, settings, progress=False).posterior
        return float(posterior.user_rows.loc.abs().mean() + posterior.item_rows.loc.abs().mean())

    assert spread(0.9) > 1.5 * spread(0.0)


def test_what_it_does_not_go_with_is_refused(split: Split) -> None:
    with pytest.raises(SettingsError, match=r"composite_prior is 0\.5 and covariance 'full'"):
        CrossFeedback(EncoderSettings(covariance="full"), composite_prior=0.5)
    with pytest.raises(SettingsError, match="factors are positive"):
        fit(split, preset("poisson").replace(**SMALL, composite_prior=0.5), progress=False)
    model = FactorizationModel(2, user_prior=GammaPrior(), item_prior=GammaPrior(), biases=False)
    with pytest.raises(SettingsError, match="Set composite_prior to 0"):
        CompositePriors(model, 3, 3, 0.5)
