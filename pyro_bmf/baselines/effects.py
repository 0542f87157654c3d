"""Additive user and item effects with variances learned from the train ratings alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.data import Ratings


@dataclass(frozen=True)
class Effects:
    """Posterior of the model rating = centre + user effect + item effect + noise.

    Attributes
    ----------
    centre
        The common level, rating units.
    user_loc, item_loc
        (n_users,), (n_items,) posterior means; 0 for a row without train ratings.
    user_variance, item_variance
        Posterior variances; a row without train ratings has the prior's.
    user_prior_variance, item_prior_variance, noise_variance
        The learned variance components, rating units squared.
    iterations, converged
        Sweeps made, and whether the tolerance was met.
    """

    centre: float
    user_loc: NDArray[np.float64]
    item_loc: NDArray[np.float64]
    user_variance: NDArray[np.float64]
    item_variance: NDArray[np.float64]
    user_prior_variance: float
    item_prior_variance: float
    noise_variance: float
    iterations: int
    converged: bool

    def state(self) -> dict[str, NDArray[Any]]:
        """Return every attribute as an array, to be saved."""
        return {name: np.array(value) for name, value in vars(self).items()}

    @classmethod
    def of_state(cls, state: Mapping[str, NDArray[Any]], train: Ratings) -> Effects:
        """Return the effects that `state` gave.

        Raises
        ------
        KeyError, ValueError
            If they are not effects of these ratings.
        """
        sizes = {"user": train.n_users, "item": train.n_items}
        for side, size in sizes.items():
            for name in (f"{side}_loc", f"{side}_variance"):
                if state[name].shape != (size,):
                    raise ValueError(f"{name} has shape {state[name].shape}, ({size},) is needed")
        return cls(
            centre=float(state["centre"]),
            user_loc=state["user_loc"],
            item_loc=state["item_loc"],
            user_variance=state["user_variance"],
            item_variance=state["item_variance"],
            user_prior_variance=float(state["user_prior_variance"]),
            item_prior_variance=float(state["item_prior_variance"]),
            noise_variance=float(state["noise_variance"]),
            iterations=int(state["iterations"]),
            converged=bool(state["converged"]),
        )


def fit_effects(
    train: Ratings, *, user_effects: bool = True, tolerance: float = 1e-6, max_iterations: int = 1000
) -> Effects:
    r"""Fit the effects by alternating ridge solves, their penalties by empirical Bayes.

    Model: :math:`x_{ij} = \mu + b_i + c_j + e_{ij}`, with :math:`b_i \sim N(0, s_b^2)`,
    :math:`c_j \sim N(0, s_c^2)`, :math:`e_{ij} \sim N(0, \sigma^2)`. One sweep sets

    - :math:`b_i = \sum_j (x_{ij} - \mu - c_j) / (n_i + \sigma^2 / s_b^2)`, with posterior variance
      :math:`\sigma^2 / (n_i + \sigma^2 / s_b^2)`; the items alike; both to mean 0, :math:`\mu` to the mean
      residual;
    - :math:`s_b^2` to the mean of :math:`b_i^2` plus posterior variance over users with ratings,
    :math:`s_c^2`
      alike, and :math:`\sigma^2` to the mean expected squared residual. The posterior variances in that
      expectation stand for the degrees of freedom that the effects use up.

    This is variational EM with independent effects: coordinate ascent on one bound, so it converges.

    Parameters
    ----------
    train
        At least one rating.
    user_effects
        Without them the model is centre + item effect.
    tolerance
        Stop when no effect moved by more than this times the noise's standard deviation, and no variance by
        more than this times the noise variance.
    max_iterations
        Sweeps at most.
    """
    users, items, ratings = train.users, train.items, train.ratings
    n_users, n_items, total = train.n_users, train.n_items, len(train)
    floor = variance_floor(train)
    user_counts = train.user_counts.astype(np.float64)
    item_counts = train.item_counts.astype(np.float64)
    centre = float(ratings.mean())
    noise = max(float(ratings.var()), floor)
    user_prior = noise / 4 if user_effects else 0.0
    item_prior = noise / 4
    user_loc, user_variance = np.zeros(n_users), np.full(n_users, user_prior)
    item_loc, item_variance = np.zeros(n_items), np.full(n_items, item_prior)
    users_seen, items_seen = user_counts > 0, item_counts > 0
    iteration, converged = 0, False
    while iteration < max_iterations and not converged:
        iteration += 1
        before = (user_loc, item_loc, user_prior, item_prior, noise)
        if user_effects:
            shrunk = user_counts + noise / user_prior
            user_loc = np.bincount(users, ratings - centre - item_loc[items], minlength=n_users) / shrunk
            user_variance = noise / shrunk
        shrunk = item_counts + noise / item_prior
        item_loc = np.bincount(items, ratings - centre - user_loc[users], minlength=n_items) / shrunk
        item_variance = noise / shrunk
        # A shift between the centre and the effects leaves the fit as it is: it goes where the prior wants it
        # at once, or hundreds of sweeps would creep along that direction.
        if user_effects:
            user_loc = np.where(users_seen, user_loc - user_loc[users_seen].mean(), 0.0)
        item_loc = np.where(items_seen, item_loc - item_loc[items_seen].mean(), 0.0)
        residuals = ratings - user_loc[users] - item_loc[items]
        centre = float(residuals.mean())
        residuals -= centre
        spread = user_counts @ user_variance if user_effects else 0.0
        noise = max(float(residuals @ residuals + spread + item_counts @ item_variance) / total, floor)
        if user_effects:
            user_prior = _prior_variance(user_loc, user_variance, user_counts, floor)
        item_prior = _prior_variance(item_loc, item_variance, item_counts, floor)
        moved = max(np.abs(user_loc - before[0]).max(), np.abs(item_loc - before[1]).max())
        changed = max(abs(user_prior - before[2]), abs(item_prior - before[3]), abs(noise - before[4]))
        converged = bool(moved <= tolerance * np.sqrt(noise) and changed <= tolerance * noise)
    return Effects(
        centre,
        user_loc,
        item_loc,
        user_variance,
        item_variance,
        user_prior,
        item_prior,
        noise,
        iteration,
        converged,
    )


def _prior_variance(
    loc: NDArray[np.float64], variance: NDArray[np.float64], counts: NDArray[np.float64], floor: float
) -> float:
    # Rows without ratings sit at the prior: they would not move the fixed point, only slow the way to it.
    seen = counts > 0
    return max(float((loc[seen] ** 2 + variance[seen]).mean()), floor)


def variance_floor(train: Ratings) -> float:
    """Return the smallest predictive variance a baseline gives: (a thousandth of the scale's range) squared.

    Train ratings that are all alike would otherwise leave a predictive without width.
    """
    return float((1e-3 * (train.scale.high - train.scale.low)) ** 2)
