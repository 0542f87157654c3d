"""A Normal predictive on a discrete rating scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from pyro_bmf.errors import SettingsError


def normal_pmf(mean: ArrayLike, sd: ArrayLike, levels: ArrayLike) -> NDArray[np.float64]:
    """Probability of each level of a discrete scale under Normal predictives.

    Each level gets the cell around it: cuts midway between neighbouring levels, the two tails to the two
    ends, so that every row sums to 1.

    Parameters
    ----------
    mean, sd
        (n,) mean and standard deviation, rating units; `sd` must be positive.
    levels
        (L,) the levels of the scale, strictly ascending, L >= 2.

    Returns
    -------
    numpy.ndarray
        (n, L) probabilities, float64.

    Raises
    ------
    SettingsError
        If a standard deviation is not positive and finite, or `levels` are not ascending.

    Notes
    -----
    A cell above the mean is the difference of two upper tails and one below it of two lower tails, so that
    far cells keep their relative accuracy down to about 1e-300.
    """
    loc = np.atleast_1d(np.asarray(mean, dtype=np.float64))
    scale = np.atleast_1d(np.asarray(sd, dtype=np.float64))
    grid = np.asarray(levels, dtype=np.float64)
    if grid.ndim != 1 or grid.size < 2 or not (np.diff(grid) > 0).all():
        raise SettingsError("levels must be at least two values in ascending order.")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise SettingsError("a predictive standard deviation is not positive and finite.")
    edges = np.concatenate([[-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]])
    z = (edges - loc[:, None]) / scale[:, None]
    low, high = z[:, :-1], z[:, 1:]
    upper = low > 0
    pmf: NDArray[np.float64] = ndtr(np.where(upper, -low, high)) - ndtr(np.where(upper, -high, low))
    return pmf
