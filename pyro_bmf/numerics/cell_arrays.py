"""Cells of a Normal, and of any symmetric law, as arrays: what needs no torch; see `normal_cells`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from pyro_bmf.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
_Levels = TypeVar("_Levels", "Tensor", NDArray[Any])


def midway(levels: _Levels) -> _Levels:
    """Return the cut points midway between neighbouring levels, (n_levels - 1,)."""
    found: _Levels = (levels[1:] + levels[:-1]) / 2
    return found


def normal_pmf(mean: ArrayLike, sd: ArrayLike, levels: ArrayLike) -> Floats:
    """Probability of each level of a discrete scale under Normal predictives.

    Parameters
    ----------
    mean, sd
        (n,) mean and standard deviation, rating units; `sd` must be positive.
    levels
        (L,) the levels of the scale, strictly ascending, L >= 2.

    Returns
    -------
    numpy.ndarray
        (n, L) probabilities, float64; every row sums to 1.

    Raises
    ------
    SettingsError
        If a standard deviation is not positive and finite, or `levels` are not ascending.

    Notes
    -----
    Far cells keep their relative accuracy down to about 1e-300.
    """
    loc = np.atleast_1d(np.asarray(mean, dtype=np.float64))
    scale = np.atleast_1d(np.asarray(sd, dtype=np.float64))
    grid = np.asarray(levels, dtype=np.float64)
    if grid.ndim != 1 or grid.size < 2 or not (np.diff(grid) > 0).all():
        raise SettingsError("levels must be at least two values in ascending order.")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise SettingsError("a predictive standard deviation is not positive and finite.")
    return symmetric_cells(ndtr, (midway(grid) - loc[:, None]) / scale[:, None])


def symmetric_cells(cdf: Callable[[Floats], Floats], cuts: Floats) -> Floats:
    """Probability of each cell of a law that is symmetric about zero, (..., n_cuts + 1).

    Parameters
    ----------
    cdf : callable
        Its distribution function, exact in the lower tail.
    cuts : ndarray, shape (..., n_cuts)
        Cut points in the law's own unit, ascending.
    """
    end = np.full((*cuts.shape[:-1], 1), np.inf)
    low, high = np.concatenate([-end, cuts], -1), np.concatenate([cuts, end], -1)
    above = low > 0
    low, high = np.where(above, -high, low), np.where(above, -low, high)
    return cdf(high) - cdf(low)
