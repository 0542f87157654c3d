"""What a chain drew beside rows: noise, cut points and the rows' priors, and what made the chain."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..methods.gibbs.guide import ChainGuide
from ..numerics.normal_cells import midway
from .posterior import Posterior
from .predictive import Indices

Floats = NDArray[np.float64]


def chain_of(posterior: Posterior) -> ChainGuide | None:
    """Return the draws of hyperparameters of a posterior that is a chain, None of any other."""
    guide = posterior.guide
    return guide if posterior.n_draws is not None and isinstance(guide, ChainGuide) else None


def hyperparameter_dims(posterior: Posterior) -> dict[str, tuple[str, ...]]:
    """Return the dimensions, after the draw, of each hyperparameter that a chain drew; none of any other.

    ``noise``
        Standard deviation of a rating about its predictor (of a utility, under an ordered likelihood, where
        the model may hold it fixed); rows' own multipliers come on top.
    ``cuts``
        Cut points of an ordered likelihood, along ``cut``.
    ``{side}_bias_location``, ``{side}_bias_scale``
        Mean and standard deviation of the biases' prior.
    ``{side}_factors_location``, ``{side}_factors_precision``
        Of the factors' prior, which turns with the factors from draw to draw.
    ``{side}_noise_shape``
        Shape of the prior of rows' noise multipliers.
    """
    guide = chain_of(posterior)
    if guide is None:
        return {}
    named: dict[str, tuple[str, ...]] = {"noise": ()}
    if guide.n_cuts:
        named["cuts"] = ("cut",)
    for side in ("user", "item"):
        if guide.biases:
            named |= {f"{side}_bias_location": (), f"{side}_bias_scale": ()}
        named[f"{side}_factors_location"] = ("factor",)
        named[f"{side}_factors_precision"] = ("factor", "factor_other")
        if side in guide.row_noise:
            named[f"{side}_noise_shape"] = ()
    return named


def hyperparameter_draws(posterior: Posterior, draws: Indices) -> dict[str, Floats]:
    """Return these draws of each hyperparameter, (n_draws, ...), as `hyperparameter_dims` describes them.

    Draws are numbered in the order of the chain.
    """
    guide = chain_of(posterior)
    if guide is None:
        return {}
    k = guide.n_factors

    def taken(name: str) -> Floats:
        values: Floats = cast(Tensor, getattr(guide, name)).double().cpu().numpy()
        return values[draws]

    found = {"noise": taken("noise") ** -0.5}
    if guide.n_cuts:
        found["cuts"] = taken("cuts")
    for side in ("user", "item"):
        location, precision = taken(f"{side}_location"), taken(f"{side}_precision")
        if guide.biases:
            found[f"{side}_bias_location"] = location[:, k]
            found[f"{side}_bias_scale"] = precision[:, k, k] ** -0.5
        found[f"{side}_factors_location"] = location[:, :k]
        found[f"{side}_factors_precision"] = precision[:, :k, :k]
        if side in guide.row_noise:
            found[f"{side}_noise_shape"] = taken(f"{side}_noise_shape")
    return found


def row_noise_means(posterior: Posterior) -> dict[str, Floats]:
    """Return posterior means, by side, of what multiplies each row's noise; none where rows have none.

    A chain keeps no draws of them.
    """
    if chain_of(posterior) is None:
        return {}
    sides = {"user": posterior.user_rows, "item": posterior.item_rows}
    return {side: rows.noise.double().cpu().numpy() for side, rows in sides.items() if rows.noise is not None}


def cut_places(posterior: Posterior) -> Floats:
    """Return where each cut point lies between the scale's levels: halfway, in rating units."""
    levels = posterior.scale.levels
    assert levels is not None
    return np.asarray(midway(levels), dtype=np.float64)


def sampling_attributes(posterior: Posterior) -> dict[str, Any]:
    """Return what draws of a posterior are, in types that netCDF has.

    Of a chain: how many sweeps it had, after which of them draws were kept, and its seed, as far as the fit
    noted them.
    """
    if chain_of(posterior) is None:
        return {"sampling": "independent draws of a variational posterior: no Markov chain"}
    info = posterior.info
    attributes: dict[str, Any] = {
        "sampling": "draws of one Gibbs chain, in the chain's order: neighbouring draws depend on each other",
        "sampler": "blocked Gibbs sweeps",
        "n_chains": 1,
        "kept_draws": int(posterior.n_draws or 0),
    }
    settings = info.get("settings", {})
    gibbs = settings.get("gibbs", {})
    if {"sweeps", "burn_in", "kept_draws"} <= gibbs.keys():
        # Draws are evenly spaced and end with the last sweep; what does not divide is burnt in too.
        thinning = (gibbs["sweeps"] - gibbs["burn_in"]) // gibbs["kept_draws"]
        attributes |= {
            "n_sweeps": int(gibbs["sweeps"]),
            "burn_in": int(gibbs["sweeps"] - thinning * gibbs["kept_draws"]),
            "thinning": int(thinning),
        }
    if "seed" in settings.get("fit", {}):
        attributes["chain_seed"] = int(settings["fit"]["seed"])
    if "iterations" in info:
        after = int(info["iterations"])
        attributes["started_from"] = f"a guide fitted in {after} iterations" if after else "a random start"
    return attributes
