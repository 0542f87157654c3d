"""Priors so narrow that single precision rounds away what ratings say beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_bmf.data import random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.fitting import fit
from pyro_bmf.methods.gibbs.mean_information import DenseRows, FewRows
from pyro_bmf.methods.kernel import Conditional, Entries
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.feedback import Feedback

D = 9


def narrow(seed: int, widest: float) -> Tensor:
    """A precision (D, D), float64, of eigenvalues from 10 to `widest`, along no axes."""
    turn, _ = torch.linalg.qr(
        torch.randn(D, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    return turn @ torch.diag(torch.logspace(1, np.log10(widest), D, dtype=torch.float64)) @ turn.mT


def sums(seed: int) -> Tensor:
    """Information (5, D, D), float64, of rows with 0, 1, 3, 12 and 40 ratings."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [
            (f := torch.randn(n, D, generator=generator, dtype=torch.float64) * 0.3).mT @ f
            for n in (0, 1, 3, 12, 40)
        ]
    )


def literal(prior: Tensor, information: Tensor) -> Tensor:
    """The definition, as a product: its difference would lose the prior's size in float64 too."""
    return prior @ torch.linalg.solve(prior + information, information)


@pytest.mark.parametrize("widest", [1e2, 1e3, 1e5, 1e6, 1e8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_ratings_say_of_a_mean_is_not_rounded_away(widest: float, dtype: torch.dtype) -> None:
    prior, information = narrow(1, widest).to(dtype).double(), sums(2).to(dtype).double()
    error = {torch.float64: 1e-9, torch.float32: 1e-5}[dtype]
    conditional = Conditional.of(prior.to(dtype), information.to(dtype), torch.zeros(5, D, dtype=dtype))
    found = conditional.mean_precision(information.to(dtype)).double()
    wanted = literal(prior, information)
    torch.testing.assert_close(found, wanted, rtol=0, atol=error * float(wanted.abs().max()))
    assert found[0].abs().max() < error  # of a row without ratings
    assert torch.linalg.eigvalsh(found).min() > -error


@pytest.mark.parametrize("widest", [1e3, 1e6, 1e8])
def test_both_forms_of_a_side_say_it_under_any_prior(widest: float) -> None:
    generator = np.random.default_rng(3)
    mask = np.unique(generator.integers(6 * 30, size=70))
    at = torch.from_numpy(mask)
    feedback = Feedback.from_coo(at // 30, at % 30, torch.ones(len(at)), 6, 30)
    entries = Entries.of(feedback, torch.float32)
    prior = narrow(4, widest).float().double()
    features = torch.from_numpy(generator.normal(size=(30, D)) * 0.3)
    given = prior.float(), features.float(), torch.ones(30), torch.ones(6, 1), torch.zeros(6, D)
    dense, few = DenseRows(entries, entries), FewRows.build(entries, D)
    assert 0 < few.plan.n_many < 6
    information = torch.zeros(6, D, D, dtype=torch.float64)
    for i, j in zip(mask // 30, mask % 30, strict=True):
        information[i] += torch.outer(features[j], features[j])
    means = torch.randn(6, D, generator=torch.Generator().manual_seed(5))
    wanted = (literal(prior, information) @ means.double().unsqueeze(-1)).squeeze(-1)
    for form in (dense, few):
        rows = form.given(*given)
        for _ in range(2):  # the second form writes over what it reads, and must not do so twice
            found = rows.information().apply(means).double()
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_a_chain_under_a_narrow_prior_goes_on() -> None:
    generator = np.random.default_rng(0)
    pairs = generator.permutation(1600)[:400]
    users, items = pairs // 40, pairs % 40
    u, v = generator.normal(size=(2, 40, 2))
    b, c = generator.normal(size=(2, 40))
    values = (u[users] * v[items]).sum(1) + b[users] + c[items] + 1.3 * generator.normal(size=400)
    ratings = ratings_from_arrays(users, items, values, scale=f"{values.min()}:{values.max()}")
    settings = preset("default").replace(prior_scale=0.005, sweeps=30, burn_in=15, kept_draws=15)
    result = fit(random_split(ratings, seed=0), settings, progress=False)
    assert result.history[-1]["sweep"] == 30
