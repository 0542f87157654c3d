"""What a method drew beside rows: noise, cut points and the rows' priors, for exports and diagnoses."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.fitted import Rows
from ..model.sides import SIDES, Sides
from ..numerics.normal_cells import midway
from .posterior import Posterior
from .predictive import Indices

Floats = NDArray[np.float64]


def hyperparameter_dims(posterior: Posterior) -> dict[str, tuple[str, ...]]:
    """Return the dimensions, after the draw, of each hyperparameter that has draws."""
    return {name: one.dims for name, one in posterior.guide.hyperparameters().items()}


def hyperparameter_draws(posterior: Posterior, draws: Indices) -> dict[str, Floats]:
    """Return these draws of each hyperparameter, (n_draws, ...), numbered in the order of the chain."""
    found = posterior.guide.hyperparameters()
    return {name: one.values.double().cpu().numpy()[draws] for name, one in found.items()}


def identified_draws(posterior: Posterior) -> dict[str, Floats]:
    """Return all draws of hyperparameters that have an identity, by what they are called, (n_draws,) each.

    Noise, cut points, the spread of rows' noise, and the spreads of rows' effects (bias, and factors against
    the other side's mean); those that were held still too.
    """
    known = posterior.guide.hyperparameters()

    def drawn(name: str) -> Floats:
        values: Floats = known[name].values.double().cpu().numpy()
        return values

    named: dict[str, Floats] = {"noise": drawn("noise")} if "noise" in known else {}
    if "cuts" in known:
        named |= {f"cut point {cut + 1}": values for cut, values in enumerate(drawn("cuts").T)}
    for side in ("user", "item"):
        if f"{side}_noise_shape" in known:
            named[f"spread of {side}s' noise"] = drawn(f"{side}_noise_shape") ** -0.5
    rows_of = Sides(posterior.user_rows, posterior.item_rows)
    for side in SIDES:
        rows, others = rows_of.of(side), rows_of.opposite(side)
        with torch.no_grad():
            biases = rows.bias_draws()
            if biases is not None:
                named[f"sd of {side} effects"] = _effect_spreads(rows, others, biases)
    return named


def _effect_spreads(rows: Rows, others: Rows, biases: Tensor) -> Floats:
    """Return the spread of b_i + u_i . mean(v) over rows: what they are worth on average, (n_draws,).

    A bias alone has no identity where the other side's factors are not about zero: both terms trade.
    """
    both = zip(rows.factor_moments(), others.factor_moments(), strict=True)
    found = [
        (biases[:, draw].double() + own @ other.mean(0)).std()
        for draw, ((own, _), (other, _)) in enumerate(both)
    ]
    spreads: Floats = torch.stack(found).cpu().numpy()
    return spreads


def row_noise_means(posterior: Posterior) -> dict[str, Floats]:
    """Return posterior means, by side, of what multiplies each row's noise, where no draws of it are kept."""
    sides = {"user": posterior.user_rows, "item": posterior.item_rows}
    return {
        side: rows.noise_factor.double().cpu().numpy()
        for side, rows in sides.items()
        if rows.noise_factor is not None and rows.noise_factor_log_sd is None
    }


def cut_places(posterior: Posterior) -> Floats:
    """Return where each cut point lies between the scale's levels: halfway, in rating units."""
    levels = posterior.scale.levels
    assert levels is not None
    return np.asarray(midway(levels), dtype=np.float64)
