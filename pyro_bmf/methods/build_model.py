"""From plain settings to a model: priors and likelihood by their words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ..errors import SettingsError
from ..model import FactorizationModel, Likelihood, Prior, RowNoise
from ..model.catalogue import LIKELIHOODS, PRIORS
from ..model.implicit_feedback import ImplicitFeedback
from ..model.priors.normal_wishart import EXTRA_DEGREES, NormalWishartPrior
from ..model.spelling import make_likelihood, make_prior, parse_word
from .model_settings import ModelSettings

#: Levels of a scale up to which an ordered likelihood is taken where none is named.
_MANY_LEVELS = 20
#: What Gibbs sweeps know, by name: likelihoods of Normal utilities; priors that are conjugate, and the Normal
#: one, whose precisions are half-t there.
SWEEP_LIKELIHOODS = tuple(
    name for name, kind in LIKELIHOODS.items() if kind.utilities is not Likelihood.utilities
)
SWEEP_PRIORS = ("normal", *(name for name, kind in PRIORS.items() if kind.conjugate is not Prior.conjugate))
#: Priors whose scale the setting `prior_scale` gives.
NORMAL_PRIORS = ("normal", "hierarchical-normal", "lkj", "normal-wishart", "normal-half-t")


def build_model(
    settings: ModelSettings,
    levels: np.ndarray | None = None,
    *,
    gibbs: bool = False,
    ends: tuple[float, float] | None = None,
    mean_rating: float | None = None,
) -> FactorizationModel:
    """Build the factorization that plain settings describe.

    Parameters
    ----------
    settings : ModelSettings
    levels : ndarray, optional
        Levels of the rating scale, for a likelihood that needs them.
    gibbs : bool
        With the conjugate priors and implicit feedback of Gibbs sweeps; otherwise with the priors of the
        settings, as a guide is fitted under.
    ends : tuple of float, optional
        Lowest and highest rating of the scale, for a likelihood that needs them; those of `levels` when not
        given.
    mean_rating : float, optional
        Of the training ratings, for a prior whose mean follows from it.

    Raises
    ------
    SettingsError
        If the likelihood needs levels and there are none, sweeps do not know prior or likelihood, or a
        prior's mean is to follow from ratings whose mean is not known or not positive.
    """
    word = resolve_likelihood(settings.likelihood, levels)
    name = word.partition(":")[0]
    if gibbs and name not in SWEEP_LIKELIHOODS:
        raise SettingsError(
            f"The exact head and Gibbs sweeps do not know the likelihood {name}: give --likelihood "
            f"{' or '.join(SWEEP_LIKELIHOODS)}, or fit encoders (--preset amortized)."
        )
    if gibbs and settings.prior.partition(":")[0] not in SWEEP_PRIORS:
        raise SettingsError(
            f"The exact head and Gibbs sweeps do not know the prior {settings.prior}: give --prior "
            f"{' or '.join(SWEEP_PRIORS)} (normal is as normal-half-t), or fit encoders (--preset amortized)."
        )
    if ends is None:
        ends = (0.0, 1.0) if levels is None else (float(levels[0]), float(levels[-1]))
    noise: Any = settings.noise
    if name == "ordered-probit":
        # Under sweeps it is the unit of the utilities, and no setting.
        noise = 0.8 if gibbs or noise == "learned" else float(noise)
    likelihood = make_likelihood(
        word, levels=None if levels is None else levels.tolist(), low=ends[0], high=ends[1], noise=noise
    )
    likelihood.drawn = gibbs
    if settings.row_noise != "none":
        # A likelihood without noise refuses here: out of a trace, Pyro adds its shapes to the message.
        likelihood(torch.zeros(1), torch.ones(1))

    bias = "normal-half-t" if gibbs else "normal"
    # The scale of a prior of another family is another thing: it is said in the word.
    own_scale: float | None = settings.prior_scale
    factors = _sampled_prior(settings) if gibbs else settings.prior
    kind, given = parse_word(factors, PRIORS, "prior")
    if gibbs and kind == "normal-wishart":
        # What is said is the guess at one factor's standard deviation, however many there are.
        degrees = float(given.get("extra_degrees", EXTRA_DEGREES))
        own_scale = NormalWishartPrior.guessing(
            settings.prior_scale, settings.n_factors, extra_degrees=degrees
        ).scale
    loc = None if gibbs else _prior_mean(settings, mean_rating)
    if kind not in NORMAL_PRIORS:
        own_scale = None
    return FactorizationModel(
        settings.n_factors,
        user_prior=make_prior(factors, scale=own_scale, loc=loc),
        item_prior=make_prior(factors, scale=own_scale, loc=loc),
        likelihood=likelihood,
        biases=settings.biases,
        centred=settings.centred,
        user_bias_prior=make_prior(bias, scale=settings.bias_scale) if settings.biases else None,
        item_bias_prior=make_prior(bias, scale=settings.bias_scale) if settings.biases else None,
        implicit=ImplicitFeedback() if gibbs and settings.implicit else None,
        row_noise=None if settings.row_noise == "none" else RowNoise(settings.row_noise, guided=not gibbs),
    )


def resolve_likelihood(word: str, levels: np.ndarray | None) -> str:
    """Return the word of a likelihood; ``auto`` is one that goes with the rating scale's levels."""
    if word != "auto":
        return word
    few = levels is not None and len(levels) <= _MANY_LEVELS
    return "ordered-probit" if few else "normal"


def _prior_mean(settings: ModelSettings, mean_rating: float | None) -> float | None:
    """Return the mean that the settings give the factors' prior, None where they give none."""
    if not settings.prior_mean:
        return None
    if settings.prior_mean != "ratings":
        return float(settings.prior_mean)
    if settings.centred:
        return 0.0
    if mean_rating is None or not mean_rating > 0.0:
        known = "not known" if mean_rating is None else f"{mean_rating:.3g}"
        raise SettingsError(
            f"prior_mean is 'ratings' and the mean rating is {known}: it must be positive, to be the "
            "product of two equal means. Give prior_mean as a number, or centre the ratings."
        )
    return math.sqrt(mean_rating / settings.n_factors)


def _sampled_prior(settings: ModelSettings) -> str:
    """Return the prior that Gibbs sweeps take: for a Normal one, which may name its scale, the half-t."""
    word = settings.prior
    name, arguments = parse_word(word, PRIORS, "prior")
    if name != "normal":
        return word
    given = arguments.get("loc", settings.prior_mean)
    # One that follows from the ratings was a place to start at, and is learned here.
    if given and given != "ratings":
        raise SettingsError(
            f"Gibbs sweeps draw the mean of the factors, and here it is given, as {given} "
            "(prior_mean, or loc in the prior): leave it at 0, or fit a guide instead (--preset amortized)."
        )
    if "scale" not in arguments:
        return "normal-half-t"
    return f"normal-half-t:scale={float(arguments['scale'])!r}"
