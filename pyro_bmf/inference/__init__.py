"""Algorithm 1: the objective, the loop, its settings and its checkpoints."""

from .fit import DivergenceError, FitResult, chosen_iterations, fit, refit_settings
from .settings import FitSettings, ModelSettings, Preset, preset

__all__ = [
    "DivergenceError",
    "FitResult",
    "FitSettings",
    "ModelSettings",
    "Preset",
    "chosen_iterations",
    "fit",
    "preset",
    "refit_settings",
]
