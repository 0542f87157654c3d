"""Checks on what a system answers; what it is asked is in `pyro_bmf.systems.contract`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf.errors import FitError, SettingsError


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
