"""myFM: Gibbs sampling of factorization machines, by regression or ordered probit."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import scipy.sparse as sps
from prediction import Clock, Fitted, Prediction, normal_cells
from scipy.special import ndtr
from split_arrays import SplitArrays

#: Scores of every pair are given up when they would take longer than this.
SCORE_SECONDS = 180.0
#: A probit's mean rating of a pair costs a normal integral a level and draw: so many draws, evenly spaced.
PROBIT_SCORE_DRAWS = 50
_USERS_AT_ONCE = 1000


def features(split: SplitArrays, implicit: bool) -> tuple[Any, Any, list[int]]:
    """Return features of users and of items, and the sizes of their groups.

    One-hot; with `implicit` also the rows of the other side that were rated in train, each 1/√n.
    """
    users, items = sps.identity(split.n_users, format="csr"), sps.identity(split.n_items, format="csr")
    if not implicit:
        return users, items, [split.n_users, split.n_items]
    ones = np.ones(len(split.train.users))
    seen = sps.csr_matrix((ones, (split.train.users, split.train.items)), (split.n_users, split.n_items))

    def scaled(matrix: Any) -> Any:
        counts = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
        return sps.diags(counts**-0.5) @ matrix

    users = sps.hstack([users, scaled(seen)], format="csr")
    items = sps.hstack([items, scaled(seen.T.tocsr())], format="csr")
    return users, items, [split.n_users, split.n_items, split.n_items, split.n_users]


def sides(draw: Any, users: Any, items: Any) -> tuple[Any, Any, Any, Any]:
    """Return one draw as biases and factors of users and items.

    A machine's sum over all pairs of features is one over pairs within a side (a bias) and across (a
    product).
    """
    parts = []
    border = users.shape[1]
    for matrix, place in ((users, slice(0, border)), (items, slice(border, None))):
        factors, weights = draw.V[place], draw.w[place]
        joint = matrix @ factors
        own = 0.5 * (joint**2 - matrix.multiply(matrix) @ factors**2).sum(axis=1)
        parts += [matrix @ weights + own, joint]
    return parts[0], parts[1], parts[2], parts[3]


def fit(split: SplitArrays, settings: dict[str, Any], seed: int, clock: Clock) -> Fitted:
    """Fit; the draws after the burn-in are kept and their predictions averaged.

    With `grouped`, each kind of feature has hyperparameters of its own; otherwise all share them.
    """
    import myfm as package

    users, items, groups = features(split, settings["implicit"])
    blocks = [
        package.RelationBlock(split.train.users, users),
        package.RelationBlock(split.train.items, items),
    ]
    probit = settings["probit"]
    make = package.MyFMOrderedProbit if probit else package.MyFMGibbsRegressor
    machine = make(rank=settings["rank"], random_seed=seed)
    target = np.searchsorted(split.levels, split.train.ratings) if probit else split.train.ratings
    with clock:
        machine.fit(
            None,
            target,
            X_rel=blocks,
            n_iter=settings["sweeps"],
            n_kept_samples=settings["kept"],
            group_shapes=groups if settings["grouped"] else None,
        )
    draws = machine.predictor_.samples
    noises = None if probit else [hyper.alpha**-0.5 for hyper in machine.history_.hypers[-len(draws) :]]

    def predict(u: Any, i: Any) -> Prediction:
        total, square = np.zeros(len(u)), np.zeros(len(u))
        pmf = np.zeros((len(u), len(split.levels)))
        for number, draw in enumerate(draws):
            bias_u, a, bias_i, b = sides(draw, users, items)
            eta = draw.w0 + bias_u[u] + bias_i[i] + np.einsum("nk,nk->n", a[u], b[i])
            if noises is None:
                below = ndtr(np.asarray(draw.cutpoints[0]) - eta[:, None])
                pmf += np.diff(np.hstack([np.zeros((len(u), 1)), below, np.ones((len(u), 1))]), axis=1)
            else:
                pmf += normal_cells(eta, noises[number], split.levels)
                total += eta
                square += eta**2 + noises[number] ** 2
        pmf /= len(draws)
        if noises is None:
            mean = pmf @ split.levels
            return Prediction(mean, np.sqrt(pmf @ split.levels**2 - mean**2), pmf)
        mean = total / len(draws)
        return Prediction(mean, np.sqrt(square / len(draws) - mean**2), pmf)

    return Fitted(predict, lambda: _scores(split, draws, users, items, probit))


def _scores(split: SplitArrays, draws: Any, users: Any, items: Any, probit: bool) -> Any | None:
    """Mean rating of every pair over the draws; None if the first draw shows that it would take too long."""
    total = np.zeros((split.n_users, split.n_items), dtype=np.float32)
    lowest = np.float32(split.levels[0] if probit else 0.0)
    step = max(1, len(draws) // PROBIT_SCORE_DRAWS) if probit else 1
    chosen = draws[::step]
    steps = np.diff(split.levels).astype(np.float32)
    started = time.perf_counter()
    for number, draw in enumerate(chosen):
        bias_u, a, bias_i, b = (part.astype(np.float32) for part in sides(draw, users, items))
        for first in range(0, split.n_users, _USERS_AT_ONCE):
            rows = slice(first, first + _USERS_AT_ONCE)
            eta = a[rows] @ b.T
            eta += bias_u[rows, None] + np.float32(draw.w0)
            eta += bias_i
            if not probit:
                total[rows] += eta
                continue
            for cut, width in zip(np.asarray(draw.cutpoints[0], dtype=np.float32), steps, strict=True):
                total[rows] += width * ndtr(eta - cut)  # the mean rating rises a step at every cut passed
        if number == 0 and (time.perf_counter() - started) * len(chosen) > SCORE_SECONDS:
            return None
    return lowest + total / np.float32(len(chosen))
