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
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SettingsError
from ..methods.gibbs.guide import ChainGuide
from ..model import FactorizationModel
from ..model.rows import RowDraws, RowPosterior
from ..numerics.quadrature import gauss_hermite
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices, PairPredictive

Floats = NDArray[np.float64]
_NODES = 15
#: Draws of a chain that are averaged over.
_CHAIN_DRAWS = 40


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
    """A user, given the items: T settings of them (draws of a chain, or one).

    The user's covariance (T, D, D); items' features (T, m, D); mean of the predictor (T, m) and the items'
    share of its variance (T, m); the items' covariance over factors (T, m, K, K), or None where it is given.
    """

    covariance: Tensor
    features: Tensor
    mean: Tensor
    other: Tensor
    spread: Tensor | None
    noise: tuple[Tensor, ...]

    def signal(self) -> Tensor:
        """Return the user's share of the predictor's variance, (T, m)."""
        own = ((self.features @ self.covariance) * self.features).sum(-1)
        if self.spread is not None:
            k = self.spread.shape[-1]
            own = own + (self.spread * self.covariance[:, None, :k, :k]).sum((-2, -1))
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
        state = (
            _chain_state(posterior, pairs, user, candidates, rated)
            if isinstance(pairs.users, RowDraws)
            else _normal_state(model, pairs, user, candidates)
        )
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
    mean, other = state.mean, state.other
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
    mean, variance = model.likelihood.predictive_moments(state.mean, state.other, *state.noise)
    above, _ = model.likelihood.predictive_moments(state.mean + step, state.other, *state.noise)
    slope = ((above - mean) / step).abs().clamp_min(1e-3)
    result: Tensor = variance / slope**2
    return result


def _answered(state: _State, item: int, noise: Tensor) -> _State:
    """Return the state after one item's rating has come."""
    f = state.features[:, item]
    gain = (state.covariance @ f.unsqueeze(-1)).squeeze(-1)
    total = (f * gain).sum(-1) + noise[:, item]
    shrunk = state.covariance - gain.unsqueeze(2) * gain.unsqueeze(1) / total[:, None, None]
    return _State(shrunk, state.features, state.mean, state.other, state.spread, state.noise)


def _left(state: _State, noise: Tensor) -> float:
    return float(0.5 * torch.log1p(state.signal().clamp_min(0.0) / noise).mean())


def _normal_state(model: FactorizationModel, pairs: PairPredictive, user: int, candidates: Indices) -> _State:
    assert isinstance(pairs.users, RowPosterior)
    assert isinstance(pairs.items, RowPosterior)
    u = pairs.users.select(torch.tensor([user], device=pairs.device)).double()
    v = pairs.items.select(torch.tensor(candidates, device=pairs.device)).double()
    k, biased = u.n_factors, u.bias_loc is not None
    item_covariance = v.covariance()
    features = torch.cat([v.loc, torch.ones_like(v.loc[:, :1])], 1) if biased else v.loc
    own = torch.cat([u.loc, torch.ones_like(u.loc[:, :1])], 1)[0] if biased else u.loc[0]
    mean, _ = pairs.eta_moments(np.full(len(candidates), user), candidates)
    other = (item_covariance @ own) @ own
    noise = tuple(one[None] for one in pairs.relative_noise(np.full(len(candidates), user), candidates))
    return _State(
        u.covariance(), features[None], mean[None], other[None], item_covariance[None, :, :k, :k], noise
    )


def _chain_state(
    posterior: Posterior, pairs: PairPredictive, user: int, candidates: Indices, rated: Indices
) -> _State:
    """Given draws of the items, the user's covariance is that of its conditional (given utilities)."""
    guide = posterior.guide
    assert isinstance(guide, ChainGuide)
    assert isinstance(pairs.users, RowDraws)
    assert isinstance(pairs.items, RowDraws)
    every = torch.linspace(0, pairs.users.n_draws - 1, min(_CHAIN_DRAWS, pairs.users.n_draws)).long()
    every = every.to(pairs.device)
    rows = pairs.items.draws
    precision = cast(Tensor, guide.user_precision)[every].double()
    own_noise = 1.0 if pairs.users.noise is None else float(pairs.users.noise[user])
    biased = pairs.users.bias

    def features(items: Indices) -> tuple[Tensor, Tensor]:
        drawn = rows[torch.tensor(items, device=pairs.device)][:, every].double().transpose(0, 1)  # (T, m, D)
        if not biased:
            return drawn, torch.zeros_like(drawn[..., 0])
        return torch.cat([drawn[..., :-1], torch.ones_like(drawn[..., :1])], -1), drawn[..., -1]

    seen, _ = features(rated)
    weight = guide.noise[every].double()[:, None] / own_noise**2
    if pairs.items.noise is not None:
        weight = weight * pairs.items.noise[torch.tensor(rated, device=pairs.device)].double()[None] ** -2
    else:
        weight = weight.expand(-1, len(rated))
    covariance = torch.linalg.inv(precision + (seen * weight.unsqueeze(-1)).mT @ seen)
    f, bias = features(candidates)
    means = pairs.users.means[user, every].double()
    mean = (f @ means.unsqueeze(-1)).squeeze(-1) + bias + posterior.model.predictor_centre.double()
    noise = tuple(
        one[None].expand_as(mean) for one in pairs.relative_noise(np.full(len(candidates), user), candidates)
    )
    return _State(covariance, f, mean, torch.zeros_like(mean), None, noise)
