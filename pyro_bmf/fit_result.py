"""What a fit gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import FitError
from .methods.settings import Settings
from .posterior import Posterior


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a fit gives.

    Attributes
    ----------
    posterior : Posterior
        The fitted posterior, of the kept state.
    history : list of dict
        One record an iteration: every part of the objective by name (nats), validation RMSE, learning rate,
        betas, noise, seconds.
    best_iteration : int
        The iteration that was kept.
    settings : Settings
    device : str
    seconds : float
        Wall time of the iterations, those before a resume included.
    stopped : {"max-iterations", "patience", "diverged", "sweeps"}
    """

    posterior: Posterior
    history: list[dict[str, Any]]
    best_iteration: int
    settings: Settings
    device: str
    seconds: float
    stopped: str


class DivergenceError(FitError):
    """A fit whose loss or validation error diverged; `result` is the last good state, if any."""

    def __init__(self, message: str, result: FitResult | None) -> None:
        super().__init__(message)
        self.result = result
