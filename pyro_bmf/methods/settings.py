"""All settings of a fit: the model, the method, and sweeps that may follow it; and the presets.

Each method has a settings class in its own room, and reads every field of it. A name of another method is
refused with the methods and presets where it counts.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from types import MappingProxyType
from typing import Any

from ..errors import SettingsError
from .coordinate_ascent.settings import CoordinateAscent
from .cross_feedback.settings import CrossFeedback, EncoderSettings
from .earlier_systems import bpmf, pmf, poisson, robust
from .exact_head.settings import ExactHead
from .follow import Rule, follow, with_method
from .gibbs.settings import AFTER_STATE, Gibbs
from .model_settings import UNIT_SETTINGS, ModelSettings
from .setting import Limits, check_class, check_fields, check_values, setting, settings_of, values_of

#: Each says of itself, beside its settings: `word` and `title`; whether it writes checkpoints
#: (`checkpointed`), fits the model with conjugate hyperpriors, which alone has implicit feedback
#: (`conjugate`), decides on validation ratings how long it runs (`validated`), and leaves sweeps all that a
#: state of theirs holds, cut points and hyperparameters too (`hands_on_state`).
Method = CrossFeedback | ExactHead | Gibbs | CoordinateAscent
#: The methods that a word stands for, in files and on the command line.
METHODS: Mapping[str, type[Method]] = MappingProxyType(
    {kind.word: kind for kind in (ExactHead, Gibbs, CoordinateAscent, CrossFeedback)}
)

#: Ratings a row, over users and items, from which on presets that have implicit feedback keep it.
IMPLICIT_FROM = 3.5

#: What random generators take.
_SEEDS = Limits(0, 2**64 - 1, text="0 or more, and below 2^64")

#: How a setting with a value is written: in Python, or as its flag.
Spelling = Callable[[str, Any], str]


def in_python(name: str, value: Any) -> str:
    """Write a setting as Python does: a preset as the call that gives it, a method as its class."""
    if name == "preset":
        return f"preset({value!r})"
    if name in ("method", "then") and value in METHODS:
        return f"{name}={METHODS[value].__name__}()"
    return f"{name}={value!r}"


@dataclass(frozen=True)
class Settings:
    """Everything that decides a fit beside its ratings.

    Attributes
    ----------
    model : ModelSettings
    method : ExactHead, CrossFeedback, Gibbs or CoordinateAscent
        How the model is fitted, with the settings that this method reads.
    then : Gibbs or None
        Sweeps that start where the method ended, and whose draws replace its posterior.
    seed : int
        Of everything random in a fit. The same seed gives the same result on the same device.
    name : str
        Of the preset that these settings are, or started from.
    given : frozenset of str
        Names of the settings that `replace` was asked for: each is read in a fit, or refused.
    unasked : mapping
        Values that nobody asked for: a preset's, those read from a file.
    recorded : bool
        Whether they were read from a file: the model is then the one of that fit, whatever the ratings.
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    method: Method = field(default_factory=Gibbs)
    then: Gibbs | None = None
    seed: int = setting(0, "Of the fit.", "--seed", metavar="S", limits=_SEEDS, common=True)
    name: str = ""
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    unasked: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    recorded: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        check_class("model", self.model, ModelSettings)
        if not isinstance(self.method, Method):
            classes = ", ".join(f"{kind.__name__}(...)" for kind in METHODS.values())
            raise SettingsError(f"method is {self.method!r}: give one of {classes}.")
        if not isinstance(self.then, Gibbs | None):
            raise SettingsError(f"then is {self.then!r}: give Gibbs(...), or None.")
        if self.then is not None and isinstance(self.method, Gibbs):
            raise SettingsError(
                "then gives Gibbs sweeps that follow a guide, and the method is Gibbs sweeps already: set "
                "then to None, or choose a method that fits a guide (exact-head, cross-feedback, "
                "coordinate-ascent)."
            )
        if not self.conjugate and self.model.implicit:
            raise SettingsError(
                "implicit is True, which exact heads and Gibbs sweeps alone know: choose the method "
                "exact-head or gibbs, let sweeps follow (then), or set implicit to False."
            )
        if (
            self.gibbs is None
            and self.model.row_noise != "none"
            and isinstance(self.method, CoordinateAscent)
        ):
            raise SettingsError(
                f"row_noise is {self.model.row_noise!r}, which coordinate ascent does not know: choose the "
                "method exact-head, gibbs or cross-feedback, or set row_noise to 'none'."
            )

    @property
    def gibbs(self) -> Gibbs | None:
        """The settings of the sweeps, be they the method or follow it; None where there are none."""
        return self.method if isinstance(self.method, Gibbs) else self.then

    @property
    def stages(self) -> tuple[Method, ...]:
        """The settings of what follows one another: the method, and sweeps where they come after it."""
        return (self.method,) if self.then is None else (self.method, self.then)

    @property
    def conjugate(self) -> bool:
        """Whether any stage fits the model with conjugate hyperpriors, which alone has implicit feedback."""
        return any(one.conjugate for one in self.stages)

    @property
    def checkpointed(self) -> bool:
        """Whether any stage writes checkpoints, from which an interrupted fit goes on."""
        return any(one.checkpointed for one in self.stages)

    @property
    def parts(self) -> tuple[Any, ...]:
        """The objects that hold the settings: model, encoder where there is one, method, sweeps, self."""
        encoder = (self.method.encoder,) if isinstance(self.method, CrossFeedback) else ()
        return (self.model, *encoder, *self.stages, self)

    def values(self) -> dict[str, Any]:
        """Return all settings by their names alone."""
        return {name: value for part in self.parts for name, value in values_of(part)}

    def asked(self) -> set[str]:
        """Return the names of the settings that the user gave, to `replace` or to the classes."""
        return {
            one.name
            for part in self.parts
            for one in settings_of(part.__class__)
            if one.name in self.given
            or (getattr(part, one.name) != one.default and not self._is_unasked(part, one.name))
        }

    def replace(self, **changes: Any) -> Settings:
        """Return the settings with some changed, each given by its name alone.

        Settings that were not given, now or before, follow where they would contradict those that were:
        fewer sweeps keep fewer draws, and without feedback there is no attention. Another `method` is that
        method alone, without sweeps after it, unless `then` is given too. `model`, `method` and
        `then` take an object; a number with a unit that is given by its name is in that of the ratings.

        Raises
        ------
        SettingsError
            If a name is no setting, or one of another method, or given settings contradict each other.
        """
        return self.changed(changes)

    def changed(self, changes: Mapping[str, Any], spelling: Spelling = in_python) -> Settings:
        """Do as `replace`; errors write settings by `spelling`."""
        parts = {name: changes.get(name, getattr(self, name)) for name in ("model", "method", "then")}
        if "then" not in changes and parts["method"].__class__ is not self.method.__class__:
            # Another method is that method alone: sweeps after it are asked for again.
            parts["then"] = None
        changes = {name: value for name, value in changes.items() if name not in parts}
        check_class("model", parts["model"], ModelSettings)
        start = Settings(ModelSettings(), parts["method"], parts["then"], self.seed, self.name)
        start_parts = (parts["model"], *start.parts[1:-1], self)
        owners = {one.name: part for part in start_parts for one in settings_of(part.__class__)}
        _check_names(start, changes, owners, spelling)
        for part in start_parts:
            check_values(part.__class__, changes)
        values = {name: getattr(part, name) for name, part in owners.items()}
        given = {name for name in (*self.given, *changes) if name in owners}
        # What was given to an object is the user's own as well, and what a preset or a file brought is not.
        mine = {id(part) for part in self.parts}
        fixed = given | {
            name
            for part in start_parts
            for name, _ in values_of(part)
            if name not in part.unasked and not (id(part) in mine and self._is_unasked(part, name))
        }
        wanted = dict(changes)
        if changes or start_parts != self.parts:
            wanted |= follow({**values, **changes}, fixed, start._rules())
        # Numbers that a preset brings are in standard units, and those that are given in the user's.
        model, given_units = parts["model"], {name for name in UNIT_SETTINGS if name in changes}
        units = tuple(given_units | set(model.in_rating_units))
        model = model.changed({"in_rating_units": units, **_own(ModelSettings, wanted)}, fixed)
        method = start.method
        own = _own(method.__class__, wanted)
        if isinstance(method, CrossFeedback):
            own["encoder"] = method.encoder.changed(_own(EncoderSettings, wanted), fixed)
        method = method.changed(own, fixed)
        return Settings(
            model,
            method,
            None if start.then is None else start.then.changed(_own(Gibbs, wanted), fixed),
            changes.get("seed", self.seed),
            self.name,
            frozenset(given),
            {name: value for name, value in self.unasked.items() if name not in fixed},
            self.recorded,
        )

    def suited(self, n_ratings: int, n_rows: int) -> Settings:
        """Return the settings as they go with the ratings, where nobody asked for others.

        There are more sweeps, and chains, the fewer ratings there are (`Gibbs.lengthened`), no more factors
        than a row has ratings (`factors_for`), and without some ratings a row no implicit feedback
        (`too_few`).

        Parameters
        ----------
        n_ratings, n_rows : int
            Of the ratings that are fitted to: how many there are, and how many users and items together.
        """
        found = self._lengthened(n_ratings, n_rows)
        changes: dict[str, Any] = {}
        if (n_factors := self.factors_for(n_ratings, n_rows)) is not None:
            changes["n_factors"] = n_factors
        if self.model.implicit and self.too_few(n_ratings, n_rows):
            changes["implicit"] = False
        if not changes:
            return found
        return replace(found, model=replace(found.model, **changes), unasked={**found.unasked, **changes})

    def factors_for(self, n_ratings: int, n_rows: int) -> int | None:
        """Return how many factors few ratings leave of a preset's; None where they leave it at its number.

        That is as many as users and items have ratings on average. More are known by their prior alone, in
        which they make room for products that nothing tells of. See docs/decisions.md.
        """
        if not self._suits("n_factors"):
            return None
        most = max(1, round(2 * n_ratings / max(n_rows, 1)))
        usual = preset(self.name).model.n_factors
        return most if most < usual and most <= self.model.n_factors else None

    def too_few(self, n_ratings: int, n_rows: int) -> bool:
        """Whether implicit feedback, which a preset has and nobody asked for, has too few ratings.

        What it adds to a row's prior mean is learned for every item (and every user), and with three ratings
        a row there is nothing to learn it from: predictions are better without. See docs/decisions.md.
        """
        return self._suits("implicit") and 2 * n_ratings < IMPLICIT_FROM * n_rows

    def _suits(self, name: str) -> bool:
        """Whether a setting goes with the ratings: of presets whose model has implicit feedback."""
        return (
            not self.recorded
            and self.name in PRESETS
            and preset(self.name).model.implicit
            and self._is_unasked(self.model, name)
        )

    def _lengthened(self, n_ratings: int, n_rows: int) -> Settings:
        """Return the settings with as many sweeps as go with the ratings, where nobody asked for a number."""
        gibbs = self.gibbs
        if gibbs is None:
            return self
        length = ("sweeps", "burn_in", "kept_draws")
        if any(name not in gibbs.unasked and not self._is_unasked(gibbs, name) for name in length):
            return self
        anew = "chains" in gibbs.unasked or self._is_unasked(gibbs, "chains")
        longer = gibbs.lengthened(n_ratings, n_rows, anew=anew)
        more = (*length, "chains") if anew else length
        unasked = {**self.unasked, **{name: getattr(longer, name) for name in more}}
        if gibbs is self.method:
            return replace(self, method=longer, unasked=unasked)
        return replace(self, then=longer, unasked=unasked)

    def _is_unasked(self, part: Any, name: str) -> bool:
        """Whether nobody asked for the value that a setting has: a preset's, or what followed others."""
        unasked = {**self.unasked, **part.unasked}
        return name in unasked and bool(unasked[name] == getattr(part, name))

    def _rules(self) -> tuple[Rule, ...]:
        """Return the rules by which settings follow others, within each part and between them."""
        ascent = isinstance(self.method, CoordinateAscent)
        between = partial(with_method, conjugate=self.conjugate, ascent=ascent)
        return (between, *(rule for part in self.parts[:-1] for rule in part.rules))

    def to_dict(self, keep: Callable[[str, Any], bool] = lambda name, part: True) -> dict[str, Any]:
        """Return the settings as plain values: those of the model, and of each method under its word.

        Parameters
        ----------
        keep : callable, optional
            Of a setting's name and the object that holds it: which are told. A section with none is left out.
        """
        sections: dict[str, Any] = {"model": _told(self.model, keep)}
        if sections["model"] and self.model.in_rating_units:
            sections["model"]["in_rating_units"] = list(self.model.in_rating_units)
        sections[self.method.word] = _told(self.method, keep)
        if isinstance(self.method, CrossFeedback):
            sections[self.method.word]["encoder"] = _told(self.method.encoder, keep)
        if self.then is not None:
            sections[self.then.word] = _told(self.then, keep)
        return {
            "preset": self.name,
            "method": self.method.word,
            "then": None if self.then is None else self.then.word,
            **_told(self, keep),
            **{name: section for name, section in sections.items() if section},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Settings:
        """Return the settings whose `to_dict` this is; what is not there is its class's default.

        Raises
        ------
        SettingsError
            For a name that is no setting, or a value that none can have.
        """
        model = dict(content.get("model", {}))
        units = tuple(model.pop("in_rating_units", ()))
        own = dict(content.get(content["method"], {}))
        sweeps = dict(content.get(Gibbs.word, {})) if content["then"] is not None else {}
        earlier = {"overrelaxation": 0.0} if sweeps or content["method"] == Gibbs.word else {}
        recorded = {**model, **own.pop("encoder", {}), **earlier, **own, **sweeps}
        start = cls(
            method=METHODS[content["method"]](), then=None if content["then"] is None else Gibbs(),
            seed=content["seed"], name=content["preset"],
        )  # fmt: skip
        # What was not read is not there, and must not contradict what is.
        found = start.changed(recorded)
        found = replace(found, model=replace(found.model, in_rating_units=units), given=frozenset())
        return replace(found, unasked=found.values(), recorded=True)


def _own(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that are settings of a class."""
    return {one.name: values[one.name] for one in settings_of(kind) if one.name in values}


def _told(part: Any, keep: Callable[[str, Any], bool]) -> dict[str, Any]:
    return {name: value for name, value in values_of(part) if keep(name, part)}


def refuse(settings: Settings, reasons: Mapping[str, Collection[str]]) -> None:
    """Refuse settings that a fit would not read; `reasons` are the settings by what is said of them.

    Raises
    ------
    SettingsError
        If there are any.
    """
    if reasons:
        then = "" if settings.then is None else f", then {settings.then.title}"
        what = f"{settings.method.title}{then}" + (f" (preset {settings.name})" if settings.name else "")
        told = " ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
        raise SettingsError(
            f"{what[0].upper()}{what[1:]} would not read what was given. {told} Leave it out otherwise."
        )


def _check_names(
    settings: Settings, changes: Mapping[str, Any], known: Collection[str], spelling: Spelling
) -> None:
    """Refuse names that are no settings, or those of another method, with where they count."""
    reasons: dict[str, list[str]] = {}
    for name in sorted(changes):
        if name in known:
            continue
        readers = [kind for kind in METHODS.values() if name in _names(kind)]
        if not readers:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"did you mean {near[0]!r}? There are" if near else "there are"
            raise SettingsError(f"{name!r} is not a setting: {hint} {', '.join(sorted(known))}.")
        who = " and ".join(kind.title for kind in readers)
        choices = [spelling(*choice) for kind in readers for choice in _choices(kind)]
        reason = f"read by {who} alone; choose with {', '.join(choices[:-1])} or {choices[-1]}."
        # The same flag may stand for several settings.
        told = reasons.setdefault(reason, [])
        if (spelled := spelling(name, changes[name])) not in told:
            told.append(spelled)
    refuse(settings, reasons)


def _names(kind: type[Method]) -> set[str]:
    """Return the names of a method's settings."""
    parts: Iterable[type] = (kind, EncoderSettings) if issubclass(kind, CrossFeedback) else (kind,)
    return {one.name for part in parts for one in settings_of(part)}


def _choices(kind: type[Method]) -> list[tuple[str, str]]:
    """Return the presets and settings that choose a method."""
    presets = [("preset", name) for name in PRESETS if isinstance(preset(name).method, kind)]
    then = [("then", Gibbs.word)] if issubclass(kind, Gibbs) else []
    return [*presets, ("method", kind.word), *then]


def paper_preset() -> Settings:
    """Return the paper's method: to the letter where its text settles it, by validation where it does not.

    See docs/decisions.md.
    """
    return Settings(
        ModelSettings(
            n_factors=10,
            biases=False,
            centred=False,
            prior_mean="ratings",
            prior_scale=0.3,
            noise=1.0,
            standardised=False,
        ),
        CrossFeedback(
            EncoderSettings(
                n_tower_layers=0,
                n_head_layers=0,
                n_units=50,
                n_tower_outputs=100,
                attention="sum",
                attention_scope="local",
                attention_merge="concat",
                count_input=False,
                input_dropout=0.35,
                input_power=0.0,
                held_out_input=False,
                initial_scale=0.7,
            ),
            kl_counting="per_block",
            beta_user=0.015,
            beta_item=0.015,
            warmup_iterations=0,
            # Sums of raw ratings are large: a step of 0.001 in their weights overshoots.
            learning_rate=3e-4,
            final_learning_rate=1.5e-4,
            clip_norm=100.0,
            max_iterations=200,
            patience=15,
            ema_decay=0.95,
            ema_start=0.3,
        ),
    )


def default_preset() -> Settings:
    """Return the guide with an exact head, by SVI, then Gibbs sweeps: of few ratings in several chains."""
    model = ModelSettings(
        n_factors=24, prior_scale=0.1, bias_scale=0.3, likelihood="auto", implicit=True, row_noise="both"
    )
    guide = ExactHead(max_iterations=15, plain_iterations=5)
    sweeps, burn_in, kept_draws = AFTER_STATE
    return Settings(model, guide, Gibbs(sweeps=sweeps, burn_in=burn_in, kept_draws=kept_draws))


def guide_preset() -> Settings:
    """Return the guide with an exact head alone, by SVI: nearly as accurate as sweeps, sooner."""
    model = ModelSettings(
        n_factors=32, prior_scale=0.1, bias_scale=0.3, likelihood="auto", implicit=True, row_noise="both"
    )
    return Settings(model, ExactHead(max_iterations=20, plain_iterations=6))


def gibbs_preset() -> Settings:
    """Return Gibbs sweeps from the prior, of SVD++ on both sides with an ordered probit."""
    model = ModelSettings(
        n_factors=24, prior_scale=0.1, bias_scale=0.3, likelihood="auto", implicit=True, row_noise="both"
    )
    return Settings(model, Gibbs(sweeps=150, burn_in=50, kept_draws=100))


def conjugate_preset() -> Settings:
    """Return exact coordinate ascent with full-covariance rows: nothing is drawn, and the bound is known."""
    model = ModelSettings(n_factors=10, prior_scale=1.0, bias_scale=0.5, likelihood="auto")
    return Settings(model, CoordinateAscent(max_iterations=60, patience=5))


def amortized_preset() -> Settings:
    """Return the cross-feedback guide as it measured best for its time, without sweeps."""
    return Settings(
        ModelSettings(n_factors=10, prior_scale=1.0, bias_scale=0.5, noise="learned"),
        CrossFeedback(
            EncoderSettings(
                n_tower_layers=0, n_head_layers=0, n_tower_outputs=50, attention="sum", input_dropout=0.3
            ),
            beta_user=0.3,
            beta_item=0.3,
            warmup_iterations=5,
            learning_rate=2e-3,
            final_learning_rate=1e-4,
            max_iterations=40,
        ),
    )


def literal_preset() -> Settings:
    """Return the paper's section 3 to the letter: what its text states, and nothing that it does not.

    Blocks are those of MovieLens 1M; the paper's are 1,000 x 1,000 elsewhere. See docs/decisions.md.
    """
    return Settings(
        ModelSettings(
            n_factors=10, biases=False, centred=False, prior_scale=1.0, noise=1.0, standardised=False
        ),
        CrossFeedback(
            EncoderSettings(
                n_tower_layers=1,
                n_head_layers=0,
                n_units=50,
                n_tower_outputs=25,
                attention="sum",
                attention_scope="local",
                attention_merge="concat",
                count_input=False,
                input_dropout=0.0,
                input_power=0.0,
                held_out_input=False,
                # Variances are sigmoids, of about zero at the start.
                initial_scale=0.7,
            ),
            user_batch_size=100,
            item_batch_size=100,
            kl_counting="per_block",
            shuffle_blocks=False,
            beta_user=1e-3,
            beta_item=1e-3,
            warmup_iterations=0,
            learning_rate=3e-4,
            final_learning_rate=3e-4,
            clip_norm=100.0,
            max_iterations=100,
            patience=15,
            ema_decay=0.0,
        ),
    )


def _preset_of(parts: Callable[[], tuple[ModelSettings, Method]]) -> Callable[[], Settings]:
    """Return what makes the settings of a model and a method."""

    @wraps(parts)
    def made() -> Settings:
        return Settings(*parts())

    return made


#: The presets that a name stands for.
PRESETS: Mapping[str, Callable[[], Settings]] = MappingProxyType(
    {
        "default": default_preset,
        "guide": guide_preset,
        "gibbs": gibbs_preset,
        "conjugate": conjugate_preset,
        "amortized": amortized_preset,
        "paper": paper_preset,
        "literal": literal_preset,
        "pmf": _preset_of(pmf),
        "bpmf": _preset_of(bpmf),
        "robust": _preset_of(robust),
        "poisson": _preset_of(poisson),
    }
)


def preset(name: str = "default") -> Settings:
    """Return a preset by name.

    Raises
    ------
    SettingsError
        If there is none of that name.
    """
    if name not in PRESETS:
        raise SettingsError(f"There is no preset {name!r}: there are {', '.join(PRESETS)}.")
    settings = PRESETS[name]()
    return replace(settings, name=name, unasked=settings.values())
