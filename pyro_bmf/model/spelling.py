"""Priors and likelihoods by a word, as ``student-t:df=4``: a name, and arguments of its constructor."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SettingsError
from .catalogue import LIKELIHOODS, PRIORS
from .likelihoods.normal import Likelihood
from .priors.normal import Prior


def parse_word(word: str, kinds: Mapping[str, type], what: str) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a word such as ``student-t:df=4,scale=0.5``.

    Parameters
    ----------
    word : str
    kinds : mapping
        Names that there are, and their classes.
    what : str
        What is named, for messages.

    Raises
    ------
    SettingsError
        If there is no such name or argument, or an argument is not written NAME=VALUE.
    """
    name, colon, rest = word.strip().partition(":")
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(kinds)}."
        raise SettingsError(f"There is no {what} {name!r}: {hint}")
    arguments: dict[str, Any] = {}
    if colon and not rest.strip():
        raise SettingsError(f"{word!r} ends in a colon: write {what} arguments after it, or leave it out.")
    known = arguments_of(kinds[name])
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise SettingsError(f"{part!r} in {word!r}: write NAME=VALUE, as in student-t:df=4.")
        if key not in known:
            allowed = f"it takes {', '.join(known)}" if known else "it takes none"
            raise SettingsError(f"The {what} {name} has no argument {key!r}: {allowed}.")
        if key in arguments:
            raise SettingsError(f"{key} stands twice in {word!r}.")
        arguments[key] = _value(value)
        _check_kind(name, key, arguments[key], known[key])
    return name, arguments


def arguments_of(kind: type) -> dict[str, Any]:
    """Return the constructor's arguments that a word may give, with their defaults (None for none)."""
    found = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if name != "levels":
            found[name] = None if parameter.default is parameter.empty else parameter.default
    return found


def make_prior(
    word: str,
    *,
    scale: float | None = None,
    loc: float | None = None,
    kinds: Mapping[str, type[Prior]] | None = None,
) -> Prior:
    """Return a new prior from a word; `scale` and `loc` fill what it takes and the word does not give."""
    known = {**PRIORS, **(kinds or {})}
    defaults = {k: v for k, v in (("loc", loc), ("scale", scale)) if v is not None}
    name, arguments = parse_word(word, known, "prior")
    takes = arguments_of(known[name])
    return known[name](**{k: v for k, v in defaults.items() if k in takes} | arguments)


def make_likelihood(
    word: str,
    *,
    levels: Sequence[float] | None,
    low: float,
    high: float,
    kinds: Mapping[str, type[Likelihood]] | None = None,
    **defaults: Any,
) -> Likelihood:
    """Return a likelihood from a word, with what it takes from the rating scale.

    Parameters
    ----------
    word : str
    levels : sequence of float or None
        Of a discrete rating scale.
    low, high : float
        The scale's ends.
    kinds : mapping, optional
        A user's own, beside those known here.
    defaults
        Fill arguments that it takes and the word does not give.

    Raises
    ------
    SettingsError
        If it needs levels and the scale is continuous, or the word is wrong.
    """
    known = {**LIKELIHOODS, **(kinds or {})}
    name, arguments = parse_word(word, known, "likelihood")
    takes = inspect.signature(known[name]).parameters
    if "levels" in takes and levels is None:
        raise SettingsError(
            f"The likelihood {name} needs a discrete rating scale, and this one is continuous: declare it "
            "(--scale low:high:step), or choose normal, student-t or beta."
        )
    given: dict[str, Any] = {"levels": levels, "low": low, "high": high, **defaults}
    return known[name](**{k: v for k, v in given.items() if k in takes} | arguments)


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _check_kind(name: str, key: str, value: object, default: object) -> None:
    if isinstance(default, (int, float)) and isinstance(value, str):
        raise SettingsError(f"{key} of {name} is {value!r}: give a number, as in {name}:{key}={default}.")


__all__ = ["arguments_of", "make_likelihood", "make_prior", "parse_word"]
