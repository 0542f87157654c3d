"""Puts the public API where a page has a mark: what ``import pyro_bmf`` gives, or what a package lists.

``[[public names]]`` stands for all names of `pyro_bmf`, ``[[names of pyro_bmf.model]]`` for those of
``__all__`` there that stand nowhere above. Each becomes a directive of mkdocstrings, which takes signature
and text from the docstring.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

_MARK = re.compile(r"^\[\[(?:public names|names of (?P<package>[\w.]+))\]\]$", re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page."""
    seen: set[str] = set()
    return _MARK.sub(lambda found: "\n".join(directives(found["package"] or "pyro_bmf", seen)), markdown)


def directives(package: str, seen: set[str]) -> Iterator[str]:
    """Yield the lines that document every public class and function of a package, each once a page."""
    for name, place in places(package).items():
        if place not in seen:
            seen.add(place)
            yield f"::: {place}\n    options:\n      heading: {name}\n      toc_label: {name}\n"


def places(package: str) -> dict[str, str]:
    """Return where each public class or function of a package is defined, by its public name."""
    module = import_module(package)
    found = {}
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value):
            found[name] = f"{value.__module__}.{value.__qualname__}"
    return found
