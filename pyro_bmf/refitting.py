"""A second fit on train and validation together, for as long as the first found best on validation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .errors import SettingsError
from .fit_result import FitResult
from .methods.cross_feedback.settings import CrossFeedback
from .methods.settings import Settings


def chosen_iterations(result: FitResult) -> Settings:
    """Return the settings of a refit on train and validation: the schedule, stopped where it was best."""
    kept = max((r["iteration"] for r in result.history if r.get("stage") != "gibbs"), default=1)
    best = result.best_iteration if result.stopped != "sweeps" else kept
    return refit_settings(result.settings, max(1, best))


def refit_settings(settings: Settings, stop_after: int) -> Settings:
    """Return the settings of a refit that stops after so many iterations; others have none to choose."""
    if not settings.method.validated:
        return settings
    last = {"keep": "last"} if isinstance(settings.method, CrossFeedback) else {}
    return settings.replace(stop_after=stop_after, patience=None, **last)


def without_validation(settings: Settings) -> Settings:
    """Return the settings of a refit, without what needs validation ratings.

    Raises
    ------
    SettingsError
        If patience, or the best state, was asked for: a refit does not read them.
    """
    forced: dict[str, Any] = {"patience": None} if settings.method.validated else {}
    if isinstance(settings.method, CrossFeedback):
        forced["keep"] = "last"
    values, asked = settings.values(), settings.asked()
    for name, value in forced.items():
        if name in asked and values[name] != value:
            raise SettingsError(
                f"{name}={values[name]!r} is not read when refitting on train and validation, as nothing is "
                "validated then: leave it out, or give the settings that chosen_iterations returns."
            )
    if not forced:
        return settings
    method = replace(settings.method, **forced)
    return replace(settings, method=method, unasked={**settings.unasked, **forced})
