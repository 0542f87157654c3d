"""What every likelihood and every prior keeps to, as checks that a new one can be put through.

``check_likelihood(MyLikelihood(), ratings=[1.0, 2.5, 4.0])`` raises AssertionError with what is wrong, and
says nothing when nothing is. Everything is checked in float64 against a statement that shares no code with
what is checked: finite differences, simulation, sums.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor

from .model.likelihoods.normal import Likelihood
from .model.priors.normal import Prior
from .numerics.normal_cells import midway

__all__ = ["check_likelihood", "check_prior"]

_DRAWS = 20_000


def check_likelihood(
    likelihood: Likelihood,
    ratings: Sequence[float],
    *,
    eta: Sequence[float] = (-0.7, 0.4, 1.6),
    levels: Sequence[float] | None = None,
    seed: int = 0,
) -> None:
    """Check a likelihood's shapes, support, gradients, moments, probabilities and settings.

    Parameters
    ----------
    likelihood : Likelihood
    ratings : sequence of float
        Valid ratings, at least two different ones.
    eta : sequence of float
        Predictors to check at.
    levels : sequence of float, optional
        Of a discrete scale on which it gives probabilities; those are not checked without.
    seed : int
        Of the simulation.

    Raises
    ------
    AssertionError
        Saying what is wrong.
    """
    likelihood = likelihood.double()
    observed = np.asarray(ratings, dtype=np.float64)
    likelihood.check(observed)
    likelihood.start(observed)
    predictors = torch.tensor(eta, dtype=torch.float64)
    _check_shapes(likelihood, predictors, torch.from_numpy(observed))
    _check_gradient(likelihood, predictors, torch.from_numpy(observed))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _check_moments(likelihood, predictors)
        _check_predictive(likelihood, predictors)
        if levels is not None:
            _check_probabilities(likelihood, predictors, torch.tensor(levels, dtype=torch.float64))
    _check_settings(likelihood, predictors, float(observed[0]))


def check_prior(prior: Prior, *, n_factors: int = 3, finite_variance: bool = True, seed: int = 0) -> None:
    """Check a prior's shapes, support, gradients, moments, hyperparameter sites and settings.

    Parameters
    ----------
    prior : Prior
    n_factors : int
    finite_variance : bool
        Whether a row has a variance that simulation can be held against.
    seed : int

    Raises
    ------
    AssertionError
        Saying what is wrong.
    """
    prior = prior.double()
    with torch.random.fork_rng(devices=[]), pyro.validation_enabled(True):
        torch.manual_seed(seed)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            for width in (n_factors, None):
                _check_rows(prior, width, finite_variance=finite_variance)
                _check_sites(prior, width)
                _check_rebuilt(prior, width)
        finally:
            torch.set_default_dtype(before)
    assert np.isfinite(prior.scale), "scale is not finite"
    assert prior.scale > 0, "scale is not positive"


# ---------------------------------------------------------------- likelihoods


def _check_shapes(likelihood: Likelihood, eta: Tensor, ratings: Tensor) -> None:
    for shape in ((3,), (1, 3), (2, 1, 3)):
        found = likelihood(eta.expand(shape))
        assert found.batch_shape == torch.Size(shape), f"batch shape {found.batch_shape} of eta {shape}"
        assert found.sample().shape == torch.Size(shape), "a sample has another shape than eta"
        assert found.log_prob(ratings[0].expand(shape)).shape == torch.Size(shape)
    drawn = likelihood(eta.expand(200, 3)).sample()
    inside = likelihood.support.check(drawn)
    assert bool(inside.all()), f"a sample of {drawn[~inside][0]} is outside the support"
    mean = likelihood.mean(eta)
    assert mean.shape == eta.shape, "the mean has another shape than eta"
    assert bool((mean.diff() > 0).all()), "the mean rating does not rise with eta"


def _check_gradient(likelihood: Likelihood, eta: Tensor, ratings: Tensor) -> None:
    pairs = torch.cartesian_prod(eta, ratings)
    at, value = pairs[:, 0].clone().requires_grad_(), pairs[:, 1]
    (slope,) = torch.autograd.grad(likelihood(at).log_prob(value).sum(), at)
    step = 1e-5
    with torch.no_grad():
        up, down = (likelihood(at.detach() + sign * step).log_prob(value) for sign in (1, -1))
    error = float((slope - (up - down) / (2 * step)).abs().max())
    assert error < 1e-5 * (1 + float(slope.abs().max())), f"the gradient is off by {error:.2g}"


def _check_moments(likelihood: Likelihood, eta: Tensor) -> None:
    found = likelihood(eta)
    drawn = found.sample(torch.Size([_DRAWS])).double()
    sd = drawn.std(0)
    error = (drawn.mean(0) - likelihood.mean(eta)).abs() / (sd / _DRAWS**0.5)
    assert float(error.max()) < 5, f"the mean is {float(error.max()):.1f} standard errors off simulation"
    # The fourth moment may be infinite: trimmed draws bound what the variance can be.
    ratio = found.variance / drawn.var(0)
    assert bool(((ratio > 0.8) & (ratio < 1.3)).all()), f"the variance is {ratio} times that of simulation"


def _check_predictive(likelihood: Likelihood, eta: Tensor) -> None:
    variance = torch.tensor([0.01, 0.2, 0.6], dtype=torch.float64)
    mean, spread = likelihood.predictive_moments(eta, variance)
    drawn_eta = eta + variance.sqrt() * torch.randn(_DRAWS, len(eta), dtype=torch.float64)
    drawn = likelihood(drawn_eta).sample().double()
    error = (drawn.mean(0) - mean).abs() / (drawn.std(0) / _DRAWS**0.5)
    assert float(error.max()) < 5, "the predictive mean is not that of simulation"
    ratio = spread / drawn.var(0)
    assert bool(((ratio > 0.8) & (ratio < 1.3)).all()), "the predictive variance is not that of simulation"


def _check_probabilities(likelihood: Likelihood, eta: Tensor, levels: Tensor) -> None:
    share = likelihood.log_prob_rating(eta, levels).exp()
    assert share.shape == (*eta.shape, len(levels)), "log_prob_rating has another shape"
    assert torch.allclose(share.sum(-1), torch.ones_like(eta), atol=1e-9), "probabilities do not sum to one"
    cuts = midway(levels)
    drawn = likelihood(eta).sample(torch.Size([_DRAWS])).double()
    for variance, given in ((0.0, share), (0.3, None)):
        if given is None:
            spread = torch.full_like(eta, variance)
            given = likelihood.predictive_pmf(eta, spread, levels)
            noise = variance**0.5 * torch.randn(_DRAWS, len(eta), dtype=torch.float64)
            drawn = likelihood(eta + noise).sample().double()
        place = torch.searchsorted(cuts, drawn.contiguous())
        found = torch.nn.functional.one_hot(place, len(levels)).double().mean(0)
        error = (found - given).abs() / (given * (1 - given) / _DRAWS).clamp_min(1e-8).sqrt()
        assert float(error.max()) < 5, f"the probability of a level is not its share of draws: {error}"


def _check_settings(likelihood: Likelihood, eta: Tensor, rating: float) -> None:
    arguments = {name: value for name, value in likelihood.settings().items() if name != "kind"}
    _accepts(type(likelihood), arguments)
    again = type(likelihood)(**arguments).double()
    again.load_state_dict(likelihood.state_dict())
    value = torch.full_like(eta, rating)
    with torch.no_grad():
        same = torch.equal(again(eta).log_prob(value), likelihood(eta).log_prob(value))
    assert same, "settings and state do not make the round trip"
    assert again.settings() == likelihood.settings(), "settings do not make the round trip"


def _accepts(kind: type, arguments: dict[str, Any]) -> None:
    known = inspect.signature(kind).parameters
    unknown = [name for name in arguments if name not in known]
    assert not unknown, f"settings name {unknown}, which {kind.__name__} does not take"


# ---------------------------------------------------------------- priors


def _check_rows(prior: Prior, width: int | None, *, finite_variance: bool) -> None:
    event = torch.Size([]) if width is None else torch.Size([width])
    with torch.no_grad():
        rows: Any = poutine.trace(lambda: prior("rows", width)).get_trace().nodes["_RETURN"]["value"]
    assert rows.event_shape == event, f"the event shape of a row is {rows.event_shape}, not {event}"
    assert rows.batch_shape == torch.Size([]), "a prior is of one row: its batch shape must be empty"
    drawn = rows.sample(torch.Size([_DRAWS])).double()
    assert drawn.shape == (_DRAWS, *event)
    inside = rows.support.check(drawn)
    assert bool(inside.all()), "a sample is outside the support"
    assert (float(drawn.min()) > 0) is prior.positive, "positive does not say what samples are"
    at = drawn[:5].clone().requires_grad_()
    (slope,) = torch.autograd.grad(rows.log_prob(at).sum(), at)
    step = 1e-6
    flat = at.detach().reshape(5, -1)
    for column in range(flat.shape[1]):
        moved = torch.zeros_like(flat)
        moved[:, column] = step
        up, down = (rows.log_prob((flat + s * moved).reshape(at.shape)) for s in (1, -1))
        numeric = ((up - down) / (2 * step)).detach()
        found = slope.reshape(5, -1)[:, column]
        assert torch.allclose(found, numeric, rtol=1e-3, atol=1e-3), f"gradient {found}, not {numeric}"
    if finite_variance:
        error = (drawn.mean(0) - rows.mean).abs() / (drawn.std(0) / _DRAWS**0.5)
        assert float(error.max()) < 5, "the mean is not that of simulation"
        ratio = rows.variance / drawn.var(0)
        assert bool(((ratio > 0.7) & (ratio < 1.4)).all()), "the variance is not that of simulation"


def _check_sites(prior: Prior, width: int | None) -> None:
    """Check that the guide samples what the model does, in the same order, inside the support."""
    model = poutine.trace(lambda: prior("rows", width)).get_trace()
    guide = poutine.trace(lambda: prior.guide("rows", width)).get_trace()
    names = {
        kind: [name for name, node in trace.nodes.items() if node["type"] == "sample"]
        for kind, trace in (("model", model), ("guide", guide))
    }
    assert names["model"] == names["guide"], f"model and guide sample different sites: {names}"
    for name in names["model"]:
        value, site = guide.nodes[name]["value"], cast(Any, model.nodes[name]["fn"])
        assert bool(site.support.check(value).all()), f"{name} is outside its support"
        assert bool(torch.isfinite(site.log_prob(value)).all()), f"{name} has no density"


def _check_rebuilt(prior: Prior, width: int | None) -> None:
    """Check that settings rebuild the same density."""
    arguments = {name: value for name, value in prior.settings().items() if name != "kind"}
    _accepts(type(prior), arguments)
    again = type(prior)(**arguments).double()
    assert again.settings() == prior.settings(), "settings do not make the round trip"
    trace = poutine.trace(lambda: prior("rows", width)).get_trace()
    rows: Any = trace.nodes["_RETURN"]["value"]
    sites: dict[str, Any] = {
        name: node["value"] for name, node in trace.nodes.items() if node["type"] == "sample"
    }
    with poutine.condition(data=sites):
        rebuilt = again("rows", width)
    value = rows.sample(torch.Size([4]))
    assert torch.allclose(rebuilt.log_prob(value), rows.log_prob(value)), (
        "settings do not make the round trip"
    )
