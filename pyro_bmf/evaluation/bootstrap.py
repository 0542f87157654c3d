"""Standard errors by resampling users."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyro_bmf.errors import SettingsError

Floats = NDArray[np.float64]
_DRAWN = 2_000_000  # users drawn at once: 16 MB of indices


def bootstrap_by_user(
    values: ArrayLike, users: ArrayLike, *, root: bool = False, draws: int = 1000, seed: int = 0
) -> Floats:
    """Draw means of per-rating values over resampled users.

    A draw takes as many users as there are, with replacement, each with all of its ratings: ratings of one
    user are not independent.

    Parameters
    ----------
    values
        (n,) or (n, m): one value a rating, for each of m systems.
    users
        (n,) the user of each rating.
    root
        Take the square root of the means (squared errors in, RMSE out).
    draws
        Number of draws, at least 2.
    seed
        Systems in one call share their draws, and so do calls with the same seed and users.

    Returns
    -------
    numpy.ndarray
        (draws,) or (draws, m).
    """
    per_rating = np.asarray(values, dtype=np.float64)
    if draws < 2:
        raise SettingsError(f"a bootstrap needs at least 2 draws, not {draws}.")
    columns = per_rating.reshape(per_rating.shape[0], -1)
    _, own = np.unique(np.asarray(users), return_inverse=True)
    counts = np.bincount(own).astype(np.float64)
    sums = np.column_stack([np.bincount(own, column) for column in columns.T])
    rng = np.random.default_rng([seed, 2])
    result = np.empty((draws, columns.shape[1]))
    step = max(1, _DRAWN // counts.size)
    for start in range(0, draws, step):
        chosen = rng.integers(counts.size, size=(min(step, draws - start), counts.size))
        totals = counts[chosen].sum(axis=1)
        for column in range(columns.shape[1]):  # one a system
            result[start : start + step, column] = sums[:, column][chosen].sum(axis=1) / totals
    if root:
        result = np.sqrt(result)
    return result.reshape(draws, *per_rating.shape[1:])
