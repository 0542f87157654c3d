r"""Which items to ask a user about: those whose ratings tell most about the user.

The expected information gain of asking for item j is the mutual information of its rating and the user's row,
the items' rows being given (Lindley 1956, doi 10.1214/aoms/1177728069):

.. math:: I(x_j; u) = H[E_u\, p(x_j \mid u)] - E_u\, H[p(x_j \mid u)].

The user's posterior is taken for Normal, :math:`N(a, \Sigma)`, so that its share of the predictor's variance
is :math:`f_j^T \Sigma f_j`, and the item's own uncertainty is noise. Under a chain this is done draw by draw
of the items, with the covariance that the row has given them, and averaged. Several are chosen one after
the other, each given that those before it will have been answered: under Normal noise the covariance that is
left does not depend on the answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SettingsError
from ..model import FactorizationModel
from ..model.fitted import ChainHyper, UserGivenItems
from ..numerics.quadrature import gauss_hermite
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices, PairPredictive
from .prior_draws import learned_priors

Floats = NDArray[np.float64]
_NODES = 15


@dataclass(frozen=True, eq=False)
class Elicitation:
    """Items to ask for, in the order of asking.

    Attributes
    ----------
    items : ndarray, shape (n,)
        Indices.
    gain : ndarray, shape (n,)
        Expected information of each, given those before it, nats.
    alone : ndarray, shape (n,)
        Expected information of each if it were asked first.
    left : ndarray, shape (n + 1,)
        Expected information that is left to gain about the mean candidate's predictor: mean of half the
        log of its signal to noise, before and after each question, nats.
    """

    items: Indices
    gain: Floats
    alone: Floats
    left: Floats


@dataclass(frozen=True, eq=False)
class _State:
    """A user, given the items, and the pairs' terms, (T, m) each."""

    given: UserGivenItems
    noise: tuple[Tensor, ...]

    def signal(self) -> Tensor:
        """Return the user's share of the predictor's variance, (T, m)."""
        features, covariance, spread = self.given.features, self.given.covariance, self.given.spread
        own = ((features @ covariance) * features).sum(-1)
        if spread is not None:
            k = spread.shape[-1]
            own = own + (spread * covariance[:, None, :k, :k]).sum((-2, -1))
        return own


def elicit(
    posterior: Posterior,
    user: int,
    candidates: Indices,
    n: int,
    *,
    pairs: PairPredictive | None = None,
    rated: Indices | None = None,
) -> Elicitation:
    """Choose `n` items to ask a user about.

    Parameters
    ----------
    posterior : Posterior
    user : int
        Index of the user's row in `pairs`.
    candidates : ndarray
        Indices of items to choose from; none that the user has rated.
    n : int
    pairs : PairPredictive, optional
        Where the user's row is; the posterior's own when not given (a folded-in user has others).
    rated : ndarray, optional
        Items that the user has rated, where it is a new one; those of training when not given.

    Raises
    ------
    SettingsError
        If there are fewer candidates than `n`.
    """
    if len(candidates) < n or n < 1:
        raise SettingsError(f"{n} items were asked for and there are {len(candidates)} to choose from.")
    pairs = posterior.pairs if pairs is None else pairs
    model = posterior.model
    levels = posterior.scale.levels
    grid = None if levels is None else torch.tensor(levels, dtype=torch.float64, device=pairs.device)
    with torch.no_grad():
        if rated is None:
            rated = posterior.train.items[posterior.train.users == user]
        state = _state(posterior, pairs, user, candidates, rated)
        effective = _effective_noise(model, state)
        free = torch.ones(len(candidates), dtype=torch.bool, device=pairs.device)
        chosen, gains, left = [], [], [_left(state, effective)]
        alone = information(model, state, grid)
        for _ in range(n):
            gain = information(model, state, grid)
            best = int(torch.where(free, gain, -torch.inf).argmax())
            chosen.append(best)
            gains.append(float(gain[best]))
            free[best] = False
            state = _answered(state, best, effective)
            left.append(_left(state, effective))
    at = np.array(chosen)
    return Elicitation(candidates[at], np.array(gains), alone.cpu().numpy()[at], np.array(left))


def information(model: FactorizationModel, state: _State, levels: Tensor | None) -> Tensor:
    """Return the expected information of each candidate's rating about the user, (m,), nats."""
    signal = state.signal().clamp_min(0.0)
    mean, other = state.given.mean, state.given.other
    likelihood = model.likelihood
    if levels is None:
        wide = likelihood.predictive_moments(mean, signal + other, *state.noise)[1]
        narrow = likelihood.predictive_moments(mean, other, *state.noise)[1]
        return (0.5 * (wide / narrow.clamp_min(1e-300)).log()).clamp_min(0.0).mean(0)
    whole = _entropy(likelihood.predictive_pmf(mean, signal + other, levels, *state.noise))
    nodes, weights = gauss_hermite(_NODES)
    conditional = torch.zeros_like(whole)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        pmf = likelihood.predictive_pmf(mean + node * signal.sqrt(), other, levels, *state.noise)
        conditional += weight * _entropy(pmf)
    return (whole - conditional).clamp_min(0.0).mean(0)


def _entropy(pmf: Tensor) -> Tensor:
    share = pmf / pmf.sum(-1, keepdim=True)
    return -torch.xlogy(share, share).sum(-1)


def _effective_noise(model: FactorizationModel, state: _State) -> Tensor:
    """Return the variance of a Normal measurement of the predictor worth as much as a rating, (T, m)."""
    step = 1e-2
    mean, variance = model.likelihood.predictive_moments(state.given.mean, state.given.other, *state.noise)
    above, _ = model.likelihood.predictive_moments(state.given.mean + step, state.given.other, *state.noise)
    slope = ((above - mean) / step).abs().clamp_min(1e-3)
    result: Tensor = variance / slope**2
    return result


def _answered(state: _State, item: int, noise: Tensor) -> _State:
    """Return the state after one item's rating has come."""
    covariance = state.given.covariance
    f = state.given.features[:, item]
    gain = (covariance @ f.unsqueeze(-1)).squeeze(-1)
    total = (f * gain).sum(-1) + noise[:, item]
    shrunk = covariance - gain.unsqueeze(2) * gain.unsqueeze(1) / total[:, None, None]
    return _State(state.given._replace(covariance=shrunk), state.noise)


def _left(state: _State, noise: Tensor) -> float:
    return float(0.5 * torch.log1p(state.signal().clamp_min(0.0) / noise).mean())


def _state(
    posterior: Posterior, pairs: PairPredictive, user: int, candidates: Indices, rated: Indices
) -> _State:
    """Return a user given the items, with the noise of the candidates' ratings."""
    hyper, known = None, posterior.guide.hyperparameters()
    priors = learned_priors(posterior, "user", np.zeros(0, dtype=np.int64))
    if priors is not None and "noise" in known:
        hyper = ChainHyper(priors, known["noise"].values ** -2)
    given = pairs.rows.user_given_items(user, candidates, rated, hyper)
    noise = pairs.relative_noise(np.full(len(candidates), user), candidates)
    return _State(given, tuple(one[None].expand_as(given.mean) for one in noise))
