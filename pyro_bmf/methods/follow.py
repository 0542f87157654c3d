"""Settings that follow others where they were not given themselves: `sweeps=40` keeps fewer draws.

Defaults go together; a change of one of them may leave another without sense. The rules hold where a
settings class is made (`Gibbs(sweeps=40)`), and where a preset is changed (`Settings.replace`, the command
line). What the user gave stays as it is: two given settings that contradict each other are refused where they
are checked, in the settings' own classes or here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from ..errors import SettingsError
from .setting import check_fields, values_of

Values = dict[str, Any]
#: What follows by name, from all settings by name and the names of those that were given, which stay as they
#: are whatever a rule says of them.
Rule = Callable[[Values, Collection[str]], Values]


def follow(values: Mapping[str, Any], given: Collection[str], rules: Iterable[Rule]) -> Values:
    """Return the settings that change with what was given, by name.

    Parameters
    ----------
    values : mapping
        All settings by name, the given ones among them.
    given : collection of str
        Names of those that the user gave.
    rules : iterable of callable
        Each sees what those before it changed.

    Raises
    ------
    SettingsError
        If a given setting contradicts another that was given, or that does not follow it.
    """
    v = dict(values)
    for rule in rules:
        v |= {name: value for name, value in rule(v, given).items() if name not in given}
    return {name: value for name, value in v.items() if value != values[name]}


@dataclass(frozen=True)
class Following:
    """Settings of which some follow those that its maker gave.

    Attributes
    ----------
    unasked : mapping
        Those that nobody gave: defaults, and what followed. `dataclasses.replace` hands it on, so that they
        follow what it changes.
    """

    unasked: Mapping[str, Any] = field(default_factory=dict, kw_only=True, compare=False, repr=False)

    rules: ClassVar[tuple[Rule, ...]] = ()

    def __new__(cls, *args: Any, **named: Any) -> Self:
        """Note which settings are given: afterwards a given default looks as any other."""
        made = super().__new__(cls)
        names = [one.name for one in fields(cls) if not one.kw_only]
        object.__setattr__(made, "_passed", frozenset((*names[: len(args)], *named)))
        return made

    def __post_init__(self) -> None:
        check_fields(self)
        values, passed = dict(values_of(self)), self.__dict__.pop("_passed")
        given = {
            name
            for name, value in values.items()
            if name in passed and not (name in self.unasked and self.unasked[name] == value)
        }
        for name, value in follow(values, given, self.rules).items():
            object.__setattr__(self, name, value)
        rest = {name: value for name, value in values_of(self) if name not in given}
        object.__setattr__(self, "unasked", rest)

    def changed(self, changes: Mapping[str, Any], given: Collection[str]) -> Self:
        """Return these settings with some changed, of which the user gave the named ones."""
        values = dict(values_of(self)) | dict(changes)
        return replace(self, **changes, unasked={n: value for n, value in values.items() if n not in given})


def encoders(v: Values, given: Collection[str]) -> Values:
    """Without feedback there is nothing to attend to, and nothing to have bases of."""
    return {} if v["feedback"] else {"attention": "none", "n_bases": None}


def chain(v: Values, given: Collection[str]) -> Values:
    """Fewer sweeps keep fewer draws after a shorter burn-in; more of these take more sweeps."""
    sweeps, burn_in, kept, plain = (v[name] for name in ("sweeps", "burn_in", "kept_draws", "plain_sweeps"))
    if "plain_sweeps" in given and "burn_in" not in given:
        burn_in = max(burn_in, plain)
    if "sweeps" not in given:
        sweeps = max(sweeps, burn_in + kept)
    elif burn_in + kept > sweeps:
        if "burn_in" not in given:
            least = plain if "plain_sweeps" in given else 0
            # A third, as in the defaults; none at all, only where just so many draws are asked for.
            room = sweeps - kept if "kept_draws" in given else sweeps // 3
            burn_in = max(0, least, min(burn_in, room))
        if "kept_draws" not in given:
            kept = max(1, min(kept, sweeps - burn_in))
    if "plain_sweeps" not in given and plain > burn_in:
        plain = burn_in // 2
    return {"sweeps": sweeps, "burn_in": burn_in, "kept_draws": kept, "plain_sweeps": plain}


def with_method(v: Values, given: Collection[str], *, conjugate: bool, ascent: bool) -> Values:
    """Take back what the preset's method knows of a model and the chosen one does not.

    `conjugate`: whether a stage fits the model with conjugate hyperpriors; `ascent`: whether the guide is
    fitted by coordinate ascent.
    """
    # Words need torch, and the command line reads these settings' declarations without it.
    from ..model.catalogue import PRIORS
    from ..model.spelling import parse_word

    found: Values = {}
    if not conjugate:
        found["implicit"] = False
        if ascent:
            found["row_noise"] = "none"
    if ascent or parse_word(v["prior"], PRIORS, "prior")[0] != "normal":
        found["prior_mean"] = 0.0
    return found


def plain_start(v: Values, given: Collection[str]) -> Values:
    """Let a shorter fit take ratings for utilities in a third of its iterations at most."""
    return {"plain_iterations": min(v["plain_iterations"], v["max_iterations"] // 3)}


def length(v: Values, given: Collection[str]) -> Values:
    """Nothing stops after the end of a shorter schedule."""
    late = v["stop_after"] is not None and v["stop_after"] > v["max_iterations"]
    return {"stop_after": None} if late else {}


def growth(v: Values, given: Collection[str]) -> Values:
    """Keep the form of a schedule of another length or height."""
    found: Values = {}
    if v["warmup_iterations"] > v["max_iterations"] and "max_iterations" in given:
        found["warmup_iterations"] = v["max_iterations"] // 2
    rises = v["final_learning_rate"] > v["learning_rate"]
    if rises and "final_learning_rate" in given and "learning_rate" not in given:
        raise SettingsError(
            f"final_learning_rate is {v['final_learning_rate']:g} and learning_rate {v['learning_rate']:g}, "
            "which was not given: the rate would rise. Give learning_rate too, or a smaller final one."
        )
    if rises and "learning_rate" in given:
        # A twentieth, as in the presets.
        found["final_learning_rate"] = v["learning_rate"] / 20
    return found
