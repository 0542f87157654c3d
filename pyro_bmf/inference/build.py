"""From plain settings to a model: priors and likelihood by their words."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import SettingsError
from ..model import FactorizationModel, ImplicitFeedback, RowNoise
from ..model.words import make_likelihood, make_prior
from .settings import ModelSettings

#: Levels of a scale up to which an ordered likelihood is taken where none is named.
_MANY_LEVELS = 20
#: What Gibbs sweeps know, by name; a Normal prior is Normal-Wishart there.
SWEEP_LIKELIHOODS = ("normal", "ordered-probit")
SWEEP_PRIORS = ("normal", "normal-wishart")
#: Priors whose scale the setting `prior_scale` gives.
NORMAL_PRIORS = ("normal", "hierarchical-normal", "lkj", "normal-wishart")


def build_model(
    settings: ModelSettings,
    levels: np.ndarray | None = None,
    *,
    gibbs: bool = False,
    ends: tuple[float, float] | None = None,
) -> FactorizationModel:
    """Build the factorization that plain settings describe.

    Parameters
    ----------
    settings : ModelSettings
    levels : ndarray, optional
        Levels of the rating scale, for a likelihood that needs them.
    gibbs : bool
        With the Normal-Wishart priors and implicit feedback of Gibbs sweeps; otherwise with the priors of the
        settings, as a guide is fitted under.
    ends : tuple of float, optional
        Lowest and highest rating of the scale, for a likelihood that needs them; those of `levels` when not
        given.

    Raises
    ------
    SettingsError
        If the likelihood needs levels and there are none, or sweeps do not know prior or likelihood.
    """
    word = settings.likelihood
    if word == "auto":
        few = levels is not None and len(levels) <= _MANY_LEVELS
        word = "ordered-probit" if few else "normal"
    name = word.partition(":")[0]
    if gibbs and name not in SWEEP_LIKELIHOODS:
        raise SettingsError(
            f"Gibbs sweeps do not know the likelihood {name}, only {' and '.join(SWEEP_LIKELIHOODS)}: fit a "
            "guide instead (--preset amortized)."
        )
    if gibbs and settings.prior.partition(":")[0] not in SWEEP_PRIORS:
        raise SettingsError(
            f"Gibbs sweeps do not know the prior {settings.prior}, only {' and '.join(SWEEP_PRIORS)} (both "
            "as Normal-Wishart): fit a guide instead (--preset amortized)."
        )
    if ends is None:
        ends = (0.0, 1.0) if levels is None else (float(levels[0]), float(levels[-1]))
    noise: Any = settings.noise
    if name == "ordered-probit":
        noise = 0.8 if noise == "learned" else float(noise)
    likelihood = make_likelihood(
        word, levels=None if levels is None else levels.tolist(), low=ends[0], high=ends[1], noise=noise
    )

    bias = "normal-wishart" if gibbs else "normal"
    # The scale of a prior of another family is another thing: it is said in the word.
    own_scale: float | None = settings.prior_scale
    factors = settings.prior if not gibbs else "normal-wishart"
    if factors.partition(":")[0] not in NORMAL_PRIORS:
        own_scale = None
    return FactorizationModel(
        settings.n_factors,
        user_prior=make_prior(factors, scale=own_scale),
        item_prior=make_prior(factors, scale=own_scale),
        likelihood=likelihood,
        biases=settings.biases,
        centred=settings.centred,
        user_bias_prior=make_prior(bias, scale=settings.bias_scale) if settings.biases else None,
        item_bias_prior=make_prior(bias, scale=settings.bias_scale) if settings.biases else None,
        implicit=ImplicitFeedback() if gibbs and settings.implicit else None,
        row_noise=None if settings.row_noise == "none" else RowNoise(settings.row_noise, guided=not gibbs),
    )
