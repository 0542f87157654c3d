r"""The new user's question: a user's ratings predicted all together, or one half from the other.

**Leave one user out**: :math:`\log p(x_i \mid x_{-i})`, a user's ratings as a whole. For each draw s of the
items and hyperparameters the user's row is integrated out,

.. math:: L_{is} = \int \prod_j p(x_{ij} \mid u, v_j^{(s)})\, p(u)\, du,

by importance sampling from a Normal about the integrand's mode, which is exact under Normal noise and a
Normal prior; and since the items have seen the user's ratings, draws are reweighted by
:math:`1 / L_{is}`, Pareto-smoothed, with a k-hat for each user (Merkle, Furr and Rabe-Hesketh 2019, doi
10.1007/s11336-019-09679-0; Vehtari, Gelman and Gabry 2017, doi 10.1007/s11222-016-9696-4).

Noise and cut points of the user's own are integrated over their prior as well (`own_terms`).

**Fold in half**: users of whom the fit has seen nothing are folded in with a random half of their ratings,
and the other half is scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.ratings import Ratings
from ..data.splits import Split
from ..errors import DataError, SettingsError
from ..evaluation.provenance import check_provenance
from ..model.pair_terms import pair_terms
from ..model.rows import join
from ..numerics.chunks import chunks
from ..numerics.psis import leave_one_out
from ..numerics.ragged_rows import ragged_rows
from ..numerics.segment_sums import Segments, add_segments, segment_sum
from ..posterior.pair_draws import rating_log_prob
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices
from .held_out import level_log_prob
from .left_out_terms import OwnTerms, Terms
from .prior_draws import learned_priors
from .row_target import RowTargets

Floats = NDArray[np.float64]
_LOG_2PI = math.log(2.0 * math.pi)
_NEWTON_STEPS, _STEP = 10, 1.0
#: Draws of a variational posterior that are integrated for, at most: the cost grows with them.
_DRAWS = 200


@dataclass(frozen=True, eq=False)
class LeaveUserOut:
    """Leave-one-user-out of some users.

    Attributes
    ----------
    users : ndarray, shape (n,)
        Indices.
    elpd : ndarray, shape (n,)
        Log-probability of all of a user's ratings given everybody else's, nats.
    k_hat : ndarray, shape (n,)
    n_ratings : ndarray, shape (n,)
    inner_error : float
        Standard error of a log-marginal, by importance sampling of the row: its root mean square, nats.
    n_draws : int
    """

    users: Indices
    elpd: Floats
    k_hat: Floats
    n_ratings: Indices
    inner_error: float
    n_draws: int

    @property
    def elpd_per_rating(self) -> float:
        """The users' log-probabilities over the number of their ratings, nats."""
        return float(self.elpd.sum()) / int(self.n_ratings.sum())


def some_users(posterior: Posterior, n: int, seed: int) -> Indices:
    """Return `n` users with training ratings, drawn at random, ascending; all where there are fewer."""
    known = np.flatnonzero(posterior.train.user_counts)
    users: Indices = np.sort(np.random.default_rng([seed, 0x10]).permutation(known)[:n])
    return users


def leave_users_out(
    posterior: Posterior,
    users: Indices,
    *,
    num_samples: int | None = None,
    row_samples: int = 16,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> LeaveUserOut:
    """Leave users out, each with all its training ratings.

    Parameters
    ----------
    posterior : Posterior
        With factors on all numbers.
    users : ndarray
        Indices of users who have training ratings.
    num_samples : int, optional
        Draws of items: 200, or those that a chain kept.
    row_samples : int
        Draws of a user's row for each of those.
    seed : int
    advance : callable, optional
        Called with the number of draws done.

    Raises
    ------
    SettingsError
        For positive factors, or more draws than a chain kept.
    DataError
        If a user has no training rating.
    """
    model, train = posterior.model, posterior.train
    if model.user_prior.positive:
        raise SettingsError("leave-one-user-out takes rows on all numbers; these are positive.")
    if (train.user_counts[users] == 0).any():
        raise DataError("a user without training ratings cannot be left out of them.")
    n_draws = posterior.number_of_draws(num_samples, usual=_DRAWS)
    order = np.argsort(train.users, kind="stable")
    starts = np.concatenate([[0], np.cumsum(train.user_counts)])
    row, places = ragged_rows(starts, users)
    entries = order[places]
    items, ratings = train.items[entries], train.ratings[entries]
    distinct, columns = np.unique(items, return_inverse=True)
    device = posterior.pairs.device
    integral = _RowIntegral(
        posterior,
        ratings,
        Segments.of_sorted(torch.tensor(row, device=device), len(users)),
        torch.tensor(columns, device=device),
        _item_noise(posterior, items),
        OwnTerms.of(posterior, users),
        len(users),
        row_samples,
    )
    prior = _Priors(posterior, users, seed)
    values = np.empty((len(users), n_draws))
    squares = 0.0
    with torch.no_grad():
        for draw in range(n_draws):
            drawn = join(*posterior.pairs.draw_rows("item", distinct, np.array([draw]), seed))[0].double()
            log_marginal, error = integral(drawn, prior, draw, seed)
            values[:, draw] = log_marginal.cpu().numpy()
            squares += float((error**2).mean()) / n_draws
            if advance is not None:
                advance(1)
    elpd, k_hat, _ = leave_one_out(torch.from_numpy(values))
    return LeaveUserOut(
        users, elpd.numpy(), k_hat.numpy(), train.user_counts[users], math.sqrt(squares), n_draws
    )


class _Priors:
    """The prior of users' rows at each draw: a Normal to search by, and the log-density itself."""

    def __init__(self, posterior: Posterior, users: Indices, seed: int) -> None:
        self.n = len(users)
        self.learned = learned_priors(posterior, "user", users)
        if self.learned is not None:
            return
        self.targets = RowTargets(posterior, "user", seed)
        gaussian = self.targets.gaussian_prior
        if gaussian is None:
            scale = posterior.model.user_prior.scale
            precision = torch.eye(self.targets.width, dtype=torch.float64, device=posterior.pairs.device)
            gaussian = precision / scale**2, torch.zeros_like(precision[0])
        self.gaussian = gaussian

    def normal(self, draw: int) -> tuple[Tensor, Tensor]:
        """Return precision (D, D) and means (n, D)."""
        if self.learned is not None:
            return self.learned.at(draw)
        precision, linear = self.gaussian
        return precision, torch.linalg.solve(precision, linear).expand(self.n, -1)

    def log_density(self, x: Tensor, draw: int) -> Tensor:
        """Return log p(u) of (R, n, D): (R, n)."""
        if self.learned is None:
            return self.targets.log_prior(x)
        return self.learned.log_density(x, draw)


@dataclass(frozen=True, eq=False)
class _RowIntegral:
    """The integral over rows of n users, all at once, for one draw of the items."""

    posterior: Posterior
    ratings: Floats
    segments: Segments
    columns: Tensor
    item_noise: Tensor | None
    own: OwnTerms | None
    n: int
    row_samples: int

    def __call__(self, items: Tensor, prior: _Priors, draw: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return log-marginals (n,) and their standard errors (n,)."""
        biased = self.posterior.model.biases
        own = items[self.columns]
        offset = self.posterior.model.predictor_centre.double()
        features = own
        if biased:
            offset = offset + own[:, -1]
            features = torch.cat([own[:, :-1], torch.ones_like(own[:, :1])], 1)
        else:
            offset = offset.expand(len(own))
        precision, mean = prior.normal(draw)
        mode = mean.clone()
        centre = self._terms(None if self.own is None else self.own.centre())
        for _ in range(_NEWTON_STEPS):
            eta = (features * mode[self.segments.index]).sum(-1) + offset
            slope, curvature = self._derivatives(eta, centre)
            hessian = self._information(features, curvature) + precision
            gradient = self._sum(features * slope[:, None]) - (mode - mean) @ precision
            step = torch.linalg.solve(hessian, gradient)
            # A far step out of a likelihood with flat tails would not come back.
            mode = mode + step * (_STEP / step.norm(dim=1, keepdim=True).clamp_min(_STEP))
        eta = (features * mode[self.segments.index]).sum(-1) + offset
        hessian = self._information(features, self._derivatives(eta, centre)[1]) + precision
        root = torch.linalg.cholesky(hessian)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + draw)
        noise = torch.randn(
            self.row_samples // 2, self.n, mode.shape[1], generator=generator, dtype=torch.float64
        )
        white = torch.cat([noise, -noise]).to(mode.device)
        moved = torch.linalg.solve_triangular(root.mT, white.unsqueeze(-1), upper=True).squeeze(-1)
        x = mode + moved
        log_q = -0.5 * (white**2).sum(-1) + root.diagonal(dim1=1, dim2=2).log().sum(-1)
        log_q = log_q - 0.5 * mode.shape[1] * _LOG_2PI
        drawn: list[Terms | None] = [None] * len(x)
        log_ratio = torch.zeros_like(log_q)
        if self.own is not None:
            own_drawn, log_ratio = self.own.sample(len(x), draw, generator)
            drawn = list(own_drawn)
        log_likelihood = torch.stack(
            [
                self._log_likelihood(features, one, offset, self._terms(own))
                for one, own in zip(x, drawn, strict=True)
            ]
        )
        ratios = log_likelihood + prior.log_density(x, draw) - log_q + log_ratio
        total = torch.logsumexp(ratios, 0) - math.log(len(ratios))
        shares = (ratios - total).exp()
        return total, (shares.var(0) / len(ratios)).sqrt()

    def _terms(self, own: Terms | None) -> tuple[Any, ...]:
        """Return the ratings' terms for terms of the users', as a likelihood's argument."""
        noises = [] if self.item_noise is None else [self.item_noise]
        if own is None:
            return pair_terms(noises, None)
        log_noise, shifts = own
        if log_noise is not None:
            noises.append(log_noise[self.segments.index].exp())
        return pair_terms(noises, None if shifts is None else shifts[self.segments.index])

    def _log_prob(self, eta: Tensor, terms: tuple[Any, ...]) -> Tensor:
        wide = tuple(one[:, None] for one in terms)
        return rating_log_prob(
            self.posterior.model.likelihood, eta[:, None], self.ratings, self.posterior.scale, wide
        )[:, 0]

    def _derivatives(self, eta: Tensor, terms: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        """Return first derivative, and minus the second where that is positive, of log p by the predictor."""
        step = 1e-3
        at, below, above = (self._log_prob(eta + shift, terms) for shift in (0.0, -step, step))
        slope = (above - below) / (2 * step)
        return slope, (-(above - 2.0 * at + below) / step**2).clamp_min(1e-6)

    def _sum(self, values: Tensor) -> Tensor:
        return segment_sum(values, self.segments)

    def _information(self, features: Tensor, weight: Tensor) -> Tensor:
        """Sum w f f^T over each user's ratings, (n, D, D), a run of ratings at a time."""
        width = features.shape[1]
        total = features.new_zeros(self.n, width * width)
        for part in chunks(len(features), 20_000):
            f = features[part]
            products = (f.unsqueeze(2) * (f * weight[part, None]).unsqueeze(1)).flatten(1)
            total = add_segments(total, products, self.segments, part)
        return total.view(self.n, width, width)

    def _log_likelihood(self, features: Tensor, x: Tensor, offset: Tensor, terms: tuple[Any, ...]) -> Tensor:
        eta = (features * x[self.segments.index]).sum(-1) + offset
        return segment_sum(self._log_prob(eta, terms), self.segments)


def _item_noise(posterior: Posterior, items: Indices) -> Tensor | None:
    """Return the noise multiplier of each rating's item, (nnz,), float64; None for ones."""
    noise = posterior.item_rows.noise_factor
    return None if noise is None else noise[torch.tensor(items, device=noise.device)].double()


def fold_in_half(posterior: Posterior, split: Split, *, seed: int = 0) -> tuple[Indices, Floats]:
    """Fold users in whom the fit has not seen, with half of their test ratings, and score the other half.

    Parameters
    ----------
    posterior : Posterior
    split : Split
        Whose test users have no training ratings, as in the scheme ``users``.
    seed : int
        Of the halves.

    Returns
    -------
    users : ndarray, shape (n,)
        The user of each scored rating.
    log_prob : ndarray, shape (n,)
        Log-probability of each scored rating's level, nats.

    Raises
    ------
    DataError
        If no test user is new, or the scale is continuous.
    """
    check_provenance(posterior, split, name="the posterior")
    test = split.test
    if test.scale.levels is None:
        raise DataError("folding in half scores probabilities of levels, and the scale is continuous.")
    known = posterior.train.item_counts[test.items] > 0
    new = (posterior.train.user_counts[test.users] == 0) & known
    rows = np.flatnonzero(new)
    if not len(rows):
        raise DataError(
            "every test user has training ratings: fit on a split that holds whole users out "
            "(--scheme users)."
        )
    rows = np.random.default_rng([seed, 0xF01D]).permutation(rows)
    rows = rows[np.argsort(test.users[rows], kind="stable")]
    users = test.users[rows]
    first = np.concatenate([[0], np.cumsum(np.bincount(users))])
    place = np.arange(len(rows)) - first[users]
    size = np.bincount(users)[users]
    given, asked = rows[place < size // 2], rows[(place >= size // 2) & (size >= 2)]
    folded = posterior.fold_in_users(
        pd.DataFrame(
            {
                "user_id": posterior.user_vocabulary.raw(test.users[given]),
                "item_id": posterior.item_vocabulary.raw(test.items[given]),
                "rating": test.ratings[given],
            }
        )
    )
    scored = test.take(asked)
    own = folded.vocabulary.index(posterior.user_vocabulary.raw(scored.users))
    at_new_rows = Ratings(
        own,
        scored.items,
        scored.ratings,
        None,
        folded.vocabulary,
        scored.item_vocabulary,
        scored.scale,
        None,
        scored.name,
    )
    return scored.users, level_log_prob(folded.pairs, at_new_rows)
