"""What can be evaluated, and the checks on what it answers."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.errors import FitError, SettingsError


@runtime_checkable
class Predictor(Protocol):
    """A fitted system over index arrays: the posterior, a baseline, or anything with these four methods."""

    def predict_mean(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[Any]:
        """Return the (n,) posterior-predictive means in rating units, unclipped."""

    def predict_sd(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[Any]:
        """Return the (n,) posterior-predictive standard deviations in rating units."""

    def predict_pmf(
        self, users: NDArray[np.int64], items: NDArray[np.int64], levels: NDArray[np.float64]
    ) -> NDArray[Any]:
        """Return the (n, L) probability of each of `levels`; every row sums to 1."""

    def score_items(self, users: NDArray[np.int64]) -> NDArray[Any]:
        """Return (len(users), n_items) ranking scores, larger is better."""


def checked_array(
    values: NDArray[Any], shape: tuple[int, ...], method: str, *, dtype: Any = np.float64
) -> NDArray[Any]:
    """Return what `method` of a predictor gave, as floats of the expected shape.

    Raises
    ------
    SettingsError
        If the shape is another one.
    FitError
        If a value is not finite: the system did not converge.
    """
    result = np.asarray(values)
    if result.dtype.kind != "f":
        result = result.astype(dtype)
    if result.shape != shape:
        raise SettingsError(f"{method} gave an array of shape {result.shape}; {shape} is needed.")
    if not np.isfinite(result).all():
        count = int((~np.isfinite(result)).sum())
        raise FitError(
            f"{method} gave {count} values that are not finite: the fit diverged. Fit again with a smaller"
            " learning rate."
        )
    return result
