"""Central intervals of predictive distributions of ratings."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from pyro_bmf.errors import SettingsError

Floats = NDArray[np.float64]


def discrete_interval(pmf: ArrayLike, levels: ArrayLike, level: float) -> tuple[Floats, Floats]:
    """Return the ends of the central interval of discrete predictives, rating units.

    The ends are the quantiles at (1 ∓ level)/2: the smallest rating whose distribution function reaches them.

    Parameters
    ----------
    pmf
        (n, L) probability of each level.
    levels
        (L,) ascending.
    level
        Nominal probability in (0, 1).

    Returns
    -------
    tuple of numpy.ndarray
        (n,) lower and (n,) upper ends.
    """
    _check_level(level)
    cumulative = np.cumsum(np.asarray(pmf, dtype=np.float64), axis=1)[:, :-1]
    grid = np.asarray(levels, dtype=np.float64)
    # The slack keeps a quantile that is met exactly, in exact arithmetic, from moving by rounding.
    low = (cumulative < (1 - level) / 2 - 1e-12).sum(axis=1)
    high = (cumulative < (1 + level) / 2 - 1e-12).sum(axis=1)
    return grid[low], grid[high]


def normal_interval_width(sd: ArrayLike, level: float) -> Floats:
    """Return the (n,) widths of the central intervals of Normal predictives."""
    _check_level(level)
    result: Floats = 2 * float(ndtri((1 + level) / 2)) * np.asarray(sd, dtype=np.float64)
    return result


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise SettingsError(f"the level of an interval must be between 0 and 1, not {level}.")
