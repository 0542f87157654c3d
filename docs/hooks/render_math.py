"""Turns the LaTeX of a page into MathML when the site is built: readers need no script and no network.

Arithmatex marks the mathematics; this hook replaces the marks. A macro that the converter does not know fails
the build instead of reaching the page.
"""

from __future__ import annotations

import html
import re
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
_TAG = re.compile(r"\\tag\{([^}]*)\}")


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Replace every formula of a page."""

    def inline(match: re.Match[str]) -> str:
        return to_mathml(html.unescape(match[1]), display="inline", where=page.file.src_path)

    def display(match: re.Match[str]) -> str:
        latex = html.unescape(match[1])
        number = _TAG.search(latex)
        math = to_mathml(_TAG.sub("", latex), display="block", where=page.file.src_path)
        label = f'<span class="number">({number[1]})</span>' if number else ""
        return f'<div class="equation">{math}{label}</div>'

    return _INLINE.sub(inline, _DISPLAY.sub(display, content))


def to_mathml(latex: str, *, display: str, where: str) -> str:
    """Convert one formula; raise `PluginError` where the result would show raw LaTeX or is no XML."""
    mathml: str = convert(latex.strip(), display=display)
    try:
        text = "".join(ElementTree.fromstring(mathml).itertext())
    except ElementTree.ParseError as error:
        raise PluginError(f"{where}: this formula gives no well-formed MathML: {latex.strip()}") from error
    if "\\" in text:
        raise PluginError(
            f"{where}: this formula has a macro that the converter does not know: {latex.strip()}"
        )
    return mathml
