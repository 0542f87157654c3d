"""Which settings each method reads: one table, and everything that follows from it.

A setting that was given and is not read is refused (`check_read`), and what is recorded of a fit are the
settings that it read (`in_force`). Nothing else in the project knows which method reads what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import SettingsError
from ..model import FactorizationModel
from ..model.catalogue import LIKELIHOODS, PRIORS
from ..model.spelling import arguments_of, parse_word
from .build_model import NORMAL_PRIORS, resolve_likelihood
from .settings import Preset

SVI, ASCENT, SWEEPS = "svi", "conjugate", "sweeps"
EVERY = (SVI, ASCENT, SWEEPS)
#: What a method is called, and the presets and settings that choose it.
METHODS: dict[str, tuple[str, tuple[tuple[str, Any], ...]]] = {
    SVI: ("encoders fitted by SVI", (("preset", "amortized"), ("preset", "paper"), ("method", "svi"))),
    ASCENT: ("coordinate ascent", (("preset", "conjugate"), ("method", "conjugate"))),
    SWEEPS: ("Gibbs sweeps", (("preset", "default"), ("sweeps", 150))),
}


@dataclass(frozen=True)
class Case:
    """A fit as far as it decides which settings are read.

    Attributes
    ----------
    settings : Preset
    likelihood : str or None
        Its name; None where it depends on ratings that are not known.
    validated : bool
        Whether there are validation ratings.
    own : FactorizationModel or None
        A model of the user's own, in the place of that of the settings.
    """

    settings: Preset
    likelihood: str | None = None
    validated: bool = True
    own: FactorizationModel | None = None

    @classmethod
    def of(
        cls,
        settings: Preset,
        *,
        levels: np.ndarray | None = None,
        ratings_known: bool = True,
        validated: bool = True,
        own: FactorizationModel | None = None,
    ) -> Case:
        """Return the case of settings on ratings with these levels (None on a continuous scale)."""
        if own is not None:
            kinds = {kind: name for name, kind in LIKELIHOODS.items()}
            likelihood: str | None = kinds.get(type(own.likelihood), "a likelihood of one's own")
        elif settings.model.likelihood == "auto" and not ratings_known:
            likelihood = None
        else:
            likelihood = resolve_likelihood(settings.model.likelihood, levels).partition(":")[0]
        return cls(settings, likelihood, validated, own)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that follow one another in this fit."""
        first = {"svi": (SVI,), "conjugate": (ASCENT,), "none": ()}[self.settings.fit.method]
        return first + ((SWEEPS,) if self.settings.gibbs.sweeps else ())

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

    def is_one_of(self, *likelihoods: str) -> bool:
        """Whether the likelihood is one of these, as far as it is known."""
        return self.likelihood is None or self.likelihood in likelihoods

    def prior(self) -> tuple[str, dict[str, Any]]:
        """Name and arguments of the factors' prior."""
        return parse_word(self.settings.model.prior, PRIORS, "prior")


@dataclass(frozen=True)
class When:
    """A condition under which a method reads a setting, how it is told, and settings that bring it about."""

    holds: Callable[[Case], bool]
    text: str
    choices: tuple[tuple[str, Any], ...] = ()


ALWAYS = When(lambda case: True, "always")
_HIDDEN_LAYERS = When(
    lambda case: bool(case.settings.guide.n_tower_layers or case.settings.guide.n_head_layers),
    "n_tower_layers or n_head_layers is 1 or more",
    (("n_tower_layers", 1), ("n_head_layers", 1)),
)
_ATTENTION = When(
    lambda case: case.settings.guide.attention != "none",
    "attention is sum or softmax",
    (("attention", "sum"),),
)
_LOW_RANK = When(
    lambda case: case.settings.guide.covariance == "low-rank",
    "covariance is low-rank",
    (("covariance", "low-rank"),),
)
_BAYESIAN = When(
    lambda case: case.settings.guide.bayesian_input, "bayesian_input is true", (("bayesian_input", True),)
)
_AVERAGED = When(
    lambda case: case.settings.fit.ema_decay > 0.0, "ema_decay is above 0", (("ema_decay", 0.8),)
)
_PATIENT = When(
    lambda case: case.validated or case.settings.fit.patience is None, "there are validation ratings"
)
_KEPT = When(lambda case: case.validated or case.settings.fit.keep == "last", "there are validation ratings")
_SCALED = When(
    lambda case: case.prior()[0] in NORMAL_PRIORS and "scale" not in case.prior()[1],
    "prior is of the Normal family and gives no scale of its own",
    (("prior", "normal"),),
)
_PRIOR_MEAN = When(
    lambda case: (
        case.prior()[0] == "normal"
        and "loc" not in case.prior()[1]
        and not (case.settings.model.prior_mean == "ratings" and case.settings.model.centred)
    ),
    "prior is normal and gives no loc of its own, and about a centre it is a number",
)
_BIASES = When(lambda case: case.settings.model.biases, "biases is true", (("biases", True),))
_NORMAL = When(lambda case: case.is_one_of("normal"), "likelihood is normal", (("likelihood", "normal"),))
_ORDERED = When(
    lambda case: case.is_one_of("ordered-probit"),
    "likelihood is ordered-probit",
    (("likelihood", "ordered-probit"),),
)
_ORDERED_NOISE = When(
    lambda case: case.row_noise and case.is_one_of("ordered-probit"),
    "likelihood is ordered-probit and row_noise is not none",
)
_IMPLICIT = When(lambda case: case.implicit, "implicit is true", (("implicit", True),))
_NO_GUIDE = When(lambda case: case.settings.fit.method == "none", "method is none", (("method", "none"),))


def _arguments(word: str) -> dict[str, Any]:
    """Return the arguments of an ordered probit's word, whose noise sweeps do not read."""
    return parse_word(word, LIKELIHOODS, "likelihood")[1] if word.startswith("ordered-probit") else {}


def _takes_noise(case: Case) -> bool:
    """Whether the likelihood takes a noise that the word does not give."""
    if case.likelihood is None:
        return True
    word = case.settings.model.likelihood
    if word == "auto":
        return "noise" in arguments_of(LIKELIHOODS[case.likelihood])
    name, arguments = parse_word(word, LIKELIHOODS, "likelihood")
    return "noise" in arguments_of(LIKELIHOODS[name]) and "noise" not in arguments


_NOISY = When(
    _takes_noise,
    "likelihood has a noise (normal, ordered-probit) and gives none of its own",
    (("likelihood", "normal"),),
)

#: Which methods read a setting, and when: what is not here is not read.
READS: dict[str, dict[str, When]] = {
    # the model
    **{name: dict.fromkeys(EVERY, ALWAYS) for name in ("n_factors", "biases", "centred", "prior")},
    **{name: dict.fromkeys(EVERY, ALWAYS) for name in ("likelihood", "implicit", "row_noise")},
    **{name: dict.fromkeys(EVERY, ALWAYS) for name in ("standardised", "in_rating_units")},
    "prior_scale": dict.fromkeys(EVERY, _SCALED),
    "bias_scale": dict.fromkeys(EVERY, _BIASES),
    "prior_mean": {SVI: _PRIOR_MEAN},
    "noise": {SVI: _NOISY, ASCENT: _NOISY, SWEEPS: _NORMAL},
    # the encoders
    **{
        name: {SVI: ALWAYS}
        for name in (
            *("n_tower_layers", "n_head_layers", "n_tower_outputs", "attention", "data_input", "feedback"),
            *("count_input", "held_out_input", "input_dropout", "input_power", "initial_scale", "residual"),
            *("covariance", "bayesian_input", "n_bases"),
        )
    },
    "n_units": {SVI: _HIDDEN_LAYERS},
    "attention_scope": {SVI: _ATTENTION},
    "attention_merge": {SVI: _ATTENTION},
    "covariance_rank": {SVI: _LOW_RANK},
    "input_prior_scale": {SVI: _BAYESIAN},
    # their fit
    "method": dict.fromkeys(EVERY, ALWAYS),
    "seed": dict.fromkeys(EVERY, ALWAYS),
    **{
        name: {SVI: ALWAYS}
        for name in (
            *(
                "user_batch_size",
                "item_batch_size",
                "kl_counting",
                "shuffle_blocks",
                "beta_user",
                "beta_item",
            ),
            *("warmup_iterations", "elbo", "num_particles", "learning_rate", "final_learning_rate"),
            *("weight_decay", "clip_norm", "ema_decay"),
        )
    },
    "keep": {SVI: _KEPT},
    "ema_start": {SVI: _AVERAGED},
    "max_iterations": {SVI: ALWAYS, ASCENT: ALWAYS},
    "stop_after": {SVI: ALWAYS, ASCENT: ALWAYS},
    "patience": {SVI: _PATIENT, ASCENT: ALWAYS},
    # sweeps
    "sweeps": dict.fromkeys(EVERY, ALWAYS),
    "burn_in": {SWEEPS: ALWAYS},
    "kept_draws": {SWEEPS: ALWAYS},
    "plain_sweeps": {SWEEPS: _ORDERED},
    "scale_moves": {SWEEPS: _ORDERED_NOISE},
    "solver_tolerance": {SWEEPS: _IMPLICIT},
    "start_scale": {SWEEPS: _NO_GUIDE},
}

#: How a setting with a value is written, in Python.
Spelling = Callable[[str, Any], str]


def in_python(name: str, value: Any) -> str:
    """Write a setting as Python does; a preset as the call that gives it."""
    return f"preset({value!r})" if name == "preset" else f"{name}={value!r}"


def is_read(name: str, case: Case) -> bool:
    """Whether any method of a fit reads a setting; a model of one's own has its own."""
    if case.own is not None and name in case.settings.model.to_dict():
        return False
    readers = READS[name]
    return any(method in readers and readers[method].holds(case) for method in case.methods)


def in_force(case: Case) -> dict[str, Any]:
    """Return the settings that are read, in the form of `Preset.to_dict`; parts with none are left out."""
    parts = {}
    for part, content in case.settings.to_dict().items():
        if not isinstance(content, Mapping):
            parts[part] = content
        elif read := {name: value for name, value in content.items() if is_read(name, case)}:
            parts[part] = read
    return parts


def never_read(case: Case) -> dict[str, Any]:
    """Return the settings that differ from the preset's, or else the class's, and that no method reads."""
    return {
        name: value
        for name, value in case.settings.values().items()
        if case.settings.differs(name) and not is_read(name, case)
    }


def check_read(case: Case, spelling: Spelling = in_python) -> None:
    """Refuse settings that the user gave and that no method of the fit reads.

    Raises
    ------
    SettingsError
        Naming each of them, what is fitted, and which methods read it or on what condition.
    """
    values = case.settings.values()
    reasons: dict[str, list[str]] = {}
    for name in sorted(case.settings.asked()):
        if case.own is not None and name in case.settings.model.to_dict():
            _check_own(name, values[name], case.own)
        elif name == "likelihood" and case.methods == (SWEEPS,) and "noise" in _arguments(values[name]):
            told = reasons.setdefault("its noise is drawn by Gibbs sweeps, and cannot be given.", [])
            told.append(spelling(name, values[name]))
        elif not is_read(name, case):
            # The same flag may stand for several settings.
            told = reasons.setdefault(_reason(name, case, spelling), [])
            if (spelled := spelling(name, values[name])) not in told:
                told.append(spelled)
    if reasons:
        told = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
        raise SettingsError(
            f"{_method(case)} would not read what was given. {' '.join(told)} Leave it out otherwise."
        )


def check_methods(case: Case, names: Iterable[str], spelling: Spelling = in_python) -> None:
    """Refuse those of some settings that none of the fit's methods reads under any condition.

    Raises
    ------
    SettingsError
        As `check_read` does.
    """
    foreign = frozenset(name for name in names if name in READS and not set(READS[name]) & set(case.methods))
    if foreign:
        check_read(replace(case, settings=replace(case.settings, given=foreign)), spelling)


def _method(case: Case) -> str:
    what = ", then ".join(METHODS[method][0] for method in case.methods)
    preset = f" (preset {case.settings.name})" if case.settings.name else ""
    return f"{what[0].upper()}{what[1:]}{preset}"


def _reason(name: str, case: Case, spelling: Spelling) -> str:
    readers = READS[name]
    conditions = dict.fromkeys(readers[method].text for method in case.methods if method in readers)
    if conditions:
        found = [one for method in case.methods if method in readers for one in readers[method].choices]
        choose = [spelling(*one) for one in dict.fromkeys(found)]
        how = f", as with {' or '.join(choose)}" if choose else ""
        return f"read only where {' or '.join(conditions)}{how}."
    who = " and ".join(METHODS[method][0] for method in readers)
    choices = [spelling(*choice) for method in readers for choice in METHODS[method][1]]
    return f"read by {who} alone; choose with {', '.join(choices[:-1])} or {choices[-1]}."


def _check_own(name: str, value: Any, own: FactorizationModel) -> None:
    """Refuse a setting of the model beside a model of one's own, unless both say the same."""
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


def check_refit(settings: Preset) -> None:
    """Refuse what a refit does not read: it trains for a given number of iterations and keeps the last state.

    Raises
    ------
    SettingsError
        If the settings ask for patience, or for the best state.
    """
    for name, value in (("patience", None), ("keep", "last")):
        given = settings.values()[name]
        if name in settings.asked() and given != value:
            raise SettingsError(
                f"{name}={given!r} is not read when refitting on train and validation, as nothing is "
                "validated then: leave it out, or give the settings that chosen_iterations returns."
            )


__all__ = [
    "READS",
    "Case",
    "check_methods",
    "check_read",
    "check_refit",
    "in_force",
    "in_python",
    "is_read",
    "never_read",
]
