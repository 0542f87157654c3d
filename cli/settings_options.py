"""The options that set model and method: each changes one setting of the chosen preset.

They are read off the settings classes, where each field says its flag, its help and its limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from pyro_bmf.errors import SettingsError
from pyro_bmf.methods.cross_feedback.settings import CrossFeedback, EncoderSettings
from pyro_bmf.methods.gibbs.settings import Gibbs
from pyro_bmf.methods.model_settings import ModelSettings
from pyro_bmf.methods.setting import POSITIVE, Named, settings_of
from pyro_bmf.methods.settings import METHODS, PRESETS, Settings, preset

from .printing.option_groups import SEED, option
from .printing.output import note

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.methods.reading import Case

METHOD = "Method"
_ENCODERS = "Encoders (--method cross-feedback)"
#: Headings of the classes whose settings have options; one of several methods stands with the encoders.
_HEADINGS: tuple[tuple[type, str], ...] = (
    (ModelSettings, "Model"),
    (Gibbs, "Gibbs sweeps (--method gibbs, or after another with --then-sweeps)"),
    (EncoderSettings, _ENCODERS),
    (CrossFeedback, "Training of encoders (some: other methods too)"),
)
#: Settings with a flag, by name: the command line's order.
_OPTIONS: dict[str, tuple[str, Named]] = {
    one.name: (heading, one)
    for kind, heading in (*_HEADINGS, (Settings, METHOD))
    for one in settings_of(kind)
    if one.about.flag is not None
}
#: What chooses methods, and is no setting itself.
_CHOICES = {"method": "--method", "then_sweeps": "--then-sweeps"}
#: What Python takes objects for, and the command line has options for.
_OBJECTS = {"model": "the options of the model", "then": "--then-sweeps"}


def _flag(name: str, value: Any) -> str:
    """Return how a setting with a value is written."""
    if name == "preset":
        return f"--preset {value}"
    if name == "then":
        return f"--then-sweeps {Gibbs().sweeps}"
    declaration = _CHOICES.get(name) or (_OPTIONS[name][1].about.flag if name in _OPTIONS else None)
    if declaration is None:
        return f"--set {name}={str(value).lower() if isinstance(value, bool) else value}"
    on, _, off = declaration.partition("/")
    if off:
        return on if value else off
    return f"{on} {value:g}" if isinstance(value, float) else f"{on} {value}"


@dataclass(frozen=True)
class Changes:
    """Settings that were given on the command line, and the preset that they change.

    Attributes
    ----------
    preset : str
        What they change.
    values : dict
        By their Python names.
    flags : dict
        What the user wrote for each, as in ``--no-feedback`` or ``--set ema_decay=0.9``.
    """

    preset: str = "default"
    values: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)

    def spelled(self, name: str, value: Any) -> str:
        """Return a setting as it was written, or as it may be."""
        if name in self.flags and self.values[name] == value:
            return self.flags[name]
        return _flag(name, value)

    def apply(self, settings: Settings) -> Settings:
        """Return the settings with these changes, each of the right type.

        Raises
        ------
        SettingsError
            If a value is of the wrong type or out of range, or some do not go together: with their flags.
        """
        wanted = {name: value for name, value in self.values.items() if name not in _CHOICES}
        word, sweeps = self.values.get("method", settings.method.word), self.values.get("then_sweeps")
        for name, options in _OBJECTS.items():
            if name in wanted:
                raise SettingsError(f"{self.flags[name]}: this is an object, in Python; give {options}.")
        if word not in METHODS:
            raise SettingsError(f"{self.flags['method']}: give one of {', '.join(METHODS)}.")
        if word != settings.method.word:
            wanted["method"] = METHODS[word]()
        if "then_sweeps" in self.values:
            if sweeps is None:
                raise SettingsError(f"{self.flags['then_sweeps']}: give a number of sweeps.")
            if wanted.setdefault("sweeps", sweeps) != sweeps:
                both = f"{self.flags['then_sweeps']} and {self.flags['sweeps']}"
                raise SettingsError(f"{both} are two numbers of sweeps: give one of them.")
            wanted["then"] = settings.then or Gibbs()
        try:
            return settings.changed(wanted, self.spelled)
        except SettingsError as error:
            # Python's name of what --then-sweeps gives.
            names = {"then_sweeps": "then"}
            named = [
                flag
                for name, flag in self.flags.items()
                if flag not in str(error) and re.search(rf"\b{names.get(name, name)}\b", str(error))
            ]
            if not named:
                raise
            raise SettingsError(f"{error} (Given: {', '.join(dict.fromkeys(named))}.)") from error

    def check(self, case: Case) -> None:
        """Refuse settings that the fit would not read, by their flags."""
        case.check(self.spelled)

    def tell_followed(self, start: Settings, case: Case) -> None:
        """Tell which settings followed those that were given, if any did and are read."""
        before, after = start.values(), case.settings.values()
        told = [
            f"{name} {value}"
            for name, value in sorted(after.items())
            if name not in case.settings.given and before.get(name, value) != value and case.reads(name)
        ]
        if told:
            note(f"Settings that follow those given: {', '.join(told)}.")


def chosen(changes: Changes) -> Settings:
    """Return the preset with the changes, as far as they are read whatever the ratings are."""
    from pyro_bmf.methods.reading import Case

    start = preset(changes.preset)
    settings = changes.apply(start)
    case = Case.of(settings, ratings_known=False)
    changes.check(case)
    changes.tell_followed(start, case)
    return settings


def case_on(settings: Settings, split: Split) -> Case:
    """Return the case of settings on a split's ratings."""
    from pyro_bmf.methods.reading import Case

    return Case.of(settings, levels=split.ratings.scale.levels, validated=len(split.valid_rows) > 0)


def suited(settings: Settings, split: Split, *, refit: bool = False) -> Settings:
    """Return the settings as they go with the ratings that are fitted to."""
    n_ratings = len(split.train_rows) + (len(split.valid_rows) if refit else 0)
    return settings.suited(n_ratings, split.ratings.n_users + split.ratings.n_items)


def settings_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options above, and one argument `changes`."""

    @wraps(function)
    def with_changes(
        *args: Any,
        preset_name: str,
        beta: float | None,
        more: tuple[tuple[str, Any, str], ...],
        **kwargs: Any,
    ) -> Any:
        changes = Changes(preset_name)
        taken = [(name, kwargs.pop(name)) for name in (*_CHOICES, *_OPTIONS)]
        given = [(name, value, _flag(name, value)) for name, value in taken if value is not None]
        if beta is not None:
            given += [(name, beta, f"--beta {beta:g}") for name in ("beta_user", "beta_item")]
        for name, value, flag in (*given, *more):
            if name in changes.values and changes.values[name] != value:
                raise click.UsageError(
                    f"{changes.flags[name]} and {flag} set {name} to two values: give one of them."
                )
            if name not in changes.values:
                changes.values[name], changes.flags[name] = value, flag
        return function(*args, changes=changes, **kwargs)

    decorated: Callable[..., Any] = with_changes
    decorated = option(
        "--beta",
        type=click.FloatRange(0),
        metavar="B",
        group=_HEADINGS[-1][1],
        help="Both KL weights at once.",
    )(decorated)
    for name, (heading, one) in reversed(_OPTIONS.items()):
        if heading != METHOD:
            decorated = option(str(one.about.flag), name, group=heading, **_keywords(one))(decorated)
    seed = _OPTIONS["seed"][1]
    for declared in (
        option(
            "--set",
            "more",
            multiple=True,
            callback=_pairs,
            metavar="NAME=VALUE",
            group=METHOD,
            common=True,
            help="Any setting by its Python name, as in ema_decay=0.9 ('pyro-bmf presets NAME' lists them); "
            "may be given again.",
        ),
        option(str(seed.about.flag), "seed", group=METHOD, **{**_keywords(seed), "type": SEED}),
        option(
            "--then-sweeps",
            type=click.IntRange(1),
            metavar="N",
            group=METHOD,
            common=True,
            help="Gibbs sweeps from where another method ended.",
        ),
        option(
            "--method",
            type=click.Choice(tuple(METHODS)),
            metavar="WORD",
            group=METHOD,
            common=True,
            help=_METHODS_HELP,
        ),
        option(
            "--preset",
            "preset_name",
            type=click.Choice(tuple(PRESETS)),
            default="default",
            metavar="NAME",
            group=METHOD,
            common=True,
            help=f"{', '.join(PRESETS)}. [default: default]",
        ),
    ):
        decorated = declared(decorated)
    return decorated


_METHODS_HELP = f"{', '.join(METHODS)}. [default: the preset's]"


def _keywords(one: Named) -> dict[str, Any]:
    """Return click's keywords of a setting's option; None means that the user said nothing."""
    about, kind = one.about, one.kind
    keywords: dict[str, Any] = {"default": None, "help": about.help, "common": about.common}
    if about.metavar is not None:
        keywords["metavar"] = about.metavar
    if kind.base is None:
        keywords["type"] = click.Choice(kind.words)
        keywords["metavar"] = "|".join(kind.words)
    elif kind.base is float and kind.words:
        keywords["callback"] = _number_or_word(one)
    elif kind.base is float:
        keywords["type"] = click.FloatRange(about.limits.low, min_open=about.limits is POSITIVE)
    elif kind.base is int:
        keywords["type"] = click.IntRange(int(about.limits.low))
    return keywords


def _number_or_word(one: Named) -> Callable[..., float | str | None]:
    """Return a click callback that takes a number or a word, as the setting allows."""

    def read(context: click.Context, parameter: click.Parameter, value: str | None) -> float | str | None:
        if value is None or value in one.kind.words:
            return value
        try:
            number = float(value)
        except ValueError:
            number = None
        if number is None or not one.kind.fits(number, one.about.limits):
            told = one.kind.told(one.about.limits).replace(" or ", " nor ")
            raise click.BadParameter(f"{value!r} is neither {told}", param=parameter)
        return number

    return read


def _pairs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, Any, str], ...]:
    """Read ``name=value`` pairs, each with its flag as typed; a value is a JSON scalar, or else text."""
    import json

    pairs = []
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{value!r}: write NAME=VALUE", param=parameter)
        try:
            parsed = json.loads(
                {"none": "null", "None": "null", "True": "true", "False": "false"}.get(text, text)
            )
        except ValueError:
            parsed = text
        if name.strip() == "seed" and type(parsed) is int:
            SEED.convert(parsed, parameter, context)
        pairs.append((name.strip().replace("-", "_"), parsed, f"--set {value}"))
    return tuple(pairs)
