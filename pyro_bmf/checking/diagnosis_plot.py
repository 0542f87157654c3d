"""The figure of a diagnosis: k-hats, gaps against counts, and the trace of the objective."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..files import atomic_write
from ..model.fitted import Side
from .row_diagnosis import RowDiagnosis

_COLOURS = {"user": "tab:blue", "item": "tab:orange"}


def plot_diagnosis(found: Mapping[Side, RowDiagnosis], history: pd.DataFrame, title: str, file: Path) -> None:
    """Draw k-hat against the number of ratings, both gaps, and the objective over iterations.

    Parameters
    ----------
    found : mapping
        By side.
    history : DataFrame
        One line an iteration; may be empty.
    title : str
    file : Path
        Of the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    for side, one in found.items():
        table = one.table
        finite = np.isfinite(table["k_hat"])
        axes[0].scatter(
            table["n_ratings"][finite] + 0.5,
            table["k_hat"][finite],
            s=4,
            alpha=0.4,
            color=_COLOURS[side],
            label=f"{side}s: {int(table['flagged'].sum()):,} of {len(table):,} flagged",
        )
        axes[0].axhline(one.good_k, color="0.3", lw=0.8, ls="--")
        known = table.dropna(subset=["amortization_gap", "approximation_gap"])
        axes[1].scatter(
            known["approximation_gap"].clip(1e-4),
            known["amortization_gap"].clip(1e-4),
            s=4,
            alpha=0.4,
            color=_COLOURS[side],
        )
    axes[0].set_xscale("log")
    axes[0].set_xlabel("training ratings")
    axes[0].set_title("k-hat of each row (dashed: the limit)")
    axes[0].legend(fontsize=8)
    axes[1].set_xscale("log")
    axes[1].set_yscale("log")
    axes[1].plot([1e-4, 1e2], [1e-4, 1e2], color="0.6", lw=0.8)
    axes[1].set_xlabel("family's gap, nats")
    axes[1].set_ylabel("encoder's gap, nats")
    axes[1].set_title("whose fault: above the line the encoder's")
    _trace(axes[2], history)
    figure.suptitle(title)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _trace(axes: Any, history: pd.DataFrame) -> None:
    axes.set_title("objective, nats a rating")
    axes.set_xlabel("iteration")
    if "loss_per_rating" in history:
        axes.plot(history["iteration"], history["loss_per_rating"], color="black")
    if "valid_rmse" in history and history["valid_rmse"].notna().any():
        twin = axes.twinx()
        twin.plot(history["iteration"], history["valid_rmse"], color="tab:green", lw=1)
        twin.set_ylabel("validation RMSE", color="tab:green")
