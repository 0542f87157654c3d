"""Text of ids, titles and messages made harmless: for a terminal, for a shell, for a spreadsheet."""

from __future__ import annotations

import re
import shlex
import unicodedata

# Joiners within words and emoji: they turn nothing around and hide nothing.
_JOINERS = "\u200c\u200d"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_PLAIN = re.compile(r"[\x20-\x7e]*")


def shown(text: str, *, keep: str = "") -> str:
    r"""Return text with what steers a terminal, or turns text around, written as escapes such as ``\x1b``.

    These are control characters, line ends among them, format characters such as bidirectional overrides, and
    lone surrogates. `keep` holds characters that stay.
    """
    if _PLAIN.fullmatch(text):
        return text
    return "".join(c if c in keep or not _steers(c) else _escape(c) for c in text)


def json_shown(text: str) -> str:
    r"""Return JSON with the same characters written as ``\uXXXX``: the same values to who reads it."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(c if not _steers(c) else "".join(f"\\u{unit:04x}" for unit in _utf16(c)) for c in text)


def shell_word(text: str) -> str:
    """Return text as one word of a shell's command line that can be copied from the screen."""
    if shown(text) == text:
        return shlex.quote(text)
    inside = "".join(_escape(c) if _steers(c) else f"\\{c}" if c in "\\'" else c for c in text)
    return f"$'{inside}'"


def counted(number: int, one: str, several: str) -> str:
    """Return a number before the noun that goes with it."""
    return f"{number:,} {one if number == 1 else several}"


def guarded(cell: object) -> object:
    """Return a cell of CSV that a spreadsheet takes for text and not for a formula; numbers stay numbers."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _steers(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS


def _escape(character: str) -> str:
    number = ord(character)
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    if short is not None:
        return short
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


def _utf16(character: str) -> list[int]:
    number = ord(character)
    if number < 0x10000:
        return [number]
    number -= 0x10000
    return [0xD800 + (number >> 10), 0xDC00 + (number & 0x3FF)]
