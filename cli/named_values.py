"""Options that take ``NAME=VALUE``, with one value or several."""

from __future__ import annotations

import math
from typing import Any

import click


def plain_value(text: str) -> Any:
    """Return what a word stands for: a number, true, false, none, or the word itself."""
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


def several_values(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, tuple[Any, ...]]:
    """Read options of the form ``NAME=V[,V]``, each name once."""
    found: dict[str, tuple[Any, ...]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        if not equals or not name.strip() or not all(value.strip() for value in values.split(",")):
            raise click.BadParameter(f"{text!r}: write NAME=VALUE", param=parameter)
        key = name.strip()
        if key in found:
            raise click.BadParameter(f"{key} is given twice: give it once", param=parameter)
        found[key] = tuple(plain_value(value.strip()) for value in values.split(","))
    return found


def one_value(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """Read options of the form ``NAME=V``, each name once."""
    found = several_values(context, parameter, given)
    for name, values in found.items():
        if len(values) > 1:
            raise click.BadParameter(f"{name}: give one value", param=parameter)
    return {name: values[0] for name, values in found.items()}
