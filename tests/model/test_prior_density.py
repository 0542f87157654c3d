"""A row's density at hyperparameters drawn from their q, against the density written out."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats

from pyro_bmf.model.prior_density import given_hyperparameters, has_hyperparameters
from pyro_bmf.model.priors.hierarchical import HierarchicalNormalPrior
from pyro_bmf.model.priors.normal import NormalPrior


def test_which_priors_have_hyperparameters() -> None:
    learned = HierarchicalNormalPrior()
    learned.prepare(2)
    assert has_hyperparameters(learned, "user_factors", 2)
    assert not has_hyperparameters(NormalPrior(), "user_factors", 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_density_is_that_at_the_drawn_hyperparameters(dtype: torch.dtype, tolerance: float) -> None:
    prior = HierarchicalNormalPrior(scale=0.7)
    prior.prepare(2)
    prior.to(dtype)
    torch.manual_seed(3)
    density = given_hyperparameters(prior, "user_factors", 2)
    torch.manual_seed(3)
    drawn = poutine.trace(prior.guide).get_trace("user_factors", 2)
    location, spread = (drawn.nodes[f"user_factors_{name}"]["value"] for name in ("location", "spread"))
    row = torch.tensor([0.2, -1.0], dtype=dtype)
    expected = stats.norm.logpdf(row, location.detach(), spread.detach()).sum()
    assert float(density.log_prob(row)) == pytest.approx(expected, abs=tolerance)


def test_nothing_reaches_a_trace_under_way() -> None:
    prior = HierarchicalNormalPrior()
    prior.prepare(None)

    def outer() -> None:
        pyro.sample("row", given_hyperparameters(prior, "user_bias", None))

    assert list(poutine.trace(outer).get_trace().stochastic_nodes) == ["row"]
