"""Risk against coverage: how much better predictions are when the most uncertain ones are left out.

A useful uncertainty lets one choose which predictions to make: the error of those that are kept falls as
fewer are kept (Geifman and El-Yaniv 2017, arXiv 1705.08500). The best possible order is by the error
itself; an uninformative one leaves the error where it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.errors import SettingsError

Floats = NDArray[np.float64]
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class RiskCoverage:
    """Root mean squared error of the predictions that are kept.

    Attributes
    ----------
    coverage : tuple of float
        Shares that are kept.
    rmse : tuple of float
        Of those with the smallest predictive standard deviation, rating units.
    best : tuple of float
        Of those with the smallest error: what no uncertainty can beat.
    area, best_area, random_area : float
        Mean of the RMSE over the coverages; of an uninformative order, the RMSE of all.
    """

    coverage: tuple[float, ...]
    rmse: tuple[float, ...]
    best: tuple[float, ...]
    area: float
    best_area: float
    random_area: float

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain values."""
        return asdict(self)


def risk_coverage(errors: Floats, sd: Floats) -> RiskCoverage:
    """Measure the error of the predictions that are surest, at coverages from all to a tenth.

    Parameters
    ----------
    errors : ndarray, shape (n,)
        Prediction less rating.
    sd : ndarray, shape (n,)
        Predictive standard deviations: the order. Predictions with equal ones count by their mean square.

    Raises
    ------
    SettingsError
        If there are fewer than ten ratings, or shapes do not fit.
    """
    n = errors.size
    if n < 10 or sd.shape != errors.shape:
        raise SettingsError(f"risk against coverage needs ten ratings or more, each with an sd, not {n}.")
    square = errors**2
    _, place, sizes = np.unique(sd, return_inverse=True, return_counts=True)
    tied = np.bincount(place, square) / sizes
    kept = [max(1, round(share * n)) for share in COVERAGES]
    by_sd = np.cumsum(tied[place][np.argsort(sd, kind="stable")])
    by_error = np.cumsum(np.sort(square))
    rmse = tuple(float(np.sqrt(by_sd[k - 1] / k)) for k in kept)
    best = tuple(float(np.sqrt(by_error[k - 1] / k)) for k in kept)
    return RiskCoverage(
        COVERAGES, rmse, best, float(np.mean(rmse)), float(np.mean(best)), float(np.sqrt(square.mean()))
    )
