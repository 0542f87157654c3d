"""Rows that are points: what is asked of draws cannot be asked of them."""

from __future__ import annotations

from ..errors import SettingsError
from ..posterior.posterior import Posterior


def refuse_points(posterior: Posterior, what: str) -> None:
    """Refuse rows without a spread.

    Parameters
    ----------
    posterior : Posterior
    what : str
        What is asked of draws of rows, to follow "there is no".

    Raises
    ------
    SettingsError
        Where rows are at their mode (the preset ``pmf``, and ``point=True``).
    """
    if posterior.guide.settings().get("point", False):
        raise SettingsError(
            "this posterior's rows are points, at their most likely values, without a spread: there is no "
            f"{what}. Fit rows with their covariances (--preset conjugate, or --set point=false)."
        )
