"""Between a user's unit of ratings and the standard units that a fit works in."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from .data.ratings import Ratings
from .data.units import AS_GIVEN, Units
from .methods.build_model import resolve_likelihood
from .methods.model_settings import ModelSettings
from .methods.setting import values_of
from .model import FactorizationModel
from .model.catalogue import LIKELIHOODS, PRIORS
from .model.likelihoods.ordered import OrderedLikelihood
from .model.spelling import parse_word
from .posterior import Posterior
from .posterior.encoding import plain_info
from .progress import Reporter

#: Figures of a history that are in rating units.
_IN_RATINGS = ("valid_rmse", "watched_rmse", "noise")


def units_of(
    settings: ModelSettings,
    train: Ratings,
    *,
    own: FactorizationModel | None = None,
    earlier: Posterior | None = None,
) -> Units:
    """Return the units that a fit works in.

    A model of one's own, likelihoods of counts, yes or no and shares, and settings that say so (as the preset
    ``paper`` does) take ratings as they are. A warm start goes on in the earlier fit's units.
    """
    if own is not None or not settings.standardised:
        return AS_GIVEN
    word = resolve_likelihood(settings.likelihood, train.scale.levels)
    likelihood = LIKELIHOODS[word.partition(":")[0]]
    if not likelihood.standardises:
        return AS_GIVEN
    if earlier is not None:
        return earlier.model.units
    # An ordered likelihood's cut points take up any shift.
    return Units.of(train, centred=settings.centred or issubclass(likelihood, OrderedLikelihood))


def settings_in(settings: ModelSettings, units: Units) -> ModelSettings:
    """Return settings whose numbers are all in standard units.

    Those that a user gave are in the user's: noise and the biases' scale in units of a rating; scale and mean
    of the factors in units of the root of one, as the product of two factors is a rating.
    """
    if units.identity:
        return settings
    unit = {"noise": units.scale, "bias_scale": units.scale}
    unit |= dict.fromkeys(("prior_scale", "prior_mean"), math.sqrt(units.scale))
    changes: dict[str, Any] = {
        name: value / unit[name]
        for name in settings.in_rating_units
        if not isinstance(value := getattr(settings, name), str)
    }
    return replace(
        settings,
        prior=_prior_in(settings.prior, math.sqrt(units.scale)),
        likelihood=_likelihood_in(settings.likelihood, units.scale),
        in_rating_units=(),
        **changes,
    )


def _prior_in(word: str, unit: float) -> str:
    name, arguments = parse_word(word, PRIORS, "prior")
    for key in ("scale", "loc"):
        if key in arguments and name != "log-normal":
            arguments[key] = arguments[key] / unit
    if "loc" in arguments and name == "log-normal":
        arguments["loc"] -= math.log(unit)
    if "rate" in arguments:
        arguments["rate"] *= unit
    return _word(name, arguments)


def _likelihood_in(word: str, unit: float) -> str:
    if word == "auto":
        return word
    name, arguments = parse_word(word, LIKELIHOODS, "likelihood")
    for key in ("noise", "scale"):
        if key in arguments and not isinstance(arguments[key], str):
            arguments[key] /= unit
    return _word(name, arguments)


def _word(name: str, arguments: dict[str, Any]) -> str:
    written = ",".join(f"{key}={value}" for key, value in arguments.items())
    return f"{name}:{written}" if written else name


def record_in_ratings(record: dict[str, Any], units: Units) -> dict[str, Any]:
    """Return a record of the history with its figures in rating units."""
    return record | {name: record[name] * units.scale for name in _IN_RATINGS if record.get(name) is not None}


class InRatings:
    """A reporter that is told of figures in rating units."""

    def __init__(self, reporter: Reporter, units: Units) -> None:
        self._reporter, self._units = reporter, units

    def note(self, text: str) -> None:
        """Pass a line on."""
        self._reporter.note(text)

    def start(self, n_iterations: int, n_blocks: int, done: int) -> None:
        """Pass the start on."""
        self._reporter.start(n_iterations, n_blocks, done)

    def block(self) -> None:
        """Pass a block on."""
        self._reporter.block()

    def iteration(self, record: dict[str, Any]) -> None:
        """Pass an iteration on, its figures in rating units."""
        self._reporter.iteration(record_in_ratings(record, self._units))

    def close(self) -> None:
        """Pass the end on."""
        self._reporter.close()


def posterior_in_ratings(
    posterior: Posterior, units: Units, train: Ratings, settings: ModelSettings
) -> Posterior:
    """Return a posterior that was fitted in standard units as one of the ratings in their own unit.

    Its model is told of the units; `train` and `settings` are those before the conversion.
    """
    if units.identity:
        return posterior
    posterior.model.finish_in(units)
    info = dict(posterior.info)
    noted = info.get("settings", {}).get("model")
    if noted is not None:
        given = dict(values_of(settings))
        model = {name: given[name] for name in noted if name in given}
        if settings.in_rating_units:
            model["in_rating_units"] = list(settings.in_rating_units)
        info["settings"] = {**info["settings"], "model": model}
    return replace(posterior, train=replace(train, timestamps=None), info=plain_info(info))
