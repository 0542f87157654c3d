r"""Differences of expected log predictive density between models, with paired standard errors.

With pointwise values :math:`l_{mi} = \log p_m(x_i)` of model m on n ratings, all models on the same ones,

.. math::

   \mathrm{elpd}_m = \sum_i l_{mi}, \qquad
   \mathrm{se}(\mathrm{elpd}_m - \mathrm{elpd}_b) = \sqrt{n \, \mathrm{var}_i(l_{mi} - l_{bi})}

as if ratings were independent. They are not within a user, so the standard error by user sums a user's
deviations before they are squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.errors import SettingsError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ElpdRow:
    """One model among those compared; all in nats, differences to the best model.

    Attributes
    ----------
    name : str
    n_ratings, n_users : int
    elpd, elpd_per_rating : float
    se, se_by_user : float
        Of `elpd`: ratings independent, and only users independent.
    difference, difference_se, difference_se_by_user : float
        `elpd` less the best model's; zeros for the best.
    clear : bool
        Whether the difference is more than two of its standard errors by user; False for the best.
    """

    name: str
    n_ratings: int
    n_users: int
    elpd: float
    elpd_per_rating: float
    se: float
    se_by_user: float
    difference: float
    difference_se: float
    difference_se_by_user: float
    clear: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the content as a plain dict."""
        return asdict(self)


def compare_elpd(
    names: Sequence[str], values: Sequence[Floats], users: NDArray[np.int64], kinds: Sequence[str]
) -> list[ElpdRow]:
    """Rank models by the sum of their pointwise values, best first.

    Parameters
    ----------
    names : sequence of str
    values : sequence of ndarray, shape (n,)
        One array a model, nats, of the same ratings in the same order.
    users : ndarray, shape (n,)
        The user of each rating.
    kinds : sequence of str
        What each model's values are of, ``"probability"`` or ``"density"``.

    Raises
    ------
    SettingsError
        If values are of different ratings, or densities meet probabilities.
    """
    if len(set(kinds)) > 1:
        raise SettingsError(
            "log-densities and log-probabilities were to be compared "
            f"({', '.join(f'{name}: {kind}' for name, kind in zip(names, kinds, strict=True))}): a density "
            "depends on the unit of ratings. Fit the models to one rating scale."
        )
    if any(one.shape != users.shape for one in values) or users.size < 2:
        raise SettingsError("models can be compared on two or more ratings, the same for all of them.")
    _, groups = np.unique(users, return_inverse=True)
    totals = [float(one.sum()) for one in values]
    best = int(np.argmax(totals))
    rows = []
    for place in np.argsort(totals)[::-1].tolist():
        own = values[place]
        gap = own - values[best]
        by_user = clustered_se(gap, groups)
        rows.append(
            ElpdRow(
                names[place],
                users.size,
                int(groups.max()) + 1,
                totals[place],
                totals[place] / users.size,
                independent_se(own),
                clustered_se(own, groups),
                float(gap.sum()),
                independent_se(gap),
                by_user,
                bool(place != best and -gap.sum() > 2.0 * by_user),
            )
        )
    return rows


def independent_se(values: Floats) -> float:
    """Return the standard error of the sum of independent values."""
    return float(np.sqrt(values.size * values.var(ddof=1)))


def clustered_se(values: Floats, groups: NDArray[np.int64]) -> float:
    """Return the standard error of the sum of values that depend on each other within a group (0, 1, …)."""
    sums = np.bincount(groups, values - values.mean())
    n = sums.size
    return float(np.sqrt((sums**2).sum() * n / max(n - 1, 1)))
