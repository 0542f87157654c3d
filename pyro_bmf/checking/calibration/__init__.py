"""Simulation-based calibration of a configuration: truths from its prior, or from a run's posterior."""

from __future__ import annotations

from .from_posterior import refit_ranks_from, simulate_from
from .from_prior import Refit, Truth, refit_ranks, simulate, subsample

__all__ = ["Refit", "Truth", "refit_ranks", "refit_ranks_from", "simulate", "simulate_from", "subsample"]
