"""What is said of a setting once, where it is declared: its flag, its help, its limits and when it is read.

A settings class is a frozen dataclass whose fields are made by `setting`. The command line derives its
options, their groups and their help from these fields, and `check_fields` the checks of values. Nothing here
imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import SettingsError


@dataclass(frozen=True)
class When:
    """A condition under which a setting is read, how it is told, and settings that bring it about.

    Attributes
    ----------
    holds : callable
        Of the settings object that holds the field, and of the `reading.Case`.
    text : str
        What stands after "read only where".
    choices : tuple of (str, object)
        Settings by name and value, any one of which makes it hold.
    """

    holds: Callable[[Any, Any], bool]
    text: str
    choices: tuple[tuple[str, Any], ...] = ()


ALWAYS = When(lambda part, case: True, "always")


@dataclass(frozen=True)
class Limits:
    """The numbers that a setting may be."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    text: str = "a number"

    def hold(self, value: float) -> bool:
        """Whether a number is within."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return math.isfinite(value) and above and below


ANY = Limits()
POSITIVE = Limits(0, low_open=True, text="a positive number")
NOT_NEGATIVE = Limits(0, text="a number of 0 or more")
SHARE = Limits(0, 1, text="a share between 0 and 1")
SHARE_BELOW_ONE = Limits(0, 1, high_open=True, text="a share from 0 up to 1")
INNER_SHARE = Limits(0, 1, True, True, "a share above 0 and below 1")


def at_least(low: int) -> Limits:
    """Return the limits of a whole number."""
    return Limits(low, text=f"{low} or more")


@dataclass(frozen=True)
class About:
    """What is said of a setting beside its default.

    Attributes
    ----------
    help : str
        One sentence.
    flag : str or None
        Its option, as in ``--biases/--no-biases``; one without is given by ``--set``.
    metavar : str or None
        What stands for its value in the help.
    limits : Limits
        Of its number.
    when : When
        The condition under which its method reads it.
    common : bool
        Whether the short help shows its option.
    """

    help: str
    flag: str | None = None
    metavar: str | None = None
    limits: Limits = ANY
    when: When = ALWAYS
    common: bool = False


def setting(default: Any, help: str, flag: str | None = None, **more: Any) -> Any:
    """Return the dataclass field of a setting; `more` are the other attributes of `About`."""
    return field(default=default, metadata={"about": About(help, flag, **more)})


@dataclass(frozen=True)
class Named:
    """A setting of a class: its name, its default, and what is said of it."""

    name: str
    default: Any
    about: About
    kind: Kind


@dataclass(frozen=True)
class Kind:
    """The values that a setting's annotation allows.

    Attributes
    ----------
    base : type or None
        bool, int, float or str; None where it is one of the words alone.
    words : tuple of str
    optional : bool
        Whether it may be None.
    """

    base: type | None
    words: tuple[str, ...] = ()
    optional: bool = False

    def fits(self, value: object, limits: Limits) -> bool:
        """Whether a value is one of them."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or self.base is bool:
            return isinstance(value, bool) and self.base is bool
        if isinstance(value, str):
            return value in self.words or self.base is str
        if self.base is int:
            return isinstance(value, Integral) and limits.hold(int(value))
        return self.base is float and isinstance(value, Real) and limits.hold(float(value))

    def told(self, limits: Limits) -> str:
        """Return what to give, in words."""
        number = limits.text
        if self.base is int:
            number = f"a whole number of {limits.text}" if limits is not ANY else "a whole number"
        told: dict[type | None, list[str]]
        told = {bool: ["true or false"], str: ["a word"], int: [number], float: [number], None: []}
        words = [repr(word) for word in self.words]
        return " or ".join([*told[self.base], *words, *(["None"] if self.optional else [])])


def _kind(hint: Any) -> Kind:
    """Return the kind of an annotation."""
    if get_origin(hint) is Literal:
        return Kind(None, get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        parts = [_kind(one) for one in get_args(hint) if one is not type(None)]
        base = next((part.base for part in parts if part.base is not None), None)
        words = tuple(word for part in parts for word in part.words)
        return Kind(base, words, type(None) in get_args(hint))
    return Kind(hint)


@cache
def settings_of(kind: type) -> tuple[Named, ...]:
    """Return the settings that a class declares, in their order."""
    hints = get_type_hints(kind)
    return tuple(
        Named(one.name, one.default, one.metadata["about"], _kind(hints[one.name]))
        for one in fields(kind)
        if "about" in one.metadata
    )


def values_of(part: Any) -> Iterator[tuple[str, Any]]:
    """Give the settings of an object by name."""
    for one in settings_of(part.__class__):
        yield one.name, getattr(part, one.name)


def check_fields(part: Any) -> None:
    """Refuse values that a class's annotations and limits do not allow.

    Raises
    ------
    SettingsError
        Naming the setting, its value, and what to give.
    """
    check_values(part.__class__, dict(values_of(part)))


def check_values(kind: type, values: Mapping[str, Any]) -> None:
    """Do as `check_fields` with values by name, those of them that are settings of a class.

    Raises
    ------
    SettingsError
        Naming the setting, its value, and what to give.
    """
    for one in settings_of(kind):
        if one.name in values and not one.kind.fits(values[one.name], one.about.limits):
            told = one.kind.told(one.about.limits)
            raise SettingsError(f"{one.name} is {values[one.name]!r}: give {told}.")


def check_class(name: str, value: object, kind: type) -> None:
    """Refuse what is no object of a settings class.

    Raises
    ------
    SettingsError
        Naming the argument, its value, and the class.
    """
    if not isinstance(value, kind):
        raise SettingsError(f"{name} is {value!r}: give {kind.__name__}(...).")


def check_stop(stop_after: int | None, max_iterations: int) -> None:
    """Refuse to stop after the schedule's end.

    Raises
    ------
    SettingsError
        Naming both.
    """
    if stop_after is not None and stop_after > max_iterations:
        raise SettingsError(
            f"stop_after is {stop_after} and max_iterations {max_iterations}: a schedule has no more "
            "iterations than that. Give fewer, or a longer schedule."
        )
