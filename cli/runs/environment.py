"""What a fit ran on: versions, device and threads."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import pyro_bmf

from ..shared_options import Running

if TYPE_CHECKING:
    from pyro_bmf.fit_result import FitResult


def environment(result: FitResult, running: Running) -> dict[str, Any]:
    """Return versions, device and threads of a fit."""
    import numpy as np
    import pandas as pd
    import pyro
    import torch

    return {
        "pyro_bmf": pyro_bmf.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "numpy": np.__version__,
        "pandas": pd.__version__,
        "device": result.device,
        "device_name": torch.cuda.get_device_name(result.device) if "cuda" in result.device else None,
        "threads": running.threads,
        "deterministic": running.deterministic,
        "seconds": result.seconds,
        "iterations": len(result.history),
        "kept_iteration": result.best_iteration,
        "stopped": result.stopped,
    }
