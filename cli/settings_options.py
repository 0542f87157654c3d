"""The options that set model, guide and inference: each changes one setting of the chosen preset."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, get_type_hints

import click

from pyro_bmf.errors import SettingsError

if TYPE_CHECKING:
    from pyro_bmf.methods.settings import Preset

_POSITIVE = click.FloatRange(0, min_open=True)
_NOT_NEGATIVE = click.FloatRange(0)
# Settings that may be nothing at all.
_OPTIONAL = frozenset(
    {"user_batch_size", "item_batch_size", "stop_after", "patience", "clip_norm", "n_bases"}
)


def _number_or(word: str, what: str, fits: Callable[[float], bool]) -> Callable[..., float | str | None]:
    """Return a click callback that takes one word, or a finite number that fits."""

    def read(context: click.Context, parameter: click.Parameter, value: str | None) -> float | str | None:
        if value in (None, word):
            return value
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and fits(number)):
            raise click.BadParameter(f"{value!r} is neither {what} nor {word!r}", param=parameter)
        return number

    return read


# Option, name of the setting, click's keywords. None means that the user said nothing.
_OPTIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("--factors", "n_factors", {"type": click.IntRange(1), "metavar": "K", "help": "Number of factors."}),
    ("--biases/--no-biases", "biases", {"help": "Whether users and items have biases."}),
    ("--centred/--raw", "centred", {"help": "Whether ratings are centred by the train mean."}),
    (
        "--prior-scale",
        "prior_scale",
        {"type": _POSITIVE, "metavar": "S", "help": "Standard deviation of the factors' prior."},
    ),
    (
        "--prior-mean",
        "prior_mean",
        {
            "metavar": "M|ratings",
            "callback": _number_or("ratings", "a number", lambda number: True),
            "help": "Mean of the factors' Normal prior, or 'ratings': products then start at their mean.",
        },
    ),
    (
        "--bias-scale",
        "bias_scale",
        {"type": _POSITIVE, "metavar": "S", "help": "Standard deviation of the biases' prior."},
    ),
    (
        "--noise",
        "noise",
        {
            "metavar": "S|learned",
            "callback": _number_or("learned", "a positive number", lambda number: number > 0),
            "help": "Standard deviation of a rating around its predictor, or 'learned'.",
        },
    ),
    (
        "--likelihood",
        "likelihood",
        {
            "metavar": "WORD",
            "help": "Likelihood of a rating, as in student-t:df=4 ('pyro-bmf likelihoods'), or auto.",
        },
    ),
    (
        "--prior",
        "prior",
        {"metavar": "WORD", "help": "Prior of the factors, as in lkj:concentration=4 ('pyro-bmf priors')."},
    ),
    (
        "--implicit/--no-implicit",
        "implicit",
        {"help": "Prior means from which pairs were rated, as in SVD++ (Gibbs sweeps)."},
    ),
    (
        "--row-noise",
        "row_noise",
        {
            "type": click.Choice(("none", "user", "item", "both")),
            "help": "Which rows have noise of their own (Gibbs sweeps).",
        },
    ),
    (
        "--method",
        "method",
        {
            "type": click.Choice(("svi", "conjugate", "none")),
            "help": "Algorithm 1, exact coordinate ascent, or sweeps from the prior alone.",
        },
    ),
    ("--sweeps", "sweeps", {"type": click.IntRange(0), "metavar": "N", "help": "Gibbs sweeps; 0 for none."}),
    (
        "--burn-in",
        "burn_in",
        {"type": click.IntRange(0), "metavar": "N", "help": "Sweeps before a draw is kept."},
    ),
    (
        "--kept-draws",
        "kept_draws",
        {"type": click.IntRange(1), "metavar": "N", "help": "Draws of the chain that are kept."},
    ),
    (
        "--attention",
        "attention",
        {"type": click.Choice(("none", "sum", "softmax")), "help": "Weights of the attention (Eq. 9)."},
    ),
    (
        "--attention-scope",
        "attention_scope",
        {"type": click.Choice(("local", "global")), "help": "Attend to the rated rows, or to all."},
    ),
    (
        "--attention-merge",
        "attention_merge",
        {"type": click.Choice(("concat", "add")), "help": "How attention joins the parameters."},
    ),
    (
        "--data-input/--no-data-input",
        "data_input",
        {"help": "Whether the encoders read the ratings."},
    ),
    (
        "--feedback/--no-feedback",
        "feedback",
        {"help": "Whether the encoders read the other side's embeddings; without, no attention either."},
    ),
    (
        "--tower-layers",
        "n_tower_layers",
        {"type": click.IntRange(0), "metavar": "L'", "help": "Hidden layers of each tower."},
    ),
    (
        "--head-layers",
        "n_head_layers",
        {"type": click.IntRange(0), "metavar": "L", "help": "Hidden layers after the towers."},
    ),
    ("--units", "n_units", {"type": click.IntRange(1), "metavar": "M", "help": "Width of hidden layers."}),
    (
        "--tower-outputs",
        "n_tower_outputs",
        {"type": click.IntRange(1), "metavar": "K'", "help": "Width of a tower's last layer."},
    ),
    (
        "--iterations",
        "max_iterations",
        {"type": click.IntRange(1), "metavar": "N", "help": "Length of the schedule."},
    ),
    (
        "--batch-users",
        "user_batch_size",
        {"type": click.IntRange(1), "metavar": "N", "help": "Users a block."},
    ),
    (
        "--batch-items",
        "item_batch_size",
        {"type": click.IntRange(1), "metavar": "N", "help": "Items a block."},
    ),
    (
        "--learning-rate",
        "learning_rate",
        {"type": _POSITIVE, "metavar": "R", "help": "Adam's, at the start."},
    ),
    (
        "--final-learning-rate",
        "final_learning_rate",
        {"type": _POSITIVE, "metavar": "R", "help": "Adam's, at the end of the schedule."},
    ),
    (
        "--beta-user",
        "beta_user",
        {"type": _NOT_NEGATIVE, "metavar": "B", "help": "Weight of the users' KL (Eq. 7)."},
    ),
    (
        "--beta-item",
        "beta_item",
        {"type": _NOT_NEGATIVE, "metavar": "B", "help": "Weight of the items' KL (Eq. 7)."},
    ),
    (
        "--warmup",
        "warmup_iterations",
        {"type": _NOT_NEGATIVE, "metavar": "N", "help": "Iterations over which both betas grow."},
    ),
    (
        "--weight-decay",
        "weight_decay",
        {"type": _NOT_NEGATIVE, "metavar": "W", "help": "Decoupled weight decay."},
    ),
    ("--clip-norm", "clip_norm", {"type": _POSITIVE, "metavar": "G", "help": "Largest norm of a gradient."}),
    (
        "--patience",
        "patience",
        {"type": click.IntRange(1), "metavar": "N", "help": "Iterations without a better validation RMSE."},
    ),
    ("--keep", "keep", {"type": click.Choice(("best", "last")), "help": "Which state is the result."}),
    ("--seed", "seed", {"type": click.IntRange(0), "metavar": "S", "help": "Of the fit."}),
)


@dataclass(frozen=True)
class Changes:
    """Settings that were given on the command line.

    Attributes
    ----------
    values : dict
        By their Python names.
    flags : dict
        What the user wrote for each, as in ``--no-feedback`` or ``--set ema_decay=0.9``.
    """

    values: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)

    def spelled(self, name: str, value: Any) -> str:
        """Return a setting as it was written, or as it may be."""
        if name in self.flags and self.values[name] == value:
            return self.flags[name]
        for declaration, owner, _ in _OPTIONS:
            if owner == name:
                return _flag(declaration, value)
        if name == "preset":
            return f"--preset {value}"
        return f"--set {name}={str(value).lower() if isinstance(value, bool) else value}"

    def apply(self, settings: Preset) -> Preset:
        """Return the settings with these changes, each of the right type.

        Raises
        ------
        SettingsError
            If a value is of the wrong type or out of range, or some do not go together: with their flags.
        """
        try:
            check_types(self.values, settings.to_dict())
            return settings.replace(**self.values)
        except SettingsError as error:
            # A setting that no method reads needs no better value: that is what is to be told first.
            self._check_methods(settings)
            named = [flag for name, flag in self.flags.items() if re.search(rf"\b{name}\b", str(error))]
            if not named:
                raise
            raise SettingsError(f"{error} (Given: {', '.join(dict.fromkeys(named))}.)") from error

    def _check_methods(self, settings: Preset) -> None:
        """Refuse settings that no method of the fit reads, whatever the others are."""
        from pyro_bmf.methods.reads import Case, check_methods

        chosen = {name: value for name, value in self.values.items() if name in ("method", "sweeps")}
        try:
            check_types(chosen, settings.to_dict())
            case = Case.of(settings.replace(**chosen), ratings_known=False)
        except SettingsError:
            return  # which methods those are is itself in error
        # The case has not the values that were given.
        given = {name: flag for name, flag in self.flags.items() if name not in chosen}
        check_methods(case, self.values, lambda name, value: given.get(name) or self.spelled(name, value))

    def check_read(self, settings: Preset, **known: Any) -> None:
        """Refuse settings that the method of `settings` would not read; `known` is of the ratings."""
        from pyro_bmf.methods.reads import Case, check_read

        check_read(Case.of(settings, **known), self.spelled)

    def followed(self, settings: Preset) -> str | None:
        """Return a line about the settings that followed those that were given, if any did."""
        from pyro_bmf.methods.reads import Case, is_read

        values = settings.values()
        case = Case.of(settings, ratings_known=False)
        # In which unit a number was given is no setting that anybody would give.
        followed = settings.settled - self.values.keys() - {"in_rating_units"}
        told = [f"{name} {values[name]}" for name in sorted(followed) if is_read(name, case)]
        return ", ".join(told) or None


def _flag(declaration: str, value: Any) -> str:
    on, _, off = declaration.partition("/")
    if off:
        return on if value else off
    return f"{on} {value:g}" if isinstance(value, float) else f"{on} {value}"


def settings_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options above, and one argument `changes`, the settings that were given."""

    @wraps(function)
    def with_changes(
        *args: Any, beta: float | None, more: tuple[tuple[str, Any, str], ...], **kwargs: Any
    ) -> Any:
        changes = Changes()
        taken = [(name, kwargs.pop(name), declaration) for declaration, name, _ in _OPTIONS]
        given = [(name, value, _flag(declaration, value)) for name, value, declaration in taken]
        given += [(name, beta, _flag("--beta", beta)) for name in ("beta_user", "beta_item")]
        given = [one for one in given if one[1] is not None]
        for name, value, flag in (*given, *more):
            if name in changes.values and changes.values[name] != value:
                raise click.UsageError(
                    f"{changes.flags[name]} and {flag} set {name} to two values: give one of them."
                )
            if name not in changes.values:
                changes.values[name], changes.flags[name] = value, flag
        return function(*args, changes=changes, **kwargs)

    decorated: Callable[..., Any] = with_changes
    decorated = click.option(
        "--set",
        "more",
        multiple=True,
        callback=_settings,
        metavar="NAME=VALUE",
        help="Any other setting by its Python name, as in ema_decay=0.9; may be given again.",
    )(decorated)
    decorated = click.option("--beta", type=_NOT_NEGATIVE, metavar="B", help="Both KL weights at once.")(
        decorated
    )
    for declaration, name, keywords in reversed(_OPTIONS):
        decorated = click.option(declaration, name, default=None, **keywords)(decorated)
    return decorated


def check_types(changes: Mapping[str, Any], current: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse settings that are of another kind than those they change.

    Parameters
    ----------
    changes
        Settings by name.
    current
        The preset's settings by part and name, as `Preset.to_dict` gives them.

    Raises
    ------
    SettingsError
        Naming the setting and what it is now.
    """
    from pyro_bmf.methods.settings import Preset

    known = {
        name: value for part in current.values() if isinstance(part, Mapping) for name, value in part.items()
    }
    # A number may be whole in a preset all the same.
    numbers = {
        one.name
        for part in get_type_hints(Preset).values()
        if is_dataclass(part)
        for one in fields(part)
        if str(one.type).startswith("float")
    }
    for name, value in changes.items():
        now = known.get(name)
        if name not in known or (value is None and name in _OPTIONAL):
            continue  # an unknown name is refused by the preset, which lists the others
        if name == "noise":
            fits = value == "learned" or (_is_number(value) and value > 0)
            kind = "a positive number or learned"
        elif name == "prior_mean":
            fits = value == "ratings" or _is_number(value)
            kind = "a number or ratings"
        elif isinstance(now, bool):
            fits, kind = isinstance(value, bool), "true or false"
        elif isinstance(now, tuple):
            fits = isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value)
            kind = "a list of words"
        elif isinstance(now, str):
            fits, kind = isinstance(value, str), "a word"
        elif (isinstance(now, int) and name not in numbers) or name in _OPTIONAL - {"clip_norm"}:
            fits, kind = isinstance(value, int) and not isinstance(value, bool), "a whole number"
        else:
            fits, kind = _is_number(value), "a number"
        if not fits:
            raise SettingsError(f"{name} is {value!r}: give {kind} (it is {now} in the preset).")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _settings(
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
        pairs.append((name.strip().replace("-", "_"), parsed, f"--set {value}"))
    return tuple(pairs)
