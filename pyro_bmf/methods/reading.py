"""Which settings a fit reads: what was given and is not read is refused, what was read is recorded.

On what condition a setting is read stands where it is declared (`setting.When`); here is what a condition may
ask of a fit, and what follows from all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import SettingsError
from ..model import FactorizationModel
from ..model.catalogue import LIKELIHOODS, PRIORS
from ..model.spelling import arguments_of, parse_word
from .build_model import NORMAL_PRIORS, resolve_likelihood
from .cross_feedback.settings import CrossFeedback
from .setting import About, settings_of
from .settings import Settings, Spelling, in_python, refuse


@dataclass(frozen=True)
class Case:
    """A fit as far as it decides which settings are read.

    Attributes
    ----------
    settings : Settings
    likelihood : str or None
        Its name; None where it depends on ratings that are not known.
    validated : bool
        Whether there are validation ratings.
    own : FactorizationModel or None
        A model of the user's, in the place of that of the settings.
    """

    settings: Settings
    likelihood: str | None = None
    validated: bool = True
    own: FactorizationModel | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        levels: np.ndarray | None = None,
        ratings_known: bool = True,
        validated: bool = True,
        own: FactorizationModel | None = None,
    ) -> Case:
        """Return the case of settings on ratings with these levels (None on a continuous scale)."""
        if own is not None:
            kinds = {kind: name for name, kind in LIKELIHOODS.items()}
            likelihood: str | None = kinds.get(own.likelihood.__class__, "a user's likelihood")
        elif settings.model.likelihood == "auto" and not ratings_known:
            likelihood = None
        else:
            likelihood = resolve_likelihood(settings.model.likelihood, levels).partition(":")[0]
        return cls(settings, likelihood, validated, own)

    @property
    def row_noise(self) -> bool:
        """Whether any rows have noise of their own."""
        if self.own is not None:
            return self.own.row_noise is not None
        return self.settings.model.row_noise != "none"

    @property
    def implicit(self) -> bool:
        """Whether priors' means come from which pairs were rated."""
        return self.settings.model.implicit if self.own is None else self.own.implicit is not None

    @property
    def latent_utilities(self) -> bool:
        """Whether sweeps draw utilities that ratings do not give away, as far as it is known."""
        if self.own is None:
            return self.is_one_of("ordered-probit")
        utilities = self.own.likelihood.utilities()
        return utilities is not None and utilities.latent

    def is_one_of(self, *likelihoods: str) -> bool:
        """Whether the likelihood is one of these, as far as it is known."""
        return self.likelihood is None or self.likelihood in likelihoods

    @property
    def takes_prior_scale(self) -> bool:
        """Whether the factors' prior takes a scale that its word does not give."""
        name, arguments = self._prior
        return name in NORMAL_PRIORS and "scale" not in arguments

    @property
    def takes_prior_mean(self) -> bool:
        """Whether the factors' prior takes a mean that its word does not give: the encoders' alone."""
        name, arguments = self._prior
        model = self.settings.model
        zero = model.prior_mean == "ratings" and model.centred
        encoders = isinstance(self.settings.method, CrossFeedback)
        return encoders and name == "normal" and "loc" not in arguments and not zero

    @property
    def takes_noise(self) -> bool:
        """Whether any method takes a noise that the likelihood's word does not give."""
        if self.settings.conjugate and self.is_one_of("normal"):
            return True
        if self.settings.method.conjugate:
            return False
        if self.likelihood is None:
            return True
        word = self.settings.model.likelihood
        if word == "auto":
            return "noise" in arguments_of(LIKELIHOODS[self.likelihood])
        name, arguments = parse_word(word, LIKELIHOODS, "likelihood")
        return "noise" in arguments_of(LIKELIHOODS[name]) and "noise" not in arguments

    @property
    def _prior(self) -> tuple[str, dict[str, Any]]:
        return parse_word(self.settings.model.prior, PRIORS, "prior")

    def reads(self, name: str) -> bool:
        """Whether the fit reads a setting that its method has; a model of the user's has its own."""
        part, about = self._place(name)
        return not (self.own is not None and part is self.settings.model) and about.when.holds(part, self)

    def _place(self, name: str) -> tuple[Any, About]:
        return next(
            (part, one.about)
            for part in self.settings.parts
            for one in settings_of(part.__class__)
            if one.name == name
        )

    def in_force(self) -> dict[str, Any]:
        """Return the settings that are read, in the form of `Settings.to_dict`."""
        return self.settings.to_dict(lambda name, part: self.reads(name))

    def check(self, spelling: Spelling = in_python) -> None:
        """Refuse settings that the user gave and that no method of the fit reads.

        Raises
        ------
        SettingsError
            Naming each of them, what is fitted, and on what condition it is read.
        """
        values = self.settings.values()
        reasons: dict[str, list[str]] = {}
        for name in sorted(self.settings.asked()):
            part, about = self._place(name)
            if self.own is not None and part is self.settings.model:
                _check_own(name, values[name], self.own)
                continue
            if name == "likelihood" and self._noise_is_drawn(values[name]):
                reason = "its noise is found by the method, and cannot be given."
            elif about.when.holds(part, self):
                continue
            else:
                choices = [spelling(*choice) for choice in about.when.choices]
                how = f", as with {' or '.join(choices)}" if choices else ""
                reason = f"read only where {about.when.text}{how}."
            # The same flag may stand for several settings.
            told = reasons.setdefault(reason, [])
            if (spelled := spelling(name, values[name])) not in told:
                told.append(spelled)
        refuse(self.settings, reasons)

    def _noise_is_drawn(self, word: str) -> bool:
        """Whether an ordered probit's word gives a noise that the method finds itself."""
        if not self.settings.method.conjugate or not word.startswith("ordered-probit"):
            return False
        return "noise" in parse_word(word, LIKELIHOODS, "likelihood")[1]


def _check_own(name: str, value: Any, own: FactorizationModel) -> None:
    """Refuse a setting of the model beside a model of the user's, unless both say the same."""
    has: dict[str, Any] = {
        "n_factors": own.n_factors,
        "biases": own.biases,
        "centred": own.centred,
        "implicit": own.implicit is not None,
        "row_noise": "none" if own.row_noise is None else own.row_noise.by,
    }
    if name in has and has[name] == value:
        return
    beside = f", which has {name} {has[name]!r}" if name in has else f", which has its own {name}"
    raise SettingsError(
        f"{name}={value!r} was given beside a model of your own{beside}: leave the setting out, or build the "
        "model with it."
    )
