"""New rows with noise of their own: against quadrature, and against a planted truth in turned coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_bmf.methods.gibbs.guide import ChainGuide
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.row_draws import RowDraws


def chain(
    means: Tensor, sds: Tensor, *, side: str, seed: int, shape: float, tau: float, turned: bool
) -> tuple[ChainGuide, RowDraws]:
    """Return a chain whose known rows are Normal about `means` (n, K), in coordinates that differ by draw."""
    generator = torch.Generator().manual_seed(seed)
    n, k = means.shape
    n_draws = len(sds)
    apart = sds.unsqueeze(1) * torch.randn(n_draws, n, k, generator=generator)
    draws = means + apart - apart.mean(0)
    scales = torch.linalg.qr(torch.randn(n_draws, k, k, generator=generator))[0]
    if turned:
        scales = scales * (0.5 + torch.rand(n_draws, 1, k, generator=generator))
    else:
        scales = torch.eye(k).expand_as(scales)
    known = RowDraws(
        (draws @ scales).transpose(0, 1).contiguous(),
        (means.expand_as(draws) @ scales).transpose(0, 1).contiguous(),
        torch.tensor(False),
    )
    nobody = RowDraws(torch.zeros(1, n_draws, k), torch.zeros(1, n_draws, k), torch.tensor(False))
    sizes = (1, n) if side == "user" else (n, 1)
    guide = ChainGuide(*sizes, k, n_draws, biases=False, implicit=False, row_noise=(side,))
    own = guide.of(side)  # type: ignore[arg-type]
    # u = A^-1 a where v = A^T b: with a standard Normal, u has the precision A A^T.
    own.precision.copy_(scales.mT @ scales)
    own.row_precision_shape.fill_(shape)
    guide.noise_precision.fill_(tau)
    rows = (nobody, known) if side == "user" else (known, nobody)
    guide.attach(*rows, NormalLikelihood(1.0))
    return guide, known


def test_one_row_by_quadrature() -> None:
    """One factor: p(u, w) over a grid, with what is unknown of the items in each rating's variance."""
    generator = torch.Generator().manual_seed(3)
    n, n_draws, shape, tau = 14, 4000, 4.0, 4.0
    v = torch.randn(n, 1, generator=generator)
    guide, known = chain(
        v, torch.full((n_draws, 1), 0.35), side="user", seed=0, shape=shape, tau=tau, turned=False
    )
    x = 0.8 * v[:, 0] + 0.6 * torch.randn(n, generator=generator)
    new = Feedback.from_coo(torch.zeros(n, dtype=torch.int64), torch.arange(n), x, 1, n)
    found = guide.encode_side("user", new)
    u, w = torch.meshgrid(torch.linspace(-3, 4, 600), torch.logspace(-1.5, 1.0, 400), indexing="ij")
    variance = 1.0 / (tau * w).unsqueeze(-1) + u.unsqueeze(-1) ** 2 * known.draws[..., 0].var(1, correction=0)
    log = -0.5 * (variance.log() + (x - u.unsqueeze(-1) * v[:, 0]) ** 2 / variance).sum(-1)
    # w ~ Gamma(shape, shape); the grid is in log w.
    log = log - 0.5 * u**2 + shape * w.log() - shape * w
    share = (log - log.max()).exp().double()
    share = share / share.sum()
    mean = float((share * u).sum())
    sd = float((share * u**2).sum() - mean**2) ** 0.5
    noise = float((share * w.rsqrt()).sum())
    drawn = found.draws[0, :, 0].double()
    # The variances are those at the draw before: their slope in u is left out.
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.25 * sd)
    assert float(drawn.std()) == pytest.approx(sd, rel=0.1)
    assert found.noise_factor is not None
    assert float(found.noise_factor[0]) == pytest.approx(noise, rel=0.04)


@pytest.mark.parametrize("side", ["user", "item"])
def test_planted_rows_are_found_as_surely_as_said(side: str) -> None:
    """Noise without the others' errors in it, and 90 % of what was planted inside of 90 % intervals."""
    rng = torch.Generator().manual_seed(11)
    n_new, n, k, n_draws, tau, sd = 120, 50, 2, 60, 4.0, 0.4
    truth = torch.randn(n, k, generator=rng)
    # The chain's means are as far from the truth as its draws are from them.
    means = truth + sd * torch.randn(n, k, generator=rng)
    means = means / (1.0 + sd**2)
    sds = torch.full((n_draws, 1), sd / (1.0 + sd**2) ** 0.5)
    guide, known = chain(means, sds, side=side, seed=5, shape=8.0, tau=tau, turned=True)
    u = torch.randn(n_new, k, generator=rng)
    factor = torch.from_numpy(np.random.default_rng(2).gamma(8.0, 1 / 8.0, n_new)).float().rsqrt()
    eta = u @ truth.T
    rated = torch.rand(n_new, n, generator=rng) < 0.5
    at, columns = rated.nonzero(as_tuple=True)
    x = eta[at, columns] + tau**-0.5 * factor[at] * torch.randn(len(at), generator=rng)
    found = guide.encode_side(side, Feedback.from_coo(at, columns, x, n_new, n))  # type: ignore[arg-type]
    assert found.noise_factor is not None
    ratio = float((found.noise_factor / factor).log().mean())
    assert ratio == pytest.approx(0.0, abs=0.04)
    guide.integrates = False  # the others' draws taken for known: their errors look like the row's noise
    by_draws = guide.encode_side(side, Feedback.from_coo(at, columns, x, n_new, n))  # type: ignore[arg-type]
    assert by_draws.noise_factor is not None
    assert float((by_draws.noise_factor / factor).log().mean()) > 0.1
    predictors = torch.einsum("nsk,msk->snm", found.draws, known.draws)
    low, high = (predictors.quantile(p, dim=0) for p in (0.05, 0.95))
    held = ((low <= eta) & (eta <= high))[~rated].double().mean()
    assert float(held) == pytest.approx(0.9, abs=0.025)


@pytest.mark.parametrize("n_given", [1, 3, 12])
def test_ratings_decide_what_uncertain_weights_are_believed(n_given: int) -> None:
    """The posterior with the weights integrated out: a Normal prior as wide as their draws leave it."""
    generator = torch.Generator().manual_seed(7)
    n, k, n_draws, tau, spread = 12, 2, 3000, 4.0, 2.0
    v = torch.randn(n, k, generator=generator)
    still = v.unsqueeze(1).expand(n, n_draws, k).contiguous()
    known = RowDraws(still, still, torch.tensor(False))
    nobody = RowDraws(torch.zeros(1, n_draws, k), torch.zeros(1, n_draws, k), torch.tensor(False))
    guide = ChainGuide(1, n, k, n_draws, biases=False, implicit=True, row_noise=("user",))
    guide.user.precision.copy_(torch.eye(k).expand(n_draws, k, k))
    guide.user.weights.copy_(0.5 + spread * torch.randn(n_draws, n, k, generator=generator))
    guide.user.row_precision_shape.fill_(1e6)  # all rows have the same noise
    guide.noise_precision.fill_(tau)
    guide.attach(nobody, known, NormalLikelihood(tau**-0.5))
    x = v[:n_given] @ torch.tensor([1.5, -1.0]) + 0.5 * torch.randn(n_given, generator=generator)
    new = Feedback.from_coo(torch.zeros(n_given, dtype=torch.int64), torch.arange(n_given), x, 1, n)
    found = guide.encode_side("user", new).draws[0].double()
    means = (guide.user.weights[:, :n_given].sum(1) * n_given**-0.5).double()
    prior = torch.diag(1.0 / (1.0 + means.var(0, correction=0)))
    seen = v[:n_given].double()
    precision = prior + tau * seen.T @ seen
    expected = torch.linalg.solve(precision, prior @ means.mean(0) + tau * seen.T @ x.double())
    sd = torch.linalg.inv(precision).diagonal().sqrt()
    torch.testing.assert_close(found.mean(0), expected, rtol=0, atol=0.1 * float(sd.max()))
    torch.testing.assert_close(found.std(0), sd, rtol=0.08, atol=0)
    # Taken for known in each draw, the means are believed more, and the ratings less.
    guide.uncertain_means = False
    by_draws = guide.encode_side("user", new).draws[0].double()
    sds = torch.einsum("nk,kl,nl->n", seen, torch.linalg.inv(precision), seen).sqrt()
    gaps = (seen @ (by_draws.mean(0) - expected)).abs() / sds
    assert (float(gaps.max()) > 0.5) == (n_given < n)
