r"""Whose recommendations does the prior drive? Power-scaling, row by row.

A row's own prior, or the likelihood of its own ratings, is raised to the power :math:`\alpha`; draws are
reweighted by :math:`p(u)^{\alpha - 1}`, or :math:`p(x_i \mid u)^{\alpha - 1}`, and nothing is fitted again
(Kallioinen, Paananen, Bürkner and Vehtari 2024, doi 10.1007/s11222-023-10366-5). Sensitivity is the change,
per doubling of the weight near :math:`\alpha = 1`, in the distribution of the predictors of the row's own
recommendations, as cumulative Jensen-Shannon distance, averaged over them. Beside it stands what a user would
see: how many of the recommendations change when the prior counts double, or half. Scaled jointly, over all
rows, the prior of thousands of factors leaves no draw any weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SettingsError
from ..model.rows import join
from ..numerics.chunks import chunks
from ..numerics.psis import good_k, smooth_tail
from ..numerics.ragged_rows import ragged_rows
from ..numerics.segment_sums import Segments, add_segments
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices
from .point_rows import refuse_points
from .prior_draws import learned_priors
from .row_target import RowTargets

Floats = NDArray[np.float64]
#: Above it a part of the model moves the recommendations: the threshold of the method's authors.
THRESHOLD = 0.05
_DELTA = 0.01
_CANDIDATES = 40
_NUMBERS = 4_000_000


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Power-scaling sensitivity of every user.

    Attributes
    ----------
    table : DataFrame
        One line a user: ``id``, ``n_ratings``, ``prior``, ``likelihood`` (sensitivities), ``diagnosis`` (what
        moves the recommendations: ``ratings``, ``prior`` or ``both``),
        ``changed_double``, ``changed_half`` (recommendations of `n` that change when the prior counts double,
        half), ``k_hat`` (of the larger of those weights).
    n, n_draws : int
    good_k : float
        Above it, changes of lists are not to be trusted.
    """

    table: pd.DataFrame
    n: int
    n_draws: int
    good_k: float

    def summary(self) -> dict[str, Any]:
        """Return counts and means."""
        table = self.table
        return {
            "users": len(table),
            "prior_driven": int((table["diagnosis"] == "prior").sum()),
            "both": int((table["diagnosis"] == "both").sum()),
            "median_prior": float(table["prior"].median()),
            "median_likelihood": float(table["likelihood"].median()),
            "mean_changed_double": float(table["changed_double"].mean()),
            "mean_changed_half": float(table["changed_half"].mean()),
            "n_high_k": int((table["k_hat"] > self.good_k).sum()),
        }


def power_scale_users(
    posterior: Posterior,
    *,
    n: int = 10,
    num_samples: int | None = None,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Sensitivity:
    """Measure every user's sensitivity to its own prior and its own ratings.

    Parameters
    ----------
    posterior : Posterior
    n : int
        Recommendations a user.
    num_samples, seed : int
        Draws: 400, or those that a chain kept.
    advance : callable, optional
        Called with the number of users done.

    Raises
    ------
    SettingsError
        If more draws are asked of a chain than it kept, or there are fewer items than recommendations; for
        rows that are points, or whose prior means come from which pairs were rated and have no draws.
    """
    refuse_points(posterior, "draw of them that could be given another weight")
    n_draws = posterior.number_of_draws(num_samples)
    if posterior.n_items <= n:
        raise SettingsError(f"n is {n}, and there are {posterior.n_items} items: ask for fewer.")
    terms = _terms_of(posterior, n_draws, seed)
    parts = []
    width = posterior.n_factors + 1
    size = max(1, _NUMBERS // (n_draws * max(width, min(_CANDIDATES, posterior.n_items))))
    every_item = np.arange(posterior.n_items)
    with torch.no_grad():
        for part in chunks(posterior.n_users, size):
            users = np.arange(part.start, part.stop)
            log_prior, log_likelihood = terms(users)
            scores = posterior.pairs.score(users, every_item)
            candidates = _best(posterior, users, scores, min(_CANDIDATES, posterior.n_items))
            eta = posterior.pairs.draw_eta(
                np.repeat(users, candidates.shape[1]), candidates.ravel(), np.arange(n_draws), seed
            )
            eta_users = eta.T.double().cpu().numpy().reshape(len(users), candidates.shape[1], n_draws)
            parts.append(_table(eta_users, log_prior, log_likelihood, n))
            if advance is not None:
                advance(len(users))
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "id", posterior.user_vocabulary.raw(np.arange(posterior.n_users)))
    table.insert(1, "n_ratings", posterior.train.user_counts)
    return Sensitivity(table, n, n_draws, good_k(n_draws))


def _best(posterior: Posterior, users: Indices, scores: NDArray[np.float32], n: int) -> Indices:
    """Return each user's best items, (n_users, n): what it has rated comes last."""
    rows, entries = ragged_rows(posterior.seen.starts, users)
    scores[rows, posterior.seen.columns[entries]] = -np.inf
    best: Indices = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    return best


def _terms_of(posterior: Posterior, n_draws: int, seed: int) -> Callable[[Indices], tuple[Floats, Floats]]:
    """Return what gives log prior and log-likelihood of users' draws, (users, n_draws) each.

    With the items' q integrated over, or, where draws of both sides go together, at the items' draws.
    """
    if posterior.sampling.settles:
        return partial(_joint_terms, posterior, n_draws, seed)
    return partial(_marginal_terms, RowTargets(posterior, "user", seed), n_draws)


def _marginal_terms(targets: RowTargets, n_draws: int, users: Indices) -> tuple[Floats, Floats]:
    x = targets.draw(users, n_draws)
    prior, likelihood = targets.log_prior(x), targets.log_likelihood(users, x)
    return prior.T.cpu().numpy(), likelihood.T.cpu().numpy()


def _joint_terms(posterior: Posterior, n_draws: int, seed: int, users: Indices) -> tuple[Floats, Floats]:
    draws = np.arange(n_draws)
    x = join(*posterior.pairs.draw_rows("user", users, draws, seed)).double()
    prior = joint_log_prior(posterior, users, x)
    train = posterior.train
    order = np.argsort(train.users, kind="stable")
    starts = np.concatenate([[0], np.cumsum(train.user_counts)])
    row, places = ragged_rows(starts, users)
    entries = order[places]
    segments = Segments.of_sorted(torch.tensor(row, device=x.device), len(users))
    total = torch.zeros(len(users), n_draws, dtype=torch.float64, device=x.device)
    likelihood = posterior.model.likelihood
    for part in chunks(len(entries), max(1, _NUMBERS // n_draws)):
        at = entries[part]
        i, j = train.users[at], train.items[at]
        eta = posterior.pairs.draw_eta(i, j, draws, seed).T.double()
        noise = tuple(one[:, None].expand_as(eta) for one in posterior.pairs.relative_noise(i, j))
        observed = torch.tensor(train.ratings[at], dtype=torch.float64, device=eta.device)[:, None]
        values: Tensor = likelihood(eta, *noise).log_prob(observed.expand_as(eta))
        total = add_segments(total, values.double(), segments, part)
    return prior.T.cpu().numpy(), total.cpu().numpy()


def joint_log_prior(posterior: Posterior, users: Indices, x: Tensor) -> Tensor:
    """Return log p(u) of users' draws (S, n, D) at each draw's hyperparameters: (S, n)."""
    priors = learned_priors(posterior, "user", users)
    assert priors is not None, "draws of rows go with draws of their priors"
    return torch.stack([priors.log_density(rows, draw) for draw, rows in enumerate(x)])


def _table(eta: Floats, log_prior: Floats, log_likelihood: Floats, n: int) -> pd.DataFrame:
    """Measure some users: predictors (users, candidates, S), log-densities (users, S)."""
    sensitivities = {}
    for name, values in (("prior", log_prior), ("likelihood", log_likelihood)):
        each = cjs_sensitivity(eta[:, :n], values)
        sensitivities[name] = each.mean(1)
    usual = eta.mean(2)
    top = np.argsort(-usual, axis=1, kind="stable")[:, :n]
    changed, k_hat = {}, np.full(len(eta), -np.inf)
    for name, alpha in (("changed_double", 2.0), ("changed_half", 0.5)):
        ratios = (alpha - 1.0) * log_prior
        k = smooth_tail(torch.from_numpy(np.ascontiguousarray(ratios))).k_hat.numpy()
        k_hat = np.fmax(k_hat, k)
        weights = np.exp(ratios - ratios.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        moved = np.argsort(-(eta * weights[:, None]).sum(2), axis=1, kind="stable")[:, :n]
        same = (top[:, :, None] == moved[:, None, :]).any(2).sum(1)
        changed[name] = n - same
    prior, likelihood = sensitivities["prior"], sensitivities["likelihood"]
    diagnosis = np.where(
        prior < THRESHOLD,
        "ratings",
        np.where(likelihood < THRESHOLD, "prior", "both"),
    )
    return pd.DataFrame(
        {"prior": prior, "likelihood": likelihood, "diagnosis": diagnosis, **changed, "k_hat": k_hat}
    )


def cjs_sensitivity(values: Floats, log_density: Floats, delta: float = _DELTA) -> Floats:
    """Return the sensitivity of quantities to a part of the model, (rows, q).

    Parameters
    ----------
    values : ndarray, shape (rows, q, S)
        Draws of q quantities of each row.
    log_density : ndarray, shape (rows, S)
        What the part says of each draw.
    delta : float
        How far alpha is from one, below and above.

    Returns
    -------
    ndarray
        Cumulative Jensen-Shannon distance per doubling of alpha.
    """
    centred = log_density - log_density.mean(1, keepdims=True)
    order = np.argsort(values, axis=2)
    ordered = np.take_along_axis(values, order, axis=2)
    total = np.zeros(values.shape[:2])
    for alpha in (1.0 - delta, 1.0 + delta):
        weights = np.exp((alpha - 1.0) * centred)
        weights /= weights.sum(1, keepdims=True)
        own = np.take_along_axis(np.broadcast_to(weights[:, None], values.shape), order, axis=2)
        forward = _cjs(ordered, own)
        backward = _cjs(-ordered[:, :, ::-1], own[:, :, ::-1])
        total += np.maximum(forward, backward) / abs(np.log2(alpha))
    return total / 2.0


def _cjs(ordered: Floats, weights: Floats) -> Floats:
    """Distance between the distributions of ascending draws, equally weighted and weighted."""
    s = ordered.shape[2]
    width = np.diff(ordered, axis=2)
    p = np.linspace(1 / s, 1 - 1 / s, s - 1)
    q = np.cumsum(weights, axis=2)[:, :, :-1]
    safe = np.maximum(q, 1e-300)
    middle = np.log2(0.5 * (p + safe))
    p_area, q_area = (width * p).sum(2), (width * q).sum(2)
    shift = 0.5 / np.log(2.0) * (q_area - p_area)
    forward = (width * p * (np.log2(p) - middle)).sum(2) + shift
    backward = (width * q * (np.log2(safe) - middle)).sum(2) - shift
    area = p_area + q_area
    distance: Floats = np.sqrt(
        (np.maximum(forward, 0.0) + np.maximum(backward, 0.0)) / np.where(area > 0, area, 1.0)
    )
    return distance
